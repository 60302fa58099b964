"""A budget's switch, calibrated: the bits are chosen anew by what a fine-tune answers to a few texts.

No labels and no training. Each pass runs the switched model once over all texts; on the way every linear
layer is fitted (`layer.py`) to the fine-tune's answers, at one price of a bit for all layers, and its
bias takes up what is left in the mean. Between passes the price is turned until the file meets the
budget. Knows nothing of files or of the command line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bitswitch.calibrate.layer import RIDGE, Layer
from bitswitch.calibrate.pair import Pair, Text
from bitswitch_store import planes
from bitswitch_store.budget import Sizer, above
from bitswitch_store.checkpoint import Checkpoint
from bitswitch_store.match import match
from bitswitch_store.switch import TensorSwitch
from bitswitch_store.task_vector import TaskVector

PASSES = 6
"""How often the switched model is run and fitted; more bring little."""

_AIM = 0.992
# The first price, in the worth of a usual weight by itself: much of it the others could do as well.
_START = 20.0
# Bytes go with the price to about the power −⅓ at first; two passes tell better, within reason.
_SLOPE = -1 / 3
_SLOPES = (-1.0, -0.2)
# An output that no probe found to matter still counts this share of the layer's mean.
_LEAST = 0.05


@dataclass(frozen=True)
class Calibration:
    """How to calibrate; a `bitswitch_store.binarize.Refinement`.

    Attributes:
        base: folder of the base.
        finetuned: folder of the fine-tune.
        texts: unlabelled example inputs, one or more; about 100 do.
        seed: of the random directions by which the layers' sensitivities are probed.
        progress: told (passes done, of how many, the best distance from the fine-tune's answers so far).
    """

    base: Path
    finetuned: Path
    texts: Sequence[Text]
    seed: int = 0
    progress: Callable[[int, int, float], None] | None = None

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("calibration needs example inputs; about 100 texts without labels do")

    @property
    def parameters(self) -> Mapping[str, float]:
        """What the switch's rule tells of it: how many texts, and with which settings."""
        return {"calibrated": len(self.texts), "passes": PASSES, "ridge": RIDGE, "seed": self.seed}

    def __call__(
        self, vector: TaskVector, tensors: Sequence[TensorSwitch], *, limit: int, size: Sizer
    ) -> Sequence[TensorSwitch]:
        """Calibrated tensors of at most ``limit`` bytes; the given ones if those answer better.

        Raises:
            CheckpointError: a folder is no checkpoint, or the fine-tune is none of this base.
            BaseError: the base does not load.
        """
        head = bool(match(Checkpoint.open(self.base), Checkpoint.open(self.finetuned)).head)
        pair = Pair(self.base, self.finetuned, self.texts, head=head)
        work = _Work(pair, vector, tensors, self.seed)
        best, least = tuple(tensors), pair.distance(pair.run_switched())
        fixed = size(work.fixed)
        seen: list[tuple[float, float]] = []
        price = work.price
        for number in range(1, PASSES + 1):
            distance = pair.distance(pair.run_switched(partial(work.fit, price)))
            found = work.tensors()
            taken = size(found)
            if taken <= limit and distance < least:
                best, least = found, distance
            if self.progress is not None:
                self.progress(number, PASSES, least)
            seen.append((math.log(price), math.log(max(taken - fixed, 1))))
            price = _next(seen, math.log(max(_AIM * limit - fixed, 1)))
        return best


class _Work:
    """The layers while they are fitted, the biases that go with them, and what stays as it was given."""

    def __init__(self, pair: Pair, vector: TaskVector, tensors: Sequence[TensorSwitch], seed: int) -> None:
        given = {tensor.name: tensor for tensor in tensors}
        for name, tensor in given.items():
            pair.set(name, pair.base[name] + _moved(tensor))
        sensitivities = pair.sensitivities(seed)
        reached = sensitivities.keys() & vector.names
        self._pair = pair
        self._layers: dict[str, Layer] = {}
        self._wanted: dict[str, torch.Tensor] = {}
        prices: list[float] = []

        def watch(name: str, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
            if name not in reached:
                return
            tau = torch.from_numpy(vector.read(name))
            weights = sensitivities[name]
            weights = weights.clamp_min(_LEAST * float(weights.mean()) + 1e-30)
            self._wanted[name] = outputs
            self._layers[name] = Layer(name, pair.base[name], tau, weights.numpy(), given.get(name))
            # What a usual weight is worth to the answers.
            prices.append(float(tau.square().mean() * inputs.var(dim=0).mean() * weights.median()))

        pair.run_finetune(watch)
        self._taus = {
            pair.biases[name]: vector.read(pair.biases[name]) for name in reached if name in pair.biases
        }
        self.fixed = [one for one in tensors if one.name not in self._layers.keys() | self._taus.keys()]
        self.price = _START * float(np.median(prices))

    def fit(self, price: float, name: str, inputs: torch.Tensor, _: torch.Tensor) -> None:
        """Fit one layer, and set it in the model: its weights, and the bias that makes its means right."""
        layer = self._layers.get(name)
        if layer is None:
            return
        bias = self._pair.biases.get(name)
        layer.fit(inputs, self._wanted[name], price, centre=bias is not None)
        weight = layer.weight
        self._pair.set(name, weight)
        if bias is not None:
            base = self._pair.base[bias]
            self._taus[bias] = ((self._wanted[name] - inputs @ weight.T).mean(dim=0) - base).numpy()
            moved = [_moved(part) for part in above(bias, self._taus[bias], 0.0)]
            self._pair.set(bias, sum(moved, start=base))

    def tensors(self) -> tuple[TensorSwitch, ...]:
        """All tensors as they are now."""
        found = [*self.fixed]
        for layer in self._layers.values():
            found += layer.tensors()
        for bias, tau in self._taus.items():
            found += above(bias, tau, 0.0)
        return tuple(sorted(found, key=lambda tensor: tensor.name))


def _moved(tensor: TensorSwitch) -> torch.Tensor:
    """What a tensor switch adds to its tensor, float32."""
    knobs = tensor.knobs.reshape(-1, *[1] * (len(tensor.shape) - 1))
    return torch.from_numpy(planes.unpack(tensor) * knobs)


def _next(seen: Sequence[tuple[float, float]], goal: float) -> float:
    """The price to try next, from (log price, log bytes) of the passes so far and the log of the goal."""
    price, taken = seen[-1]
    slope = _SLOPE
    if len(seen) > 1 and abs(price - seen[-2][0]) > 0.01:
        least, most = _SLOPES
        slope = min(max((taken - seen[-2][1]) / (price - seen[-2][0]), least), most)
    return math.exp(price + (goal - taken) / slope)
