"""The CPU's `Additions`: the calls of `product` and `lookup`. Knows nothing of modules or of mixes' names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numba import get_num_threads
from numpy.typing import NDArray

from bitswitch.engine import lookup, product
from bitswitch.engine.additions import Latest
from bitswitch.engine.needs import Columns, Needs, Part, Tiles


class Room:
    """Memory for tiles, kept from pass to pass: fresh memory costs more than what is done in it."""

    def __init__(self) -> None:
        self._floats = np.empty(0, np.float32)

    def __call__(self, size: int) -> NDArray[np.float32]:
        """At least so many floats; valid until it is asked again."""
        if self._floats.size < size:
            self._floats = np.empty(size, np.float32)
        return self._floats


class CpuAdditions:
    """See `Additions`.

    Args:
        lengths: tokens of each row.
        parts: what each row's mix is made of; at least one row's of something.
        columns: of the one-dimensional parameters.
        room: gives the memory for tiles.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        parts: Sequence[Sequence[Part]],
        columns: Columns,
        room: Callable[[int], NDArray[np.float32]],
    ) -> None:
        self._needs = Needs(lengths, parts, columns)
        self._room = room
        self._latest: Latest[tuple[Tiles, NDArray[np.float32]]] = Latest()
        self.rows, self.longest, self.norms = self._needs.rows, self._needs.longest, self._needs.norms

    def moves(self, row: int, column: int, count: int) -> torch.Tensor:
        """See `Additions`."""
        needs = self._needs
        return needs.shares[row] @ torch.from_numpy(needs.vectors[:, column : column + count])

    def linear(
        self, y: torch.Tensor, x: torch.Tensor, *, per_token: bool, tensor: int, block: int, bias: int
    ) -> torch.Tensor:
        """See `Additions`."""
        needs = self._needs
        tiles, filled = self._latest.of(x, lambda: self._fill(x, per_token))
        sums = y.float().contiguous()
        product.add_linear(
            sums.view(-1, y.shape[-1]).numpy(),
            filled,
            x.shape[-1],
            tiles.places,
            tiles.scales,
            tiles.starts,
            tiles.widths,
            tiles.switches,
            needs.table,
            tensor,
            block,
            needs.vectors,
            bias,
            get_num_threads(),
        )
        return sums.to(y.dtype)

    def embedding(self, y: torch.Tensor, ids: torch.Tensor, *, tensor: int, block: int) -> torch.Tensor:
        """See `Additions`."""
        needs = self._needs
        sums = y.float()
        lookup.add_embedding(
            sums.numpy(),
            ids.long().contiguous().numpy(),
            needs.lengths,
            needs.part_starts,
            needs.part_switches,
            needs.part_weights,
            needs.table,
            tensor,
            block,
        )
        return sums.to(y.dtype)

    def _fill(self, x: torch.Tensor, per_token: bool) -> tuple[Tiles, NDArray[np.float32]]:
        """How the lanes of ``x`` are dealt, and its tiles."""
        tiles = self._needs.by_token if per_token else self._needs.by_row
        flat = x.float().reshape(-1, x.shape[-1]).contiguous().numpy()
        filled = self._room(tiles.places.size * flat.shape[1])
        product.fill(filled, flat, tiles.places, tiles.starts, tiles.widths, tiles.group_tiles)
        return tiles, filled
