"""A switch ready for the kernel: its bits laid out along the arena's blocks.

Only blocks with an active weight are kept, so memory is at most one bit per weight for activation and
one per active weight for polarity, plus the knobs. Writes no weight.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.cpu import COLUMNS, WORDS
from bitswitch_store.switch import Switch


class Planes:
    """The kernel's form of one switch.

    Args:
        arena: where the weights lie.
        switch: a switch of that base; `Arena` parameters it does not name stay as they are.

    Attributes:
        blocks: int32 (n,), the arena's blocks with active weights, ascending.
        words: uint64 (n, 64), their activation bits.
        rank: int64 (n,), index of each block's first active weight; a parameter's first is a multiple
            of 8, so that its polarity starts on a byte.
        polarity: uint8, bit r is the sign of active weight r.
        knobs: float32, those of all parameters behind one another.
        knob_start: int64 (parameters,), where a parameter's knobs begin.
        width: int64 (parameters,), how many weights of a parameter share a knob.
        size: length of a journal: index after the last active weight.

    Raises:
        ValueError: the switch names a parameter the arena has not, or one of another shape.
    """

    def __init__(self, arena: Arena, switch: Switch) -> None:
        count = len(arena.names)
        position = {name: i for i, name in enumerate(arena.names)}
        self.knob_start = np.zeros(count, np.int64)
        self.width = np.ones(count, np.int64)
        blocks: list[NDArray[np.int32]] = []
        words: list[NDArray[np.uint64]] = []
        ranks: list[NDArray[np.int64]] = []
        polarity: list[NDArray[np.uint8]] = []
        knobs: list[NDArray[np.float32]] = []
        rank = knob = 0
        # In the arena's order, which need not be that of the names.
        for tensor in sorted(switch.tensors, key=lambda t: position.get(t.name, -1)):
            if tensor.name not in position:
                raise ValueError(f"the base has no tensor {tensor.name}")
            if tensor.shape != arena.shapes[tensor.name]:
                theirs = arena.shapes[tensor.name]
                raise ValueError(f"{tensor.name} is {tensor.shape} in the switch and {theirs} in the base")
            lines = _blocked(tensor.activation)
            active = np.bitwise_count(lines).sum(axis=1, dtype=np.int64)
            used = np.flatnonzero(active)
            starts = rank + np.cumsum(active) - active
            blocks.append((arena.first_block[tensor.name] + used).astype(np.int32))
            words.append(lines[used])
            ranks.append(starts[used])
            polarity.append(tensor.polarity)
            knobs.append(tensor.knobs)
            index = position[tensor.name]
            self.knob_start[index] = knob
            self.width[index] = tensor.numel // tensor.knobs.size
            knob += tensor.knobs.size
            rank += tensor.polarity.size * 8
        self.size = rank
        self.blocks = np.concatenate([np.empty(0, np.int32), *blocks])
        self.words = np.concatenate([np.empty((0, WORDS), np.uint64), *words])
        self.rank = np.concatenate([np.empty(0, np.int64), *ranks])
        self.polarity = np.concatenate([np.empty(0, np.uint8), *polarity])
        self.knobs = np.concatenate([np.empty(0, np.float32), *knobs])

    @cached_property
    def addresses(self) -> NDArray[np.int64]:
        """Where the arrays lie, int64 (COLUMNS,): a line of the kernel's table. Valid while self lives."""
        arrays = (self.words, self.rank, self.polarity, self.knobs, self.knob_start, self.width)
        line = np.array([array.ctypes.data for array in arrays], np.int64)
        assert line.shape == (COLUMNS,)
        return line

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        arrays = (self.blocks, self.words, self.rank, self.polarity, self.knobs, self.knob_start, self.width)
        return sum(array.nbytes for array in arrays)


def _blocked(bits: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Packed bits as uint64 (blocks, 64), the last block filled up with zeros."""
    padded = np.zeros(-(-bits.size // (BLOCK // 8)) * (BLOCK // 8), np.uint8)
    padded[: bits.size] = bits
    return padded.view("<u8").reshape(-1, WORDS)
