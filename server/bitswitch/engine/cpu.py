"""The CPU kernel: one pass over the blocks in which the old mix or the new one has active weights.

Per block of 4,096 weights it first puts the old mix's saved base values back, then saves those that the
new mix touches and writes ``round(base + Σ wᵢ·kᵢ·sᵢ)``, while the block is in the first-level cache.
Apply is the case without an old mix, revert the one without a new mix. Knows nothing of names,
files or requests, and allocates nothing that outlives the call.

The arithmetic is the weight contract's (docs/design, §Weights): ``wᵢ·kᵢ`` rounded to fp32, the sum over
the switches in the mix's order in fp32, added to the base in fp32, rounded once to the stored dtype. No
fast-math: the compiler may neither reorder nor fuse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, prange

from bitswitch.engine.bits import narrow, pointer, population, trailing_zeros, widen

WORDS = 64
"""64-bit words per block."""

COLUMNS = 6
"""A switch's line in the table, int64: addresses of words, ranks, polarity, knobs, knob starts, widths."""

_ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def _restore(weights: Any, first: int, words: Any, saved: Any, rank: int) -> None:
    """Put the saved values of one block back. ``words`` (64,) uint64, ``saved`` from ``rank`` on."""
    for w in range(WORDS):
        bits = words[w]
        while bits:
            weights[first + w * 64 + np.int64(trailing_zeros(bits))] = saved[rank]
            rank += 1
            bits &= bits - _ONE


@njit(cache=True, nogil=True)
def _apply_one(
    weights: Any,
    bfloat16: bool,
    first: int,
    start: int,
    words: Any,
    rank: int,
    polarity: Any,
    knobs: Any,
    width: int,
    weight: Any,
    saved: Any,
) -> None:
    """Save and write the active weights of one block for a mix of a single switch.

    ``start`` is the block's first weight within its tensor, ``width`` how many weights share a knob.
    """
    row = start // width
    row_end = (row + 1) * width - start
    step = weight * knobs[row]
    for w in range(WORDS):
        bits = words[w]
        while bits:
            index = w * 64 + np.int64(trailing_zeros(bits))
            while index >= row_end:
                row += 1
                row_end += width
                step = weight * knobs[row]
            up = (polarity[rank >> 3] >> np.uint8(rank & 7)) & 1
            base = weights[first + index]
            saved[rank] = base
            moved = widen(base, bfloat16) + (np.float32(0.0) + (step if up else -step))
            weights[first + index] = narrow(moved, base, bfloat16)
            rank += 1
            bits &= bits - _ONE


@njit(cache=True, nogil=True)
def _accumulate(
    total: Any, start: int, words: Any, rank: int, polarity: Any, knobs: Any, width: int, weight: Any
) -> None:
    """Add one switch's part of a block to ``total``, float32 (4096,)."""
    row = start // width
    row_end = (row + 1) * width - start
    step = weight * knobs[row]
    for w in range(WORDS):
        bits = words[w]
        while bits:
            index = w * 64 + np.int64(trailing_zeros(bits))
            while index >= row_end:
                row += 1
                row_end += width
                step = weight * knobs[row]
            up = (polarity[rank >> 3] >> np.uint8(rank & 7)) & 1
            total[index] += step if up else -step
            rank += 1
            bits &= bits - _ONE


@njit(cache=True, nogil=True)
def _apply_sum(
    weights: Any, bfloat16: bool, first: int, words: Any, total: Any, saved: Any, rank: int
) -> None:
    """Save and write the active weights of one block, given the sum over the mix's switches."""
    for w in range(WORDS):
        bits = words[w]
        while bits:
            index = w * 64 + np.int64(trailing_zeros(bits))
            base = weights[first + index]
            saved[rank] = base
            weights[first + index] = narrow(widen(base, bfloat16) + total[index], base, bfloat16)
            rank += 1
            bits &= bits - _ONE


@njit(cache=True, nogil=True, parallel=True)
def union(slots: Any, table: Any, words: Any, counts: Any) -> None:
    """Active weights of a mix: the union of its switches' words, block by block.

    Args:
        slots: int32 (blocks, switches), where a block lies among a switch's blocks, -1 if it has none.
        table: int64 (switches, COLUMNS), see `COLUMNS`.
        words: uint64 (blocks, 64), written.
        counts: int64 (blocks,), written: active weights of each block.
    """
    for b in prange(len(slots)):
        count = np.int64(0)
        for w in range(WORDS):
            bits = np.uint64(0)
            for i in range(slots.shape[1]):
                slot = slots[b, i]
                if slot >= 0:
                    theirs = carray(pointer(table[i, 0]), ((slot + 1) * WORDS,), np.uint64)
                    bits |= theirs[slot * WORDS + w]
            words[b, w] = bits
            count += np.int64(population(bits))
        counts[b] = count


@njit(cache=True, nogil=True, parallel=True)
def transition(
    weights: Any,
    bfloat16: bool,
    block_tensor: Any,
    block_start: Any,
    work: Any,
    old_slot: Any,
    old_words: Any,
    old_rank: Any,
    old_saved: Any,
    new_slot: Any,
    new_words: Any,
    new_rank: Any,
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
        work: int32 (n,), the blocks to visit: those of the old mix and of the new one, each once.
        old_slot, new_slot: int32 (n,), the block's line in the journal's words, -1 if it has none.
        old_words, new_words: uint64 (blocks, 64), active weights of the old and the new mix.
        old_rank, new_rank: int64 (blocks,), index of a block's first saved value.
        old_saved: the journal, read; the dtype of ``weights``.
        new_saved: the journal to come, written.
        slots: int32 (blocks of the new mix, switches), as in `union`.
        table: int64 (switches, COLUMNS), as in `union`.
        mix_weights: float32 (switches,), the mix's weights, in its order.
    """
    switches = len(mix_weights)
    for n in prange(len(work)):
        block = np.int64(work[n])
        first = block * 4096
        old = old_slot[n]
        if old >= 0:
            _restore(weights, first, old_words[old], old_saved, old_rank[old])
        new = new_slot[n]
        if new < 0:
            continue
        tensor = block_tensor[block]
        start = block_start[block]
        total = np.zeros(4096 if switches > 1 else 0, np.float32)
        for i in range(switches):
            slot = np.int64(slots[new, i])
            if slot < 0:
                continue
            rank = carray(pointer(table[i, 1]), (slot + 1,), np.int64)[slot]
            words = carray(pointer(table[i, 0]), ((slot + 1) * WORDS,), np.uint64)[slot * WORDS :]
            polarity = carray(pointer(table[i, 2]), ((rank + 4096 + 7) >> 3,), np.uint8)
            width = carray(pointer(table[i, 5]), (tensor + 1,), np.int64)[tensor]
            knob_start = carray(pointer(table[i, 4]), (tensor + 1,), np.int64)[tensor]
            knobs = carray(pointer(table[i, 3]), (knob_start + start + 4096,), np.float32)[knob_start:]
            if switches == 1:
                _apply_one(
                    weights,
                    bfloat16,
                    first,
                    start,
                    words,
                    rank,
                    polarity,
                    knobs,
                    width,
                    mix_weights[0],
                    new_saved,
                )
            else:
                _accumulate(total, start, words, rank, polarity, knobs, width, mix_weights[i])
        if switches > 1:
            _apply_sum(weights, bfloat16, first, new_words[new], total, new_saved, new_rank[new])
