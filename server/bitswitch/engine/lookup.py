"""The overlay's CPU kernels for what is no product: vectors of a layer, and rows looked up in a table.

Know nothing of modules or mixes, keep no memory, and write no weight. All sums are in fp32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, prange

from bitswitch.engine.arena import BLOCK
from bitswitch.engine.bits import narrow, pointer, widen
from bitswitch.engine.knobs import knob
from bitswitch.engine.marks import OFFSET, signed
from bitswitch.engine.reading import block_of, first_slot, knobs_of, offsets_of

_PIECES = 8
"""Into how many pieces the tokens are cut, for the threads to share; each has its scratch."""


@njit(cache=True, nogil=True, parallel=True)
def expand(vectors: Any, table: Any, tensors: Any, first_blocks: Any, columns: Any) -> None:
    """Write what switches add to small parameters.

    Args:
        vectors: float32 (switches, size), zeros before: those parameters behind one another.
        table: int64 (switches, 11), see `reading`.
        tensors, first_blocks: int64 (n,), the parameters' numbers and first blocks.
        columns: int64 (n + 1,), where in ``vectors`` each begins.
    """
    for s in prange(len(table)):
        room = np.empty(BLOCK, np.uint16)
        line = table[s]
        for i in range(len(tensors)):
            length = columns[i + 1] - columns[i]
            for slot in range(first_slot(line, first_blocks[i]), line[7]):
                start = (block_of(line, slot) - first_blocks[i]) * BLOCK
                if start >= length:
                    break
                knobs, width = knobs_of(line, tensors[i], length)
                address, begin, end = offsets_of(line, slot, 0, BLOCK, room)
                offsets = carray(pointer(address), (end,), np.uint16)
                for j in range(begin, end):
                    place = start + (offsets[j] & OFFSET)
                    step = knob(knobs, place if width == 1 else place // width)  # dividing takes longer
                    vectors[s, columns[i] + place] = signed(step, offsets[j])


@njit(cache=True, nogil=True)
def _add_row(
    total: Any, touched: Any, begin: int, line: Any, weight: Any, tensor: int, first_block: int, room: Any
) -> None:
    """Add one switch's part of the table's row that starts at its weight ``begin`` to ``total``, float32
    (dim,), and its weights to ``touched``, bool (dim,).
    """
    end = begin + len(total)
    for slot in range(first_slot(line, first_block + begin // BLOCK), line[7]):
        start = (block_of(line, slot) - first_block) * BLOCK
        if start >= end:
            break
        address, first, last = offsets_of(line, slot, max(begin - start, 0), min(end - start, BLOCK), room)
        knobs, width = knobs_of(line, tensor, end)
        offsets = carray(pointer(address), (last,), np.uint16)
        step = weight * knob(knobs, begin // width)
        for j in range(first, last):
            column = start + (offsets[j] & OFFSET) - begin
            total[column] += signed(step, offsets[j])
            touched[column] = True


@njit(cache=True, nogil=True, parallel=True)
def add_embedding(
    y: Any,
    bfloat16: bool,
    ids: Any,
    lengths: Any,
    part_starts: Any,
    part_switches: Any,
    part_weights: Any,
    table: Any,
    tensor: int,
    first_block: int,
) -> None:
    """Set the rows looked up in an embedding table to what a transition would have written there.

    To the bit: the arithmetic is the weight contract's, see `block`.

    Args:
        y: float32 or uint16 (rows, longest, dim): the base's rows of the table, as it is stored.
        bfloat16: whether uint16 weights are bf16.
        ids: int64 (rows, longest).
        lengths: int64 (rows,), tokens of a row; those behind stay as they are.
        part_starts: int64 (rows + 1,), where a row's parts begin.
        part_switches, part_weights: int64 and float32 (parts,).
        table: int64 (switches, 11), see `reading`.
        tensor, first_block: the embedding table's number in the arena, and its first block.
    """
    rows, longest, dim = y.shape
    tokens = rows * longest
    for piece in prange(_PIECES):
        room = np.empty(BLOCK, np.uint16)
        total = np.zeros(dim, np.float32)
        touched = np.zeros(dim, np.bool_)
        for n in range(tokens * piece // _PIECES, tokens * (piece + 1) // _PIECES):
            r, t = n // longest, n % longest
            if t >= lengths[r] or part_starts[r] == part_starts[r + 1]:
                continue
            for p in range(part_starts[r], part_starts[r + 1]):
                line, weight = table[part_switches[p]], part_weights[p]
                _add_row(total, touched, ids[r, t] * dim, line, weight, tensor, first_block, room)
            for i in range(dim):
                if touched[i]:
                    base = y[r, t, i]
                    y[r, t, i] = narrow(widen(base, bfloat16) + total[i], base, bfloat16)
                total[i] = np.float32(0.0)
                touched[i] = False


@njit(cache=True, nogil=True, parallel=True, fastmath={"reassoc", "contract"})
def normalize(
    y_address: int, x_address: int, count: int, dim: int, norms: Any, scale: int, moves: int, eps: float
) -> None:
    """Normalize vectors, and scale and move them as their row says.

    Args:
        y_address, x_address: of what is written and what is read, float32 (rows, count, dim).
        count, dim: their shape.
        norms: float32 (rows, n), what each row's normalizations are set to.
        scale, moves: where among these the ones of this normalization begin.
        eps: added to the variance.
    """
    rows = len(norms)
    y = carray(pointer(y_address), (rows, count, dim), np.float32)
    x = carray(pointer(x_address), (rows, count, dim), np.float32)
    share = np.float32(1.0 / dim)
    for r in prange(rows):
        own_scale, own_moves = norms[r, scale : scale + dim], norms[r, moves : moves + dim]
        for t in range(count):
            total = np.float32(0.0)
            for i in range(dim):
                total += x[r, t, i]
            mean = total * share
            square = np.float32(0.0)
            for i in range(dim):
                apart = x[r, t, i] - mean
                square += apart * apart
            factor = np.float32(1.0) / np.sqrt(square * share + np.float32(eps))
            for i in range(dim):
                y[r, t, i] = (x[r, t, i] - mean) * factor * own_scale[i] + own_moves[i]
