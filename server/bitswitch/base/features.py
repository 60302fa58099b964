"""The vectors that Auto-Switch compares: what the base makes of an input halfway up. Knows no switch."""

from __future__ import annotations

import torch

from bitswitch.base.model import Base, Hidden
from bitswitch.base.pooling import first, last, mean

_ENDS = {"text": ("last", last), "image": ("first", first)}
"""The token that the mean goes with: an encoder's separator, a vision transformer's class token."""


def layer(base: Base) -> int:
    """Which of the hidden states is read: half of the layers, rounded up (0 would be the embeddings)."""
    layers: int = base.model.config.num_hidden_layers
    return (layers + 1) // 2


def recipe(base: Base) -> str:
    """What `features` computes, e.g. ``hidden:3|mean+last|l2``: only features of equal recipes compare."""
    name, _ = _ENDS[base.encoder.kind]
    return f"hidden:{layer(base)}|mean+{name}|l2"


def dim(base: Base) -> int:
    """How many values a feature vector has."""
    return int(base.model.config.hidden_size)


@torch.inference_mode()
def features(base: Base, hidden: Hidden) -> torch.Tensor:
    """Mean over the tokens of one hidden state plus its last, or an image's first: float32 (rows, dim).

    Each is scaled to length 1 before they are added, and so is the sum. An encoder's last token is its
    separator, which collects how a text is written, and the mean what it is about: routes get better,
    vectors no longer.
    """
    tokens, mask = hidden.layer(layer(base)).float(), hidden.mask
    _, end = _ENDS[base.encoder.kind]
    both = _unit(mean(tokens, mask)) + _unit(end(tokens, mask))
    return _unit(both)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)
