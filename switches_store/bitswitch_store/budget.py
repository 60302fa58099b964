"""Our rule: a magnitude threshold per matrix, set so that the switch meets a size.

Matrices get a knob per row; vectors (biases, norms) are kept dense with a knob per weight. The thresholds
are those at which one more byte would buy the same everywhere: so the bits go where τ is large, and
where they code cheaply. Knows nothing of files or heads: a function given to it says how large the switch
with some tensors is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import planes
from bitswitch_store.knobs import rounded
from bitswitch_store.spectrum import Spectrum
from bitswitch_store.switch import SwitchError, TensorSwitch
from bitswitch_store.task_vector import TaskVector

Sizer = Callable[[Sequence[TensorSwitch]], int]

# The estimate of a size is 1–2 % off, so the file is measured and the aim mended, this often at most.
_TRIES = 6
_AIM = 0.996
_ENOUGH = 0.988
_HALVINGS = 50


def budget_tensors(vector: TaskVector, limit: int, size: Sizer) -> tuple[TensorSwitch, ...]:
    """The tensors of a switch that takes at most ``limit`` bytes: nearly that, or all that helps.

    Args:
        vector: the task vector; read once to count it and once for each try, mostly two.
        limit: bytes of the switch.
        size: bytes of the switch with these tensors.

    Raises:
        SwitchError: what does not shrink (query set, vectors) is above the limit by itself.
    """
    vectors: list[TensorSwitch] = []
    spectra: dict[str, Spectrum] = {}
    for name in vector.names:
        tau = vector.read(name)
        if tau.ndim == 1:
            vectors += above(name, tau, 0.0)
        else:
            spectra[name] = Spectrum.of(tau)
    best = tuple(vectors)
    fixed = reached = size(best)
    if fixed > limit:
        raise SwitchError(
            f"the budget allows {limit} bytes, but query set, biases and norms take {fixed} without"
            f" any matrix; a budget {fixed / limit:.2f} times as large would just hold them"
        )
    aim = goal = _AIM * limit - fixed
    for _ in range(_TRIES):
        chosen = _choice(spectra, aim)
        tensors = list(vectors)
        for name, place in chosen.items():
            tensors += above(name, vector.read(name), float(spectra[name].thresholds[place]))
        tensors.sort(key=lambda tensor: tensor.name)
        taken = size(tensors)
        estimate = _total(spectra, chosen)
        if reached <= taken <= limit:
            best, reached = tuple(tensors), taken
            if taken >= _ENOUGH * limit or chosen == _choice(spectra, float("inf")):
                break
        aim = goal * estimate / max(taken - fixed, 1)
    return best


def above(name: str, tau: NDArray[np.float32], threshold: float) -> list[TensorSwitch]:
    """The weights of one tensor that move by ``threshold`` or more: one tensor switch, or none.

    Args:
        name: the tensor's.
        tau: its task vector, float32 with one dimension or more, finite.
        threshold: a magnitude; at 0 every weight that moves at all.

    Returns:
        a knob per row, rounded to 8 bits: the mean of ``|τ|`` over the row's active weights, times what
        gives the tensor the norm that τ has in all. Least squares would leave it at the mean; but what
        the dropped weights did together, the kept ones have to do. A row whose knob would round to 0
        (below 4.7e-7) is left out.
    """
    rows = tau.reshape(tau.shape[0], -1)
    active = np.abs(rows) >= max(threshold, float(np.finfo(np.float32).smallest_subnormal))
    count = active.sum(axis=1)
    mean = np.abs(rows).sum(axis=1, where=active, dtype=np.float64) / np.maximum(count, 1)
    kept = math.sqrt(float(np.dot(count, np.square(mean))))
    whole = math.sqrt(float(np.square(rows, dtype=np.float64).sum()))
    knobs = rounded(mean * (whole / kept if kept else 0.0))
    active &= (knobs > 0)[:, None]
    if not active.any():
        return []
    ternary = np.sign(rows).astype(np.int8) * active
    return [TensorSwitch(name, tau.shape, *planes.pack(ternary), knobs)]


def _choice(spectra: Mapping[str, Spectrum], aim: float) -> dict[str, int]:
    """A threshold for each matrix: the lowest common price of a byte at which ``aim`` bytes suffice."""

    def at(price: float) -> dict[str, int]:
        return {name: spectrum.best(price) for name, spectrum in spectra.items()}

    free = at(0.0)
    if _total(spectra, free) <= aim or not spectra:
        return free
    # At the highest price no matrix is worth a byte, since none takes less than one.
    high = 2 * max(float(spectrum.gains.max()) for spectrum in spectra.values())
    low = high * 2.0**-80
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        if _total(spectra, at(middle)) <= aim:
            high = middle
        else:
            low = middle
    chosen = at(high)
    # At a hair below this price some matrix would leap past the aim: it takes what is left instead.
    for name, place in at(low).items():
        if place != chosen[name]:
            spectrum = spectra[name]
            left = aim - _total(spectra, chosen) + float(spectrum.sizes[chosen[name]])
            chosen[name] = spectrum.within(left)
    return chosen


def _total(spectra: Mapping[str, Spectrum], chosen: Mapping[str, int]) -> float:
    """About the bytes of these matrices at these thresholds."""
    return sum(float(spectra[name].sizes[place]) for name, place in chosen.items())
