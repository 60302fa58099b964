"""The resident weights as the engine holds them, for those who measure transitions.

Large tables of embeddings are not written but read at the mix, so that each transition here is followed by
looking up what a request of `TOKENS` tokens does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from benchmarks.setting import Run
from benchmarks.switches import random_switch
from bitswitch.base.model import Base
from bitswitch.core import Mix
from bitswitch.engine.arena import Arena
from bitswitch.engine.cpu_lookups import CpuLookups
from bitswitch.engine.mixes import Mixes, Part
from bitswitch.engine.planes import Planes
from bitswitch.engine.swap import Swap
from bitswitch.engine.tables import large_tables

TOKENS = 16


class Resident:
    """The resident weights, and what is done to them; ``whole`` writes the tables as well."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._tables = large_tables(base)
        self.arena = Arena(base.parameters, looked_up=self._tables)
        self.swap, self.whole = Swap(self.arena), Swap(self.arena, whole=True)
        self.swap.warm_up()
        self._ids = torch.arange(1, TOKENS + 1).unsqueeze(0) * 1009

    @property
    def weights(self) -> np.ndarray:
        return self.arena.weights

    def random(self, density: float, count: int) -> list[Planes]:
        return [Planes(self.arena, random_switch(self.base, density, seed)) for seed in range(count)]

    def go(self, planes: Sequence[Planes], name: str, *, whole: bool = False) -> None:
        mix = Mix.of((f"{name}{i}", 1 / len(planes)) for i in range(len(planes)))
        with (self.whole if whole else self.swap).at(mix, planes):
            if not whole:
                self._look_up(planes)

    def rest(self) -> None:
        self.swap.rest()
        self.whole.rest()

    def round_trip(self, planes: Sequence[Planes], *, whole: bool = False) -> Run:
        def run() -> None:
            self.go(planes, "a", whole=whole)
            self.rest()

        return run

    def _look_up(self, planes: Sequence[Planes]) -> None:
        lookups = CpuLookups(Mixes([TOKENS], [[Part(one, 1 / len(planes)) for one in planes]]))
        for name in self._tables:
            tensor, block = self.arena.names.index(name), self.arena.first_block[name]
            rows = functional.embedding(self._ids, self.arena.home(name))
            lookups.embedding(rows, self._ids, tensor=tensor, block=block)
