"""What Auto-Switch compares: what the base makes of an input halfway up, and how a text is written.

Knows no switch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bitswitch.base import style
from bitswitch.base.model import Base, Hidden
from bitswitch.base.pooling import first, last, mean
from bitswitch.core import Row

_ENDS = {"text": ("last", last), "image": ("first", first)}
"""The token that the mean goes with: an encoder's separator, a vision transformer's class token."""
STYLE = 0.4
"""The length of a single text's style beside the hidden state's, which is 1."""


def layer(base: Base) -> int:
    """Which of the hidden states is read: half of the layers, rounded up (0 would be the embeddings)."""
    layers: int = base.model.config.num_hidden_layers
    return (layers + 1) // 2


def recipe(base: Base) -> str:
    """What `features` computes, e.g. ``hidden:3|mean+last|l2|style:0.4|pair:0.2``; equal ones compare."""
    name, _ = _ENDS[base.encoder.kind]
    hidden = f"hidden:{layer(base)}|mean+{name}|l2"
    return f"{hidden}|style:{STYLE:g}|pair:{STYLE * style.PAIR:g}" if base.encoder.kind == "text" else hidden


def dim(base: Base) -> int:
    """How many values a feature vector has."""
    return int(base.model.config.hidden_size) + (style.DIM if base.encoder.kind == "text" else 0)


@torch.inference_mode()
def features(base: Base, hidden: Hidden, rows: Sequence[Row]) -> torch.Tensor:
    """Mean over the tokens of one hidden state plus its last, or an image's first; then a text's style.

    Each of the two is scaled to length 1 before they are added, and so is the sum. An encoder's last token
    is its separator, which collects how a text is written, and the mean what it is about: routes get
    better, vectors no longer.

    Args:
        hidden: what the model made of ``rows``, at least as far as `layer`.
        rows: as encoded for `Want.FEATURES`.

    Returns:
        float32 (rows, `dim`).
    """
    tokens, mask = hidden.layer(layer(base)).float(), hidden.mask
    _, end = _ENDS[base.encoder.kind]
    both = _unit(_unit(mean(tokens, mask)) + _unit(end(tokens, mask)))
    written = [row.style for row in rows if row.style is not None]
    if not written:
        return both
    return torch.cat([both, STYLE * torch.from_numpy(np.stack(written)).to(both)], dim=-1)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)
