"""What a transition costs on a CUDA GPU, beside a copy of the same weights within the GPU's memory; and what
a layer of a mixed batch does, see `cuda_mixed`.

``python -m benchmarks.cuda``, on a machine that has one; elsewhere it says so and ends. Random bf16
weights and random switches: a transition's cost depends on their number and density, not on their values.
Medians over the rounds; the ratio is to the copy of all weights. After every density the weights must
be the base's, bit for bit, or it stops.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from benchmarks import cuda_mixed
from bitswitch.core import Mix
from bitswitch.engine.arena import Arena
from bitswitch.engine.planes import Planes
from bitswitch.engine.swap import Swap
from bitswitch_store.switch import BaseIdentity, Rule, Switch, TensorSwitch

DENSITIES = (0.015, 0.05, 0.1, 0.4)
IN_A_ROW = 20
"""Products between two waits for the device: a layer does not wait for one either."""
SIDE = 8192
"""Rows and columns of each matrix: 67 million weights."""


def random_switch(matrices: int, density: float, seed: int) -> Switch:
    """A share ``density`` of each matrix active, a knob per row; all matrices alike, to be ready today."""
    generator = np.random.default_rng(seed)
    active = generator.random((SIDE, SIDE), np.float32) < density
    one = TensorSwitch(
        name(0),
        (SIDE, SIDE),
        np.packbits(active.ravel(), bitorder="little"),
        np.packbits(generator.random(int(active.sum())) < 0.5, bitorder="little"),
        np.where(active.any(axis=1), generator.uniform(1e-4, 1e-2, SIDE), 0).astype(np.float32),
    )
    tensors = tuple(replace(one, name=name(i)) for i in range(matrices))
    return Switch(BaseIdentity("random", "sha256:" + "0" * 64), Rule("random"), tensors, f"random-{seed}")


def name(i: int) -> str:
    return f"{i:04}.weight"


def seconds(run: Callable[[], object], before: Callable[[], object], rounds: int) -> float:
    """The median time of ``run``, ``before`` being done before each."""
    taken = []
    for _ in range(rounds + 1):  # the first one warms up
        before()
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def at_density(swap: Swap, matrices: int, density: float, rounds: int) -> dict[str, float]:
    """Seconds of each transition."""
    planes = [Planes(swap.arena, random_switch(matrices, density, seed)) for seed in (1, 2)]

    def go(*which: int) -> Callable[[], None]:
        mix = Mix.of((str(i), 1 / len(which)) for i in which)

        def run() -> None:
            with swap.at(mix, [planes[i] for i in which]):
                pass

        return run

    return {
        "apply": seconds(go(0), swap.rest, rounds),
        "revert": seconds(swap.rest, go(0), rounds),
        "A → B": seconds(go(1), go(0), rounds),
        "apply A + B": seconds(go(0, 1), swap.rest, rounds),
        "revert A + B": seconds(swap.rest, go(0, 1), rounds),
    }


def measure(billions: float, rounds: int) -> None:
    """Print the table for a base of so many weights."""
    matrices = max(round(billions * 1e9 / SIDE**2), 1)
    torch.manual_seed(0)
    parameters = {
        name(i): torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) * 0.05 for i in range(matrices)
    }
    swap = Swap(Arena(parameters))
    swap.warm_up()
    weights = swap.arena.flat
    kept = weights.clone()
    copied = seconds(lambda: kept.copy_(weights), lambda: None, rounds)
    print(f"\n| {weights.numel() / 1e9:.2f} B weights, {torch.cuda.get_device_name()} | ms | ratio |")
    print(f"|---|---|---|\n| copy | {copied * 1e3:.2f} | 1.00 |")
    for density in DENSITIES:
        for what, taken in at_density(swap, matrices, density, rounds).items():
            print(f"| density {density}: {what} | {taken * 1e3:.2f} | {taken / copied:.2f} |")
        swap.rest()
        if not torch.equal(weights.view(torch.int16), kept.view(torch.int16)):
            sys.exit(f"The weights are not the base's after density {density}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--billions", type=float, nargs="+", default=[1, 7], help="weights of the base")
    parser.add_argument("--side", type=int, default=4096, help="rows and columns of a mixed batch's layer")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU here, so nothing can be measured.")
    for size in given.billions:
        measure(size, given.rounds)
        torch.cuda.empty_cache()
    for share in DENSITIES:
        cuda_mixed.table(
            given.side,
            share,
            device=torch.device("cuda"),
            dtype=torch.bfloat16,
            seconds=lambda run: (
                seconds(lambda: [run() for _ in range(IN_A_ROW)], lambda: None, given.rounds) / IN_A_ROW
            ),
        )
