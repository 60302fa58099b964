"""Whether a base is answered right by other ways than writing all its weights: a few rows, both ways.

Knows nothing of how those ways work. Moves the weights, through `Swap`, and leaves them at the base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from bitswitch.base.model import Base, Hidden
from bitswitch.core import Mix, Row
from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.mixes import Part
from bitswitch.engine.planes import Planes
from bitswitch.engine.swap import Swap
from bitswitch_store.switch import Rule, Switch, TensorSwitch

TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far answers may lie apart, as a share of what the switch changes; a layer left out is far more."""

_DENSITY = 0.005
_DENSITY_OF_TABLES = 0.02
_STRENGTH = 2.0
_WEIGHTS = (0.7, 0.0, -0.4)


def parts(base: Base, arena: Arena) -> list[tuple[Part, ...]]:
    """A mix for each of the encoder's three samples: one switch, which touches every parameter, at other
    weights; and the bare base.
    """
    planes = Planes(arena, _switch(base, sorted(base.parameters), _DENSITY))
    return [(Part(planes, weight),) if weight else () for weight in _WEIGHTS]


def apart(
    base: Base, arena: Arena, rows: Sequence[Row], parts: Sequence[Sequence[Part]], hidden: Hidden
) -> float:
    """How far ``hidden`` lies from the answers in place, as a share of how far these lie from the base's."""
    bare = base.forward(rows)
    difference = change = 0.0
    swap = Swap(arena, whole=True)
    for i, mix in enumerate(parts):
        with swap.at(Mix.of((str(n), p.weight) for n, p in enumerate(mix)), [p.planes for p in mix]):
            expected = base.forward(rows)
        swap.rest()
        own, right, before = (_answer(one.rows(i, i + 1), rows[i]) for one in (hidden, expected, bare))
        difference += float((own - right).square().sum())
        change += float((right - before).square().sum())
    return float(np.sqrt(difference / change))


def require_same(
    base: Base,
    arena: Arena,
    tables: Sequence[str],
    forward: Callable[[Sequence[Row], Sequence[Part]], Hidden],
) -> None:
    """Let ``forward`` answer a few rows at a mix of ``tables``, which are not written.

    Raises:
        ValueError: a bit differs from what the base answers with them written, or nothing depends on them.
    """
    rows, planes = base.encoder.samples(), Planes(arena, _switch(base, tables, _DENSITY_OF_TABLES))
    swap = Swap(arena, whole=True)
    with swap.at(Mix.of([("trial", 1.0)]), [planes]):
        right = base.forward(rows)
    swap.rest()
    found, bare = forward(rows, [Part(planes, 1.0)]), base.forward(rows)
    one, other, without = (
        torch.cat([_answer(hidden.rows(i, i + 1), row).flatten() for i, row in enumerate(rows)])
        for hidden in (found, right, bare)
    )
    if not torch.equal(one, other):
        raise ValueError(f"answers differ by up to {float((one - other).abs().max()):.1e}")
    if torch.equal(other, without):
        raise ValueError("answers do not depend on them")


def _answer(hidden: Hidden, row: Row) -> torch.Tensor:
    """A row's last state at its tokens, and what the pooler made of it, float32 (tokens, dim)."""
    state: torch.Tensor = hidden.output["last_hidden_state"][0, : row.length]
    pooled = hidden.output.get("pooler_output")
    return (state if pooled is None else torch.cat([state, pooled])).float()


def _switch(base: Base, names: Sequence[str], density: float) -> Switch:
    generator = np.random.default_rng(0)
    tensors = (_tensor(name, base.parameters[name], density, generator) for name in names)
    return Switch(base.identity, Rule("trial"), tuple(tensors), "trial")


def _tensor(name: str, tensor: torch.Tensor, density: float, generator: np.random.Generator) -> TensorSwitch:
    """Some weights of a tensor, a vector's all, moved by a good share of what they spread."""
    size = tensor.numel()
    bits = np.zeros(-(-size // 8), np.uint8)
    if tensor.dim() == 1:
        active = np.arange(size)
    else:
        active = np.unique(generator.integers(size, size=max(int(size * density), 1)))
    np.bitwise_or.at(bits, active >> 3, (1 << (active & 7)).astype(np.uint8))
    some = tensor.reshape(-1)[:BLOCK].float()  # of a table of words, all would take longer than a pass
    knob = np.float32(_STRENGTH * float(some.square().mean().sqrt()) + 1e-3)
    knob = np.float32(knob / 20) if tensor.dim() == 1 else knob
    polarity = np.packbits(generator.random(active.size) < 0.5, bitorder="little")
    return TensorSwitch(name, tuple(tensor.shape), bits, polarity, np.array([knob], np.float32))
