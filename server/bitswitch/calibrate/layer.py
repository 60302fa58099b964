"""One linear layer of a switch, fitted to what it saw and what it should have answered.

Knows nothing of models or of how the numbers came about: inputs, wanted outputs and a price go in. The
error it makes small is K-FAC's (Martens & Grosse 2015): ``Σ_rows sensitivity · e·H·e`` for the row's error e
in the weights and the covariance H of the inputs, as in GPTQ, with the inputs that the switched model really
gives the layer and the answers that the fine-tune's layer gives: so a layer also mends what those before it
have lost.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from bitswitch.calibrate.descent import descend
from bitswitch_store import planes
from bitswitch_store.knobs import BITS, rounded
from bitswitch_store.switch import TensorSwitch

_SWEEPS = 2
# Beyond this density one more active weight would cost next to nothing.
_DENSE = 0.6


class Layer:
    """Signs and knobs of one matrix, from the data-free ones on.

    Attributes:
        name: the matrix's name in the base.
        base: its base weights, float32 (outputs, inputs).
        tau: its task vector, likewise.
        sensitivity: float64 (outputs,), positive: how much an error of each output weighs.
        start: the data-free choice; None if it left the matrix alone.
        worths: float32, of each active weight in turn: what it saves of the loss, by itself, for each bit.
    """

    def __init__(
        self,
        name: str,
        base: torch.Tensor,
        tau: torch.Tensor,
        sensitivity: NDArray[np.float64],
        start: TensorSwitch | None,
    ) -> None:
        self.name = name
        self.base = base
        self.tau = tau
        self.sensitivity = sensitivity
        if start is None:
            self._signs = np.zeros(tuple(tau.shape), np.int8)
            self._knobs = np.full(len(tau), float(tau.abs().max()), np.float32)
        else:
            self._signs = planes.unpack(start)
            usual = start.knobs.max()
            self._knobs = np.broadcast_to(np.where(start.knobs > 0, start.knobs, usual), len(tau)).copy()
        self.worths = np.full(np.count_nonzero(self._signs), np.inf, np.float32)

    def weight(self, least: float = -math.inf) -> torch.Tensor:
        """The base's weights with the switch applied, float32 (outputs, inputs); see `tensors`."""
        signs = torch.from_numpy(self._worth(least)).float()
        return torch.addcmul(self.base, signs, torch.from_numpy(self._knobs).unsqueeze(1))

    def tensors(self, least: float = -math.inf) -> list[TensorSwitch]:
        """The tensor switch, of the weights that are worth ``least`` a bit; none if no weight is active."""
        signs = self._worth(least)
        used = (signs != 0).any(axis=1)
        if not used.any():
            return []
        knobs = np.where(used, self._knobs, np.float32(0))
        return [TensorSwitch(self.name, signs.shape, *planes.pack(signs), knobs)]

    def _worth(self, least: float) -> NDArray[np.int8]:
        signs = self._signs.copy()
        signs[signs != 0] *= self.worths >= least
        return signs

    def fit(
        self, inputs: torch.Tensor, outputs: torch.Tensor, *, price: float, ridge: float, centre: bool
    ) -> None:
        """Choose signs and knobs anew, from the present ones on.

        Args:
            inputs: what the layer is given, float32 (positions, inputs).
            outputs: what it should answer, bias left out, float32 (positions, outputs).
            price: of a bit, in the loss that `sensitivity` is of.
            ridge: share of the inputs' mean variance added to every input's: how much is kept to τ itself.
            centre: whether a bias will see to the means.
        """
        if centre:
            inputs = inputs - inputs.mean(dim=0)
        missing = outputs - inputs @ self.base.T
        if centre:
            missing -= missing.mean(dim=0)
        covariance = inputs.T @ inputs / len(inputs)
        wanted = missing.T @ inputs / len(inputs)
        added = ridge * float(covariance.diagonal().mean()) + 1e-12
        covariance.diagonal().add_(added)
        wanted.add_(self.tau, alpha=added)
        norm = float(((self.tau @ covariance) * self.tau).sum())
        bits = self._bits()
        prices, row_prices = bits * price / self.sensitivity, BITS * price / self.sensitivity
        product = torch.from_numpy(self._signs).float() @ covariance
        for _ in range(_SWEEPS):
            self._turn_knobs(product, wanted, norm)
            knobs = torch.from_numpy(self._knobs).unsqueeze(1)
            rest = wanted - knobs * product
            descend(
                self._signs,
                self._knobs,
                wanted.numpy(),
                rest.numpy(),
                covariance.numpy(),
                prices,
                row_prices,
            )
            product = (wanted - rest) / knobs
        # What the loss would rise by without a weight, all others as they are: as the descent saw it.
        rise = knobs * (knobs * covariance.diagonal() + 2 * torch.from_numpy(self._signs) * rest)
        rise *= torch.from_numpy(self.sensitivity / bits).float().unsqueeze(1)
        self._turn_knobs(product, wanted, norm)
        self.worths = rise.numpy()[self._signs != 0]

    def _turn_knobs(self, product: torch.Tensor, wanted: torch.Tensor, norm: float) -> None:
        """Set the knobs for the signs as they are; ``product`` is signs times covariance, and stays so.

        Least squares for each row, then one factor for the matrix, above 1 where needed: its answers
        shall vary as much as the fine-tune's do, though they do not all point where they should.
        """
        signs = torch.from_numpy(self._signs)
        square, along = (product * signs).sum(dim=1), (wanted * signs).sum(dim=1)
        knobs = along / square.clamp_min(1e-30)
        kept = float((knobs.square() * square)[knobs > 0].sum())
        near = rounded((knobs * max(1.0, math.sqrt(norm / kept) if kept else 1.0)).clamp_min(0).numpy())
        lost = near <= 0
        self._signs[lost] = 0
        product[torch.from_numpy(lost)] = 0
        if not lost.all():  # or the knobs that were, never 0, are what a first active weight would get
            self._knobs = np.where(lost, rounded(np.median(near[~lost])), near).astype(np.float32)

    def _bits(self) -> float:
        """What one more active weight costs at this density, in bits: the slope of H(d) + d."""
        density = min(max(np.count_nonzero(self._signs) / self._signs.size, 1e-4), _DENSE)
        return math.log2((1 - density) / density) + 1
