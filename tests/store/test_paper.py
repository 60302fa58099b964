"""What the paper's rule promises, on arrays that its authors did not think of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from bitswitch_store.paper import paper

# Few distinct values, so that ties at the threshold are common.
FEW = st.sampled_from([-2.0, -1.5, -1.0, 0.0, 0.0, 0.25, 1.0, 3.0])
ANY = st.floats(-(2.0**100), 2.0**100, width=32)
TAU = st.one_of(
    *(arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=12), elements=e) for e in (FEW, ANY))
)
ALPHA = st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.97])


@given(TAU, ALPHA)
def test_each_sign_keeps_its_largest_and_the_ties(tau: NDArray[np.float32], alpha: float) -> None:
    ternary, _ = paper(tau, alpha)
    assert ternary.shape == tau.shape
    for sign in (1, -1):
        magnitudes = np.sort(np.abs(tau[np.sign(tau) == sign]))[::-1]
        kept = np.abs(tau[ternary == sign])
        count = int(magnitudes.size * (1 - alpha))
        threshold = magnitudes[count - 1] if count else 0.0
        assert sorted(kept) == sorted(magnitudes[magnitudes >= threshold])
    assert (np.sign(tau)[ternary != 0] == ternary[ternary != 0]).all()


@given(TAU, ALPHA)
def test_the_scale_is_the_root_mean_square_of_what_is_kept(tau: NDArray[np.float32], alpha: float) -> None:
    ternary, scale = paper(tau, alpha)
    kept = tau[ternary != 0].astype(np.float64)
    expected = np.linalg.norm(kept) / np.sqrt(kept.size) if kept.size else 0.0
    assert scale == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(TAU, ALPHA)
def test_the_signs_are_treated_alike(tau: NDArray[np.float32], alpha: float) -> None:
    ternary, scale = paper(tau, alpha)
    mirrored, same_scale = paper(-tau, alpha)
    np.testing.assert_array_equal(mirrored, -ternary)
    assert same_scale == scale


def test_a_count_of_zero_keeps_the_sign_whole() -> None:
    tau = np.array([5.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0, -9.0], np.float32)
    ternary, _ = paper(tau, 0.8)  # int(1 · .2) = 0 of the positive, int(9 · .2) = 1 of the negative
    assert ternary.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, -1]
