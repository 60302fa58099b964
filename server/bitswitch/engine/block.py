"""What a transition does to one block of 4,096 weights on the CPU, while it is in the first-level cache.

A block in which few weights are touched is visited weight by weight; one in which many are is saved and
written whole, as the compiler's vectors like it. For a mix of one switch the new value comes straight from
the marks; for several the sums come first. Knows nothing of journals or of other blocks, and keeps no memory.

The arithmetic is the weight contract's (docs/design, §Weights): ``wᵢ·kᵢ`` rounded to fp32, the sum over
the switches in the mix's order in fp32, added to the base in fp32, rounded once to the stored dtype. No
fast-math: the compiler may neither reorder nor fuse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit

from bitswitch.engine.arena import BLOCK
from bitswitch.engine.bits import narrow, pointer, trailing_zeros, widen
from bitswitch.engine.knobs import knob, knobs_at
from bitswitch.engine.marks import FEW, OFFSET, WORDS, signed

_ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def restore(block: Any, count: int, offsets: Any, saved: Any) -> None:
    """Put the saved values of one block back; all of it where more than `FEW` were touched."""
    if count > FEW:
        for i in range(BLOCK):
            block[i] = saved[i]
    else:
        for i in range(count):
            block[offsets[i] & OFFSET] = saved[i]


@njit(cache=True, nogil=True)
def _place(line: Any, slot: int) -> Any:
    """Where the marks of a switch's block begin, in words, and how many weights are active."""
    begin = np.int64(carray(pointer(line[1]), (slot + 1,), np.int32)[slot])
    return begin, np.int64(carray(pointer(line[2]), (slot + 1,), np.int32)[slot])


@njit(cache=True, nogil=True)
def _knobs(line: Any, tensor: int, start: int) -> Any:
    """A tensor's knobs as far as the block that starts at its weight ``start`` needs them, and how many
    weights share one.
    """
    width = carray(pointer(line[5]), (tensor + 1,), np.int64)[tensor]
    first = carray(pointer(line[4]), (tensor + 1,), np.int64)[tensor]
    return knobs_at(line[3], first, first + (start + BLOCK) // width + 1), width


@njit(cache=True, nogil=True)
def _offsets(line: Any, begin: int, count: int) -> Any:
    """The offsets of a block with few active weights, uint16 (count,)."""
    return carray(pointer(line[0]), (begin * 4 + count,), np.uint16)[begin * 4 :]


@njit(cache=True, nogil=True)
def apply_few(
    block: Any, bfloat16: bool, start: int, line: Any, slot: int, tensor: int, weight: Any, saved: Any
) -> None:
    """Save and write the few active weights of a block, for a mix of a single switch.

    ``start`` is the block's first weight within its tensor.
    """
    begin, count = _place(line, slot)
    knobs, width = _knobs(line, tensor, start)
    offsets = _offsets(line, begin, count)
    row = start // width
    row_end = (row + 1) * width - start
    step = weight * knob(knobs, row)
    for i in range(len(offsets)):
        index = offsets[i] & OFFSET
        while index >= row_end:
            row += 1
            row_end += width
            step = weight * knob(knobs, row)
        base = block[index]
        saved[i] = base
        moved = widen(base, bfloat16) + (np.float32(0.0) + signed(step, offsets[i]))
        block[index] = narrow(moved, base, bfloat16)


@njit(cache=True, nogil=True)
def _is_set(half: Any, i: int) -> Any:
    """Whether bit i of a uint32 is set; of 64 bits, vectors would hold half as many."""
    return half & (np.uint32(1) << np.uint32(i)) != 0


@njit(cache=True, nogil=True)
def apply_many(block: Any, start: int, line: Any, slot: int, tensor: int, weight: Any, saved: Any) -> None:
    """`apply_few` where many weights are active, in fp32: the block is saved and written in one go."""
    begin, _ = _place(line, slot)
    knobs, width = _knobs(line, tensor, start)
    planes = carray(pointer(line[0]), (begin + 2 * WORDS,), np.uint64)[begin:]
    row = start // width
    row_end = (row + 1) * width - start
    step = weight * knob(knobs, row)
    for half in range(2 * WORDS):
        first = half * 32
        shift = np.uint64(half & 1) << np.uint64(5)
        active = np.uint32(planes[half >> 1] >> shift)
        minus = np.uint32(planes[WORDS + (half >> 1)] >> shift)
        part, kept = block[first : first + 32], saved[first : first + 32]
        while first >= row_end:
            row += 1
            row_end += width
            step = weight * knob(knobs, row)
        if row_end >= first + 32:
            for i in range(32):
                base = part[i]
                kept[i] = base
                moved = base + (np.float32(0.0) + (-step if _is_set(minus, i) else step))
                part[i] = moved if _is_set(active, i) else base
        else:  # a knob ends within the half
            for i in range(32):
                while first + i >= row_end:
                    row += 1
                    row_end += width
                    step = weight * knob(knobs, row)
                base = part[i]
                kept[i] = base
                if _is_set(active, i):
                    part[i] = base + (np.float32(0.0) + (-step if _is_set(minus, i) else step))


@njit(cache=True, nogil=True)
def _add_few(total: Any, touched: Any, start: int, offsets: Any, knobs: Any, width: int, weight: Any) -> None:
    """`add` for a list of offsets."""
    row = start // width
    row_end = (row + 1) * width - start
    step = weight * knob(knobs, row)
    for i in range(len(offsets)):
        index = offsets[i] & OFFSET
        while index >= row_end:
            row += 1
            row_end += width
            step = weight * knob(knobs, row)
        total[index] += signed(step, offsets[i])
        touched[index >> 6] |= _ONE << np.uint64(index & 63)


@njit(cache=True, nogil=True)
def _add_many(total: Any, touched: Any, start: int, planes: Any, knobs: Any, width: int, weight: Any) -> None:
    """`add` for two bit planes, uint64 (128,)."""
    row = start // width
    row_end = (row + 1) * width - start
    step = weight * knob(knobs, row)
    for w in range(WORDS):
        active, minus = planes[w], planes[WORDS + w]
        touched[w] |= active
        part = total[w * 64 : w * 64 + 64]
        while w * 64 >= row_end:
            row += 1
            row_end += width
            step = weight * knob(knobs, row)
        if row_end >= w * 64 + 64:
            for i in range(64):
                bit = _ONE << np.uint64(i)
                change = -step if minus & bit else step
                part[i] += change if active & bit else np.float32(0.0)
        else:  # a knob ends within the word
            for i in range(64):
                while w * 64 + i >= row_end:
                    row += 1
                    row_end += width
                    step = weight * knob(knobs, row)
                bit = _ONE << np.uint64(i)
                if active & bit:
                    part[i] += -step if minus & bit else step


@njit(cache=True, nogil=True)
def add(total: Any, touched: Any, start: int, line: Any, slot: int, tensor: int, weight: Any) -> None:
    """Add one switch's part of a block to ``total``, float32 (4096,), and its weights to ``touched``,
    uint64 (64,).
    """
    begin, count = _place(line, slot)
    knobs, width = _knobs(line, tensor, start)
    if count > FEW:
        planes = carray(pointer(line[0]), (begin + 2 * WORDS,), np.uint64)[begin:]
        _add_many(total, touched, start, planes, knobs, width, weight)
    else:
        _add_few(total, touched, start, _offsets(line, begin, count), knobs, width, weight)


@njit(cache=True, nogil=True)
def write_few(block: Any, bfloat16: bool, total: Any, touched: Any, offsets: Any, saved: Any) -> int:
    """Save and write the few touched weights of a block, given the sums; how many they are.

    Leaves ``total`` and ``touched`` at zero.
    """
    count = 0
    for w in range(WORDS):
        bits = touched[w]
        touched[w] = np.uint64(0)
        while bits:
            index = w * 64 + np.int64(trailing_zeros(bits))
            base = block[index]
            offsets[count] = np.uint16(index)
            saved[count] = base
            block[index] = narrow(widen(base, bfloat16) + total[index], base, bfloat16)
            total[index] = np.float32(0.0)
            count += 1
            bits &= bits - _ONE
    return count


@njit(cache=True, nogil=True)
def write_many(block: Any, bfloat16: bool, total: Any, touched: Any, saved: Any) -> None:
    """Save a whole block and write its touched weights; leaves ``total`` and ``touched`` at zero."""
    for i in range(BLOCK):
        saved[i] = block[i]
    for w in range(WORDS):
        bits = touched[w]
        touched[w] = np.uint64(0)
        part, sums = block[w * 64 : w * 64 + 64], total[w * 64 : w * 64 + 64]
        for i in range(64):
            base = part[i]
            moved = narrow(widen(base, bfloat16) + sums[i], base, bfloat16)
            part[i] = moved if bits & (_ONE << np.uint64(i)) else base
            sums[i] = np.float32(0.0)
