"""The budgeted rule: sizes obeyed, bits where they buy most, knobs of least squared error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from bitswitch_store import file
from bitswitch_store.budget import above, budget_tensors
from bitswitch_store.knobs import rounded
from bitswitch_store.spectrum import Spectrum
from bitswitch_store.switch import Rule, Switch, SwitchError, TensorSwitch
from oracle import knob_per_weight, signs
from switches import IDENTITY

MATRIX = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=1, max_dims=3, max_side=10),
    elements=st.one_of(st.just(0.0), st.floats(-2.0, 2.0, width=32)),
)


class Arrays:
    """A task vector that is held, not read: what `budget_tensors` asks of a `TaskVector`."""

    def __init__(self, tensors: dict[str, NDArray[np.float32]]) -> None:
        self.tensors = tensors
        self.names = tuple(sorted(tensors))

    def read(self, name: str) -> NDArray[np.float32]:
        return self.tensors[name]


def a_model(seed: int = 0) -> Arrays:
    """Matrices of unequal strength, one of them mostly untouched like a word embedding; and a bias."""
    generator = np.random.default_rng(seed)
    tensors = {
        "embedding": generator.standard_normal((3000, 32)) * 1e-3 * (generator.random((3000, 1)) < 0.2),
        "strong": generator.laplace(size=(200, 150)) * 3e-3,
        "weak": generator.standard_normal((150, 200)) * 5e-4,
        "bias": generator.standard_normal(150) * 1e-3,
    }
    return Arrays({name: tensor.astype(np.float32) for name, tensor in tensors.items()})


def size(tensors: Sequence[TensorSwitch]) -> int:
    return len(file.write(Switch(IDENTITY, Rule("budget"), tuple(tensors), "task")))


def error(model: Arrays, tensors: Sequence[TensorSwitch]) -> float:
    """Squared error of τ as the switch has it, as a share of τ's squared norm."""
    written = {tensor.name: signs(tensor) * knob_per_weight(tensor) for tensor in tensors}
    wrong = sum(float(np.square(tau - written.get(name, 0)).sum()) for name, tau in model.tensors.items())
    return wrong / sum(float(np.square(tau).sum()) for tau in model.tensors.values())


@pytest.mark.parametrize("limit", [3_000, 5_000, 8_000, 12_000, 16_000])
def test_a_budget_is_obeyed_and_used(limit: int) -> None:
    taken = size(budget_tensors(a_model(), limit, size))
    assert 0.98 * limit <= taken <= limit


def test_more_bytes_are_less_error() -> None:
    model = a_model()
    errors = [
        error(model, budget_tensors(model, limit, size)) for limit in (3_000, 5_000, 8_000, 12_000, 16_000)
    ]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == len(errors)


def test_beyond_what_helps_nothing_is_added() -> None:
    model = a_model()
    most = budget_tensors(model, 1_000_000, size)
    assert size(most) < 30_000
    # Every weight active would be shorter, but less exact: one sign per weight, no zeros.
    everything = [part for name, tau in model.tensors.items() for part in above(name, tau, 0.0)]
    assert error(model, most) < error(model, everything)


def test_the_choice_beats_one_threshold_for_all() -> None:
    model = a_model()
    tensors = budget_tensors(model, 8_000, size)

    def uniform(threshold: float) -> list[TensorSwitch]:
        parts = (
            above(name, tau, 0.0 if tau.ndim == 1 else threshold)
            for name, tau in sorted(model.tensors.items())
        )
        return [part for some in parts for part in some]

    fitting = next(parts for t in np.geomspace(1e-4, 1e-1, 400) if size(parts := uniform(float(t))) <= 8_000)
    assert error(model, tensors) < error(model, fitting)


def test_vectors_are_kept_dense() -> None:
    model = a_model()
    bias = next(tensor for tensor in budget_tensors(model, 4_000, size) if tensor.name == "bias")
    assert bias.active == 150
    np.testing.assert_allclose(signs(bias) * bias.knobs, model.tensors["bias"], rtol=1 / 16)


def test_a_budget_below_the_fixed_parts_says_how_much_is_needed() -> None:
    fixed = size(above("bias", a_model().tensors["bias"], 0.0))
    with pytest.raises(
        SwitchError, match=rf"allows 500 bytes, but .* take {fixed} .*{fixed / 500:.2f} times"
    ):
        budget_tensors(a_model(), 500, size)


def test_a_model_of_vectors_only() -> None:
    tensors = budget_tensors(
        Arrays({"a": np.ones(3, np.float32), "b": np.zeros(3, np.float32)}), 10_000, size
    )
    assert [tensor.name for tensor in tensors] == ["a"]


@given(MATRIX, st.sampled_from([0.0, 0.25, 1.0]))
def test_above(tau: NDArray[np.float32], threshold: float) -> None:
    parts = above("w", tau, threshold)
    rows = tau.reshape(tau.shape[0], -1)
    expected = (np.abs(rows) >= threshold) & (rows != 0)
    means = np.array(
        [
            np.abs(row[on]).mean(dtype=np.float64) if on.any() else 0.0
            for row, on in zip(rows, expected, strict=True)
        ]
    )
    # The norm of all of τ, for a signed sum of fewer and equal weights.
    kept = np.sqrt((expected.sum(axis=1) * means**2).sum())
    whole = np.sqrt((tau.astype(np.float64) ** 2).sum())
    knobs = rounded(means * (whole / kept if kept else 0.0))
    expected &= (knobs > 0)[:, None]
    if not expected.any():
        assert parts == []
        return
    (tensor,) = parts
    assert tensor.shape == tau.shape
    np.testing.assert_array_equal(signs(tensor).reshape(rows.shape), np.sign(rows) * expected)
    np.testing.assert_allclose(tensor.knobs, knobs, rtol=1 / 7)
    moved = knob_per_weight(tensor)[signs(tensor) != 0].astype(np.float64)
    coarse = 2.0**-21 * np.sqrt(moved.size)  # a weight below that has no knob
    assert np.linalg.norm(moved) == pytest.approx(whole, rel=1 / 16, abs=coarse)


@given(MATRIX.filter(lambda tau: tau.ndim > 1))
def test_a_spectrum_counts_what_above_keeps(tau: NDArray[np.float32]) -> None:
    spectrum = Spectrum.of(tau)
    assert (np.diff(spectrum.thresholds) > 0).all()
    assert spectrum.sizes[-1] == spectrum.gains[-1] == 0
    magnitudes = np.abs(tau.astype(np.float64))
    for threshold, gain in zip(spectrum.thresholds[:-1], spectrum.gains[:-1], strict=True):
        kept = magnitudes[(magnitudes >= threshold) & (magnitudes > 0)]
        norm = np.sqrt((magnitudes**2).sum())
        assert gain == pytest.approx(norm * kept.sum() / np.sqrt(kept.size))


def test_a_spectrum_s_sizes_are_near_the_file_s() -> None:
    empty = size(above("w", np.ones((1, 1), np.float32), 0.0))
    for name, tau in a_model().tensors.items():
        if tau.ndim > 1:
            spectrum = Spectrum.of(tau)
            for place in range(0, spectrum.thresholds.size - 1, spectrum.thresholds.size // 7):
                taken = size(above(name, tau, float(spectrum.thresholds[place]))) - empty
                assert spectrum.sizes[place] == pytest.approx(taken, rel=0.03, abs=80), (name, place)
