"""The CPU kernel: one pass over the blocks in which the old mix or the new one has active weights.

Per block of 4,096 weights it first puts the old mix's saved base values back, then saves those that the
new mix touches and writes ``round(base + Σ wᵢ·kᵢ·sᵢ)``; what that is for one block is `block`. Apply is the
case without an old mix, revert the one without a new mix. Knows nothing of names, files or requests, and
keeps no memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from bitswitch.engine.arena import BLOCK
from bitswitch.engine.block import add, apply_few, apply_many, restore, write_few, write_many
from bitswitch.engine.marks import FEW, WORDS

PIECES = 64
"""Into how many pieces a transition is cut, for the threads to share; each has its scratch."""


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
    alone = switches == 1 and weights.itemsize == 4  # halves are rounded in loops of their own
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
                restore(block, old_counts[old], old_offsets[place:], old_saved[rank:])
            if new < 0:
                continue
            saved = new_saved[new_ranks[new] :]
            few = new_counts[new] <= FEW
            for i in range(switches):
                slot = np.int64(slots[i, n])
                if slot >= 0:
                    line, start = table[i], block_start[n]
                    if few and switches == 1:
                        apply_few(block, bfloat16, start, line, slot, block_tensor[n], mix_weights[i], saved)
                    elif alone:
                        apply_many(block, start, line, slot, block_tensor[n], mix_weights[i], saved)
                    else:
                        add(total, touched, start, line, slot, block_tensor[n], mix_weights[i])
            if not few and not alone:
                write_many(block, bfloat16, total, touched, saved)
            elif switches > 1:
                offsets = new_offsets[new_places[new] :]
                new_counts[new] = write_few(block, bfloat16, total, touched, offsets, saved)
