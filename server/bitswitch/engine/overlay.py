"""Rows of several mixes in one pass over the bare base. So far it says that it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitswitch.base.model import Base, Hidden
from bitswitch.core import Row
from bitswitch.engine.arena import Arena
from bitswitch.engine.planes import Planes


@dataclass(frozen=True)
class Part:
    """One switch of a mix."""

    planes: Planes
    weight: float


class Overlay:
    """The base's forward pass with each row's own switches laid over it."""

    def __init__(self, base: Base, arena: Arena) -> None:
        self.reason: str | None = "the overlay is not built yet"

    def warm_up(self) -> None:
        """Compile the kernels."""

    def forward(self, rows: Sequence[Row], parts: Sequence[Sequence[Part]]) -> Hidden:
        """One pass."""
        raise NotImplementedError
