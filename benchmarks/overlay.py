"""What a batch of rows of many mixes costs in one overlaid pass, beside the bare base's pass over them.

And beside what else could be done: a transition and a pass for each switch in turn (`Swap.at`), and what
the batched products of rank-16 LoRA adapters add, one per row, gathered as PEFT and vLLM do (the products
alone, without what calling them costs). All in one process, every rival in every round, medians; ratios are
to the bare base.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import numpy as np
import torch

from benchmarks.setting import Run, medians
from benchmarks.switches import random_switch
from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch.cli.demo import demo_base
from bitswitch.core import Mix, Row
from bitswitch.engine.arena import Arena
from bitswitch.engine.mixes import Part
from bitswitch.engine.overlay import Overlay
from bitswitch.engine.planes import Planes
from bitswitch.engine.swap import Swap

DENSITIES = (0.4, 0.1, 0.015, 0.005)
CASES = ((1, 1), (8, 1), (8, 8), (32, 4), (32, 32), (64, 1), (64, 8), (64, 64))
RANK = 16


class Bench:
    """The base, and the ways to answer rows of several switches."""

    def __init__(self, folder: Path, tokens: int) -> None:
        self.base: Base = load(folder)
        self.arena = Arena(self.base.parameters)
        self.swap = Swap(self.arena)
        self.overlay = Overlay(self.base, self.arena)
        if self.overlay.reason is not None:
            raise SystemExit(f"this base cannot be overlaid: {self.overlay.reason}")
        generator = np.random.default_rng(0)
        names = self.base.encode(["a"], want="embed")[0].fields
        ids = generator.integers(1000, self.base.model.config.vocab_size, (64, tokens)).tolist()
        self.rows = [
            Row({name: own if name == "input_ids" else [0] * tokens for name in names}) for own in ids
        ]

    def runs(self, planes: list[Planes], rows: int, switches: int) -> dict[str, Run]:
        batch = self.rows[:rows]
        parts = [(Part(planes[i % switches], 0.7),) for i in range(rows)]
        groups = [(Mix.of([(str(s), 0.7)]), planes[s], batch[s::switches]) for s in range(switches)]

        def in_turn() -> None:
            for mix, one, own in groups:
                with self.swap.at(mix, [one]):
                    self.base.forward(own)
            self.swap.rest()

        return {
            "base": lambda: self.base.forward(batch),
            "overlay": lambda: self.overlay.forward(batch, parts),
            "in turn": in_turn,
            "LoRA": self._lora(rows, len(self.rows[0].fields["input_ids"])),
        }

    def _lora(self, rows: int, tokens: int) -> Run:
        layers = []
        for module in self.base.model.modules():
            if isinstance(module, torch.nn.Linear):
                down = torch.randn(64, module.in_features, RANK)[:rows]
                up = torch.randn(64, RANK, module.out_features)[:rows]
                layers.append((torch.randn(rows, tokens, module.in_features), down, up))

        @torch.inference_mode()
        def run() -> None:
            for x, down, up in layers:
                torch.bmm(torch.bmm(x, down), up)

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=None, help="default: the demo's")
    parser.add_argument("--tokens", type=int, default=16, help="of each row")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--densities", type=float, nargs="*", default=DENSITIES)
    options = parser.parse_args()
    bench = Bench(options.base or demo_base(), options.tokens)
    untouched = bench.arena.weights.copy()
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, {bench.base.dtype},"
        f" {options.tokens} tokens a row",
        flush=True,
    )
    for density in options.densities:
        planes = [Planes(bench.arena, random_switch(bench.base, density, seed)) for seed in range(64)]
        print(f"\n| density {density}: rows × switches | base, ms | overlay | in turn | base + LoRA |")
        print("|---|---|---|---|---|")
        for rows, switches in CASES:
            found = medians(bench.runs(planes, rows, switches), options.rounds)
            base = found["base"]
            print(
                f"| {rows} × {switches} | {base * 1e3:.1f} | {found['overlay'] / base:.2f} |"
                f" {found['in turn'] / base:.2f} | {1 + found['LoRA'] / base:.2f} |",
                flush=True,
            )
    assert (bench.arena.weights.view(np.uint8) == untouched.view(np.uint8)).all()


if __name__ == "__main__":
    main()
