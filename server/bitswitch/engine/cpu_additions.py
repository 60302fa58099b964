"""The CPU's `Additions`: the calls of `product` and `lookup`. Knows nothing of modules or of mixes' names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import get_num_threads
from numpy.typing import NDArray

from bitswitch.engine import lookup, product
from bitswitch.engine.additions import Latest
from bitswitch.engine.cpu_lookups import CpuLookups
from bitswitch.engine.mixes import Part
from bitswitch.engine.needs import Columns, Needs, Tiles


class Room:
    """Memory for tiles, kept from pass to pass: fresh memory costs more than what is done in it.

    It begins where a cache line does, as torch's does and numpy's does not. A vector that lies in two lines
    takes twice as long to read.
    """

    def __init__(self) -> None:
        self._floats = torch.empty(0).numpy()

    def __call__(self, size: int) -> NDArray[np.float32]:
        """At least so many floats; valid until it is asked again."""
        if self._floats.size < size:
            self._floats = torch.empty(size).numpy()
        return self._floats


@dataclass
class _Laid:
    """A layer's input in tiles."""

    tiles: Tiles
    room: NDArray[np.float32]
    filled: bool = False


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
        self._needs = Needs(lengths, parts, columns, get_num_threads())
        self._room = room
        self._latest: Latest[_Laid] = Latest()
        self._lookups = CpuLookups(self._needs.mixes)
        self.rows, self.longest = self._lookups.rows, self._lookups.longest
        self.norms = self._needs.norms
        self._norms = self.norms.numpy()

    def moves(self, row: int, column: int, count: int) -> torch.Tensor:
        """See `Additions`."""
        needs = self._needs
        return needs.shares[row] @ torch.from_numpy(needs.vectors[:, column : column + count])

    def normalize(self, x: torch.Tensor, *, scale: int, moves: int, eps: float) -> torch.Tensor:
        """See `Additions`."""
        given = _floats(x)
        result = torch.empty_like(given)
        lookup.normalize(
            result.data_ptr(),
            given.data_ptr(),
            given.numel() // (self.rows * given.shape[-1]),
            given.shape[-1],
            self._norms,
            scale,
            moves,
            eps,
        )
        return result if given is x else result.to(x.dtype)

    def linear(
        self, y: torch.Tensor, x: torch.Tensor, *, per_token: bool, tensor: int, block: int, bias: int
    ) -> torch.Tensor:
        """See `Additions`."""
        laid = self._latest.of(x, lambda: self._lay(x, per_token))
        sums, given = _floats(y), x if laid.filled else _floats(x)
        outputs, tiles = y.shape[-1], laid.tiles
        product.add_linear(
            sums.data_ptr(),
            given.data_ptr(),
            y.numel() // outputs,
            outputs,
            x.shape[-1],
            laid.room,
            laid.filled,
            tiles.places,
            tiles.scales,
            tiles.starts,
            tiles.widths,
            tiles.switches,
            tiles.bounds,
            self._needs.mixes.table,
            tensor,
            block,
            self._needs.vectors,
            bias,
        )
        laid.filled = True
        return sums if sums is y else sums.to(y.dtype)

    def embedding(self, y: torch.Tensor, ids: torch.Tensor, *, tensor: int, block: int) -> torch.Tensor:
        """See `Additions`."""
        return self._lookups.embedding(y, ids, tensor=tensor, block=block)

    def _lay(self, x: torch.Tensor, per_token: bool) -> _Laid:
        """How the lanes of ``x`` are dealt, and room for them."""
        tiles = self._needs.by_token if per_token else self._needs.by_row
        return _Laid(tiles, self._room(tiles.places.size * x.shape[-1]))


def _floats(x: torch.Tensor) -> torch.Tensor:
    """The same as contiguous float32. Itself where it is that already: there are so many layers that what is
    asked of torch for each shows.
    """
    return x if x.dtype is torch.float32 and x.is_contiguous() else x.float().contiguous()
