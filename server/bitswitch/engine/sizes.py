"""How many marks each row of a matrix has in each of its blocks: a *size*, uint16.

The overlay's loop over a row's marks goes round as often as its size says. Without it the end would have
to be looked for among the marks, and found too late: by then the processor has guessed where it is. Knows
nothing of tiles or of what is added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from bitswitch.engine.arena import BLOCK
from bitswitch.engine.marks import OFFSET


def count(rows: int, blocks: int) -> int:
    """Sizes that a matrix has: that of its row r in its block b is number r + b."""
    return rows + blocks - 1


@njit(cache=True, nogil=True, parallel=True)
def write(sizes: Any, marks: Any, starts: Any, counts: Any, blocks: Any, inputs: int) -> None:
    """Write a matrix's sizes.

    Args:
        sizes: uint16, zeros before, see `count`.
        marks, starts, counts: see `marks.write`; only blocks with active weights, all of them lists.
        blocks: int64 (n,), which of the matrix's blocks they are, ascending.
        inputs: weights of a row.
    """
    offsets = marks.view(np.uint16)
    for n in prange(len(blocks)):
        start = blocks[n] * BLOCK
        row = start // inputs
        end = (row + 1) * inputs - start
        first = starts[n] * 4
        for i in range(first, first + counts[n]):
            while np.int64(offsets[i] & OFFSET) >= end:
                row += 1
                end += inputs
            sizes[row + blocks[n]] += 1
