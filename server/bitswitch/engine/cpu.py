"""The CPU kernel: one pass over the blocks in which the old mix or the new one has active weights.

Per block of 4,096 weights it first puts the old mix's saved base values back, then saves those that the
new mix touches and writes ``round(base + Σ wᵢ·kᵢ·sᵢ)``, while the block is in the first-level cache.
Apply is the case without an old mix, revert the one without a new mix. A block in which few weights are
touched is visited weight by weight; one in which many are is saved and written whole, with masks, as the
compiler's vectors like it. Knows nothing of names, files or requests, and keeps no memory.

The arithmetic is the weight contract's (docs/design, §Weights): ``wᵢ·kᵢ`` rounded to fp32, the sum over
the switches in the mix's order in fp32, added to the base in fp32, rounded once to the stored dtype. No
fast-math: the compiler may neither reorder nor fuse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, prange

from bitswitch.engine.arena import BLOCK
from bitswitch.engine.bits import narrow, pointer, trailing_zeros, widen
from bitswitch.engine.knobs import knob, knobs_at
from bitswitch.engine.marks import FEW, MINUS, WORDS

PIECES = 64
"""Into how many pieces a transition is cut, for the threads to share; each has its scratch."""

_OFFSET = BLOCK - 1
_ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def _restore(block: Any, count: int, offsets: Any, saved: Any) -> None:
    """Put the saved values of one block back; all of it where more than `FEW` were touched."""
    if count > FEW:
        for i in range(BLOCK):
            block[i] = saved[i]
    else:
        for i in range(count):
            block[offsets[i] & _OFFSET] = saved[i]


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
def _apply(
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
        index = offsets[i] & _OFFSET
        while index >= row_end:
            row += 1
            row_end += width
            step = weight * knob(knobs, row)
        base = block[index]
        saved[i] = base
        moved = widen(base, bfloat16) + (np.float32(0.0) + (-step if offsets[i] & MINUS else step))
        block[index] = narrow(moved, base, bfloat16)


@njit(cache=True, nogil=True)
def _add_few(total: Any, touched: Any, start: int, offsets: Any, knobs: Any, width: int, weight: Any) -> None:
    """`_add` for a list of offsets."""
    row = start // width
    row_end = (row + 1) * width - start
    step = weight * knob(knobs, row)
    for i in range(len(offsets)):
        index = offsets[i] & _OFFSET
        while index >= row_end:
            row += 1
            row_end += width
            step = weight * knob(knobs, row)
        total[index] += -step if offsets[i] & MINUS else step
        touched[index >> 6] |= _ONE << np.uint64(index & 63)


@njit(cache=True, nogil=True)
def _add_many(total: Any, touched: Any, start: int, planes: Any, knobs: Any, width: int, weight: Any) -> None:
    """`_add` for two bit planes, uint64 (128,)."""
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
                signed = -step if minus & bit else step
                part[i] += signed if active & bit else np.float32(0.0)
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
def _add(total: Any, touched: Any, start: int, line: Any, slot: int, tensor: int, weight: Any) -> None:
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
def _write_few(block: Any, bfloat16: bool, total: Any, touched: Any, offsets: Any, saved: Any) -> int:
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
def _write_many(block: Any, bfloat16: bool, total: Any, touched: Any, saved: Any) -> None:
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


@njit(cache=True, nogil=True, parallel=True)
def transition(
    weights: Any,
    bfloat16: bool,
    block_tensor: Any,
    block_start: Any,
    old_slots: Any,
    old_counts: Any,
    old_places: Any,
    old_offsets: Any,
    old_ranks: Any,
    old_saved: Any,
    new_slots: Any,
    new_counts: Any,
    new_places: Any,
    new_offsets: Any,
    new_ranks: Any,
    new_saved: Any,
    slots: Any,
    table: Any,
    mix_weights: Any,
) -> None:
    """Set the resident weights from the old mix to the new one, in place.

    Args:
        weights: the arena, float32 or uint16 (size,).
        bfloat16: whether uint16 weights are bf16.
        block_tensor, block_start: the arena's, per block.
        old_slots, new_slots: int32 (blocks,), a block's line in the journal, -1 if it has none.
        old_counts …: the fields of the journal, see `swap.Journal`; read.
        new_counts …: those of the journal to come. Its saved values are written, and for a mix of
            several switches its offsets and, where they are few, its counts.
        slots: int32 (switches, blocks), a block's line in the switch, -1 if it has none.
        table: int64 (switches, COLUMNS), see `planes.COLUMNS`.
        mix_weights: float32 (switches,), the mix's weights, in its order.
    """
    switches, blocks = len(mix_weights), len(block_tensor)
    for piece in prange(PIECES):
        total = np.zeros(BLOCK, np.float32)
        touched = np.zeros(WORDS, np.uint64)
        # A thread gets pieces in a row, and a switch's weights lie close together: an odd factor deals
        # the stretches out, so that all threads have some.
        stretch = piece * 37 % PIECES
        for n in range(blocks * stretch // PIECES, blocks * (stretch + 1) // PIECES):
            old, new = old_slots[n], new_slots[n]
            if old < 0 and new < 0:
                continue
            block = weights[n * BLOCK : (n + 1) * BLOCK]
            if old >= 0:
                place, rank = old_places[old], old_ranks[old]
                _restore(block, old_counts[old], old_offsets[place:], old_saved[rank:])
            if new < 0:
                continue
            saved = new_saved[new_ranks[new] :]
            few = new_counts[new] <= FEW
            for i in range(switches):
                slot = np.int64(slots[i, n])
                if slot >= 0:
                    line, start = table[i], block_start[n]
                    if few and switches == 1:
                        _apply(block, bfloat16, start, line, slot, block_tensor[n], mix_weights[i], saved)
                    else:
                        _add(total, touched, start, line, slot, block_tensor[n], mix_weights[i])
            if not few:
                _write_many(block, bfloat16, total, touched, saved)
            elif switches > 1:
                offsets = new_offsets[new_places[new] :]
                new_counts[new] = _write_few(block, bfloat16, total, touched, offsets, saved)
