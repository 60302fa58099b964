"""The overlay's CPU kernels: a switch's part of a layer's output, from its marks, the weights untouched.

What a linear layer's active weights add to its output is summed per *tile*: the tokens of the rows that
need the switch side by side, up to 48 of them, so that one mark is up to three vector additions, whatever
the rows' lengths and places in the batch. Knows nothing of modules, rows or mixes, and keeps no memory.
All sums are in fp32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, prange

from bitswitch.engine.arena import BLOCK
from bitswitch.engine.bits import pointer
from bitswitch.engine.knobs import knob
from bitswitch.engine.lanes import LANES, add_row_16, add_row_32, add_row_48, pack, unpack
from bitswitch.engine.reading import block_of, first_slot, knobs_of, offsets_of, search, sizes_of

WIDEST = 48
"""Tokens of the widest tile: AVX2's registers hold two sums of each, and would hold but one of 64."""

_CHUNK = 384
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
) -> None:
    """Add rows ``low:high`` of a switch's part of a matrix, times a tile, to ``total``, float32
    (high - low, width).
    """
    width = len(tile) // inputs
    end = high * inputs
    knobs, shared = knobs_of(line, tensor, end)
    per_row = shared == inputs  # else one for the whole matrix
    source, target = np.int64(tile.ctypes.data), np.int64(total.ctypes.data)
    sizes, measured = sizes_of(line, tensor, high + end // BLOCK + 1)
    for slot in range(first_slot(line, first_block + low * inputs // BLOCK), line[7]):
        block = block_of(line, slot) - first_block
        start = block * BLOCK
        if start >= end:
            break
        address, position, count = offsets_of(
            line, slot, max(low * inputs - start, 0), min(end - start, BLOCK), room
        )
        offsets = carray(pointer(address), (count,), np.uint16)
        for row in range(max(low, start // inputs), min(high, (start + BLOCK - 1) // inputs + 1)):
            if measured:
                size = np.int64(sizes[row + block])
            else:
                size = search(offsets[position:], (row + 1) * inputs - start)
            if not size:
                continue
            step = knob(knobs, row if per_row else 0)
            begin = source - (row * inputs - start) * width * 4
            there = target + (row - low) * width * 4
            if width == 16:
                add_row_16(begin, address + position * 2, size, step, there)
            elif width == 32:
                add_row_32(begin, address + position * 2, size, step, there)
            else:
                add_row_48(begin, address + position * 2, size, step, there)
            position += size


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
    y: Any,
    x: Any,
    tiles: Any,
    filled: bool,
    inputs: int,
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
        y: float32 (tokens, outputs).
        x: float32 (tokens, inputs), the layer's input; not read if the tiles are filled.
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
    outputs = y.shape[1]
    for part in prange(len(bounds) - 1):
        nothing = np.zeros(_CHUNK, np.float32)
        sums = np.empty(_CHUNK * WIDEST, np.float32)
        room = np.empty(BLOCK, np.uint16)
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
                _multiply(total, low, high, tile, inputs, table[s], tensor, first_block, room)
                _scatter(y, low, high, total, moves, places[lanes], scales[lanes])
