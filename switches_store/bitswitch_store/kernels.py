"""The codec's inner loops for triples and for rows; those for gaps are in `gaps`. Compiled by numba.

Knows nothing of tensors, files or which code is best; `codec` does. The arrays are as `words` says.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bitswitch_store.words import ONE, TOO_SHORT, Words, load, low, ones, put, trailing_zeros

# The three-bit code: symbol = first weight + 2 · second + 4 · third. Codewords as they lie in the
# stream, first bit lowest; lengths are Huffman's for a density of .38.
CODEWORD = np.array([0b00, 0b010, 0b110, 0b101, 0b001, 0b011, 0b0111, 0b1111], np.uint64)
LENGTH = np.array([2, 3, 3, 3, 3, 3, 4, 4], np.int64)
# Next four bits of the stream → symbol + 8 · length.
_NEXT = np.zeros(16, np.uint64)
for _symbol in range(8):
    for _bits in range(16):
        if (_bits ^ int(CODEWORD[_symbol])) & ((1 << int(LENGTH[_symbol])) - 1) == 0:
            _NEXT[_bits] = _symbol + 8 * int(LENGTH[_symbol])

_FIRST_OF_THREE = np.uint64(0o111111111111111111111)


@njit(cache=True, nogil=True)
def triples_size(plane: Words, numel: int) -> int:
    """Bits that `triples_encode` would write."""
    groups = (numel + 2) // 3
    size = 2 * groups
    for start in range(0, numel, 63):
        word = load(plane, start)
        first = word & _FIRST_OF_THREE
        second = (word >> ONE) & _FIRST_OF_THREE
        third = (word >> np.uint64(2)) & _FIRST_OF_THREE
        # Three bits unless all are zero, four if the second and the third are set.
        size += ones(first | second | third) + ones(second & third)
    return size


@njit(cache=True, nogil=True)
def triples_encode(plane: Words, numel: int, stream: Words) -> int:
    """Prefix code of three bits at a time into a stream of zeros; returns its bits."""
    position = 0
    for start in range(0, numel, 3):
        symbol = int(load(plane, start) & np.uint64(7))
        put(stream, position, CODEWORD[symbol])
        position += int(LENGTH[symbol])
    return position


@njit(cache=True, nogil=True)
def triples_decode(stream: Words, bits: int, numel: int, plane: Words) -> int:
    """Fill a plane of zeros; returns the bits read, or TOO_SHORT.

    The last symbol may set bits after ``numel``: the caller refuses those.
    """
    position = 0
    for start in range(0, numel, 48):
        word = load(stream, position)
        found = np.uint64(0)
        for symbol in range(min(16, (numel - start + 2) // 3)):
            entry = _NEXT[word & np.uint64(15)]
            found |= (entry & np.uint64(7)) << np.uint64(3 * symbol)
            word >>= entry >> np.uint64(3)
            position += int(entry >> np.uint64(3))
        if position > bits:
            return TOO_SHORT
        put(plane, start, found)
    return position


@njit(cache=True, nogil=True)
def touched(plane: Words, rows: int, width: int, found: NDArray[np.int64]) -> int:
    """List the rows of ``width`` bits that have a set bit; returns how many.

    ``found`` has room for as many rows as there are set bits.
    """
    count = 0
    position = 0
    while position < rows * width:
        word = load(plane, position)
        if word == 0:
            position += 64
            continue
        row = (position + trailing_zeros(word)) // width
        found[count] = row
        count += 1
        position = (row + 1) * width
    return count


@njit(cache=True, nogil=True)
def set_bits(plane: Words, places: NDArray[np.int64]) -> None:
    """Set the bits at ``places``."""
    for i in range(places.size):
        plane[places[i] >> 6] |= ONE << np.uint64(places[i] & 63)


@njit(cache=True, nogil=True)
def copy_rows(source: Words, target: Words, width: int, rows: NDArray[np.int64], gather: bool) -> None:
    """Rows ``rows`` of the source → rows 0, 1, … of a target of zeros, or the other way round."""
    for i in range(rows.size):
        taken = (rows[i] if gather else i) * width
        begin = (i if gather else rows[i]) * width
        for column in range(0, width, 64):
            word = load(source, taken + column)
            left = width - column
            if left < 64:
                word &= low(left)
            put(target, begin + column, word)
