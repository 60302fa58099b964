"""What an overlaid pass needs of a device: something that adds the switches' parts to what layers compute.

One for the CPU (`cpu_additions`, compiled by numba), one for CUDA (`cuda_additions`, compiled by Triton).
Knows neither of them, nor what a layer is.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import torch

T = TypeVar("T")


class Lookups(Protocol):
    """What the rows of one forward pass find in tables of embeddings; made anew for each pass."""

    @property
    def rows(self) -> int:
        """Rows of the padded batch."""

    @property
    def longest(self) -> int:
        """Its tokens per row, padding included."""

    def embedding(self, y: torch.Tensor, ids: torch.Tensor, *, tensor: int, block: int) -> torch.Tensor:
        """Rows of a table with the parts of all rows' switches added.

        Args:
            y: (rows, longest, dim), what was looked up; may be written.
            ids: (rows, longest), what was looked for.
            tensor, block: the table's number in the arena, and its first block.
        """


class Additions(Lookups, Protocol):
    """What the rows of one forward pass add to the outputs of layers.

    A switch's part of a weight is its knob times its sign, whatever dtype the weights have; it is multiplied
    with the row's weight for the switch and summed in fp32. Padding gets nothing.
    """

    @property
    def norms(self) -> torch.Tensor:
        """Float32 (rows, columns), on the device: what each row's mix sets normalizations' parameters to,
        see `Columns`.
        """

    def moves(self, row: int, column: int, count: int) -> torch.Tensor:
        """What a row's mix adds to a small parameter: float32 (count,), on the device.

        Args:
            row: of the batch.
            column, count: where the parameter lies, see `Columns`, and its number of weights.
        """

    def normalize(self, x: torch.Tensor, *, scale: int, moves: int, eps: float) -> torch.Tensor:
        """Vectors normalized, then scaled and moved as their row's mix says, as ``x``.

        Args:
            x: (…, dim), as many vectors for each row.
            scale, moves: where among `norms` these begin.
            eps: see `torch.nn.LayerNorm`.
        """

    def linear(
        self, y: torch.Tensor, x: torch.Tensor, *, per_token: bool, tensor: int, block: int, bias: int
    ) -> torch.Tensor:
        """A linear layer's output with the parts of all rows' switches added.

        Args:
            y: (…, outputs), the base's output; may be written.
            x: (…, inputs), of the same dtype.
            per_token: whether they hold a vector per token of the padded batch; else one per row.
            tensor, block: the matrix's number in the arena, and its first block.
            bias: the bias's column, see `Columns`; -1 where it has none.
        """


class Latest(Generic[T]):
    """What was made of a tensor, as long as the same one comes again: layers in a row share an input."""

    def __init__(self) -> None:
        self._source: Callable[[], torch.Tensor | None] = lambda: None
        self._made: T | None = None

    def of(self, x: torch.Tensor, make: Callable[[], T]) -> T:
        """What ``make`` made of ``x``."""
        if self._made is None or x is not self._source():
            self._made = make()
            self._source = weakref.ref(x)  # held alive, it would keep its memory from being used again
        return self._made
