"""The paper's rule, exactly as its authors' released code computes it.

*Less is More: Efficient Model Merging with Binary Task Switch*, CVPR 2025. Knows nothing of files,
models or budgets: one task vector in, its signs and its one scale out.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import planes
from bitswitch_store.switch import TensorSwitch
from bitswitch_store.task_vector import TaskVector


def paper(tau: NDArray[np.float32], alpha: float) -> tuple[NDArray[np.int8], float]:
    """Keep the largest of each sign, and give all that is kept one magnitude.

    Of the n₊ positive entries the ``int(n₊·(1−α))`` largest are kept, of the negative ones likewise in
    magnitude; ties at the threshold are kept too. Where that count is 0 the sign is kept whole: the
    released code does so, and a tensor of few weights is therefore never lost.

    Args:
        tau: one tensor's task vector, any shape, finite.
        alpha: the share of each sign to drop, 0 ≤ α < 1.

    Returns:
        int8 −1, 0, +1 in tau's shape, and the scale ``‖kept‖₂ / √(number kept)``; 0.0 if tau is all zero.
    """
    flat = tau.reshape(-1)
    ternary = np.zeros(flat.size, np.int8)
    for sign in (1, -1):
        magnitude = flat if sign == 1 else -flat
        ternary[_largest(magnitude, alpha)] = sign
    kept = flat[ternary != 0].astype(np.float64)
    # Scaled by the largest, so that the squares of tiny or huge entries stay in range.
    largest = float(np.abs(kept).max(initial=0.0))
    scale = largest * math.sqrt(float(np.square(kept / largest).mean())) if largest else 0.0
    return ternary.reshape(tau.shape), scale


def paper_tensors(vector: TaskVector, alpha: float) -> tuple[TensorSwitch, ...]:
    """The rule on every tensor, a knob per tensor; a tensor without any difference is left out."""
    switched = []
    for name in vector.names:
        ternary, scale = paper(vector.read(name), alpha)
        if scale > 0:
            knobs = np.maximum(np.array([scale], np.float32), np.finfo(np.float32).smallest_subnormal)
            switched.append(TensorSwitch(name, vector.shape(name), *planes.pack(ternary), knobs))
    return tuple(switched)


def _largest(magnitude: NDArray[np.float32], alpha: float) -> NDArray[np.bool_]:
    """Which positive entries reach the threshold, (n,)."""
    candidates = magnitude[magnitude > 0]
    count = int(candidates.size * (1 - alpha))
    if count == 0:
        return magnitude > 0
    place = candidates.size - count
    threshold = np.partition(candidates, place)[place]
    reaching: NDArray[np.bool_] = magnitude >= threshold
    return reaching
