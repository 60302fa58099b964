"""One layer's fit: what it leaves is what a file of 8-bit knobs holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitswitch.calibrate.layer import Layer
from bitswitch_store.budget import above
from bitswitch_store.knobs import rounded


def fitted(scale: float) -> Layer:
    """A layer whose task vector is about ``scale``, fitted to inputs of variance 1."""
    chance = torch.Generator().manual_seed(0)
    base, tau, inputs = (torch.randn(shape, generator=chance) for shape in ((12, 16), (12, 16), (80, 16)))
    tau = tau * scale
    start = above("w", tau.numpy(), scale)
    layer = Layer("w", base, tau, np.ones(12), start[0] if start else None)
    layer.fit(inputs, inputs @ (base + tau).T, price=0.002 * scale**2, ridge=0.1, centre=False)
    return layer


@pytest.mark.parametrize("scale", [3.0, 1e-2, 1e-4])
def test_the_knobs_are_those_of_8_bits(scale: float):
    (tensor,) = fitted(scale).tensors()
    assert tensor.active > 20
    np.testing.assert_array_equal(rounded(tensor.knobs), tensor.knobs)


def test_what_moves_less_than_any_knob_is_left_alone():
    layer = fitted(1e-7)
    assert layer.tensors() == []
    assert torch.isfinite(layer.weight()).all()
