"""The CPU's `Lookups`: the call of `lookup.add_embedding`. Knows nothing of modules or of mixes' names."""

from __future__ import annotations

import torch

from bitswitch.engine import lookup
from bitswitch.engine.arena import as_stored
from bitswitch.engine.mixes import Mixes


class CpuLookups:
    """See `Lookups`.

    Args:
        mixes: the rows'.
    """

    def __init__(self, mixes: Mixes) -> None:
        self._mixes = mixes
        self.rows, self.longest = mixes.rows, mixes.longest

    def embedding(self, y: torch.Tensor, ids: torch.Tensor, *, tensor: int, block: int) -> torch.Tensor:
        """See `Lookups`."""
        mixes = self._mixes
        rows = y.contiguous()
        lookup.add_embedding(
            as_stored(rows),
            y.dtype == torch.bfloat16,
            ids.long().contiguous().numpy(),
            mixes.lengths,
            mixes.part_starts,
            mixes.part_switches,
            mixes.part_weights,
            mixes.table,
            tensor,
            block,
        )
        return rows
