"""The CPU's `Lookups`: the call of `lookup.add_embedding`. Knows nothing of modules or of mixes' names."""

from __future__ import annotations

import torch

from bitswitch.engine import lookup
from bitswitch.engine.arena import as_stored
from bitswitch.engine.mixes import Mixes
from bitswitch.engine.threads import threads

_WEIGHT = 2e-9
"""Seconds, roughly, that one switch takes for each weight of a row that is looked up."""


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
        parts = len(mixes.part_weights) / mixes.rows
        with threads(y.numel() * parts * _WEIGHT):
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
