"""The metric: what its axes promise, and that leaving one out by formula is leaving it out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch.router.metric import Metric
from bitswitch.router.moments import Moments
from bitswitch_store.codes import LARGEST, Codes


def clouds(seed: int, *, tasks: int, size: int, dim: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    turn = rng.standard_normal((dim, dim))
    return [rng.standard_normal(dim) * 2 + rng.standard_normal((size, dim)) @ turn for _ in range(tasks)]


def test_the_first_axes_are_fisher_s():
    sets = clouds(0, tasks=4, size=500, dim=6)
    metric = Metric.fit(Moments.of(sets))
    within = np.mean([np.cov(metric.place(one).T) for one in sets], axis=0)
    assert np.abs(within - np.diag(np.diag(within))).max() < 0.3
    assert np.all(np.diff(metric.gains) <= 0)
    centres = np.stack([metric.place(one).mean(axis=0) for one in sets])
    apart = centres.var(axis=0)
    assert apart[:3].min() > 20 * apart[3:].max()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.integers(1, 4))
def test_leaving_one_out_by_formula_is_close_to_fitting_without_it(seed: int, tasks: int):
    sets = clouds(seed, tasks=tasks, size=30, dim=7)
    metric = Metric.fit(Moments.of(sets))
    quick = metric.strangeness_within(metric.place(sets[0]))
    slow, naive = [], metric.strangeness(metric.place(sets[0]), metric.place(sets[0]).mean(axis=0))
    for i, vector in enumerate(sets[0]):
        rest = np.delete(sets[0], i, axis=0)
        fit = Metric.fit(Moments.of([rest, *sets[1:]]))
        slow += fit.strangeness(fit.place(vector[np.newaxis]), fit.place(rest).mean(axis=0)).tolist()
    assert np.abs(quick - slow).mean() < 0.3 * np.abs(naive - slow).mean()


@pytest.mark.parametrize("sets", [[np.zeros((1, 3))], [np.ones((4, 3))], [np.zeros((1, 3)), np.ones((2, 3))]])
def test_sets_without_any_spread_have_a_metric_all_the_same(sets: list[np.ndarray]):
    metric = Metric.fit(Moments.of(sets))
    assert np.isfinite(metric.axes).all()
    assert np.isfinite(metric.strangeness(metric.place(np.eye(3)), metric.place(sets[0])[0])).all()


def test_codes_are_within_half_a_step():
    vectors = np.random.default_rng(2).standard_normal((50, 20)).astype(np.float16)
    vectors[7] = 0
    steps = np.abs(vectors.astype(np.float64)).max(axis=1, keepdims=True) / LARGEST
    assert (np.abs(Codes.of(vectors).vectors() - vectors) <= 0.501 * steps).all()
