"""The mixes of a pass's rows, laid out for the CPU's kernels. Knows nothing of layers or tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitswitch.engine.planes import Planes


@dataclass(frozen=True)
class Part:
    """One switch of a row's mix."""

    planes: Planes
    weight: float


class Mixes:
    """Which switches each row of a pass needs, and with what weight.

    Args:
        lengths: tokens of each row.
        parts: what each row's mix is made of.

    Attributes:
        rows, longest: the padded batch's shape.
        planes: the switches, each once.
        table: int64 (switches, 11), see `reading`; valid while self lives.
        lengths, part_starts, part_switches, part_weights: see `lookup.add_embedding`.
    """

    def __init__(self, lengths: Sequence[int], parts: Sequence[Sequence[Part]]) -> None:
        self.rows, self.longest = len(lengths), max(lengths)
        self.planes = list({id(part.planes): part.planes for row in parts for part in row}.values())
        number = {id(planes): i for i, planes in enumerate(self.planes)}
        self.table = np.array([_line(planes) for planes in self.planes], np.int64)
        self.lengths = np.array(lengths, np.int64)
        self.part_starts = np.cumsum([0, *(len(row) for row in parts)], dtype=np.int64)
        self.part_switches = np.array([number[id(part.planes)] for row in parts for part in row], np.int64)
        self.part_weights = np.array([part.weight for row in parts for part in row], np.float32)


def _line(planes: Planes) -> list[int]:
    return [
        *planes.addresses.tolist(),
        planes.blocks.ctypes.data,
        len(planes.blocks),
        planes.slots.ctypes.data,
        planes.sizes.ctypes.data,
        planes.size_start.ctypes.data,
    ]
