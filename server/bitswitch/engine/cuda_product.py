"""The overlay's Triton kernel for linear layers: a switch's part of an output, its marks unpacked inside.

One launch for a layer, whatever the number of switches. A program takes `OUTPUTS` of the layer and a *tile*,
`TOKENS` tokens, and goes through the switches that any of them needs; what these add is summed in registers
and written once, so that no two programs meet and the order of the sum is the same every time. A block of
bit planes becomes a matrix of −1, 0 and +1, which is multiplied. Of a list each mark brings its input of all
tokens, and a matrix of zeros and ones takes it to its output; no other weight costs anything.

All sums are in fp32; the matrices that are multiplied are exact in every dtype. Knows nothing of modules,
rows or mixes, and writes no weight.
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
    WORDS,
    marks_of,
    narrow,
    slot_of,
    widen,
)

# Not tuned: no GPU was at hand.
OUTPUTS = tl.constexpr(32)
"""Outputs of a program."""
TOKENS = tl.constexpr(32)
"""Tokens of a tile."""
INPUTS = tl.constexpr(64)
"""Columns of bit planes that are multiplied at once."""
MARKS = tl.constexpr(32)
"""Marks of a list that are multiplied at once."""


@triton.jit
def _add_list(total, marks, count, start, x, lane, stride, inputs: tl.constexpr, form: tl.constexpr):
    """Add a list's part to ``total``; ``start`` is the block's, counted from the program's first weight."""
    first = 0
    while first < count:
        mark = first + tl.arange(0, MARKS)
        live = mark < count
        offsets = tl.load(marks + mark, mask=live, other=0).to(tl.int32)
        weight = start + (offsets & OFFSET)
        live &= (weight >= 0) & (weight < OUTPUTS * inputs)
        weight = tl.where(live, weight, 0)
        column = (weight % inputs).to(tl.int64)
        value = tl.load(x + column[:, None] * stride + lane[None, :], mask=live[:, None], other=0.0).to(form)
        value = tl.where(((offsets & MINUS) != 0)[:, None], -value, value)
        chosen = ((weight // inputs)[None, :] == tl.arange(0, OUTPUTS)[:, None]) & live[None, :]
        total = tl.dot(chosen.to(form), value, total, input_precision="ieee")
        first += MARKS
    return total


@triton.jit
def _add_planes(
    total,
    line,
    first_block,
    output,
    x,
    lane,
    stride,
    outputs,
    inputs: tl.constexpr,
    run: tl.constexpr,
    form: tl.constexpr,
):
    """Add the part of all blocks of bit planes to ``total``, `INPUTS` columns at a time.

    ``run`` neighbouring weights of a row always lie in one word: the largest power of 2 up to 32 that divides
    ``inputs``.
    """
    words = tl.load(line).to(tl.pointer_type(tl.int32))
    starts = tl.load(line + 1).to(tl.pointer_type(tl.int32))
    counts = tl.load(line + 2).to(tl.pointer_type(tl.int32))
    slots = tl.load(line + 6).to(tl.pointer_type(tl.int32))
    for first in range(0, inputs, INPUTS):
        column = first + tl.arange(0, INPUTS // run) * run
        weight = output.to(tl.int64)[:, None] * inputs + column[None, :]
        there = (output < outputs)[:, None] & (column < inputs)[None, :]
        slot = tl.load(slots + first_block + weight // BLOCK, mask=there, other=-1)
        there = tl.load(counts + slot, mask=slot >= 0, other=0) > LANES
        begin = tl.load(starts + slot, mask=there, other=0).to(tl.int64)
        word = words + begin * 2 + ((weight & OFFSET) >> 5)
        shift = (weight & 31).to(tl.int32)[:, :, None] + tl.arange(0, run)[None, None, :]
        active = (tl.load(word, mask=there, other=0)[:, :, None] >> shift) & 1
        minus = (tl.load(word + WORDS, mask=there, other=0)[:, :, None] >> shift) & 1
        sign = tl.reshape(active - 2 * minus, (OUTPUTS, INPUTS))
        column = first + tl.arange(0, INPUTS)
        place = column.to(tl.int64)[:, None] * stride + lane[None, :]
        value = tl.load(x + place, mask=(column < inputs)[:, None], other=0.0)
        total = tl.dot(sign.to(form), value.to(form), total, input_precision="ieee")
    return total


@triton.jit(do_not_specialize=["size", "live_lanes", "rows", "switches", "tensor", "first_block", "bias"])
def add_linear(
    y,
    x,
    places,
    owners,
    shares,
    tile_starts,
    tile_switches,
    table,
    vectors,
    size,
    live_lanes,
    stride,
    rows,
    tensor,
    first_block,
    bias,
    outputs,
    inputs: tl.constexpr,
    run: tl.constexpr,
    dtype: tl.constexpr,
    form: tl.constexpr,
):
    """Add the switches' parts of a linear layer to its output, in place, rounded once.

    Args:
        y: the output's bits, int32 or int16 (tokens, outputs).
        x: the lanes' vectors side by side, (inputs, stride).
        places, owners: int32 (stride,), which line of ``y`` a lane is, and of which row of the batch.
        shares: float32 (switches, rows), what each switch weighs in a row's mix.
        tile_starts: int32 (tiles + 1,), where the switches of each tile begin.
        tile_switches: int32, those that any token of a tile needs: lines of the table.
        table: int64 (switches, COLUMNS).
        vectors: float32 (switches, size), see `cuda_lookup.expand`.
        live_lanes, stride: lanes in use, and with those that fill up the last tile.
        rows: how many the batch has.
        tensor, first_block: the matrix's number in the arena, and its first block.
        bias: the bias's column in ``vectors``; -1 where there is none.
        inputs, outputs: the matrix's shape.
        run: see `_add_planes`.
        dtype: of ``y``: ``float32``, ``float16`` or ``bfloat16``.
        form: Triton's type in which the products are taken.
    """
    lane = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    live = lane < live_lanes
    first = tl.program_id(0) * OUTPUTS
    output = first + tl.arange(0, OUTPUTS)
    begin = first.to(tl.int64) * inputs
    end = tl.minimum(first + OUTPUTS, outputs).to(tl.int64) * inputs
    owner = tl.load(owners + lane)
    total = tl.zeros([OUTPUTS, TOKENS], tl.float32)
    n = tl.load(tile_starts + tl.program_id(1))
    last = tl.load(tile_starts + tl.program_id(1) + 1)
    while n < last:
        switch = tl.load(tile_switches + n).to(tl.int64)
        line = table + switch * COLUMNS
        part = tl.zeros([OUTPUTS, TOKENS], tl.float32)
        most = tl.full([], 0, tl.int32)  # marks of a block
        block = begin // BLOCK
        while block * BLOCK < end:
            slot = slot_of(line, first_block + block)
            if slot >= 0:
                marks, count = marks_of(line, slot)
                most = tl.maximum(most, count)
                if count <= LANES:
                    start = (block * BLOCK - begin).to(tl.int32)
                    part = _add_list(part, marks, count, start, x, lane, stride, inputs, form)
            block += 1
        if most > LANES:
            part = _add_planes(part, line, first_block, output, x, lane, stride, outputs, inputs, run, form)
        knobs = tl.load(line + 3).to(tl.pointer_type(tl.float32))
        knobs += tl.load(tl.load(line + 4).to(tl.pointer_type(tl.int64)) + tensor)
        width = tl.load(tl.load(line + 5).to(tl.pointer_type(tl.int64)) + tensor)
        # A switch that does not touch the matrix has no knob to read.
        known = output < tl.where(most > 0, outputs, 0)
        part *= tl.load(knobs + output.to(tl.int64) * inputs // width, mask=known, other=0.0)[:, None]
        if bias >= 0:
            moved = tl.load(vectors + switch * size + bias + output, mask=output < outputs, other=0.0)
            part += moved[:, None]
        total += part * tl.load(shares + switch * rows + owner, mask=live, other=0.0)[None, :]
        n += 1
    where = y + tl.load(places + lane).to(tl.int64)[None, :] * outputs + output[:, None]
    mask = live[None, :] & (output < outputs)[:, None]
    before = widen(tl.load(where, mask=mask, other=0), dtype)
    tl.store(where, narrow(before + total, dtype), mask=mask)
