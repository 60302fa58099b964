"""The only writer of weights.

`Swap.at` sets the resident weights to a mix and holds them there while its body runs. Whatever goes
wrong, in the transition or in the body, the base comes back bit for bit before the error goes on.
Knows nothing of requests, queues or heads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitswitch.core import Mix
from bitswitch.engine import cpu
from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.marks import FEW
from bitswitch.engine.planes import COLUMNS, Planes

_NO_TABLE = np.empty((0, COLUMNS), np.int64)


@dataclass(frozen=True, eq=False)
class Journal:
    """What must be remembered to undo a transition exactly: which weights were touched, and their bits.

    Attributes:
        blocks: int32 (n,), ascending.
        counts: int32 (n,), touched weights of each block; above `FEW`, the whole block was saved.
        places: int64 (n,), where a block's offsets begin.
        offsets: uint16, of touched weights within their blocks; the top bits may hold something else.
        ranks: int64 (n,), where a block's saved values begin.
        saved: the base's own values, the arena's dtype.
    """

    blocks: NDArray[np.int32]
    counts: NDArray[np.int32]
    places: NDArray[np.int64]
    offsets: NDArray[np.uint16]
    ranks: NDArray[np.int64]
    saved: NDArray[np.float32] | NDArray[np.uint16]

    @property
    def nbytes(self) -> int:
        """Bytes of memory held for saved values."""
        return self.saved.nbytes


class Swap:
    """The resident weights, and the one way to change them. For one thread at a time.

    Args:
        arena: the weights, at the base.

    Attributes:
        mix: what the weights are set to.
        active: how many weights that touches, a weight counted for each switch that does.
        transitions: how many there have been.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.mix = Mix()
        self.active = 0
        self.transitions = 0
        self._resting = Journal(
            blocks=np.empty(0, np.int32),
            counts=np.empty(0, np.int32),
            places=np.empty(0, np.int64),
            offsets=np.empty(0, np.uint16),
            ranks=np.empty(0, np.int64),
            saved=np.empty(0, arena.weights.dtype),
        )
        self._journal = self._resting
        self._spare = self._current = np.empty(0, arena.weights.dtype)

    @property
    def journal_bytes(self) -> int:
        """Bytes of base values saved at present."""
        return self._journal.nbytes

    @contextmanager
    def at(self, mix: Mix, planes: Sequence[Planes]) -> Iterator[float]:
        """Hold the weights at ``mix``; yields the seconds that the transition took, 0 where
        none was needed.

        When the body ends well the weights stay, so that the next group of the same mix pays nothing
        and another one goes straight there. When it raises, the base is restored first.

        Args:
            mix: the weights to hold.
            planes: its switches, in the mix's order.
        """
        try:
            seconds = 0.0
            if mix != self.mix:
                started = time.perf_counter()
                self._go(mix, planes)
                seconds = time.perf_counter() - started
            yield seconds
        except BaseException:
            self.rest()
            raise

    def warm_up(self) -> None:
        """Compile the kernels, or read them from numba's cache, by a transition that visits no block."""
        self._run(
            self._resting, np.empty((0, self.arena.blocks), np.int32), _NO_TABLE, np.empty(0, np.float32)
        )

    def rest(self) -> None:
        """Go back to the bare base."""
        if self.mix:
            self._go(Mix(), ())

    def _go(self, mix: Mix, planes: Sequence[Planes]) -> None:
        slots, new = self._journal_for(planes)
        table = np.stack([one.addresses for one in planes]) if planes else _NO_TABLE
        self._run(new, slots, table, np.array([weight for _, weight in mix], np.float32))
        if planes:
            # Memory that was written before costs no page faults, which cost more than the transition.
            self._spare, self._current = self._current, self._spare
        self._journal, self.mix = new, mix
        self.active = sum(one.active for one in planes)
        self.transitions += 1

    def _run(
        self, new: Journal, slots: NDArray[np.int32], table: NDArray[np.int64], weights: NDArray[np.float32]
    ) -> None:
        """The one call that writes weights. What can fail comes before it; the kernel runs to its end."""
        old, arena = self._journal, self.arena
        cpu.transition(
            arena.weights,
            arena.bfloat16,
            arena.block_tensor,
            arena.block_start,
            self._slots(old.blocks),
            old.counts,
            old.places,
            old.offsets,
            old.ranks,
            old.saved,
            self._slots(new.blocks),
            new.counts,
            new.places,
            new.offsets,
            new.ranks,
            new.saved,
            slots,
            table,
            weights,
        )

    def _journal_for(self, planes: Sequence[Planes]) -> tuple[NDArray[np.int32], Journal]:
        """A journal with room for a mix of these switches, and where its blocks lie in each of them."""
        slots = np.array([self._slots(one.blocks) for one in planes], np.int32).reshape(-1, self.arena.blocks)
        if not planes:
            return slots, self._resting
        if len(planes) == 1:  # the switch's own offsets serve
            (one,) = planes
            places = one.starts.astype(np.int64) * 4
            return slots, self._room(one.blocks, one.counts, places, one.marks.view(np.uint16))
        # At most so many, since their weights may coincide: the kernel puts the true counts in.
        most = np.zeros(self.arena.blocks, np.int32)
        for one in planes:
            most[one.blocks] += one.counts
        blocks = np.flatnonzero(most).astype(np.int32)
        counts = most[blocks]
        listed = np.where(counts <= FEW, counts, 0).astype(np.int64)
        places = np.cumsum(listed) - listed
        return slots, self._room(blocks, counts, places, np.empty(int(listed.sum()), np.uint16))

    def _room(
        self,
        blocks: NDArray[np.int32],
        counts: NDArray[np.int32],
        places: NDArray[np.int64],
        offsets: NDArray[np.uint16],
    ) -> Journal:
        lengths = np.where(counts <= FEW, counts, BLOCK).astype(np.int64)
        size = int(lengths.sum())
        if self._spare.size < size:
            self._spare = np.empty(size, self.arena.weights.dtype)
        return Journal(blocks, counts, places, offsets, np.cumsum(lengths) - lengths, self._spare[:size])

    def _slots(self, blocks: NDArray[np.int32]) -> NDArray[np.int32]:
        """Where each block of the arena lies in ``blocks``; -1 where it does not."""
        slots = np.full(self.arena.blocks, -1, np.int32)
        slots[blocks] = np.arange(len(blocks), dtype=np.int32)
        return slots
