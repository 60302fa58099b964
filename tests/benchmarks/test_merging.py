"""The rivals' arithmetic on arrays small enough for paper and pencil."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import merging

A = np.array([4.0, -1.0, 0.5, 0.0, -3.0], np.float32)
B = np.array([2.0, 3.0, -2.0, 0.0, 1.0], np.float32)


def test_an_average_is_the_sum_by_their_number() -> None:
    assert merging.total([A, B]).tolist() == [6.0, 2.0, -1.5, 0.0, -2.0]
    assert merging.weight_average([A, B]).tolist() == [3.0, 1.0, -0.75, 0.0, -1.0]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (0.4, [4.0, 0.0, 0.0, 0.0, -3.0]),
        (0.6, [4.0, -1.0, 0.0, 0.0, -3.0]),
        (1.0, A.tolist()),
        (0.1, [0.0] * 5),
    ],
)
def test_a_trim_keeps_the_largest(keep: float, kept: list[float]) -> None:
    assert merging.trim(A, keep).tolist() == kept


def test_a_trim_keeps_ties() -> None:
    assert merging.trim(np.array([1.0, -1.0, 0.5], np.float32), 0.34).tolist() == [1.0, -1.0, 0.0]


def test_ties_takes_the_mean_of_those_with_the_elected_sign() -> None:
    # Untrimmed: signs +, +, -, (none: the majority's, +), -.
    assert merging.ties([A, B], keep=1.0).tolist() == [3.0, 3.0, -2.0, 0.0, -3.0]
    # Of five weights two are kept each: A at 0 and 4, B at 1 and at 0, tied with 2.
    assert merging.ties([A, B], keep=0.4).tolist() == [3.0, 3.0, -2.0, 0.0, -3.0]


def test_emr_elects_the_largest_of_the_elected_sign_and_keeps_each_norm() -> None:
    elected = merging.elect([A, B])
    assert elected.tolist() == [4.0, 3.0, -2.0, 0.0, -3.0]
    # A agrees at 0 and 4: kept magnitudes 7, its own 8.5.
    np.testing.assert_allclose(merging.rescaled(elected, A), np.array([4, 0, 0, 0, -3]) * 8.5 / 7, rtol=1e-6)
    np.testing.assert_allclose(merging.rescaled(elected, B), np.array([4, 3, -2, 0, 0]) * 8 / 9, rtol=1e-6)


def test_emr_of_nothing_in_common_is_nothing() -> None:
    assert not merging.rescaled(np.zeros(3, np.float32), np.ones(3, np.float32)).any()
