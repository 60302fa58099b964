"""The CUDA kernel, in Triton: one launch over all blocks of all tensors, whatever the transition.

A program takes a block of 4,096 weights. It first puts the old mix's saved base values back, then saves
those that the new mix touches and writes ``round(base + Σ wᵢ·kᵢ·sᵢ)``. Apply is the case without an old
mix, revert the one without a new mix. A block's list of
offsets is one vector of `LANES`, a whole block four of `WIDE`. Knows nothing of names, files or requests.

The arithmetic is that of `cpu.transition`, bit for bit. Two things see to that: it must be launched with
``enable_fp_fusion=False``, else the compiler makes fused multiply-adds; and the roundings to fp16 and bf16
are written out in integers, as in `bits`, so that no device's or interpreter's own conversion matters. The
one thing that may differ is which NaN an operation on a NaN or on infinities gives.

Threads of a program see each other's writes to memory only after a barrier; each is there for that.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bitswitch.engine.cuda_reading import (
    BLOCK,
    COLUMNS,
    LANES,
    MINUS,
    OFFSET,
    WIDE,
    marks_of,
    narrow,
    plane_signs,
    slot_of,
    steps_of,
    widen,
)


@triton.jit
def _restore(block, count, offsets, saved):
    """Put the saved values of one block back; all of it where more than `LANES` were touched."""
    if count > LANES:
        for first in range(0, BLOCK, WIDE):
            index = first + tl.arange(0, WIDE)
            tl.store(block + index, tl.load(saved + index))
    else:
        lanes = tl.arange(0, LANES)
        live = lanes < count
        places = tl.load(offsets + lanes, mask=live, other=0).to(tl.int32) & OFFSET
        tl.store(block + places, tl.load(saved + lanes, mask=live, other=0), mask=live)


@triton.jit
def _apply(block, line, slot, tensor, start, weight, saved, dtype: tl.constexpr):
    """Save and write the active weights of a block, for a mix of a single switch."""
    planes, count = marks_of(line, slot)
    if count > LANES:
        for first in range(0, BLOCK, WIDE):
            index = first + tl.arange(0, WIDE)
            base = tl.load(block + index)
            tl.store(saved + index, base)
            sign = plane_signs(planes, index)
            step = steps_of(line, tensor, start, index, sign != 0, weight)
            moved = narrow(widen(base, dtype) + (0.0 + tl.where(sign < 0, -step, step)), dtype)
            tl.store(block + index, tl.where(sign != 0, moved, base))
    else:
        lanes = tl.arange(0, LANES)
        live = lanes < count
        offsets = tl.load(planes + lanes, mask=live, other=0).to(tl.int32)
        index = offsets & OFFSET
        base = tl.load(block + index, mask=live, other=0)
        tl.store(saved + lanes, base, mask=live)
        step = steps_of(line, tensor, start, index, live, weight)
        moved = widen(base, dtype) + (0.0 + tl.where((offsets & MINUS) != 0, -step, step))
        tl.store(block + index, narrow(moved, dtype), mask=live)


@triton.jit
def _unfold(block, table, switches, n, few, offsets, saved, signs):
    """Write the lists of offsets of a block into ``signs``, int8 (switches, 4096), zeros before.

    Where ``few`` are touched, also save these weights: list by list, so that one of two lists is saved
    twice, with the same value.
    """
    lanes = tl.arange(0, LANES)
    place = 0
    i = 0
    while i < switches:
        slot = slot_of(table + i * COLUMNS, n)
        if slot >= 0:
            planes, count = marks_of(table + i * COLUMNS, slot)
            if count <= LANES:
                live = lanes < count
                marked = tl.load(planes + lanes, mask=live, other=0)
                index = marked.to(tl.int32) & OFFSET
                sign = tl.where((marked.to(tl.int32) & MINUS) != 0, -1, 1).to(tl.int8)
                tl.store(signs + i * BLOCK + index, sign, mask=live)
                if few:
                    tl.store(offsets + place + lanes, marked, mask=live)
                    tl.store(saved + place + lanes, tl.load(block + index, mask=live, other=0), mask=live)
                    place += count
        i += 1


@triton.jit
def _fold(table, switches, n, signs):
    """Put zeros back where `_unfold` wrote signs."""
    lanes = tl.arange(0, LANES)
    i = 0
    while i < switches:
        slot = slot_of(table + i * COLUMNS, n)
        if slot >= 0:
            planes, count = marks_of(table + i * COLUMNS, slot)
            if count <= LANES:
                live = lanes < count
                index = tl.load(planes + lanes, mask=live, other=0).to(tl.int32) & OFFSET
                tl.store(signs + i * BLOCK + index, tl.full([LANES], 0, tl.int8), mask=live)
        i += 1


@triton.jit
def _apply_many(
    block,
    table,
    mix_weights,
    switches,
    n,
    tensor,
    start,
    few,
    saved,
    signs,
    dtype: tl.constexpr,
):
    """Write the touched weights of a block, for a mix of several switches; save it whole unless ``few``."""
    for first in range(0, BLOCK, WIDE):
        index = first + tl.arange(0, WIDE)
        base = tl.load(block + index)
        if few == 0:
            tl.store(saved + index, base)
        total = tl.full([WIDE], 0.0, tl.float32)
        touched = tl.full([WIDE], 0, tl.int32)
        i = 0
        while i < switches:
            line = table + i * COLUMNS
            slot = slot_of(line, n)
            if slot >= 0:
                planes, count = marks_of(line, slot)
                if count > LANES:
                    sign = plane_signs(planes, index)
                else:
                    sign = tl.load(signs + i * BLOCK + index).to(tl.int32)
                step = steps_of(line, tensor, start, index, sign != 0, tl.load(mix_weights + i))
                total += tl.where(sign != 0, tl.where(sign < 0, -step, step), 0.0)
                touched |= (sign != 0).to(tl.int32)
            i += 1
        moved = narrow(widen(base, dtype) + total, dtype)
        tl.store(block + index, moved, mask=touched != 0)


@triton.jit(do_not_specialize=["switches", "blocks"])
def transition(
    weights,
    block_tensor,
    block_start,
    old_slots,
    old_counts,
    old_places,
    old_offsets,
    old_ranks,
    old_saved,
    new_slots,
    new_counts,
    new_places,
    new_offsets,
    new_ranks,
    new_saved,
    table,
    mix_weights,
    signs,
    switches,
    blocks,
    dtype: tl.constexpr,
    many: tl.constexpr,
):
    """Set the resident weights from the old mix to the new one, in place.

    Args:
        weights: the arena's bits, int32 or int16 (size,).
        block_tensor, block_start: the arena's, per block.
        old_slots …, new_slots …: the fields of the two journals, see `cuda_kernel.Journal`. The new one's
            saved values are written, and for a mix of several switches its offsets.
        table: int64 (switches, COLUMNS).
        mix_weights: float32 (switches,), the mix's weights, in its order.
        signs: int8 (programs, switches, 4096), zeros, and zeros again afterwards; only if ``many``.
        switches, blocks: how many.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        many: whether the new mix has several switches.
    """
    program = tl.program_id(0).to(tl.int64)
    n = program
    while n < blocks:
        old = tl.load(old_slots + n)
        new = tl.load(new_slots + n)
        block = weights + n * BLOCK
        if old >= 0:
            saved = old_saved + tl.load(old_ranks + old)
            _restore(block, tl.load(old_counts + old), old_offsets + tl.load(old_places + old), saved)
            tl.debug_barrier()  # the base is there before it is read
        if new >= 0:
            tensor = tl.load(block_tensor + n)
            start = tl.load(block_start + n)
            saved = new_saved + tl.load(new_ranks + new)
            if many:
                few = (tl.load(new_counts + new) <= LANES).to(tl.int32)
                mine = signs + program * switches * BLOCK
                _unfold(block, table, switches, n, few, new_offsets + tl.load(new_places + new), saved, mine)
                tl.debug_barrier()  # signs are there, and bases saved, before any weight is written
                _apply_many(block, table, mix_weights, switches, n, tensor, start, few, saved, mine, dtype)
                tl.debug_barrier()  # signs have been read
                _fold(table, switches, n, mine)
                tl.debug_barrier()  # zeros are there before the next block's signs
            else:
                _apply(block, table, new, tensor, start, tl.load(mix_weights), saved, dtype)
        n += tl.num_programs(0)
