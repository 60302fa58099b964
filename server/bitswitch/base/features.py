"""The vectors that Auto-Switch compares: what the base makes of a text halfway up. Knows no switch."""

from __future__ import annotations

import torch

from bitswitch.base.model import Base, Hidden
from bitswitch.base.pooling import mean


def layer(base: Base) -> int:
    """Which of the hidden states is read: half of the layers, rounded up (0 would be the embeddings)."""
    layers: int = base.model.config.num_hidden_layers
    return (layers + 1) // 2


def recipe(base: Base) -> str:
    """What `features` computes, e.g. ``hidden:3|mean|l2``: only features of equal recipes compare."""
    return f"hidden:{layer(base)}|mean|l2"


def dim(base: Base) -> int:
    """How many values a feature vector has."""
    return int(base.model.config.hidden_size)


@torch.inference_mode()
def features(base: Base, hidden: Hidden) -> torch.Tensor:
    """Mean over the tokens of one hidden state, scaled to length 1: float32 (rows, dim)."""
    tokens = hidden.layer(layer(base)).float()
    return torch.nn.functional.normalize(mean(tokens, hidden.fields["attention_mask"]), dim=-1)
