"""The arithmetic of the votes."""

from __future__ import annotations

import pytest

from bitswitch.router import votes
from bitswitch.router.index import Hit


def test_a_hit_is_a_vote_and_the_largest_share_comes_first():
    hits = [Hit(0.1, "b"), Hit(0.2, "a"), Hit(0.3, "a"), Hit(0.4, "c")]
    assert [(one.digest, one.share, one.distance) for one in votes.count(hits)] == [
        ("a", 0.5, 0.2),
        ("b", 0.25, 0.1),
        ("c", 0.25, 0.4),
    ]


def test_equal_shares_and_distances_are_ordered_by_digest():
    hits = [Hit(0.1, "b"), Hit(0.1, "a")]
    assert [one.digest for one in votes.count(hits)] == ["a", "b"]


@pytest.mark.parametrize(
    ("n", "quantile", "rank"),
    [
        (100, 0.99, 100),  # ⌈101 · 0.99⌉
        (100, 0.95, 96),
        (199, 0.95, 190),  # 200 · 0.95 is 190.00000000000003 in floating point
        (199, 0.99, 198),
        (9, 0.5, 5),
        (5, 0.99, 5),  # too few: the largest
        (1, 0.1, 1),
        (50, 1.0, 50),
    ],
)
def test_the_conformal_quantile_is_an_order_statistic(n: int, quantile: float, rank: int):
    scores = [float(value) for value in range(n, 0, -1)]
    assert votes.conformal_quantile(scores, quantile) == rank
