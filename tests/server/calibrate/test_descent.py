"""One sweep of coordinate descent: never worse, its books kept, rows that do not pay emptied."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch.calibrate.descent import descend


def problem(seed: int, rows: int, columns: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    seen = generator.standard_normal((40, columns)) @ generator.standard_normal((columns, columns))
    covariance = seen.T @ seen / 40
    tau = generator.standard_normal((rows, columns))
    return {
        "signs": generator.integers(-1, 2, (rows, columns)).astype(np.int8),
        "knobs": generator.uniform(0.2, 2, rows).astype(np.float32),
        "wanted": (tau @ covariance).astype(np.float32),
        "covariance": covariance.astype(np.float32),
    }


def sweep(signs, knobs, wanted, covariance, prices, row_prices):
    rest = wanted - knobs[:, None] * (signs @ covariance)
    changes = descend(signs, knobs, wanted, rest, covariance, prices, row_prices)
    return changes, rest


def costs(signs, knobs, wanted, covariance, prices, row_prices) -> np.ndarray:
    """Of each row, from the definition."""
    q = knobs[:, None].astype(np.float64) * signs
    active = np.count_nonzero(signs, axis=1)
    error = ((q @ covariance) * q).sum(axis=1) - 2 * (q * wanted).sum(axis=1)
    return error + prices * active + row_prices * (active > 0)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 12), st.floats(0, 20), st.floats(0, 20))
@settings(max_examples=60, deadline=None)
def test_a_sweep_never_makes_a_row_worse(seed, rows, columns, price, row_price):
    given = problem(seed, rows, columns)
    prices, row_prices = np.full(rows, price), np.full(rows, row_price)
    before = costs(**given, prices=prices, row_prices=row_prices)
    old = given["signs"].copy()
    changes, rest = sweep(**given, prices=prices, row_prices=row_prices)
    after = costs(**given, prices=prices, row_prices=row_prices)
    scale = float(1 + np.abs(before).max() + np.abs(given["wanted"]).sum())
    # A row may start to pay its own price only once it is no longer empty.
    assert (after <= before + row_price * (np.count_nonzero(old, axis=1) == 0) + 1e-4 * scale).all()
    assert set(np.unique(given["signs"])) <= {-1, 0, 1}
    kept = given["wanted"] - given["knobs"][:, None] * (given["signs"] @ given["covariance"])
    np.testing.assert_allclose(rest, kept, atol=1e-3 * scale)
    assert changes > 0 or (old == given["signs"]).all()


def test_uncorrelated_inputs_are_thresholded():
    wanted = np.array([[0.9, 0.4, -0.6, -0.2]], np.float32)
    signs = np.zeros((1, 4), np.int8)
    free = np.zeros(1)
    sweep(signs, np.ones(1, np.float32), wanted, np.eye(4, dtype=np.float32), free, free)
    assert signs.tolist() == [[1, 0, -1, 0]]


def test_two_inputs_that_say_the_same_are_not_both_paid_for():
    covariance = np.full((2, 2), 1.0, np.float32) + 1e-3 * np.eye(2, dtype=np.float32)
    signs = np.zeros((1, 2), np.int8)
    wanted = np.array([[1.0, 1.0]], np.float32)
    sweep(signs, np.ones(1, np.float32), wanted, covariance, np.full(1, 0.01), np.zeros(1))
    assert np.count_nonzero(signs) == 1


@pytest.mark.parametrize(("prices", "row_prices"), [(100.0, 0.0), (0.0, 100.0)])
def test_a_row_that_does_not_pay_is_emptied(prices, row_prices):
    given = problem(3, 4, 6)
    given["wanted"] /= 100
    _, rest = sweep(**given, prices=np.full(4, prices), row_prices=np.full(4, row_prices))
    assert not given["signs"].any()
    np.testing.assert_allclose(rest, given["wanted"], atol=1e-3)
