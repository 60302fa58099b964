"""The sums: exact, whatever the order and whatever came and went."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch.router import moments
from bitswitch.router.metric import Metric
from bitswitch.router.moments import LARGEST, STEP, Moments

DIM = 5


def sets(seed: int, count: int, largest: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-largest, largest, (rng.integers(1, 40), DIM)) for _ in range(count)]


def same(one: Moments, other: Moments) -> bool:
    numbers = one.tasks == other.tasks and one.vectors == other.vectors
    return numbers and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("total", "outer", "scatter")
    )


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(1, 9), st.integers(0, 9), st.randoms(use_true_random=False))
def test_what_came_and_went_leaves_no_trace(seed: int, stays: int, passes: int, random):
    stay, passing = sets(seed, stays), sets(seed + 100, passes, LARGEST)
    order = [*stay, *passing]
    random.shuffle(order)
    assert same(Moments.of(order).minus(passing), Moments.of(stay))
    assert same(Moments.of(stay).plus(passing), Moments.of(order))


def test_the_largest_values_are_summed_exactly_over_block_borders(monkeypatch: pytest.MonkeyPatch):
    rows = np.full((3000, DIM), LARGEST)
    rows[::2] *= -1
    many = [rows] * 7
    exact = 7 * 3000 * int(LARGEST / STEP) ** 2
    found = Moments.of(many)
    assert found.scatter.tolist() == [[exact] * DIM] * DIM
    monkeypatch.setattr(moments, "_ROWS", 300)
    assert same(Moments.of(many), found)


def test_the_covariances_are_those_of_the_vectors():
    rng = np.random.default_rng(1)
    clouds = [rng.normal(rng.normal(0, 1, DIM), 0.3, (200, DIM)) for _ in range(6)]
    found = Moments.of(clouds)
    scatter = sum((one - one.mean(axis=0)).T @ (one - one.mean(axis=0)) for one in clouds)
    assert np.allclose(found.scatter * STEP**2, scatter, rtol=1e-3, atol=1e-2)
    means = np.stack([one.mean(axis=0) for one in clouds])
    assert np.allclose(found.total * STEP, means.sum(axis=0), atol=6 * STEP)
    assert np.allclose(found.outer * STEP**2, means.T @ means, atol=1e-2)


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_equal_vectors_have_a_metric(count: int):
    metric = Metric.fit(Moments.of([np.full((2, DIM), 0.1)] * count))
    assert np.isfinite(metric.axes).all()
    assert np.isfinite(metric.gains).all()
