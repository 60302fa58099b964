"""The overlay's Triton kernels for what is no product: vectors of a layer, and rows looked up in a table.

The counterparts of `lookup`. Know nothing of modules or mixes, and write no weight. All sums are in fp32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bitswitch.engine.cuda_product import TOKENS
from bitswitch.engine.cuda_reading import BLOCK, COLUMNS, LANES, marks_of, signs_of, slot_of, steps_of

SPOT = tl.constexpr(4)
"""What `expand` knows of a block: its number in the arena, its tensor's, where in the tensor it starts, and
the column of its first weight."""


@triton.jit(do_not_specialize=["size"])
def expand(vectors, size, table, spots):
    """Write what switches add to the one-dimensional parameters; a program per block and switch.

    Args:
        vectors: float32 (switches, size), zeros before: those parameters behind one another.
        table: int64 (switches, COLUMNS).
        spots: int64 (blocks, SPOT).
    """
    spot = spots + tl.program_id(0) * SPOT
    line = table + tl.program_id(1) * COLUMNS
    slot = slot_of(line, tl.load(spot))
    if slot >= 0:
        here = vectors + tl.program_id(1).to(tl.int64) * size + tl.load(spot + 3)
        marks, count = marks_of(line, slot)
        first, end = 0, tl.where(count > LANES, BLOCK, LANES)
        while first < end:
            index, sign = signs_of(marks, count, first)
            step = steps_of(line, tl.load(spot + 1), tl.load(spot + 2), index, sign != 0, 1.0)
            tl.store(here + index, sign * step, mask=sign != 0)
            first += LANES


@triton.jit(do_not_specialize=["rows", "tensor", "first_block"])
def add_embedding(
    y,
    ids,
    places,
    owners,
    shares,
    tile_starts,
    tile_switches,
    table,
    rows,
    tensor,
    first_block,
    dim,
):
    """Add the switches' parts of the rows looked up in an embedding table; a program per lane.

    Args:
        y: float32 (tokens, dim), what was looked up.
        ids: int64 (tokens,).
        places, owners, shares, tile_starts, tile_switches, table: see `cuda_product.add_linear`.
        rows: how many the batch has.
        tensor, first_block: the table's number in the arena, and its first block.
    """
    lane = tl.program_id(0)
    place = tl.load(places + lane).to(tl.int64)
    owner = tl.load(owners + lane)
    begin = tl.load(ids + place) * dim
    end = begin + dim
    n = tl.load(tile_starts + lane // TOKENS)
    last = tl.load(tile_starts + lane // TOKENS + 1)
    while n < last:
        switch = tl.load(tile_switches + n).to(tl.int64)
        share = tl.load(shares + switch * rows + owner)
        if share != 0.0:
            line = table + switch * COLUMNS
            block = begin // BLOCK
            while block * BLOCK < end:
                slot = slot_of(line, first_block + block)
                if slot >= 0:
                    marks, count = marks_of(line, slot)
                    start = block * BLOCK
                    first, high = 0, LANES
                    if count > LANES:
                        first = tl.maximum(begin - start, 0).to(tl.int32) // LANES * LANES
                        high = tl.minimum(end - start, BLOCK).to(tl.int32)
                    while first < high:
                        index, sign = signs_of(marks, count, first)
                        column = start + index - begin
                        mask = (sign != 0) & (column >= 0) & (column < dim)
                        step = steps_of(line, tensor, start, index, mask, share)
                        where = y + place * dim + column
                        tl.store(where, tl.load(where, mask=mask, other=0.0) + sign * step, mask=mask)
                        first += LANES
                block += 1
            tl.debug_barrier()  # another thread's sum is there before the next switch adds to it
        n += 1
