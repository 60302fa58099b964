"""What numba lacks for bit planes and half-precision floats: scalar functions, compiled into the kernels.

The roundings are the ones IEEE 754 and torch use: to nearest, ties to even. Knows nothing of weights,
switches or blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload


@intrinsic
def trailing_zeros(context: Any, word: Any) -> Any:
    """Index of the lowest set bit of a uint64 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.uint64(types.uint64), generate


@intrinsic
def pointer(context: Any, address: Any) -> Any:
    """An int64 address as a pointer, for `numba.carray`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def as_float(context: Any, bits: Any) -> Any:
    """The float32 with these 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@intrinsic
def as_bits(context: Any, value: Any) -> Any:
    """The 32 bits of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


@njit(cache=True)
def from_bfloat16(half: Any) -> Any:
    """bf16 bits (uint16) to float32, exact."""
    return as_float(np.uint32(half) << np.uint32(16))


@njit(cache=True)
def to_bfloat16(value: Any) -> Any:
    """float32 to bf16 bits (uint16)."""
    bits = as_bits(value)
    if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):
        return np.uint16((bits >> np.uint32(16)) | np.uint32(0x40))
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@njit(cache=True)
def from_float16(half: Any) -> Any:
    """fp16 bits (uint16) to float32, exact."""
    bits = np.uint32(half)
    sign = (bits & np.uint32(0x8000)) << np.uint32(16)
    size = bits & np.uint32(0x7FFF)
    moved = (size << np.uint32(13)) + np.uint32(112 << 23)
    if size >= np.uint32(0x7C00):
        moved |= np.uint32(0x7F800000)
    elif size < np.uint32(0x0400):  # subnormal: what follows after 2^-14, so that no operand is one itself
        least = np.uint32(113 << 23)
        moved = as_bits(as_float(least + (size << np.uint32(13))) - as_float(least))
    return as_float(moved | sign)


@njit(cache=True)
def to_float16(value: Any) -> Any:
    """float32 to fp16 bits (uint16)."""
    bits = as_bits(value)
    sign = (bits >> np.uint32(16)) & np.uint32(0x8000)
    size = bits & np.uint32(0x7FFFFFFF)
    if size > np.uint32(0x7F800000):
        return np.uint16(sign | np.uint32(0x7E00))
    if size >= np.uint32(0x477FF000):  # 65520 and above round to infinity
        return np.uint16(sign | np.uint32(0x7C00))
    if size < np.uint32(0x38800000):  # below 2^-14: adding 0.5 lets the FPU round to multiples of 2^-24
        rounded = as_bits(as_float(size) + np.float32(0.5)) - np.uint32(0x3F000000)
        return np.uint16(sign | rounded)
    odd = (size >> np.uint32(13)) & np.uint32(1)
    rounded = (size - np.uint32(112 << 23) + np.uint32(0xFFF) + odd) >> np.uint32(13)
    return np.uint16(sign | rounded)


def widen(weight: Any, bfloat16: bool) -> Any:
    """A stored weight as float32: itself for float32, converted for the uint16 bits of a half."""
    raise NotImplementedError("only within compiled code")


def narrow(value: Any, like: Any, bfloat16: bool) -> Any:
    """A float32 rounded to the stored form that ``like`` has."""
    raise NotImplementedError("only within compiled code")


@overload(widen, strict=False)
def _widen(weight: Any, bfloat16: Any) -> Any:
    if weight == types.float32:
        return lambda weight, bfloat16: weight
    return lambda weight, bfloat16: from_bfloat16(weight) if bfloat16 else from_float16(weight)


@overload(narrow, strict=False)
def _narrow(value: Any, like: Any, bfloat16: Any) -> Any:
    if like == types.float32:
        return lambda value, like, bfloat16: value
    return lambda value, like, bfloat16: to_bfloat16(value) if bfloat16 else to_float16(value)
