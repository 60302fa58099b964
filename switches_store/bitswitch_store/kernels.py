"""The inner loops of the codec: bit streams in 64-bit words, compiled by numba.

Knows nothing of tensors, files or which code is best; `codec` does. Every stream and plane is a
uint64 array, bit i of it being bit ``i % 64`` of word ``i // 64``, with at least one zero word after
the last bit (`planes.words` makes them), so that a load at the end stays inside the array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

Words = NDArray[np.uint64]

# What a decoder returns instead of the number of bits it read.
TOO_SHORT = -1
PAST_THE_END = -2

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

_ONE = np.uint64(1)
_FIRST_OF_THREE = np.uint64(0o111111111111111111111)


def _instruction(emit: Callable[[ir.IRBuilder, ir.Value], ir.Value]) -> Callable[[np.uint64], int]:
    """One machine instruction from a word to a number; numba has no public name for these."""

    def typed(_context: object, _word: object) -> object:
        def generate(_c: object, builder: ir.IRBuilder, _s: object, arguments: list[ir.Value]) -> ir.Value:
            return emit(builder, arguments[0])

        return types.int64(types.uint64), generate

    return cast("Callable[[np.uint64], int]", intrinsic(typed))


_trailing_zeros = _instruction(lambda builder, word: builder.cttz(word, ir.Constant(ir.IntType(1), 0)))
_ones = _instruction(lambda builder, word: builder.ctpop(word))


@njit(cache=True, nogil=True)
def _load(words: Words, position: int) -> np.uint64:
    """The 64 bits from ``position`` on."""
    word = position >> 6
    offset = np.uint64(position & 63)
    # Two shifts: a single one by 64 is undefined.
    bits: np.uint64 = (words[word] >> offset) | ((words[word + 1] << _ONE) << (np.uint64(63) - offset))
    return bits


@njit(cache=True, nogil=True)
def _put(words: Words, position: int, bits: np.uint64) -> None:
    """Or ``bits`` into the zeros from ``position`` on."""
    word = position >> 6
    offset = np.uint64(position & 63)
    words[word] |= bits << offset
    words[word + 1] |= (bits >> _ONE) >> (np.uint64(63) - offset)


@njit(cache=True, nogil=True)
def _low(count: int) -> np.uint64:
    """A word whose lowest ``count`` bits are set, 0 to 63."""
    return (_ONE << np.uint64(count)) - _ONE


@njit(cache=True, nogil=True)
def _log2(m: int) -> int:
    power = 0
    while m >> (power + 1):
        power += 1
    return power


@njit(cache=True, nogil=True)
def gaps_size(plane: Words, m: int) -> int:
    """Bits that `gaps_encode` would write."""
    if m == 1:  # a bit for a bit, up to the last that is set
        last = plane.size - 1
        while plane[last] == 0:
            last -= 1
        size = 64 * last
        word = plane[last]
        while word:
            word >>= _ONE
            size += 1
        return size
    power = _log2(m)
    cutoff = (1 << (power + 1)) - m
    inverse = 1.0 / m
    size = 0
    before = -1
    for i in range(plane.size):
        word = plane[i]
        while word:
            place = (i << 6) + _trailing_zeros(word)
            word &= word - _ONE
            gap = place - before - 1
            before = place
            # Division by a product; below 2^53 it is at most one off.
            quotient = int(gap * inverse)
            rest = gap - quotient * m
            if rest < 0:
                quotient -= 1
                rest += m
            elif rest >= m:
                quotient += 1
                rest -= m
            size += quotient + 1 + power + (rest >= cutoff)
    return size


@njit(cache=True, nogil=True)
def gaps_encode(plane: Words, m: int, stream: Words) -> int:
    """Golomb code of the zeros before each set bit into a stream of zeros; returns its bits."""
    power = _log2(m)
    cutoff = (1 << (power + 1)) - m
    position = 0
    before = -1
    for i in range(plane.size):
        word = plane[i]
        while word:
            place = (i << 6) + _trailing_zeros(word)
            word &= word - _ONE
            gap = place - before - 1
            before = place
            quotient = gap // m
            rest = gap - quotient * m
            position += quotient
            if rest < cutoff:
                _put(stream, position, np.uint64(1 + (rest << 1)))
                position += 1 + power
            else:
                rest += cutoff
                _put(stream, position, np.uint64(1 + ((rest >> 1) << 1) + ((rest & 1) << (power + 1))))
                position += 2 + power
    return position


@njit(cache=True, nogil=True)
def gaps_decode(  # noqa: PLR0917 - numba's calls are positional
    stream: Words, bits: int, count: int, m: int, numel: int, plane: Words
) -> int:
    """Set ``count`` bits of a plane of zeros; returns the bits read, or what was wrong.

    ``stream`` holds ``bits`` bits; everything after them is zero.
    """
    power = _log2(m)
    low = _low(power)
    cutoff = np.uint64((1 << (power + 1)) - m)
    most = numel // m
    position = 0
    place = -1
    for _ in range(count):
        quotient = 0
        word = _load(stream, position)
        while word == 0:
            position += 64
            if position >= bits:
                return TOO_SHORT
            quotient += 64
            word = _load(stream, position)
        zeros = _trailing_zeros(word)
        quotient += zeros
        position += zeros + 1  # at most `bits`: the set bit was one of the stream's own
        if zeros + power + 2 <= 64:
            word >>= np.uint64(zeros + 1)
        else:
            word = _load(stream, position)
        rest = word & low
        position += power
        # Without a branch: which way it would go is as good as random.
        longer = np.uint64(rest >= cutoff)
        rest += longer * (rest + ((word >> np.uint64(power)) & _ONE) - cutoff)
        position += int(longer)
        if position > bits:
            return TOO_SHORT
        if quotient > most:  # before the product, which could overflow
            return PAST_THE_END
        place += quotient * m + int(rest) + 1
        if place >= numel:
            return PAST_THE_END
        plane[place >> 6] |= _ONE << np.uint64(place & 63)
    return position


@njit(cache=True, nogil=True)
def triples_size(plane: Words, numel: int) -> int:
    """Bits that `triples_encode` would write."""
    groups = (numel + 2) // 3
    size = 2 * groups
    for start in range(0, numel, 63):
        word = _load(plane, start)
        first = word & _FIRST_OF_THREE
        second = (word >> _ONE) & _FIRST_OF_THREE
        third = (word >> np.uint64(2)) & _FIRST_OF_THREE
        # Three bits unless all are zero, four if the second and the third are set.
        size += _ones(first | second | third) + _ones(second & third)
    return size


@njit(cache=True, nogil=True)
def triples_encode(plane: Words, numel: int, stream: Words) -> int:
    """Prefix code of three bits at a time into a stream of zeros; returns its bits."""
    position = 0
    for start in range(0, numel, 3):
        symbol = int(_load(plane, start) & np.uint64(7))
        _put(stream, position, CODEWORD[symbol])
        position += int(LENGTH[symbol])
    return position


@njit(cache=True, nogil=True)
def triples_decode(stream: Words, bits: int, numel: int, plane: Words) -> int:
    """Fill a plane of zeros; returns the bits read, or TOO_SHORT.

    The last symbol may set bits after ``numel``: the caller refuses those.
    """
    position = 0
    for start in range(0, numel, 48):
        word = _load(stream, position)
        found = np.uint64(0)
        for symbol in range(min(16, (numel - start + 2) // 3)):
            entry = _NEXT[word & np.uint64(15)]
            found |= (entry & np.uint64(7)) << np.uint64(3 * symbol)
            word >>= entry >> np.uint64(3)
            position += int(entry >> np.uint64(3))
        if position > bits:
            return TOO_SHORT
        _put(plane, start, found)
    return position


@njit(cache=True, nogil=True)
def touched(plane: Words, rows: int, width: int, found: NDArray[np.int64]) -> int:
    """List the rows of ``width`` bits that have a set bit; returns how many.

    ``found`` has room for as many rows as there are set bits.
    """
    count = 0
    position = 0
    while position < rows * width:
        word = _load(plane, position)
        if word == 0:
            position += 64
            continue
        row = (position + _trailing_zeros(word)) // width
        found[count] = row
        count += 1
        position = (row + 1) * width
    return count


@njit(cache=True, nogil=True)
def set_bits(plane: Words, places: NDArray[np.int64]) -> None:
    """Set the bits at ``places``."""
    for i in range(places.size):
        plane[places[i] >> 6] |= _ONE << np.uint64(places[i] & 63)


@njit(cache=True, nogil=True)
def copy_rows(source: Words, target: Words, width: int, rows: NDArray[np.int64], gather: bool) -> None:
    """Rows ``rows`` of the source → rows 0, 1, … of a target of zeros, or the other way round."""
    for i in range(rows.size):
        taken = (rows[i] if gather else i) * width
        put = (i if gather else rows[i]) * width
        for column in range(0, width, 64):
            word = _load(source, taken + column)
            left = width - column
            if left < 64:
                word &= _low(left)
            _put(target, put + column, word)
