"""What a subject gets: the base, a folder to write in, how much patience there is; and the one way to time.

Knows no subject.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

Run = Callable[[], float | None]
"""What is timed; one that has a clock of its own returns its seconds."""


@dataclass(frozen=True)
class Setting:
    """How a subject is measured.

    Attributes:
        base: folder of the base model.
        switches: folder of real switch files of this base; may be empty.
        scratch: an empty folder, gone afterwards.
        quick: whether it only has to run through; its numbers then mean nothing.
        minutes: how long a soak lasts.
        rivals: folder of the rivals' environments; None leaves the rivals out.
    """

    base: Path
    switches: Path
    scratch: Path
    quick: bool = False
    rivals: Path | None = None
    minutes: float = 20.0

    def rounds(self, full: int) -> int:
        """How often each side runs."""
        return 1 if self.quick else full

    def seconds(self, full: float) -> float:
        """How long a load lasts."""
        return min(full, 0.2) if self.quick else full

    def real_switches(self) -> list[Path]:
        """The real switch files, by name."""
        return sorted(self.switches.glob("*.switch.safetensors"))


def interleave(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run in every round; all run once per round, so that all see the same weather."""
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            own = run()
            taken[name].append(time.perf_counter() - started if own is None else own)
    return taken


def medians(runs: Mapping[str, Run], rounds: int) -> dict[str, float]:
    """The median of each run's seconds; see `interleave`."""
    return {name: statistics.median(taken) for name, taken in interleave(runs, rounds).items()}


def percentile(values: list[float], share: float) -> float:
    """The value that a ``share`` of all are at most."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def machine() -> str:
    """What it ran on, as far as it matters and names nobody."""
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} threads,"
        f" {platform.system()}, Python {platform.python_version()}, torch {torch.__version__},"
        f" {time.strftime('%Y-%m-%d', time.gmtime())}. A shared machine: quote the ratios."
    )
