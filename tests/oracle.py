"""The weights that a mix must give, written as plainly as the contract states them: slow, and the judge.

The contract: every weight is ``round_to_dtype(w_base + Σ wᵢ·kᵢ·sᵢ)``, the sum in float32 in the mix's
own order; a weight that no switch of the mix touches keeps the base's bits. ``wᵢ·kᵢ`` is one float32
product of the weight rounded to float32 and the knob.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from bitswitch_store.switch import Switch, TensorSwitch


def signs(tensor: TensorSwitch) -> NDArray[np.int8]:
    """The tensor's −1, 0 and +1, in its shape."""
    active = np.unpackbits(tensor.activation, count=tensor.numel, bitorder="little").astype(bool)
    up = np.unpackbits(tensor.polarity, count=tensor.active, bitorder="little")
    flat = np.zeros(tensor.numel, np.int8)
    flat[active] = np.where(up == 1, 1, -1)
    return flat.reshape(tensor.shape)


def knob_per_weight(tensor: TensorSwitch) -> NDArray[np.float32]:
    """The knobs, one per tensor or per row, spread over the tensor's shape."""
    ones = (1,) * (len(tensor.shape) - 1)
    return np.broadcast_to(tensor.knobs.reshape(-1, *ones), tensor.shape)


def written(base: Mapping[str, torch.Tensor], mix: Iterable[tuple[Switch, float]]) -> dict[str, torch.Tensor]:
    """Every tensor of ``base`` (fp32, fp16 or bf16, by the base file's names) as ``mix`` sets it."""
    terms: dict[str, list[tuple[NDArray[np.int8], NDArray[np.float32]]]] = {}
    for switch, weight in mix:
        for tensor in switch.tensors:
            strength = np.float32(weight) * knob_per_weight(tensor)
            terms.setdefault(tensor.name, []).append((signs(tensor), strength))
    result = {}
    for name, stored in base.items():
        result[name] = stored.clone()
        if name not in terms:
            continue
        acc = np.zeros(tuple(stored.shape), np.float32)
        touched = np.zeros(tuple(stored.shape), bool)
        for sign, strength in terms[name]:
            acc = acc + strength * sign.astype(np.float32)
            touched |= sign != 0
        total = (stored.float() + torch.from_numpy(acc)).to(stored.dtype)
        where = torch.from_numpy(touched)
        result[name][where] = total[where]
    return result
