"""The index: what is nearest, among whom, in which order."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from bitswitch.errors import InvalidSwitchError
from bitswitch.router.index import QueryIndex, spacing


def test_nearest_is_what_sorting_all_distances_gives():
    rng = np.random.default_rng(0)
    index = QueryIndex(9)
    blocks = {name: rng.standard_normal((7, 9)).astype(np.float16) for name in "abcde"}
    for name, vectors in blocks.items():
        index.add(name, vectors, reach=None)
    row = rng.standard_normal(9).astype(np.float32)
    selection = index.select("abde")
    for k in (1, 3, 28, 40):
        hits = index.nearest(row, k, selection)
        expected = sorted(
            (float(np.linalg.norm(vector.astype(np.float64) - row)), name)
            for name, vectors in blocks.items()
            if name != "c"
            for vector in vectors
        )[:k]
        assert [hit.digest for hit in hits] == [name for _, name in expected]
        assert [hit.distance for hit in hits] == pytest.approx(
            [distance for distance, _ in expected], rel=1e-6
        )


@pytest.mark.parametrize("order", ["abc", "cba", "bca"])
@pytest.mark.parametrize("k", [1, 4, 5, 7, 12])
def test_ties_go_by_digest_whatever_the_order_of_arrival(order: str, k: int):
    index = QueryIndex(2)
    for name in order:
        index.add(name, np.ones((4, 2), np.float16), reach=None)
    hits = index.nearest(np.zeros(2, np.float32), k, index.select("abc"))
    assert "".join(hit.digest for hit in hits) == "aaaabbbbcccc"[:k]


def test_a_distance_does_not_depend_on_what_else_is_stored():
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((5, 33)).astype(np.float16)
    row = rng.standard_normal(33).astype(np.float32)
    seen = set()
    for before in range(9):
        index = QueryIndex(33)
        if before:
            index.add("other", rng.standard_normal((before, 33)).astype(np.float16), reach=None)
        index.add("own", vectors, reach=None)
        seen.add(tuple(hit.distance for hit in index.nearest(row, 5, index.select(["own"]))))
    assert len(seen) == 1


def test_a_removed_switch_is_not_found_even_by_an_earlier_selection():
    index = QueryIndex(None)
    index.add("a", np.zeros((3, 2), np.float16), reach=None)
    selection = index.select(["a"])
    index.remove("a")
    index.remove("a")
    assert "a" not in index
    assert len(index) == 0
    assert index.nearest(np.zeros(2, np.float32), 2, selection) == []
    # Nor does a switch that came later inherit the earlier one's visibility.
    index.add("b", np.zeros((3, 2), np.float16), reach=None)
    assert index.nearest(np.zeros(2, np.float32), 2, selection) == []


def test_coming_and_going_mixes_up_nobody():
    index = QueryIndex(1)
    for number, name in enumerate("abcdef"):
        index.add(name, np.full((2, 1), 10 * number, np.float16), reach=None)
        if name == "c":
            index.remove("a")
    selection = index.select("abcdef")
    for number, name in list(enumerate("abcdef"))[1:]:
        hits = index.nearest(np.full(1, 10 * number, np.float32), 2, selection)
        assert [(hit.digest, hit.distance) for hit in hits] == [(name, 0.0)] * 2


def test_adding_twice_counts_once():
    index = QueryIndex(2)
    for _ in range(2):
        index.add("a", np.zeros((3, 2), np.float16), reach=None)
    assert len(index.nearest(np.zeros(2, np.float32), 10, index.select(["a", "a"]))) == 3


def test_the_first_switch_decides_the_dim_where_none_is_stated():
    index = QueryIndex(None)
    index.add("a", np.zeros((1, 3), np.float16), reach=None)
    with pytest.raises(InvalidSwitchError, match="has 4 values; this router compares vectors of 3"):
        index.add("b", np.zeros((1, 4), np.float16), reach=None)


def test_more_slots_than_a_byte_has_bits():
    index = QueryIndex(1)
    for number in range(40):
        index.add(f"{number:02}", np.full((1, 1), number, np.float16), reach=None)
    hits = index.nearest(np.zeros(1, np.float32), 3, index.select(["39", "17", "08"]))
    assert [(hit.digest, hit.distance) for hit in hits] == [("08", 8.0), ("17", 17.0), ("39", 39.0)]


def test_spacing_leaves_one_out():
    vectors = np.array([[0, 0], [0, 1], [3, 1], [3, 1]], np.float16)
    assert spacing(vectors).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_near_vectors_far_from_the_origin_keep_their_digits(monkeypatch: pytest.MonkeyPatch):
    # x² − 2xy + y² would have some 1e-2 left of these distances; and FAISS shall take it wherever it would.
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 1)
    vectors = np.full((40, 64), 1000, np.float16)
    vectors[:, 0] += np.arange(40, dtype=np.float16) * np.float16(0.5)
    index = QueryIndex(64)
    index.add("a", vectors, reach=None)
    hits = index.nearest(vectors[0].astype(np.float32), 40, index.select("a"))
    assert [hit.distance for hit in hits] == [0.5 * i for i in range(40)]
    assert spacing(vectors).tolist() == [0.5] * 40
