"""Mixed batches: one forward pass for rows of different mixes, the resident weights at the base throughout.

The base's products are computed once for all rows; each row gets its own switches' parts added, linear
layer by linear layer, looked-up row by looked-up row. What runs is a twin of the model (see `twin`).
Knows nothing of requests, heads or queues; writes no weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from bitswitch.base.model import Base, Hidden
from bitswitch.core import Row
from bitswitch.engine import trial
from bitswitch.engine.additions import Additions
from bitswitch.engine.arena import Arena
from bitswitch.engine.cpu_additions import CpuAdditions, Room
from bitswitch.engine.layers import Embedding, Layer, Linear, Norm, Pass, Stage, Whole
from bitswitch.engine.mixes import Part
from bitswitch.engine.needs import Columns
from bitswitch.engine.rehearsal import rehearse_additions
from bitswitch.engine.twin import twin


class Overlay:
    """The base as rows of many mixes see it in one pass. One thread at a time, like `Base.forward`.

    Args:
        base: the resident model.
        arena: its weights, at the base. They are moved and back, to try whether the answers are right.

    Attributes:
        reason: why this base cannot be overlaid; None when it can.
    """

    def __init__(self, base: Base, arena: Arena) -> None:
        self._base = base
        self._stage = Stage()
        self.reason: str | None = None
        try:
            self._twin = replace(base, model=twin(base.model))
            self._layers, columns = _install(base.parameters, self._twin.model, self._stage, arena)
            self._begin = _additions(arena, columns)
            self._try(arena)
        except Exception as error:  # noqa: BLE001 - whatever an architecture does to us, it is served in place
            self.reason = str(error) if isinstance(error, _UnfitError) else f"{type(error).__name__}: {error}"

    def forward(self, rows: Sequence[Row], parts: Sequence[Sequence[Part]]) -> Hidden:
        """Run the backbone over ``rows`` as one batch, the weights being at the base.

        Args:
            rows: at least one.
            parts: what each row's mix is made of; ``()`` is the bare base.

        Returns:
            As `Base.forward`; what stands at padding means nothing.

        Raises:
            RuntimeError: this base cannot be overlaid.
        """
        if self.reason is not None:
            raise RuntimeError(f"this base cannot be overlaid: {self.reason}")
        if not any(parts):
            return self._base.forward(rows)
        hidden, _ = self._run(rows, parts)
        return hidden

    def _run(self, rows: Sequence[Row], parts: Sequence[Sequence[Part]]) -> tuple[Hidden, Pass]:
        running = Pass(self._begin([row.length for row in rows], parts))
        self._stage.now = running
        try:
            return self._twin.forward(rows), running
        finally:
            self._stage.now = None

    def _try(self, arena: Arena) -> None:
        """Answer a few rows both ways.

        Raises:
            _UnfitError: the answers differ, or a layer was never asked.
        """
        rows, parts = self._base.encoder.samples(), trial.parts(self._base, arena)
        hidden, running = self._run(rows, parts)
        unused = [name for name, layer in self._layers.items() if layer not in running.called]
        if unused:
            raise _UnfitError(f"{', '.join(unused)} takes no part in a forward pass as a layer")
        apart = trial.apart(self._base, arena, rows, parts, hidden)
        if not apart <= trial.TOLERANCE[arena.dtype]:
            raise _UnfitError(f"its answers differ by {apart:.1e} of what a switch changes in them")


_KNOWN = (torch.nn.Linear, torch.nn.Embedding, torch.nn.LayerNorm)
_MOST = 2**21
"""Weights of modules of other kinds: each switch's part of them is written out for every pass."""


class _UnfitError(Exception):
    """The architecture cannot be overlaid; the message says why."""


def _additions(
    arena: Arena, columns: Columns
) -> Callable[[Sequence[int], Sequence[Sequence[Part]]], Additions]:
    """What makes the `Additions` of a pass where these weights lie.

    Raises:
        RuntimeError: it does not do on this device what it must.
    """
    if not arena.triton:
        return partial(CpuAdditions, columns=columns, room=Room())
    from bitswitch.engine.cuda_additions import CudaAdditions  # noqa: PLC0415 - Triton is an extra

    rehearse_additions(CudaAdditions, arena.device, arena.dtype)
    return partial(CudaAdditions, columns=columns, arena=arena)


def _install(
    parameters: Mapping[str, torch.Tensor], model: torch.nn.Module, stage: Stage, arena: Arena
) -> tuple[dict[str, Layer], Columns]:
    """Put overlaid layers in the place of the modules that hold switchable weights.

    Raises:
        _UnfitError: one is of a kind that is not known here, or shares its weights with another.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    held: dict[str, tuple[torch.nn.Module, dict[str, str]]] = {}
    left, within = set(parameters), "."  # no module's place begins so
    for place, module in model.named_modules(remove_duplicate=False):
        if place.startswith(within):
            continue
        own = {kind: names[id(p)] for kind, p in module.named_parameters(recurse=False) if id(p) in names}
        if own and type(module) not in _KNOWN:
            if any(isinstance(part, _KNOWN) for part in module.modules()):
                raise _UnfitError(
                    f"{place}, which holds {', '.join(own.values())}, is a {type(module).__name__}"
                )
            own = {kind: names[id(p)] for kind, p in module.named_parameters() if id(p) in names}
            within = place + "."
        if not left.issuperset(own.values()):
            raise _UnfitError(f"{place} uses {', '.join(own.values())} beside another module")
        left -= set(own.values())
        if own:
            held[place] = (module, own)
    if left:
        raise _UnfitError(f"no module holds {', '.join(sorted(left))}")
    norms = [
        name for module, own in held.values() if type(module) is torch.nn.LayerNorm for name in own.values()
    ]
    others = [
        own["bias"] for module, own in held.values() if type(module) is torch.nn.Linear and "bias" in own
    ]
    whole = [name for module, own in held.values() if type(module) not in _KNOWN for name in own.values()]
    size = sum(parameters[name].numel() for name in whole)
    if size > _MOST:
        raise _UnfitError(f"{', '.join(whole)} are {size} weights of other modules; {_MOST} at most")
    others += whole
    columns = Columns(arena, norms, others, _name_fixed(held))
    layers = {place: _layer(module, own, stage, arena, columns) for place, (module, own) in held.items()}
    for place, layer in layers.items():
        model.set_submodule(place, layer)
    return layers, columns


def _name_fixed(held: Mapping[str, tuple[torch.nn.Module, dict[str, str]]]) -> dict[str, torch.Tensor]:
    """Add to ``held`` a name for what no switch can touch of a normalization, and give the values by these;
    of what is not there, those that change nothing.
    """
    neutral = {"weight": torch.ones_like, "bias": torch.zeros_like}
    fixed = {}
    for place, (module, own) in held.items():
        if type(module) is torch.nn.LayerNorm:
            for kind in [kind for kind in neutral if kind not in own]:
                value = getattr(module, kind)
                own[kind] = f"{place}.{kind}"
                fixed[own[kind]] = neutral[kind](module.weight) if value is None else value
    return fixed


def _layer(
    module: torch.nn.Module, own: Mapping[str, str], stage: Stage, arena: Arena, columns: Columns
) -> Layer:
    """The overlaid layer for a module; ``own`` gives its parameters' names in the arena or, of those that are
    fixed, in ``columns``.
    """
    if type(module) not in _KNOWN:
        return Whole(module, stage, columns={kind: columns.start[name] for kind, name in own.items()})
    if isinstance(module, torch.nn.LayerNorm):
        return Norm(module, stage, weight=columns.start[own["weight"]], bias=columns.start[own["bias"]])
    weight, bias = own.get("weight", ""), own.get("bias", "")
    tensor, block = arena.names.index(weight), arena.first_block[weight]
    if isinstance(module, torch.nn.Linear):
        return Linear(module, stage, weight=tensor, block=block, bias=columns.start.get(bias, -1))
    assert isinstance(module, torch.nn.Embedding)
    return Embedding(module, stage, weight=tensor, block=block)
