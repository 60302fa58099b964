"""Whether a base's overlaid answers are right: a few rows at random switches, both ways.

Knows nothing of how an overlay works. Moves the weights, through `Swap`, and leaves them at the base.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bitswitch.base.model import Base, Hidden
from bitswitch.core import Mix, Row
from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.needs import Part
from bitswitch.engine.planes import Planes
from bitswitch.engine.swap import Swap
from bitswitch_store.switch import Rule, Switch, TensorSwitch

TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far answers may lie apart, as a share of what the switch changes; a layer left out is far more."""

_DENSITY = 0.005
_STRENGTH = 2.0
_WEIGHTS = (0.7, 0.0, -0.4)


def parts(base: Base, arena: Arena) -> list[tuple[Part, ...]]:
    """A mix for each of the encoder's three samples: one switch, which touches every parameter, at other
    weights; and the bare base.
    """
    planes = Planes(arena, _switch(base))
    return [(Part(planes, weight),) if weight else () for weight in _WEIGHTS]


def apart(
    base: Base, arena: Arena, rows: Sequence[Row], parts: Sequence[Sequence[Part]], hidden: Hidden
) -> float:
    """How far ``hidden`` lies from the answers in place, as a share of how far these lie from the base's."""
    bare = base.forward(rows)
    difference = change = 0.0
    swap = Swap(arena)
    for i, mix in enumerate(parts):
        with swap.at(Mix.of((str(n), p.weight) for n, p in enumerate(mix)), [p.planes for p in mix]):
            expected = base.forward(rows)
        swap.rest()
        own, right, before = (_answer(one.rows(i, i + 1), rows[i]) for one in (hidden, expected, bare))
        difference += float((own - right).square().sum())
        change += float((right - before).square().sum())
    return float(np.sqrt(difference / change))


def _answer(hidden: Hidden, row: Row) -> torch.Tensor:
    """A row's last state at its tokens, and what the pooler made of it, float32 (tokens, dim)."""
    state: torch.Tensor = hidden.output["last_hidden_state"][0, : row.length]
    pooled = hidden.output.get("pooler_output")
    return (state if pooled is None else torch.cat([state, pooled])).float()


def _switch(base: Base) -> Switch:
    generator = np.random.default_rng(0)
    tensors = (_tensor(name, tensor, generator) for name, tensor in sorted(base.parameters.items()))
    return Switch(base.identity, Rule("trial"), tuple(tensors), "trial")


def _tensor(name: str, tensor: torch.Tensor, generator: np.random.Generator) -> TensorSwitch:
    """Some weights of a tensor, a vector's all, moved by a good share of what they spread."""
    size = tensor.numel()
    bits = np.zeros(-(-size // 8), np.uint8)
    if tensor.dim() == 1:
        active = np.arange(size)
    else:
        active = np.unique(generator.integers(size, size=max(int(size * _DENSITY), 1)))
    np.bitwise_or.at(bits, active >> 3, (1 << (active & 7)).astype(np.uint8))
    some = tensor.reshape(-1)[:BLOCK].float()  # of a table of words, all would take longer than a pass
    knob = np.float32(_STRENGTH * float(some.square().mean().sqrt()) + 1e-3)
    knob = np.float32(knob / 20) if tensor.dim() == 1 else knob
    polarity = np.packbits(generator.random(active.size) < 0.5, bitorder="little")
    return TensorSwitch(name, tuple(tensor.shape), bits, polarity, np.array([knob], np.float32))
