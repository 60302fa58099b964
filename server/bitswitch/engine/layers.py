"""Layers that add to their output, row by row, what the rows' switches would change in it.

One class per kind of layer that a switchable weight may belong to; each stands in for the ``forward`` of
a module and leaves the module's weights alone. Knows nothing of how a pass came about.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import torch
from numba import get_num_threads
from numpy.typing import NDArray
from torch.nn import functional

from bitswitch.engine import lookup, product
from bitswitch.engine.needs import Needs, Tiles


class ShapeError(Exception):
    """A layer was called with something that is not one vector per token or per row of the batch."""


class Pass:
    """The pass that runs now, as its layers see it.

    Args:
        needs: of its rows.
        room: gives float32 memory of at least so many floats; valid until it is asked again.

    Attributes:
        called: the layers called so far.
    """

    def __init__(self, needs: Needs, room: Callable[[int], NDArray[np.float32]]) -> None:
        self.needs = needs
        self._room = room
        self._source: Callable[[], torch.Tensor | None] = lambda: None
        self._filled = np.empty(0, np.float32)
        self.called: set[torch.nn.Module] = set()

    def per_token(self, x: torch.Tensor) -> bool:
        """Whether ``x`` (…, dim) holds a vector per token of the padded batch; else one per row.

        Raises:
            ShapeError: neither.
        """
        vectors = x.shape[:-1].numel()
        if vectors == self.needs.rows * self.needs.longest:
            return True
        if vectors == self.needs.rows:
            return False
        raise ShapeError(
            f"a layer's input is {tuple(x.shape)}; {self.needs.rows} rows of {self.needs.longest} tokens need"
            " one vector per token or one per row"
        )

    def tiles(self, x: torch.Tensor) -> tuple[Tiles, NDArray[np.float32]]:
        """How the lanes of ``x`` are dealt, and its tiles; made once where layers in a row share an input."""
        tiles = self.needs.by_token if self.per_token(x) else self.needs.by_row
        if x is not self._source():
            flat = x.float().reshape(-1, x.shape[-1]).contiguous().numpy()
            self._filled = self._room(tiles.places.size * flat.shape[1])
            product.fill(self._filled, flat, tiles.places, tiles.starts, tiles.widths, tiles.group_tiles)
            self._source = weakref.ref(x)  # held alive, it would keep its memory from being used again
        return tiles, self._filled

    def per_row(self, vectors: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """``vectors`` (rows, dim) in a shape that lies along ``x``."""
        if not self.per_token(x):
            return vectors.reshape(x.shape)
        if x.dim() == 3:
            return vectors.unsqueeze(1)
        return vectors.repeat_interleave(self.needs.longest, 0).reshape(x.shape)


class Stage:
    """Where the layers of one model find the pass that runs now."""

    def __init__(self) -> None:
        self.now: Pass | None = None

    @property
    def running(self) -> Pass:
        """The pass.

        Raises:
            RuntimeError: none runs.
        """
        if self.now is None:
            raise RuntimeError("an overlaid layer was called outside of a pass")
        return self.now


class Layer(torch.nn.Module):
    """What the overlaid layers share: the module they stand for, and the stage.

    The module's own weights cannot be reached by their usual names: code that reads them past
    ``forward``, and so past what is added here, fails.
    """

    def __init__(self, module: torch.nn.Module, stage: Stage) -> None:
        super().__init__()
        self.module = module
        self.stage = stage
        self.train(module.training)

    def enter(self) -> Pass:
        """The running pass, told of this call."""
        running = self.stage.running
        running.called.add(self)
        return running


class Linear(Layer):
    """A linear layer.

    Args:
        weight, block: the matrix's number in the arena and its first block.
        bias: the bias's column; -1 where it has none.
    """

    module: torch.nn.Linear

    def __init__(self, module: torch.nn.Linear, stage: Stage, *, weight: int, block: int, bias: int) -> None:
        super().__init__(module, stage)
        self.weight, self.block, self.bias = weight, block, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The base's product, and the parts of the rows' switches."""
        running = self.enter()
        y = functional.linear(x, self.module.weight, self.module.bias)
        tiles, filled = running.tiles(x)
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
            running.needs.table,
            self.weight,
            self.block,
            running.needs.vectors,
            self.bias,
            get_num_threads(),
        )
        return sums.to(y.dtype)


class Embedding(Layer):
    """A table of embeddings; arguments as for `Linear`."""

    module: torch.nn.Embedding

    def __init__(self, module: torch.nn.Embedding, stage: Stage, *, weight: int, block: int) -> None:
        super().__init__(module, stage)
        self.weight, self.block = weight, block

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The base's rows, and the parts of the rows' switches.

        Ids that the whole batch shares, as positions are, are looked up for each of its rows.
        """
        needs = self.enter().needs
        shape = (needs.rows, needs.longest)
        if ids.numel() not in {needs.longest, needs.rows * needs.longest}:
            raise ShapeError(f"ids of shape {tuple(ids.shape)} were looked up for a batch of shape {shape}")
        ids = ids.reshape(-1, needs.longest).expand(shape)
        y = functional.embedding(ids, self.module.weight)
        sums = y.float()
        lookup.add_embedding(
            sums.numpy(),
            ids.long().contiguous().numpy(),
            needs.lengths,
            needs.part_starts,
            needs.part_switches,
            needs.part_weights,
            needs.table,
            self.weight,
            self.block,
        )
        return sums.to(y.dtype)


class Norm(Layer):
    """A layer normalization.

    Args:
        weight, bias: their columns; -1 for one that is not there, or that no switch can touch.
    """

    module: torch.nn.LayerNorm

    def __init__(self, module: torch.nn.LayerNorm, stage: Stage, *, weight: int, bias: int) -> None:
        super().__init__(module, stage)
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalized once, then scaled and moved as each row's mix says."""
        running, module = self.enter(), self.module
        even = functional.layer_norm(x.float(), module.normalized_shape, None, None, module.eps)
        scale = _moved(running, module.weight, self.weight, x)
        if module.bias is None:
            return even.mul_(scale).to(x.dtype)
        return torch.addcmul(_moved(running, module.bias, self.bias, x), even, scale, out=even).to(x.dtype)


def _moved(running: Pass, parameter: torch.Tensor, column: int, x: torch.Tensor) -> torch.Tensor:
    """A normalization's parameter as each row's mix sets it, float32, in a shape that lies along ``x``."""
    if column < 0:
        return parameter.float()
    moves = running.needs.norms[:, column : column + parameter.numel()]
    return running.per_row((parameter.float() + moves).to(parameter.dtype).float(), x)
