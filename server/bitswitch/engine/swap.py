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
from bitswitch.engine.arena import Arena
from bitswitch.engine.planes import Planes

_NO_TABLE = np.empty((0, cpu.COLUMNS), np.int64)


@dataclass(frozen=True, eq=False)
class Journal:
    """What must be remembered to undo a transition exactly: which weights were touched, and their bits.

    Attributes:
        blocks: int32 (n,), ascending.
        words: uint64 (n, 64), touched weights.
        rank: int64 (n,), index of each block's first saved value.
        saved: the base's own values, the arena's dtype.
    """

    blocks: NDArray[np.int32]
    words: NDArray[np.uint64]
    rank: NDArray[np.int64]
    saved: NDArray[np.float32] | NDArray[np.uint16]

    @property
    def nbytes(self) -> int:
        """Bytes of memory held for saved values."""
        return self.saved.nbytes


class Swap:
    """The resident weights, and the one way to change them. For one thread at a time.

    Args:
        arena: the weights, at the base.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.mix = Mix()
        self.transitions = 0
        self._resting = Journal(
            np.empty(0, np.int32),
            np.empty((0, cpu.WORDS), np.uint64),
            np.empty(0, np.int64),
            np.empty(0, arena.weights.dtype),
        )
        self._journal = self._resting

    @property
    def journal_bytes(self) -> int:
        """Bytes of base values saved at present."""
        return self._journal.nbytes

    @contextmanager
    def at(self, mix: Mix, planes: Sequence[Planes]) -> Iterator[float]:
        """Hold the weights at ``mix``; yields the seconds that the transition took.

        When the body ends well the weights stay, so that the next group of the same mix pays nothing
        and another one goes straight there. When it raises, the base is restored first.

        Args:
            mix: the weights to hold.
            planes: its switches, in the mix's order.
        """
        started = time.perf_counter()
        try:
            if mix != self.mix:
                self._go(mix, planes)
            yield time.perf_counter() - started
        except BaseException:
            self.rest()
            raise

    def warm_up(self) -> None:
        """Compile the kernels, or read them from numba's cache, by a transition that visits no block."""
        self._run(self._resting, np.empty((0, 0), np.int32), _NO_TABLE, np.empty(0, np.float32))
        words, counts = np.empty((0, cpu.WORDS), np.uint64), np.empty(0, np.int64)
        cpu.union(np.empty((0, 0), np.int32), _NO_TABLE, words, counts)

    def rest(self) -> None:
        """Go back to the bare base."""
        if self.mix:
            self._go(Mix(), ())

    def _go(self, mix: Mix, planes: Sequence[Planes]) -> None:
        slots, new = self._journal_for(planes)
        table = np.stack([one.addresses for one in planes]) if planes else _NO_TABLE
        self._run(new, slots, table, np.array([weight for _, weight in mix], np.float32))
        self._journal, self.mix = new, mix
        self.transitions += 1

    def _run(
        self, new: Journal, slots: NDArray[np.int32], table: NDArray[np.int64], weights: NDArray[np.float32]
    ) -> None:
        """The one call that writes weights. What can fail comes before it; the kernel runs to its end."""
        old, arena = self._journal, self.arena
        work = np.union1d(old.blocks, new.blocks).astype(np.int32)
        cpu.transition(
            arena.weights,
            arena.bfloat16,
            arena.block_tensor,
            arena.block_start,
            work,
            _slots(work, old.blocks),
            old.words,
            old.rank,
            old.saved,
            _slots(work, new.blocks),
            new.words,
            new.rank,
            new.saved,
            slots,
            table,
            weights,
        )

    def _journal_for(self, planes: Sequence[Planes]) -> tuple[NDArray[np.int32], Journal]:
        """An empty journal for a mix of these switches, and where its blocks lie in each of them."""
        if not planes:
            return np.empty((0, 0), np.int32), self._resting
        dtype = self.arena.weights.dtype
        if len(planes) == 1:  # the switch's own words and ranks serve
            (one,) = planes
            slots = np.arange(len(one.blocks), dtype=np.int32)[:, None]
            return slots, Journal(one.blocks, one.words, one.rank, np.empty(one.size, dtype))
        blocks = np.unique(np.concatenate([one.blocks for one in planes]))
        slots = np.stack([_slots(blocks, one.blocks) for one in planes], axis=1)
        words = np.empty((len(blocks), cpu.WORDS), np.uint64)
        counts = np.empty(len(blocks), np.int64)
        cpu.union(slots, np.stack([one.addresses for one in planes]), words, counts)
        return slots, Journal(blocks, words, np.cumsum(counts) - counts, np.empty(int(counts.sum()), dtype))


def _slots(blocks: NDArray[np.int32], among: NDArray[np.int32]) -> NDArray[np.int32]:
    """Where each of ``blocks`` lies in the ascending ``among``; -1 where it does not."""
    if not len(among):
        return np.full(len(blocks), -1, np.int32)
    places = np.minimum(np.searchsorted(among, blocks), len(among) - 1)
    return np.where(among[places] == blocks, places, -1).astype(np.int32)
