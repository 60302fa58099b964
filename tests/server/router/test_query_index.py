"""The index: what is nearest, and in which order."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from bitswitch.router import votes
from bitswitch.router.index import QueryIndex


def test_the_paper_s_weights(shared: Path):
    golden = np.load(shared / "golden" / "autoswitch.npz")
    tasks = golden["weights"].shape[1]
    index = QueryIndex.of(
        {str(task): golden["query_set"][golden["query_task"] == task] for task in range(tasks)}
    )
    weights = np.zeros_like(golden["weights"])
    for i, row in enumerate(golden["inputs"]):
        for one in votes.count(index.nearest(row, int(golden["neighbors"]))):
            weights[i, int(one.digest)] = one.share
    np.testing.assert_array_equal(weights, golden["weights"])


def test_nearest_is_what_sorting_all_distances_gives():
    rng = np.random.default_rng(0)
    blocks = {name: rng.standard_normal((7, 9)).astype(np.float32) for name in "abde"}
    index = QueryIndex.of(blocks)
    row = rng.standard_normal(9).astype(np.float32)
    for k in (1, 3, 28, 40):
        hits = index.nearest(row, k)
        expected = sorted(
            (float(np.linalg.norm(vector.astype(np.float64) - row)), name)
            for name, vectors in blocks.items()
            for vector in vectors
        )[:k]
        assert [hit.digest for hit in hits] == [name for _, name in expected]
        assert [hit.distance for hit in hits] == pytest.approx(
            [distance for distance, _ in expected], rel=1e-6
        )


@pytest.mark.parametrize("order", ["abc", "cba", "bca"])
@pytest.mark.parametrize("k", [1, 4, 5, 7, 12])
def test_ties_go_by_digest_whatever_the_order(order: str, k: int):
    index = QueryIndex.of({name: np.ones((4, 2), np.float32) for name in order})
    hits = index.nearest(np.zeros(2, np.float32), k)
    assert "".join(hit.digest for hit in hits) == "aaaabbbbcccc"[:k]


def test_a_distance_does_not_depend_on_what_else_is_there():
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((5, 33)).astype(np.float32)
    row = rng.standard_normal(33).astype(np.float32)
    seen = set()
    for others in range(1, 9):
        far = rng.standard_normal((others, 33)).astype(np.float32) + 100
        index = QueryIndex.of({"other": far, "own": vectors})
        seen.add(tuple(hit.distance for hit in index.nearest(row, 5)))
    assert len(seen) == 1


def test_a_row_that_is_not_finite_is_near_nothing():
    index = QueryIndex.of({"a": np.zeros((3, 2), np.float32)})
    assert index.nearest(np.array([np.nan, 0], np.float32), 2) == []


def test_near_vectors_far_from_the_origin_keep_their_digits(monkeypatch: pytest.MonkeyPatch):
    # x² − 2xy + y² would have some 1e-2 left of these distances; and FAISS shall take it wherever it would.
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 1)
    vectors = np.full((40, 64), 1000, np.float32)
    vectors[:, 0] += np.arange(40, dtype=np.float32) * np.float32(0.5)
    hits = QueryIndex.of({"a": vectors}).nearest(vectors[0], 40)
    assert [hit.distance for hit in hits] == [0.5 * i for i in range(40)]


def many(count: int, size: int = 50) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        f"{number:04}": (rng.standard_normal(6) * 3 + rng.standard_normal((size, 6))).astype(np.float32)
        for number in range(count)
    }


def test_cells_find_nearly_all_that_comparing_one_by_one_finds():
    blocks = many(100)
    cells, flat = QueryIndex.of(blocks, flat=10), QueryIndex.of(blocks)
    assert (cells.probes > 0, flat.probes) == (True, 0)
    rows = np.concatenate([*blocks.values()])[::25] + np.float32(0.01)
    found = [{*cells.nearest(row, 10)} & {*flat.nearest(row, 10)} for row in rows]
    assert sum(map(len, found)) >= 0.98 * 10 * len(rows)


@pytest.mark.parametrize("flat", [10, 10**6])
@pytest.mark.parametrize("seen", [1, 3, 60, 100])
def test_only_what_may_be_seen_is_found_however_little_it_is(flat: int, seen: int):
    blocks = many(100)
    index = QueryIndex.of(blocks, flat=flat)
    visible = set(sorted(blocks)[::-1][:seen])
    among, own = index.only(visible), QueryIndex.of({digest: blocks[digest] for digest in sorted(visible)})
    rows = np.concatenate([*blocks.values()])[::50]
    hits = [(index.nearest(row, 10, among), own.nearest(row, 10)) for row in rows]
    assert all({hit.digest for hit in found} <= visible for found, _ in hits)
    assert sum(len({*found} & {*true}) for found, true in hits) >= 0.98 * 10 * len(rows)
    assert not index.nearest(rows[0], 3, index.only(()))
