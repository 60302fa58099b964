"""The inputs that stand for all: few of them, but of every sort."""

from __future__ import annotations

import numpy as np

from bitswitch.router.representatives import representatives


def vectors(*groups):
    """Groups of (count, centre), with some noise."""
    chance = np.random.default_rng(0)
    parts = [chance.normal(centre, 0.01, (count, 8)) for count, centre in groups]
    return np.concatenate(parts).astype(np.float32)


def test_what_is_rare_is_stood_for():
    every = vectors((500, 0.0), (3, 5.0), (3, -5.0))
    chosen = representatives(every, 12)
    assert any(500 <= place < 503 for place in chosen)
    assert any(503 <= place < 506 for place in chosen)


def test_they_are_rows_once_each_and_rising():
    every = vectors((400, 0.0))
    chosen = representatives(every, 100)
    assert len(chosen) == 100
    assert (np.diff(chosen) > 0).all()
    assert chosen.min() >= 0
    assert chosen.max() < 400


def test_they_lie_nearer_to_all_than_the_first_ones_do():
    every = np.random.default_rng(1).normal(size=(400, 4)).astype(np.float32)

    def gap(some):
        return np.linalg.norm(every[some][:, np.newaxis] - every, axis=2).min(axis=0).mean()

    assert gap(representatives(every, 40)) < 0.95 * gap(np.arange(40))


def test_the_same_again():
    every = vectors((300, 0.0), (40, 1.0))
    assert np.array_equal(representatives(every, 50), representatives(every.copy(), 50))


def test_few_are_all_taken():
    assert representatives(vectors((7, 0.0)), 100).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_equal_inputs_stand_for_each_other_once():
    every = np.repeat(np.eye(4, dtype=np.float32), 30, axis=0)
    assert len(representatives(every, 10)) == 4
