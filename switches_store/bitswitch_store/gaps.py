"""The Golomb code of the zeros before each set bit: its inner loops, compiled by numba.

Knows nothing of tensors or files, nor of which parameter m suits which bits; `codec` does. The arrays
are as `words` says.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit

from bitswitch_store.words import ONE, PAST_THE_END, TOO_SHORT, Words, load, low, ones, put, trailing_zeros

_WINDOW = 12  # bits looked up at once
_TABLED = 5  # the largest m with a table: a window of zeros passes 60 places, which one word can hold
_FARTHEST = _WINDOW * _TABLED
_NO_TABLE = np.zeros(0, np.uint64), np.zeros(0, np.uint64)


@njit(cache=True, nogil=True)
def _log2(m: int) -> int:
    power = 0
    while m >> (power + 1):
        power += 1
    return power


@njit(cache=True, nogil=True)
def size(plane: Words, m: int) -> int:
    """Bits that `encode` would write."""
    if m == 1:  # a bit for a bit, up to the last that is set
        last = plane.size - 1
        while plane[last] == 0:
            last -= 1
        size = 64 * last
        word = plane[last]
        while word:
            word >>= ONE
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
            place = (i << 6) + trailing_zeros(word)
            word &= word - ONE
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
def encode(plane: Words, m: int, stream: Words) -> int:
    """Golomb code of the zeros before each set bit into a stream of zeros; returns its bits."""
    power = _log2(m)
    cutoff = (1 << (power + 1)) - m
    position = 0
    before = -1
    for i in range(plane.size):
        word = plane[i]
        while word:
            place = (i << 6) + trailing_zeros(word)
            word &= word - ONE
            gap = place - before - 1
            before = place
            quotient = gap // m
            rest = gap - quotient * m
            position += quotient
            if rest < cutoff:
                put(stream, position, np.uint64(1 + (rest << 1)))
                position += 1 + power
            else:
                rest += cutoff
                put(stream, position, np.uint64(1 + ((rest >> 1) << 1) + ((rest & 1) << (power + 1))))
                position += 2 + power
    return position


def decode(stream: Words, bits: int, count: int, m: int, numel: int, plane: Words) -> int:  # noqa: PLR0917
    """Set ``count`` bits of a plane of ``numel`` zeros; returns the bits read, or what was wrong.

    ``stream`` holds ``bits`` bits; everything after them is zero. Whatever they are, nothing is read or
    written outside of the two arrays.
    """
    masks, moves = _table(m) if m <= _TABLED else _NO_TABLE
    read: int = _decode(stream, bits, count, m, numel, plane, masks, moves)
    return read


@cache
def _table(m: int) -> tuple[Words, Words]:
    """What every window of `_WINDOW` bits says: the bits to set from the next place on, and how far to go.

    Returns:
        the bits to set; and the bits of the stream used + 64 · the places passed. A window that ends
        inside a codeword uses its zeros, each of which passes m places, and leaves the rest.
    """
    masks, moves = np.zeros(1 << _WINDOW, np.uint64), np.zeros(1 << _WINDOW, np.uint64)
    _fill(m, masks, moves)
    return masks, moves


@njit(cache=True, nogil=True)
def _fill(m: int, masks: Words, moves: Words) -> None:
    power = _log2(m)
    cutoff = (1 << (power + 1)) - m
    for window in range(1 << _WINDOW):
        used = place = 0
        while used < _WINDOW:
            if not (window >> used) & 1:
                used, place = used + 1, place + m
                continue
            end = used + 1 + power
            rest = (window >> (used + 1)) & ((1 << power) - 1)
            if rest >= cutoff:
                rest += rest + ((window >> end) & 1) - cutoff
                end += 1
            if end > _WINDOW:
                break
            masks[window] |= ONE << np.uint64(place + rest)
            used, place = end, place + rest + 1
        moves[window] = np.uint64(used + 64 * place)


@njit(cache=True, nogil=True)
def _decode(  # noqa: PLR0917 - numba's calls are positional
    stream: Words, bits: int, count: int, m: int, numel: int, plane: Words, masks: Words, moves: Words
) -> int:
    position = place = 0
    # As long as five windows can neither pass the end of anything nor find too much: no check inside.
    while moves.size and position + 64 <= bits and place + 5 * _FARTHEST <= numel and count >= 5 * _WINDOW:
        word = load(stream, position)
        for _ in range(5):
            window = word & np.uint64((1 << _WINDOW) - 1)
            put(plane, place, masks[window])
            count -= ones(masks[window])
            used = moves[window] & np.uint64(63)
            place += int(moves[window] >> np.uint64(6))
            position += int(used)
            word >>= used
    read: int = _decode_singly(stream, bits, count, m, numel, plane, position, place)
    return read


@njit(cache=True, nogil=True)
def _decode_singly(  # noqa: PLR0917 - numba's calls are positional
    stream: Words, bits: int, count: int, m: int, numel: int, plane: Words, position: int, place: int
) -> int:
    """Codeword by codeword, from a position of the stream that stands for the zeros from ``place`` on."""
    power = _log2(m)
    mask = low(power)
    cutoff = np.uint64((1 << (power + 1)) - m)
    most = numel // m
    for _ in range(count):
        quotient = 0
        word = load(stream, position)
        while word == 0:
            position += 64
            if position >= bits:
                return TOO_SHORT
            quotient += 64
            word = load(stream, position)
        zeros = trailing_zeros(word)
        quotient += zeros
        position += zeros + 1  # at most `bits`: the set bit was one of the stream's own
        if zeros + power + 2 <= 64:
            word >>= np.uint64(zeros + 1)
        else:
            word = load(stream, position)
        rest = word & mask
        position += power
        # Without a branch: which way it would go is as good as random.
        longer = np.uint64(rest >= cutoff)
        rest += longer * (rest + ((word >> np.uint64(power)) & ONE) - cutoff)
        position += int(longer)
        if position > bits:
            return TOO_SHORT
        if quotient > most:  # before the product, which could overflow
            return PAST_THE_END
        place += quotient * m + int(rest)
        if place >= numel:
            return PAST_THE_END
        plane[place >> 6] |= ONE << np.uint64(place & 63)
        place += 1
    return position
