"""Passes in place, where large tables of embeddings stay at the base and are read at the mix.

A table has a row for every word there is, and a pass reads a few of them. So a transition leaves it alone,
and each pass sets the rows that it looks up to what a transition would have written there, to the bit. What
runs is a twin of the model (see `twin`). Knows nothing of requests, heads or queues; writes no weight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from bitswitch.base.model import Base, Hidden
from bitswitch.core import Row
from bitswitch.engine import trial
from bitswitch.engine.arena import Arena
from bitswitch.engine.cpu_lookups import CpuLookups
from bitswitch.engine.mixes import Mixes, Part
from bitswitch.engine.twin import twin

ROWS = 8192
"""Rows of the smallest table that is looked up: by and large more than the tokens of any pass."""


def large_tables(base: Base) -> dict[str, str]:
    """Where in the model each table lies that may be looked up, by its parameter's name.

    None on a device, whose kernels write all.
    """
    names = {id(parameter): name for name, parameter in base.parameters.items()}
    uses = Counter(id(p) for _, p in base.model.named_parameters(remove_duplicate=False))
    return {
        names[id(module.weight)]: place
        for place, module in base.model.named_modules(remove_duplicate=False)
        if type(module) is torch.nn.Embedding
        and module.num_embeddings >= ROWS
        and module.max_norm is None
        and id(module.weight) in names
        and uses[id(module.weight)] == 1
        and base.device.type == "cpu"
    }


class Tables:
    """The base as a pass sees it at the mix that the weights are set to. One thread at a time.

    Args:
        base: the resident model.
        arena: its weights, at the base, `large_tables` to be looked up. They are moved and back, to try
            whether the answers are right; where they are not, all is written from then on.

    Attributes:
        reason: why nothing is looked up although it was to be; None otherwise.
    """

    def __init__(self, base: Base, arena: Arena) -> None:
        self._base = base
        self._now = _Now()
        self._twin: Base | None = None
        self.reason: str | None = None
        if arena.written == arena.blocks:
            return
        try:
            self._twin = replace(base, model=twin(base.model))
            places = large_tables(base)
            for name, place in places.items():
                module = self._twin.model.get_submodule(place)
                assert isinstance(module, torch.nn.Embedding)
                tensor, block = arena.names.index(name), arena.first_block[name]
                self._twin.model.set_submodule(place, _Table(module, self._now, tensor, block))
            trial.require_same(base, arena, sorted(places), self.forward)
        except Exception as error:  # noqa: BLE001 - whatever an architecture does to us, it is served all the same
            self._twin = None
            self.reason = f"{type(error).__name__}: {error}"
            arena.write_all()

    def forward(self, rows: Sequence[Row], parts: Sequence[Part]) -> Hidden:
        """Run the backbone over ``rows`` as one batch.

        Args:
            rows: at least one.
            parts: of the mix that the weights are set to.
        """
        if self._twin is None or not parts:
            return self._base.forward(rows)
        self._now.parts = parts
        try:
            return self._twin.forward(rows)
        finally:
            self._now.parts = ()


@dataclass
class _Now:
    """The mix of the pass that runs."""

    parts: Sequence[Part] = ()


class _Table(torch.nn.Module):
    """Stands in for a table. Its weights cannot be reached by their usual name, so that nobody reads them
    past ``forward``.
    """

    def __init__(self, module: torch.nn.Embedding, now: _Now, tensor: int, block: int) -> None:
        super().__init__()
        self.module = module
        self.now = now
        self.tensor, self.block = tensor, block

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The rows, as the mix sets them."""
        y = functional.embedding(ids, self.module.weight)
        every = CpuLookups(Mixes([ids.numel()], [self.now.parts]))
        one = y.view(1, -1, y.shape[-1])
        return every.embedding(one, ids.reshape(1, -1), tensor=self.tensor, block=self.block).view(y.shape)
