"""Bit streams and planes as arrays of 64-bit words, and how kernels look at them; compiled by numba.

Every stream and plane is a uint64 array, bit i of it being bit ``i % 64`` of word ``i // 64``, with at
least one zero word after the last bit (`planes.words` makes them), so that a load at the end stays
inside the array. Knows nothing of codes.
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

ONE = np.uint64(1)


def _instruction(emit: Callable[[ir.IRBuilder, ir.Value], ir.Value]) -> Callable[[np.uint64], int]:
    """One machine instruction from a word to a number; numba has no public name for these."""

    def typed(_context: object, _word: object) -> object:
        def generate(_c: object, builder: ir.IRBuilder, _s: object, arguments: list[ir.Value]) -> ir.Value:
            return emit(builder, arguments[0])

        return types.int64(types.uint64), generate

    return cast("Callable[[np.uint64], int]", intrinsic(typed))


trailing_zeros = _instruction(lambda builder, word: builder.cttz(word, ir.Constant(ir.IntType(1), 0)))
ones = _instruction(lambda builder, word: builder.ctpop(word))


@njit(cache=True, nogil=True)
def load(words: Words, position: int) -> np.uint64:
    """The 64 bits from ``position`` on."""
    word = position >> 6
    offset = np.uint64(position & 63)
    # Two shifts: a single one by 64 is undefined.
    bits: np.uint64 = (words[word] >> offset) | ((words[word + 1] << ONE) << (np.uint64(63) - offset))
    return bits


@njit(cache=True, nogil=True)
def put(words: Words, position: int, bits: np.uint64) -> None:
    """Or ``bits`` into the zeros from ``position`` on."""
    word = position >> 6
    offset = np.uint64(position & 63)
    words[word] |= bits << offset
    words[word + 1] |= (bits >> ONE) >> (np.uint64(63) - offset)


@njit(cache=True, nogil=True)
def low(count: int) -> np.uint64:
    """A word whose lowest ``count`` bits are set, 0 to 63."""
    return (ONE << np.uint64(count)) - ONE
