"""The CPU's `Kernel`: the journal in numpy arrays, and the call of `cpu.transition`.

Knows nothing of mixes' names, nor of when a transition is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitswitch.engine import cpu
from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.marks import FEW
from bitswitch.engine.planes import COLUMNS, Planes

_NO_TABLE = np.empty((0, COLUMNS), np.int64)


@dataclass(frozen=True, eq=False)
class Journal:
    """What must be remembered to undo a transition exactly: which weights were touched, and their bits.

    Attributes:
        slots: int32 (the arena's blocks,), a block's line in what follows; -1 if none was touched.
        counts: int32 (n,), touched weights of each block; above `FEW`, the whole block was saved.
        places: int64 (n,), where a block's offsets begin.
        offsets: uint16, of touched weights within their blocks; the top bits may hold something else.
        ranks: int64 (n,), where a block's saved values begin.
        saved: the base's own values, the arena's dtype.
    """

    slots: NDArray[np.int32]
    counts: NDArray[np.int32]
    places: NDArray[np.int64]
    offsets: NDArray[np.uint16]
    ranks: NDArray[np.int64]
    saved: NDArray[np.float32] | NDArray[np.uint16]


class CpuKernel:
    """See `Kernel`.

    Args:
        arena: the weights, on the CPU, at the base.
        blocks: how many of its blocks are written.
    """

    def __init__(self, arena: Arena, blocks: int) -> None:
        self._arena = arena
        self._blocks = blocks
        self._resting = Journal(
            slots=np.full(arena.blocks, -1, np.int32),
            counts=np.empty(0, np.int32),
            places=np.empty(0, np.int64),
            offsets=np.empty(0, np.uint16),
            ranks=np.empty(0, np.int64),
            saved=np.empty(0, arena.weights.dtype),
        )
        self._journal = self._resting
        self._spare = self._current = self._resting.saved
        self.torn = False

    @property
    def journal_bytes(self) -> int:
        """Bytes of base values saved at present."""
        return self._journal.saved.nbytes

    def warm_up(self) -> None:
        """Compile the kernels, or read them from numba's cache, by a transition that visits no block."""
        self._run(
            self._resting, np.empty((0, self._arena.blocks), np.int32), _NO_TABLE, np.empty(0, np.float32)
        )

    def transition(self, planes: Sequence[Planes], weights: Sequence[float]) -> None:
        """See `Kernel`."""
        new = self._journal_for(planes)
        slots = np.array([one.slots for one in planes], np.int32).reshape(-1, self._arena.blocks)
        table = np.stack([one.addresses for one in planes]) if planes else _NO_TABLE
        strengths = np.array(weights, np.float32)
        self.torn = True
        self._run(new, slots, table, strengths)
        self.torn = False
        if planes:
            # Memory that was written before costs no page faults, which cost more than the transition.
            self._spare, self._current = self._current, self._spare
        self._journal = new

    def forget(self) -> None:
        """See `Kernel`."""
        self._journal = self._resting
        self._spare = self._current = self._resting.saved
        self.torn = False

    def _run(
        self, new: Journal, slots: NDArray[np.int32], table: NDArray[np.int64], weights: NDArray[np.float32]
    ) -> None:
        """The one call that writes weights."""
        old, arena = self._journal, self._arena
        cpu.transition(
            arena.weights,
            arena.bfloat16,
            arena.block_tensor[: self._blocks],
            arena.block_start,
            old.slots,
            old.counts,
            old.places,
            old.offsets,
            old.ranks,
            old.saved,
            new.slots,
            new.counts,
            new.places,
            new.offsets,
            new.ranks,
            new.saved,
            slots,
            table,
            weights,
        )

    def _journal_for(self, planes: Sequence[Planes]) -> Journal:
        """A journal with room for a mix of these switches."""
        if not planes:
            return self._resting
        if len(planes) == 1:  # the switch's own offsets serve
            (one,) = planes
            written = np.searchsorted(one.blocks, self._blocks)
            places = one.starts[:written].astype(np.int64) * 4
            return self._room(one.slots, one.counts[:written], places, one.marks.view(np.uint16))
        # At most so many, since their weights may coincide: the kernel puts the true counts in.
        most = np.zeros(self._arena.blocks, np.int32)
        for one in planes:
            most[one.blocks] += one.counts
        blocks = np.flatnonzero(most[: self._blocks])
        slots = np.full(self._arena.blocks, -1, np.int32)
        slots[blocks] = np.arange(len(blocks), dtype=np.int32)
        counts = most[blocks]
        listed = np.where(counts <= FEW, counts, 0).astype(np.int64)
        places = np.cumsum(listed) - listed
        return self._room(slots, counts, places, np.empty(int(listed.sum()), np.uint16))

    def _room(
        self,
        slots: NDArray[np.int32],
        counts: NDArray[np.int32],
        places: NDArray[np.int64],
        offsets: NDArray[np.uint16],
    ) -> Journal:
        lengths = np.where(counts <= FEW, counts, BLOCK).astype(np.int64)
        size = int(lengths.sum())
        if self._spare.size < size:
            self._spare = np.empty(size, self._arena.weights.dtype)
        return Journal(slots, counts, places, offsets, np.cumsum(lengths) - lengths, self._spare[:size])
