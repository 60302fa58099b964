"""The overlay's CPU kernels: a switch's part of a layer's output, from its marks, the weights untouched.

What a linear layer's active weights add to its output is summed per *tile*: the tokens of the rows that
need the switch side by side, up to `WIDEST` of them, so that one mark is a few vector additions, whatever the
rows' lengths and places in the batch. Knows nothing of modules, rows or mixes, and keeps no memory.
All sums are in fp32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, prange

from bitswitch.engine.arena import BLOCK
from bitswitch.engine.bits import pointer
from bitswitch.engine.knobs import knob, write_knobs
from bitswitch.engine.lanes import LANES, WIDEST, add_rows, pack, unpack
from bitswitch.engine.reading import block_of, first_slot, knobs_of, offsets_of, search, sizes_of

_CHUNK = 192
"""Rows of a matrix whose sums lie in the cache until they are added to the output."""

_NOTHING = np.float32(0.0)


@njit(cache=True, nogil=True)
def _fill(tile: Any, x: Any, places: Any) -> None:
    """Write tokens' vectors to a tile.

    Args:
        tile: float32 (inputs · width,), written.
        x: float32 (tokens, inputs).
        places: int32 (width,), the token of each lane.
    """
    inputs, width = x.shape[1], len(places)
    whole = inputs - inputs % LANES
    for v in range(0, width, LANES):
        lanes = places[v : v + LANES]
        source, target = np.int64(x.ctypes.data), np.int64(tile[v:].ctypes.data)
        for i in range(0, whole, LANES):
            pack(source + i * 4, inputs * 4, np.int64(lanes.ctypes.data), target + i * width * 4, width * 4)
        for i in range(whole, inputs):
            for t in range(LANES):
                tile[i * width + v + t] = x[lanes[t], i]


@njit(cache=True, nogil=True)
def _multiply(
    total: Any,
    low: int,
    high: int,
    tile: Any,
    inputs: int,
    line: Any,
    tensor: int,
    first_block: int,
    room: Any,
    steps: Any,
    found: Any,
) -> None:
    """Add rows ``low:high`` of a switch's part of a matrix, times a tile, to ``total``, float32
    (high - low, width).

    What ``room``, uint16 (4096,), ``steps``, float32 (high - low,), and ``found``, uint16 (high - low,), hold
    means nothing.
    """
    width = len(tile) // inputs
    end = high * inputs
    knobs, shared = knobs_of(line, tensor, end)
    if shared == inputs:
        write_knobs(steps[: high - low], knobs, low)
    else:  # one for the whole matrix
        steps[:] = knob(knobs, 0)
    source, target = np.int64(tile.ctypes.data), np.int64(total.ctypes.data)
    scales, counted = np.int64(steps.ctypes.data), np.int64(found.ctypes.data)
    sizes, measured = sizes_of(line, tensor, high + end // BLOCK + 1)
    known = np.int64(sizes.ctypes.data)
    apart = inputs * width * 4
    for slot in range(first_slot(line, first_block + low * inputs // BLOCK), line[7]):
        block = block_of(line, slot) - first_block
        start = block * BLOCK
        if start >= end:
            break
        address, position, count = offsets_of(
            line, slot, max(low * inputs - start, 0), min(end - start, BLOCK), room
        )
        first, last = max(low, start // inputs), min(high, (start + BLOCK - 1) // inputs + 1)
        if measured:
            own = known + (first + block) * 2
        else:
            offsets = carray(pointer(address), (count,), np.uint16)
            at = position
            for row in range(first, last):
                size = search(offsets[at:], (row + 1) * inputs - start)
                found[row - first] = size
                at += size
            own = counted
        begin = source - (first * inputs - start) * width * 4
        marks = address + position * 2
        own_scales = scales + (first - low) * 4
        there = target + (first - low) * width * 4
        add_rows(width, begin, apart, marks, own, own_scales, last - first, there)


@njit(cache=True, nogil=True)
def _scatter(y: Any, low: int, high: int, total: Any, moves: Any, places: Any, scales: Any) -> None:
    """Add ``total`` (high - low, lanes) and ``moves`` (high - low,), transposed and scaled, to columns
    ``low:high`` of rows of ``y``.
    """
    width, outputs = len(places), y.shape[1]
    source, target = np.int64(total.ctypes.data), np.int64(y.ctypes.data)
    whole = high - (high - low) % LANES
    for v in range(0, width, LANES):
        lanes, factors = np.int64(places[v:].ctypes.data), np.int64(scales[v:].ctypes.data)
        for o in range(low, whole, LANES):
            there = source + ((o - low) * width + v) * 4
            moved = np.int64(moves[o - low :].ctypes.data)
            unpack(there, width * 4, moved, factors, target + o * 4, outputs * 4, lanes)
        for o in range(whole, high):
            for t in range(v, v + LANES):
                y[places[t], o] += scales[t] * (total[(o - low) * width + t] + moves[o - low])


@njit(cache=True, nogil=True, parallel=True)
def add_linear(
    y_address: int,
    x_address: int,
    tokens: int,
    outputs: int,
    inputs: int,
    tiles: Any,
    filled: bool,
    places: Any,
    scales: Any,
    starts: Any,
    widths: Any,
    switches: Any,
    bounds: Any,
    table: Any,
    tensor: int,
    first_block: int,
    vectors: Any,
    bias: int,
) -> None:
    """Add the switches' parts of a linear layer to its output.

    Args:
        y_address: of the output, float32 (tokens, outputs). Addresses, since to see a tensor as an array
            takes longer than this call.
        x_address: of the layer's input, float32 (tokens, inputs); not read if the tiles are filled.
        tokens, outputs, inputs: their shapes.
        tiles: float32: tile n is (inputs, widths[n]) from ``starts[n]`` · inputs on. Written, unless
            ``filled`` says that the layer's input lies there.
        places: int32 (lanes,), the token of each lane.
        scales: float32 (lanes,), the weight of the tile's switch for that token.
        starts, widths: int64 (n,), first lane and lanes of each tile.
        switches: int64 (n,), whose tile it is: a line of ``table`` and of ``vectors``.
        bounds: int64 (parts + 1,), the first tile of each part; no two parts have a token in common.
        table: int64 (switches, 11), see `reading`.
        tensor, first_block: the matrix's number in the arena, and its first block.
        vectors, bias: see `lookup.expand`; the bias's column, -1 if there is none.
    """
    y = carray(pointer(y_address), (tokens, outputs), np.float32)
    x = carray(pointer(x_address), (tokens, inputs), np.float32)
    for part in prange(len(bounds) - 1):
        nothing = np.zeros(_CHUNK, np.float32)
        sums = np.empty(_CHUNK * WIDEST, np.float32)
        room = np.empty(BLOCK, np.uint16)
        steps, found = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.uint16)
        for n in range(bounds[part], bounds[part + 1]):
            start, width, s = starts[n], widths[n], switches[n]
            lanes = slice(start, start + width)
            tile = tiles[start * inputs : (start + width) * inputs]
            if not filled:
                _fill(tile, x, places[lanes])
            for low in range(0, outputs, _CHUNK):
                high = min(low + _CHUNK, outputs)
                total = sums[: (high - low) * width]
                total[:] = _NOTHING
                moves = vectors[s, bias + low : bias + high] if bias >= 0 else nothing
                _multiply(total, low, high, tile, inputs, table[s], tensor, first_block, room, steps, found)
                _scatter(y, low, high, total, moves, places[lanes], scales[lanes])
