"""A budget's switch, calibrated: the bits are chosen anew by what a fine-tune answers to a few texts.

No labels. Each pass runs the switched model once over all texts; on the way every linear layer is fitted
(`layer.py`) to the fine-tune's answers, at one price of a bit for all layers, and its bias takes up what is
left in the mean. Between passes the price is turned until the file meets the budget, and the fit is held less
to the task vector; a pass above the budget is measured without its weights of least worth. Which pass is
taken, and whether any, is for texts to say that none was fitted to; knobs and vectors of what is taken, or of
the switch as it was given, are tuned in the end (`tuning.py`). Knows nothing of files or of the command line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bitswitch.calibrate.layer import Layer
from bitswitch.calibrate.pair import Pair, Text
from bitswitch.calibrate.tuning import STEPS, tuned
from bitswitch_store import planes
from bitswitch_store.binarize import RefinedSizer
from bitswitch_store.budget import Sizer, above
from bitswitch_store.checkpoint import Checkpoint
from bitswitch_store.match import match
from bitswitch_store.switch import TensorSwitch
from bitswitch_store.task_vector import TaskVector

RIDGES = (0.3, 0.1, 0.1, 0.03, 0.03)
"""Of each pass, as `layer.Layer.fit` takes it: from fits near τ to such that trust the texts."""

LEAST = 10
"""Fewer texts are none to fit to and to measure by."""

# Every so many-th text is held out.
_HELD_OUT = 5
_AIM = 0.992
# A pass above the budget loses its weights of least worth: this share at most, and down to so much of it.
_TRIMMED = 0.3
_TRIM_AIM = 0.998
# The first price, in the worth of a usual weight by itself: much of it the others could do as well.
_START = 20.0
# Bytes go with the price to about the power −¼; between two passes the fit itself moves them as much.
_SLOPE = -1 / 4
# An output that no probe found to matter still counts this share of the layer's mean.
_LEAST = 0.05


@dataclass(frozen=True)
class Calibration:
    """How to calibrate; a `bitswitch_store.binarize.Refinement`.

    Attributes:
        base: folder of the base.
        finetuned: folder of the fine-tune.
        texts: unlabelled example inputs, `LEAST` or more; about 100 do.
        seed: of the random directions by which the layers' sensitivities are probed.
        progress: told (passes done, of how many with the tuning, the least divergence of a switch so far).
    """

    base: Path
    finetuned: Path
    texts: Sequence[Text]
    seed: int = 0
    progress: Callable[[int, int, float], None] | None = None

    def __post_init__(self) -> None:
        if len(self.texts) < LEAST:
            raise ValueError(
                f"calibration has {len(self.texts)} example inputs and needs {LEAST} or more, since it fits"
                " to some and measures by others; about 100 texts without labels do"
            )

    def __call__(
        self, vector: TaskVector, tensors: Sequence[TensorSwitch], *, limit: int, size: RefinedSizer
    ) -> tuple[Sequence[TensorSwitch], Mapping[str, float]]:
        """Calibrated tensors of at most ``limit`` bytes, and how they came about.

        On the texts held out, a pass must diverge less than the given tensors do, by more than chance gives,
        and change no more labels, or only by chance. Of such passes it is the one that diverges least; if
        there is none, the given tensors. Either is tuned if that stands the same test and diverges less
        still. Of given tensors that stay as they are there is nothing to tell.

        Raises:
            CheckpointError: a folder is no checkpoint, or the fine-tune is none of this base.
            BaseError: the base does not load.
        """
        head = bool(match(Checkpoint.open(self.base), Checkpoint.open(self.finetuned)).head)
        held_out = self.texts[_HELD_OUT - 1 :: _HELD_OUT]
        fitted = [text for place, text in enumerate(self.texts, start=1) if place % _HELD_OUT]
        pair = Pair(self.base, self.finetuned, fitted, held_out, head=head)
        work = _Work(pair, vector, tensors, self.seed)
        best = _Best(pair, tensors, limit)
        fixed = size(work.fixed, {})
        price = work.price
        always = {"calibrated": len(fitted), "held_out": len(held_out), "seed": self.seed}
        for number, ridge in enumerate(RIDGES, start=1):
            pair.run_switched(partial(work.fit, price, ridge))
            told = {**always, "passes": number, "ridge": ridge}
            found = work.tensors()
            taken = size(found, told)
            found, trimmed, worth = work.within(limit, found, taken, lambda some: size(some, told))  # noqa: B023
            best.offer(found, told, trimmed)
            self._tell(number, best)
            price = max(worth, price * (max(_AIM * limit - fixed, 1) / max(taken - fixed, 1)) ** (1 / _SLOPE))
        _set(pair, best.tensors)
        found, told = tuned(pair, best.tensors, seed=self.seed), {**always, **best.told, "tuned": STEPS}
        _set(pair, found)
        best.offer(found, told, size(found, told))
        self._tell(len(RIDGES) + 1, best)
        return best.tensors, best.told

    def _tell(self, done: int, best: _Best) -> None:
        if self.progress is not None:
            self.progress(done, len(RIDGES) + 1, best.divergence)


class _Best:
    """The least divergent switch so far that stands the test of the texts held out: at first the given one.

    Attributes:
        tensors: the switch's.
        told: how they came about; empty for the given ones.
        divergence: of it, in the mean.
    """

    def __init__(self, pair: Pair, tensors: Sequence[TensorSwitch], limit: int) -> None:
        self._pair = pair
        self._limit = limit
        self._start = pair.distance()
        self.tensors = tensors
        self.told: Mapping[str, float] = {}
        self.divergence = float(self._start.divergence.mean())

    def offer(self, tensors: Sequence[TensorSwitch], told: Mapping[str, float], nbytes: int) -> None:
        """Take this switch, of so many bytes, if it is better; the pair's model is set to it."""
        distance = self._pair.distance()
        divergence = float(distance.divergence.mean())
        if nbytes <= self._limit and divergence < self.divergence and distance.surely_below(self._start):
            self.tensors, self.told, self.divergence = tensors, told, divergence


class _Work:
    """The layers while they are fitted, the biases that go with them, and what stays as it was given."""

    def __init__(self, pair: Pair, vector: TaskVector, tensors: Sequence[TensorSwitch], seed: int) -> None:
        given = {tensor.name: tensor for tensor in tensors}
        _set(pair, tensors)
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
            if not tau.any():  # of a LoRA most layers are the base's own, and stay so
                return
            weights = sensitivities[name]
            weights = weights.clamp_min(_LEAST * float(weights.mean()) + 1e-30)
            self._wanted[name] = outputs
            self._layers[name] = Layer(name, pair.base[name], tau, weights.numpy(), given.get(name))
            # What a usual weight is worth to the answers.
            prices.append(float(tau.square().mean() * inputs.var(dim=0).mean() * weights.median()))

        pair.run_finetune(watch)
        self._taus = {
            pair.biases[name]: vector.read(pair.biases[name]) for name in self._layers if name in pair.biases
        }
        self.fixed = [one for one in tensors if one.name not in self._layers.keys() | self._taus.keys()]
        self.price = _START * float(np.median(prices)) if prices else 0.0

    def fit(self, price: float, ridge: float, name: str, inputs: torch.Tensor, _: torch.Tensor) -> None:
        """Fit one layer, and set it in the model: its weights, and the bias that makes its means right."""
        layer = self._layers.get(name)
        if layer is None:
            return
        bias = self._pair.biases.get(name)
        layer.fit(inputs, self._wanted[name], price=price, ridge=ridge, centre=bias is not None)
        weight = layer.weight()
        self._pair.set(name, weight)
        if bias is not None:
            base = self._pair.base[bias]
            self._taus[bias] = ((self._wanted[name] - inputs @ weight.T).mean(dim=0) - base).numpy()
            moved = [_moved(part) for part in above(bias, self._taus[bias], 0.0)]
            self._pair.set(bias, sum(moved, start=base))

    def within(
        self, limit: int, found: tuple[TensorSwitch, ...], taken: int, size: Sizer
    ) -> tuple[tuple[TensorSwitch, ...], int, float]:
        """The tensors without the weights that are worth least, their bytes, and what the others are worth
        a bit at least: a price at which they would not have been taken.

        These are at most ``limit`` unless more than `_TRIMMED` of the weights would have to go. The model is
        set to what is left. Few weights leave little to mend, so nothing is fitted again to that.

        Args:
            limit: bytes wanted, at most.
            found: all tensors as they are.
            taken: their bytes.
            size: bytes of the switch with these tensors.
        """
        share, least, fixed = 0.0, -math.inf, 0
        if taken > limit:
            worths = np.concatenate([layer.worths for layer in self._layers.values()])
            fixed = size(self.tensors(math.inf))
        while taken > max(limit, fixed) and share < _TRIMMED:
            share = min(share + (1 - share) * (1 - (_TRIM_AIM * limit - fixed) / (taken - fixed)), _TRIMMED)
            least = float(np.quantile(worths, share))
            found = self.tensors(least)
            taken = size(found)
        for name, layer in self._layers.items():
            self._pair.set(name, layer.weight(least))
        return found, taken, least

    def tensors(self, least: float = -math.inf) -> tuple[TensorSwitch, ...]:
        """All tensors as they are now, of matrices the weights that are worth ``least`` a bit."""
        found = [*self.fixed]
        for layer in self._layers.values():
            found += layer.tensors(least)
        for bias, tau in self._taus.items():
            found += above(bias, tau, 0.0)
        return tuple(sorted(found, key=lambda tensor: tensor.name))


def _set(pair: Pair, tensors: Sequence[TensorSwitch]) -> None:
    """Set a pair's switched model to a switch; what that leaves alone is the base's."""
    moved = {tensor.name: _moved(tensor) for tensor in tensors}
    for name, value in pair.base.items():
        pair.set(name, value + moved[name] if name in moved else value)


def _moved(tensor: TensorSwitch) -> torch.Tensor:
    """What a tensor switch adds to its tensor, float32."""
    return torch.from_numpy(planes.moved(tensor))
