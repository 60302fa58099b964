"""How the overlay's kernels read a switch: which of its blocks, which marks and which knobs.

A switch's *line* is int64 (11,): `planes.COLUMNS`, then address and number of its blocks, then the addresses
of where each of the arena's blocks lies among them, of its `sizes`, and of where a parameter's sizes begin.
Knows nothing of what the marks are used for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit

from bitswitch.engine.arena import BLOCK
from bitswitch.engine.bits import pointer, trailing_zeros
from bitswitch.engine.knobs import knobs_at
from bitswitch.engine.marks import FEW, OFFSET, WORDS

_ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def first_slot(line: Any, block: int) -> Any:
    """Index of a switch's first block that is not before the arena's ``block``."""
    slot = np.int64(carray(pointer(line[8]), (block + 1,), np.int32)[block])
    if slot >= 0:  # in most switches; a search reads memory in places that are in no cache
        return slot
    low, high = 0, line[7]
    blocks = carray(pointer(line[6]), (high,), np.int32)
    while low < high:
        middle = (low + high) >> 1
        if blocks[middle] < block:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def block_of(line: Any, slot: int) -> Any:
    """Which of the arena's blocks a switch's block is."""
    return np.int64(carray(pointer(line[6]), (slot + 1,), np.int32)[slot])


@njit(cache=True, nogil=True)
def search(offsets: Any, least: int) -> int:
    """Index of the first offset that is not below ``least``."""
    low, high = 0, len(offsets)
    while low < high:
        middle = (low + high) >> 1
        if np.int64(offsets[middle] & OFFSET) < least:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _range(offsets: Any, low: int, high: int) -> Any:
    """The range of the offsets from ``low`` to below ``high``."""
    begin = search(offsets, low) if low > 0 else 0
    return begin, search(offsets, high) if high < BLOCK else len(offsets)


@njit(cache=True, nogil=True)
def offsets_of(line: Any, slot: int, low: int, high: int, room: Any) -> Any:
    """Address of a block's offsets, and the range of those from ``low`` to below ``high``.

    Those of a block of bit planes are written to ``room``, uint16 (4096,).
    """
    begin = np.int64(carray(pointer(line[1]), (slot + 1,), np.int32)[slot])
    count = np.int64(carray(pointer(line[2]), (slot + 1,), np.int32)[slot])
    address = line[0] + begin * 8
    if count <= FEW:
        return address, *_range(carray(pointer(address), (count,), np.uint16), low, high)
    planes = carray(pointer(address), (2 * WORDS,), np.uint64)
    found = 0
    for w in range(low >> 6, (high + 63) >> 6):
        bits, minus = planes[w], planes[WORDS + w]
        while bits:
            bit = trailing_zeros(bits)
            sign = ((minus >> bit) & _ONE) << np.uint64(15)
            room[found] = np.uint16(np.uint64(w * 64) + bit + sign)
            found += 1
            bits &= bits - _ONE
    return np.int64(room.ctypes.data), *_range(room[:found], low, high)


@njit(cache=True, nogil=True)
def knobs_of(line: Any, tensor: int, end: int) -> Any:
    """A tensor's knobs as far as its weights before ``end`` need them, and how many weights share one."""
    width = carray(pointer(line[5]), (tensor + 1,), np.int64)[tensor]
    first = carray(pointer(line[4]), (tensor + 1,), np.int64)[tensor]
    return knobs_at(line[3], first, first + (end - 1) // width + 1), width


@njit(cache=True, nogil=True)
def sizes_of(line: Any, tensor: int, end: int) -> Any:
    """A matrix's sizes, see `sizes`, as far as those before number ``end``, and whether it has any."""
    first = carray(pointer(line[10]), (tensor + 1,), np.int64)[tensor]
    return carray(pointer(line[9]), (max(first, 0) + end,), np.uint16)[max(first, 0) :], first >= 0
