"""The judge of what is served: answers of an ordinary model whose weights were written once, as the mix says.

Knows nothing of kernels, journals or overlays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitswitch.base.heads import Heads
from bitswitch.base.load import load
from bitswitch.core import Want
from bitswitch_store.switch import Switch, TensorSwitch


def steps(tensor: TensorSwitch, weight: float) -> torch.Tensor:
    """``w·k·s`` of every weight of a switch's tensor, float32, in the tensor's shape."""
    active = np.unpackbits(tensor.activation, count=tensor.numel, bitorder="little").astype(bool)
    signs = np.zeros(tensor.numel, np.float32)
    signs[active] = 2.0 * np.unpackbits(tensor.polarity, count=tensor.active, bitorder="little") - 1.0
    knobs = np.float32(weight) * tensor.knobs.reshape(-1, *[1] * (len(tensor.shape) - 1))
    return torch.from_numpy(signs.reshape(tensor.shape) * knobs)


def probabilities(
    folder: Path, mix: Sequence[tuple[Switch, float]], head: Switch, texts: Sequence[str]
) -> NDArray[np.float32]:
    """Of each text's labels, text by text: float32 (texts, labels).

    Args:
        folder: of the base.
        mix: switches and weights.
        head: the switch whose head answers.
    """
    base = load(folder)
    assert head.head is not None
    sums: dict[str, torch.Tensor] = {}
    for switch, weight in mix:
        for tensor in switch.tensors:
            step = steps(tensor, weight)
            sums[tensor.name] = sums[tensor.name] + step if tensor.name in sums else step
    with torch.no_grad():
        for name, step in sums.items():
            base.parameters[name].copy_((base.parameters[name].float() + step).to(base.dtype))
    answering = Heads(base).build(head.head)
    rows = base.encode(texts, want=Want.CLASSIFY)
    return np.concatenate([answering(base.forward([row])).float().numpy() for row in rows])
