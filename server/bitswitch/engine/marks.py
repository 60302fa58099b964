"""How a block of 4,096 weights says which of them are active and where each goes.

In whichever of two forms is the smaller, as Roaring bitmaps do (Chambi et al. 2016, arXiv:1402.6407).
Where few weights are active: their offsets within the block, ascending, as uint16, `MINUS` added where
the sign is −, filled up to whole words of 8 bytes with zeros. Where many are: two bit planes of 64 words,
activation and then the bits that are set where the sign is −. So a block takes at most 1 KiB, 2 bits a
weight. Knows nothing of names, knobs or what the marks are used for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bitswitch.engine.arena import BLOCK
from bitswitch.engine.bits import as_bits, as_float, trailing_zeros

FEW = 512
"""Active weights up to which a block is a list of offsets: as many as take the room of two bit planes."""

WORDS = BLOCK // 64
"""64-bit words of one bit plane of a block."""

OFFSET = BLOCK - 1
"""The bits of a mark in a list that are its offset."""

MINUS = 0x8000
"""Added to an offset whose weight goes down."""

_ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def signed(step: Any, offset: Any) -> Any:
    """A float32 with the sign of an offset's mark.

    Without a branch, which would be guessed wrong for every other mark and cost more than all the rest.
    """
    return as_float(as_bits(step) ^ (np.uint32(offset & MINUS) << np.uint32(16)))


def sizes(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Words of 8 bytes that blocks with so many active weights take."""
    return np.where(counts <= FEW, -(-counts // 4), 2 * WORDS)


@njit(cache=True, nogil=True, parallel=True)
def write(lines: Any, ranks: Any, counts: Any, polarity: Any, starts: Any, marks: Any) -> None:
    """Write the marks of blocks.

    Args:
        lines: uint64 (n, 64), the blocks' activation bits.
        ranks: int64 (n,), index of a block's first active weight among the tensor's.
        counts: int64 (n,), active weights of each block.
        polarity: uint8, bit r is set where active weight r goes up.
        starts: int64 (n,), where a block's marks begin.
        marks: uint64, written; zeros before.
    """
    offsets = marks.view(np.uint16)
    for n in prange(len(lines)):
        rank = ranks[n]
        few = counts[n] <= FEW
        place = starts[n] * 4
        for w in range(WORDS):
            bits = lines[n, w]
            minus = np.uint64(0)
            while bits:
                bit = trailing_zeros(bits)
                down = not (polarity[rank >> 3] >> np.uint8(rank & 7)) & 1
                if few:
                    offsets[place] = np.uint16(w * 64 + np.int64(bit) + (MINUS if down else 0))
                    place += 1
                elif down:
                    minus |= _ONE << bit
                rank += 1
                bits &= bits - _ONE
            if not few:
                marks[starts[n] + w] = lines[n, w]
                marks[starts[n] + WORDS + w] = minus
