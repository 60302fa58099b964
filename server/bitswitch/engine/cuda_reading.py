"""How the Triton kernels read a switch and write a weight: which marks, which knobs, which bits.

Functions that the kernels in `cuda`, `cuda_product` and `cuda_lookup` are made of. A switch's *line* is int64
(COLUMNS,): `planes.COLUMNS`, then the address of its slots. Knows nothing of what the marks are used for.

The roundings to fp16 and bf16 are written out in integers, as in `bits`, so that no device's or
interpreter's own conversion matters.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bitswitch.engine import arena, marks

BLOCK = tl.constexpr(arena.BLOCK)
LANES = tl.constexpr(marks.FEW)
WORDS = tl.constexpr(arena.BLOCK // 32)
"""32-bit words of one bit plane of a block."""
WIDE = tl.constexpr(1024)
"""Weights of a whole block that are done at once: 16 bytes of halves for each of 128 threads."""
OFFSET = tl.constexpr(arena.BLOCK - 1)
MINUS = tl.constexpr(marks.MINUS)
COLUMNS = tl.constexpr(7)
"""A switch's line in the table: `planes.COLUMNS`, then the address of its slots."""


@triton.jit
def widen(bits, dtype: tl.constexpr):
    """Stored bits as float32, exact."""
    if dtype == "float32":
        return bits.to(tl.float32, bitcast=True)
    elif dtype == "float16":
        return bits.to(tl.float16, bitcast=True).to(tl.float32)
    else:
        return (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def narrow(value, dtype: tl.constexpr):
    """A float32 rounded to nearest, ties to even, as stored bits."""
    if dtype == "float32":
        return value.to(tl.int32, bitcast=True)
    elif dtype == "float16":
        bits = value.to(tl.uint32, bitcast=True)
        size = bits & 0x7FFFFFFF
        # Below 2^-14, adding 0.5 lets the adder round to multiples of 2^-24.
        tiny = (size.to(tl.float32, bitcast=True) + 0.5).to(tl.uint32, bitcast=True) - 0x3F000000
        half = (size - 0x38000000 + 0xFFF + ((size >> 13) & 1)) >> 13
        half = tl.where(size < 0x38800000, tiny, half)
        half = tl.where(size >= 0x477FF000, 0x7C00, half)  # 65520 and above round to infinity
        half = tl.where(size > 0x7F800000, 0x7E00, half)
        return (((bits >> 16) & 0x8000) | half).to(tl.int16)
    else:
        bits = value.to(tl.uint32, bitcast=True)
        half = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return tl.where((bits & 0x7FFFFFFF) > 0x7F800000, (bits >> 16) | 0x40, half).to(tl.int16)


@triton.jit
def slot_of(line, block):
    """Where the arena's ``block`` lies among a switch's; -1 where it does not."""
    return tl.load(tl.load(line + 6).to(tl.pointer_type(tl.int32)) + block)


@triton.jit
def marks_of(line, slot):
    """Where the marks of a switch's block are, as 16-bit units, and how many weights are active."""
    begin = tl.load(tl.load(line + 1).to(tl.pointer_type(tl.int32)) + slot).to(tl.int64)
    count = tl.load(tl.load(line + 2).to(tl.pointer_type(tl.int32)) + slot)
    return tl.load(line).to(tl.pointer_type(tl.int16)) + begin * 4, count


@triton.jit
def steps_of(line, tensor, start, index, active, weight):
    """``weight · knob`` of the weights ``index`` of the block that starts at its tensor's ``start``."""
    knobs = tl.load(line + 3).to(tl.pointer_type(tl.float32))
    first = tl.load(tl.load(line + 4).to(tl.pointer_type(tl.int64)) + tensor)
    width = tl.load(tl.load(line + 5).to(tl.pointer_type(tl.int64)) + tensor)
    row = start // width
    beyond = index - tl.minimum((row + 1) * width - start, BLOCK).to(tl.int32)
    if width >= BLOCK:  # a second row at most
        rows = (beyond >= 0).to(tl.int32)
    else:
        rows = tl.where(beyond < 0, 0, 1 + beyond // width.to(tl.int32))
    return weight * tl.load(knobs + first + row + rows, mask=active, other=0.0)


@triton.jit
def plane_signs(planes, index):
    """The −1, 0 and +1 of a block's weights ``index``, from its two bit planes."""
    word = planes.to(tl.pointer_type(tl.int32)) + (index >> 5)
    active = (tl.load(word) >> (index & 31)) & 1
    return active - 2 * ((tl.load(word + WORDS) >> (index & 31)) & 1)


@triton.jit
def signs_of(marks, count, first):
    """`LANES` weights of a block, from the ``first`` on, and the −1, 0 or +1 of each.

    The weights of a block of bit planes are its 4,096 in their order, those of a list the listed ones, all of
    them at ``first`` 0.
    """
    lanes = tl.arange(0, LANES)
    if count > LANES:
        index = first + lanes
        sign = plane_signs(marks, index)
    else:
        live = lanes < count
        offsets = tl.load(marks + lanes, mask=live, other=0).to(tl.int32)
        index = offsets & OFFSET
        sign = tl.where(live, tl.where((offsets & MINUS) != 0, -1, 1), 0)
    return index, sign
