"""Layers that add to their output, row by row, what the rows' switches would change in it.

One class per kind of layer that a switchable weight may belong to; each stands in for the ``forward`` of
a module and leaves the module's weights alone. Knows nothing of how a pass came about.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.func import functional_call
from torch.nn import functional

from bitswitch.engine.additions import Additions


class ShapeError(Exception):
    """A layer was called with something that is not one vector per token or per row of the batch."""


class Pass:
    """The pass that runs now, as its layers see it.

    Args:
        additions: of its rows.

    Attributes:
        called: the layers called so far.
    """

    def __init__(self, additions: Additions) -> None:
        self.additions = additions
        self.called: set[torch.nn.Module] = set()

    def per_token(self, x: torch.Tensor) -> bool:
        """Whether ``x`` (…, dim) holds a vector per token of the padded batch; else one per row.

        Raises:
            ShapeError: neither.
        """
        rows, longest = self.additions.rows, self.additions.longest
        vectors = x.numel() // x.shape[-1]
        if vectors == rows * longest:
            return True
        if vectors == rows:
            return False
        raise ShapeError(
            f"a layer's input is {tuple(x.shape)}; {rows} rows of {longest} tokens need"
            " one vector per token or one per row"
        )


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
        return running.additions.linear(
            y, x, per_token=running.per_token(x), tensor=self.weight, block=self.block, bias=self.bias
        )


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
        additions = self.enter().additions
        shape = (additions.rows, additions.longest)
        if ids.numel() not in {additions.longest, additions.rows * additions.longest}:
            raise ShapeError(f"ids of shape {tuple(ids.shape)} were looked up for a batch of shape {shape}")
        ids = ids.reshape(-1, additions.longest).expand(shape)
        y = functional.embedding(ids, self.module.weight)
        return additions.embedding(y, ids, tensor=self.weight, block=self.block)


class Norm(Layer):
    """A layer normalization.

    Args:
        weight, bias: their columns.
    """

    module: torch.nn.LayerNorm

    def __init__(self, module: torch.nn.LayerNorm, stage: Stage, *, weight: int, bias: int) -> None:
        super().__init__(module, stage)
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalized once, then scaled and moved as each row's mix says."""
        running = self.enter()
        running.per_token(x)
        return running.additions.normalize(x, scale=self.weight, moves=self.bias, eps=self.module.eps)


class Whole(Layer):
    """A module of any other kind, run row by row with its parameters as each row's mix sets them.

    Small ones alone are worth it, such as what makes tokens of an image. Their values could be read past
    ``forward``, since models ask a parameter for its dtype; that would show in the overlay's trial.

    Args:
        columns: of the module's switchable parameters, by their names in it.
    """

    def __init__(self, module: torch.nn.Module, stage: Stage, *, columns: Mapping[str, int]) -> None:
        super().__init__(module, stage)
        self.columns = columns

    def __getattr__(self, name: str) -> torch.Tensor | torch.nn.Module:
        """The module's attributes are this one's too."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            found: torch.Tensor | torch.nn.Module = getattr(super().__getattr__("module"), name)
            return found

    def forward(self, x: torch.Tensor, **given: object) -> torch.Tensor:
        """What the module makes of each row (rows, …), side by side."""
        additions = self.enter().additions
        if len(x) != additions.rows or any(isinstance(one, torch.Tensor) for one in given.values()):
            name = type(self.module).__name__
            raise ShapeError(f"{name} was called with more than one tensor of {additions.rows} rows")
        outputs = []
        for row in range(additions.rows):
            set_to = {
                name: _plus(parameter, additions.moves(row, column, parameter.numel()))
                for name, column in self.columns.items()
                for parameter in (self.module.get_parameter(name),)
            }
            outputs.append(functional_call(self.module, set_to, (x[row : row + 1],), given))
        return torch.cat(outputs)


def _plus(parameter: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    return (parameter.float() + moves.view(parameter.shape)).to(parameter.dtype)
