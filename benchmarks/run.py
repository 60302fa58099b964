"""What a switch costs, beside what others do instead: ``make bench``.

All in one process on one machine, every rival in every round, medians over the rounds; the table gives
milliseconds and the ratio to the first line of its block. Quote ratios: machines differ and are noisy.

Rivals: copying all the base's weights (memcpy), loading a full checkpoint that is held in memory
(``load_state_dict``) or lies on disk (safetensors, warm cache), and the paper's released way, which keeps
a dense fp32 task vector per task and writes θ + Σ wτ back.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch.cli.demo import demo_base
from bitswitch.core import Mix
from bitswitch.engine.arena import Arena
from bitswitch.engine.planes import Planes
from bitswitch.engine.swap import Swap
from bitswitch_store import file
from bitswitch_store.switch import Rule, Switch, TensorSwitch

Run = Callable[[], object]
DENSITIES = (0.4, 0.1, 0.015)


def random_switch(base: Base, density: float, seed: int) -> Switch:
    """Every parameter with this share of its weights active, a knob per row."""
    generator = np.random.default_rng(seed)
    tensors = []
    for name in sorted(base.parameters):
        shape = tuple(base.parameters[name].shape)
        bits = generator.random(int(np.prod(shape))) < density
        bits[0] = True
        up = generator.random(int(bits.sum())) < 0.5
        used = bits.reshape(shape[0], -1).any(axis=1)
        knobs = np.where(used, generator.uniform(1e-4, 1e-2, shape[0]), 0).astype(np.float32)
        packed = (np.packbits(one, bitorder="little") for one in (bits, up))
        tensors.append(TensorSwitch(name, shape, *packed, knobs))
    return Switch(base.identity, Rule("random"), tuple(tensors), f"random-{seed}")


def measure(runs: Mapping[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of each, all of them once per round."""
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def show(title: str, medians: Mapping[str, float]) -> None:
    first = next(iter(medians.values()))
    print(f"\n| {title} | ms | ratio |\n|---|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds * 1e3:.2f} | {seconds / first:.2f} |")


class Bench:
    """The resident weights, and everything that is done to them."""

    def __init__(self, folder: Path) -> None:
        self.base = load(folder)
        self.swap = Swap(Arena(self.base.parameters))
        self.swap.warm_up()

    def go(self, mix: Mix, planes: list[Planes]) -> None:
        with self.swap.at(mix, planes):
            pass

    def round_trip(self, planes: list[Planes]) -> Run:
        mix = Mix.of((f"{i}", 1 / len(planes)) for i in range(len(planes)))

        def run() -> None:
            self.go(mix, planes)
            self.swap.rest()

        return run

    def there_and_back(self, one: Planes, other: Planes) -> Run:
        first, second = Mix.of([("a", 1.0)]), Mix.of([("b", 1.0)])

        def run() -> None:
            self.go(first, [one])
            self.go(second, [other])

        return run

    def rivals(self, scratch: Path) -> dict[str, Run]:
        """What others do to get one task's weights in and the base's back."""
        weights = self.swap.arena.weights
        copy = weights.copy()
        full = {name: parameter.clone() for name, parameter in self.base.parameters.items()}
        path = scratch / "full.safetensors"
        save_file(full, path)
        model, tau = self.base.model, {name: torch.randn_like(t) * 1e-3 for name, t in full.items()}

        def copy_twice() -> None:
            np.copyto(copy, weights)
            np.copyto(weights, copy)

        @torch.no_grad()
        def dense() -> None:
            for name, parameter in self.base.parameters.items():
                parameter.copy_(full[name] + 1.0 * tau[name])
            for name, parameter in self.base.parameters.items():
                parameter.copy_(full[name])

        def from_memory() -> None:
            model.load_state_dict(full, strict=False)
            model.load_state_dict(full, strict=False)

        def from_disk() -> None:
            model.load_state_dict(load_file(path), strict=False)
            model.load_state_dict(load_file(path), strict=False)

        return {
            "two memcpys of all weights": copy_twice,
            "the paper's released way: θ + τ, then θ": dense,
            "load_state_dict from memory, twice": from_memory,
            "load_state_dict from disk (warm), twice": from_disk,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=None, help="default: the demo's")
    parser.add_argument("--switches", type=Path, default=Path("demo/switches"))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    bench = Bench(options.base or demo_base())
    weights = bench.swap.arena.weights
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__};"
        f" {len(bench.base.parameters)} parameters, {weights.nbytes / 1e6:.1f} MB {bench.base.dtype}"
    )
    untouched = weights.copy()
    arena = bench.swap.arena
    random = {
        density: [Planes(arena, random_switch(bench.base, density, seed)) for seed in range(8)]
        for density in DENSITIES
    }
    paths = sorted(options.switches.glob("*.switch.safetensors"))
    demo = [Planes(arena, file.read(path)) for path in paths]
    with tempfile.TemporaryDirectory() as scratch:
        runs = bench.rivals(Path(scratch))
        for density, planes in random.items():
            runs[f"apply + revert, density {density}"] = bench.round_trip(planes[:1])
        if demo:
            runs[f"apply + revert, demo switch ({paths[0].name.split('.')[0]})"] = bench.round_trip(demo[:1])
        runs["apply + revert, a mix of 8, density 0.1"] = bench.round_trip(random[0.1])
        show("one task in, the base back", measure(runs, options.rounds))
        for density, planes in random.items():
            pair = {
                "revert + apply, twice": lambda p=planes: (
                    bench.round_trip(p[:1])(),
                    bench.round_trip(p[1:2])(),
                ),
                "directly, A → B → A": bench.there_and_back(*planes[:2]),
            }
            show(f"from one to another, density {density}", measure(pair, options.rounds))
            bench.swap.rest()
    read = {path.name: (lambda p=path: Planes(arena, file.read(p))) for path in paths}
    if read:
        show("a switch file, read, checked and made ready", measure(read, 5))
    assert (weights.view(np.uint32) == untouched.view(np.uint32)).all()
    print("\nafter all of it the base is as it was, bit for bit")


if __name__ == "__main__":
    main()
