"""The overlay's CPU kernels: a switch's part of a layer's output, from its marks, the weights untouched.

What a linear layer's active weights add to its output is summed per *tile*: the tokens of the rows that
need the switch side by side, 16 to 64 of them, so that one mark is one to four vector additions, whatever
the rows' lengths and places in the batch. Knows nothing of modules, rows or mixes, and keeps no memory.
All sums are in fp32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, prange

from bitswitch.engine.arena import BLOCK
from bitswitch.engine.bits import pointer, trailing_zeros
from bitswitch.engine.lanes import LANES, add_row_16, add_row_32, add_row_64, pack, unpack
from bitswitch.engine.marks import FEW, MINUS, WORDS

WIDEST = 64
"""Tokens of the widest tile."""

_OFFSET = BLOCK - 1
_ONE = np.uint64(1)
_NOTHING = np.float32(0.0)


@njit(cache=True, nogil=True)
def _first(line: Any, block: int) -> int:
    """Index of a switch's first block that is not before the arena's ``block``."""
    low, high = 0, line[7]
    blocks = carray(pointer(line[6]), (high,), np.int32)
    while low < high:
        middle = (low + high) >> 1
        if blocks[middle] < block:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _block(line: Any, slot: int) -> Any:
    """Which of the arena's blocks a switch's block is."""
    return np.int64(carray(pointer(line[6]), (slot + 1,), np.int32)[slot])


@njit(cache=True, nogil=True)
def _search(offsets: Any, least: int) -> int:
    """Index of the first offset that is not below ``least``."""
    low, high = 0, len(offsets)
    while low < high:
        middle = (low + high) >> 1
        if np.int64(offsets[middle] & _OFFSET) < least:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _range(offsets: Any, low: int, high: int) -> Any:
    """The range of the offsets from ``low`` to below ``high``."""
    begin = _search(offsets, low) if low > 0 else 0
    return begin, _search(offsets, high) if high < BLOCK else len(offsets)


@njit(cache=True, nogil=True)
def _offsets(line: Any, slot: int, low: int, high: int, room: Any) -> Any:
    """Address of a block's offsets, and the range of those from ``low`` to below ``high``.

    Those of a block of bit planes are written to ``room``, uint16 (4096,).
    """
    begin = np.int64(carray(pointer(line[1]), (slot + 1,), np.int32)[slot])
    count = np.int64(carray(pointer(line[2]), (slot + 1,), np.int32)[slot])
    address = line[0] + begin * 8
    if count <= FEW:
        return address, *_range(carray(pointer(address), (count,), np.uint16), low, high)
    planes = carray(pointer(address), (2 * WORDS,), np.uint64)
    found = 0
    for w in range(low >> 6, (high + 63) >> 6):
        bits, minus = planes[w], planes[WORDS + w]
        while bits:
            bit = trailing_zeros(bits)
            sign = ((minus >> bit) & _ONE) << np.uint64(15)
            room[found] = np.uint16(np.uint64(w * 64) + bit + sign)
            found += 1
            bits &= bits - _ONE
    return np.int64(room.ctypes.data), *_range(room[:found], low, high)


@njit(cache=True, nogil=True)
def _knobs(line: Any, tensor: int, end: int) -> Any:
    """A tensor's knobs as far as its weights before ``end`` need them, and how many weights share one."""
    width = carray(pointer(line[5]), (tensor + 1,), np.int64)[tensor]
    first = carray(pointer(line[4]), (tensor + 1,), np.int64)[tensor]
    return carray(pointer(line[3]), (first + (end - 1) // width + 1,), np.float32)[first:], width


@njit(cache=True, nogil=True, parallel=True)
def expand(vectors: Any, table: Any, tensors: Any, first_blocks: Any, columns: Any) -> None:
    """Write what switches add to the one-dimensional parameters.

    Args:
        vectors: float32 (switches, size), zeros before: those parameters behind one another.
        table: int64 (switches, 8), see `planes.COLUMNS`, then address and number of the blocks.
        tensors, first_blocks: int64 (n,), the parameters' numbers and first blocks.
        columns: int64 (n + 1,), where in ``vectors`` each begins.
    """
    for s in prange(len(table)):
        room = np.empty(BLOCK, np.uint16)
        line = table[s]
        for i in range(len(tensors)):
            length = columns[i + 1] - columns[i]
            for slot in range(_first(line, first_blocks[i]), line[7]):
                start = (_block(line, slot) - first_blocks[i]) * BLOCK
                if start >= length:
                    break
                knobs, width = _knobs(line, tensors[i], length)
                address, begin, end = _offsets(line, slot, 0, BLOCK, room)
                offsets = carray(pointer(address), (end,), np.uint16)
                for j in range(begin, end):
                    place = start + (offsets[j] & _OFFSET)
                    knob = knobs[place // width]
                    vectors[s, columns[i] + place] = -knob if offsets[j] & MINUS else knob


@njit(cache=True, nogil=True, parallel=True)
def fill(tiles: Any, x: Any, places: Any, starts: Any, widths: Any, group_tiles: Any) -> None:
    """Write tokens' vectors to tiles.

    Args:
        tiles: float32, written: tile n is (inputs, widths[n]) from ``starts[n]`` · inputs on.
        x: float32 (tokens, inputs).
        places: int32 (lanes,), the token of each lane.
        starts, widths: int64 (n,), first lane and lanes of each tile.
        group_tiles: int64 (lanes / 16,), which tile each 16 lanes belong to.
    """
    inputs = x.shape[1]
    whole = inputs - inputs % LANES
    for g in prange(len(group_tiles)):
        n = group_tiles[g]
        width = widths[n]
        lanes = places[g * LANES : (g + 1) * LANES]
        tile = tiles[starts[n] * inputs + g * LANES - starts[n] :]
        source, target = np.int64(x.ctypes.data), np.int64(tile.ctypes.data)
        for i in range(0, whole, LANES):
            pack(source + i * 4, inputs * 4, np.int64(lanes.ctypes.data), target + i * width * 4, width * 4)
        for i in range(whole, inputs):
            for t in range(LANES):
                tile[i * width + t] = x[lanes[t], i]


@njit(cache=True, nogil=True)
def _share(outputs: int, piece: int, pieces: int) -> int:
    """Where a piece of the outputs begins: at a multiple of `LANES`, or at the end."""
    return min(-(-outputs // LANES) * piece // pieces * LANES, outputs)


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
    knobs, shared = _knobs(line, tensor, end)
    per_row = shared == inputs  # else one for the whole matrix
    source, target = np.int64(tile.ctypes.data), np.int64(total.ctypes.data)
    for slot in range(_first(line, first_block + low * inputs // BLOCK), line[7]):
        start = (_block(line, slot) - first_block) * BLOCK
        if start >= end:
            break
        address, position, count = _offsets(
            line, slot, max(low * inputs - start, 0), min(end - start, BLOCK), room
        )
        row = max(low, start // inputs)
        while position < count:
            shift = row * inputs - start
            knob = knobs[row if per_row else 0]
            there = target + (row - low) * width * 4
            if width == 16:
                position = add_row_16(source, shift, address, position, count, shift + inputs, knob, there)
            elif width == 32:
                position = add_row_32(source, shift, address, position, count, shift + inputs, knob, there)
            else:
                position = add_row_64(source, shift, address, position, count, shift + inputs, knob, there)
            row += 1


@njit(cache=True, nogil=True)
def _scatter(y: Any, low: int, high: int, total: Any, places: Any, scales: Any) -> None:
    """Add ``total`` (high - low, lanes), transposed and scaled, to columns ``low:high`` of rows of ``y``."""
    width, outputs = len(places), y.shape[1]
    source, target = np.int64(total.ctypes.data), np.int64(y.ctypes.data)
    whole = high - (high - low) % LANES
    for v in range(0, width, LANES):
        lanes, factors = np.int64(places[v:].ctypes.data), np.int64(scales[v:].ctypes.data)
        for o in range(low, whole, LANES):
            there = source + ((o - low) * width + v) * 4
            unpack(there, width * 4, factors, target + o * 4, outputs * 4, lanes)
        for o in range(whole, high):
            for t in range(v, v + LANES):
                y[places[t], o] += scales[t] * total[(o - low) * width + t]


@njit(cache=True, nogil=True, parallel=True)
def add_linear(
    y: Any,
    tiles: Any,
    inputs: int,
    places: Any,
    scales: Any,
    starts: Any,
    widths: Any,
    switches: Any,
    table: Any,
    tensor: int,
    first_block: int,
    vectors: Any,
    bias: int,
    threads: int,
) -> None:
    """Add the switches' parts of a linear layer to its output.

    Args:
        y: float32 (tokens, outputs).
        tiles, places, starts, widths: see `fill`.
        scales: float32 (lanes,), the weight of the tile's switch for that token.
        switches: int64 (n,), whose tile it is: a line of ``table`` and of ``vectors``.
        tensor, first_block: the matrix's number in the arena, and its first block.
        vectors, bias: see `expand`; the bias's column, -1 if there is none.
        threads: how many share the work.
    """
    outputs = y.shape[1]
    # A thread takes some of the matrix's rows for all tiles, one after another: a tile stays in its cache,
    # and no two threads add to the same place.
    pieces = min(threads, -(-outputs // LANES))
    for piece in prange(pieces):
        low, high = _share(outputs, piece, pieces), _share(outputs, piece + 1, pieces)
        sums = np.empty((high - low) * WIDEST, np.float32)
        room = np.empty(BLOCK, np.uint16)
        for n in range(len(starts)):
            start, width, s = starts[n], widths[n], switches[n]
            total = sums[: (high - low) * width]
            for o in range(high - low):
                moved = vectors[s, bias + low + o] if bias >= 0 else _NOTHING
                for t in range(o * width, (o + 1) * width):
                    total[t] = moved
            tile = tiles[start * inputs : (start + width) * inputs]
            _multiply(total, low, high, tile, inputs, table[s], tensor, first_block, room)
            _scatter(y, low, high, total, places[start : start + width], scales[start : start + width])


@njit(cache=True, nogil=True, parallel=True)
def add_embedding(
    y: Any,
    ids: Any,
    lengths: Any,
    part_starts: Any,
    part_switches: Any,
    part_weights: Any,
    table: Any,
    tensor: int,
    first_block: int,
) -> None:
    """Add the switches' parts of the rows looked up in an embedding table to what was looked up.

    Args:
        y: float32 (rows, longest, dim).
        ids: int64 (rows, longest).
        lengths: int64 (rows,), tokens of a row.
        part_starts: int64 (rows + 1,), where a row's parts begin.
        part_switches, part_weights: int64 and float32 (parts,).
        table, tensor, first_block: see `add_linear`.
    """
    dim = y.shape[2]
    for r in prange(len(lengths)):
        room = np.empty(BLOCK, np.uint16)
        for p in range(part_starts[r], part_starts[r + 1]):
            line, weight = table[part_switches[p]], part_weights[p]
            for t in range(lengths[r]):
                begin, end = ids[r, t] * dim, (ids[r, t] + 1) * dim
                for slot in range(_first(line, first_block + begin // BLOCK), line[7]):
                    start = (_block(line, slot) - first_block) * BLOCK
                    if start >= end:
                        break
                    address, first, last = _offsets(
                        line, slot, max(begin - start, 0), min(end - start, BLOCK), room
                    )
                    knobs, width = _knobs(line, tensor, end)
                    offsets = carray(pointer(address), (last,), np.uint16)
                    step = weight * knobs[begin // width]
                    for j in range(first, last):
                        column = start + (offsets[j] & _OFFSET) - begin
                        y[r, t, column] += -step if offsets[j] & MINUS else step
