"""The vectors that Auto-Switch compares: what the base makes of a text halfway up. Knows no switch."""

from __future__ import annotations

import torch

from bitswitch.base.model import Base, Hidden
from bitswitch.base.pooling import last, mean


def layer(base: Base) -> int:
    """Which of the hidden states is read: half of the layers, rounded up (0 would be the embeddings)."""
    layers: int = base.model.config.num_hidden_layers
    return (layers + 1) // 2


def recipe(base: Base) -> str:
    """What `features` computes, e.g. ``hidden:3|mean+last|l2``: only features of equal recipes compare."""
    return f"hidden:{layer(base)}|mean+last|l2"


def dim(base: Base) -> int:
    """How many values a feature vector has."""
    return int(base.model.config.hidden_size)


@torch.inference_mode()
def features(base: Base, hidden: Hidden) -> torch.Tensor:
    """Mean over the tokens of one hidden state plus its last token: float32 (rows, dim), of length 1.

    Each is scaled to length 1 before they are added. An encoder's last token is its separator, which
    collects how a text is written, and the mean what it is about: routes get better, vectors no longer.
    """
    tokens, mask = hidden.layer(layer(base)).float(), hidden.fields["attention_mask"]
    both = _unit(mean(tokens, mask)) + _unit(last(tokens, mask))
    return _unit(both)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)
