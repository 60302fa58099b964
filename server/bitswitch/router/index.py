"""Query vectors of some switches in a FAISS index, to be searched and never changed.

Knows nothing of votes, of recipes, or of why a switch is in it. Up to `FLAT` vectors are compared one by
one; more lie in cells (FAISS's IVF), of which the nearest are looked through: as many as found .995 of
the ten nearest on a sample of the very vectors. What is vouched for:

* Only vectors that may be seen are found, since the selector is asked inside the search. The fewer these
  are, the more cells are looked through, so that the k nearest of few are found as well.
* A distance depends on the two vectors alone. FAISS likes to turn searches into a matrix product, x² −
  2xy + y², which loses digits and depends on what shares the batch: large batches, and on several cores
  even a single row among 10,000 vectors. Never with a selector of single vectors, though, and in no
  release for a single row with one; every search here is that, so it is the plain sum of squares.
* Ties do not depend on the order of the switches. FAISS keeps the vector stored first; here equal
  distances are ordered by digest, also across the border of the k nearest. In cells this holds among what
  was looked through.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

# The wheel's stubs show the C++ signatures; the Python classes take arrays and keywords instead.
_faiss: Any = faiss

FLAT = 60_000
"""Vectors that are searched one by one, at most; see docs/method.md for what either costs."""
RECALL = 0.995
"""Of the ten nearest, on the sample by which the number of cells is chosen."""
_SAMPLE = 256
_PER_CELL = 40
"""Vectors that a cell's centre is found from; FAISS asks for 39 at least."""

Vectors = NDArray[np.float32]


class Hit(NamedTuple):
    """A query vector near the input; hits sort by Euclidean distance, then by digest."""

    distance: float
    digest: str


class QueryIndex:
    """The nearest query vectors of a fixed set of switches; search from any thread.

    Args:
        digests: of the switches, in the order of their vectors.
        sizes: how many vectors each has; at least one vector in all.
        vectors: FAISS's index of all vectors, in that order.
        probes: cells looked through where all vectors may be seen; 0 where there are no cells.
    """

    def __init__(self, digests: Sequence[str], sizes: Sequence[int], vectors: Any, probes: int) -> None:  # noqa: ANN401 - no stubs
        self.digests = tuple(digests)
        self.sizes = tuple(sizes)
        self.vectors = vectors
        self.probes = probes
        self._owner = np.repeat(np.arange(len(self.digests), dtype=np.int32), self.sizes)
        self._all = self._parameters(np.ones(len(self._owner), dtype=bool))

    @classmethod
    def of(cls, blocks: Mapping[str, NDArray[np.floating[Any]]], *, flat: int = FLAT) -> QueryIndex:
        """Build one.

        Args:
            blocks: by digest, the vectors of a switch, (queries, dim) of any float; kept as float32.
            flat: the most vectors that get no cells.
        """
        rows = np.concatenate([*blocks.values()], dtype=np.float32, casting="same_kind")
        sizes = [*map(len, blocks.values())]
        if len(rows) <= flat:
            vectors = _faiss.IndexFlatL2(rows.shape[1])
            vectors.add(rows)
            return cls([*blocks], sizes, vectors, 0)
        vectors = _cells(rows)
        return cls([*blocks], sizes, vectors, _probes(vectors, rows))

    def __len__(self) -> int:
        return len(self._owner)

    def only(self, digests: Collection[str]) -> Any:  # noqa: ANN401 - FAISS's parameters
        """What `nearest` takes to find vectors of these switches alone."""
        seen = np.fromiter((digest in digests for digest in self.digests), bool, len(self.digests))
        return self._parameters(seen[self._owner])

    def nearest(self, row: NDArray[np.floating[Any]], k: int, among: Any = None) -> list[Hit]:  # noqa: ANN401
        """The k query vectors nearest to ``row``, or all of them when they are fewer.

        Args:
            row: (dim,) of any float; compared as float32.
            k: how many; at least 1.
            among: what `only` returned; None is all.

        Returns:
            Sorted by distance, equal distances by digest. Empty for a row that is not finite.
        """
        query = np.ascontiguousarray(row, dtype=np.float32)[np.newaxis]
        among = among or self._all
        wanted = k + 1
        squared, owners = self._search(query, wanted, among)
        # While the last one found is as near as the k-th, more of its equals may lie beyond it.
        while len(owners) == wanted and squared[-1] == squared[k - 1]:
            wanted *= 2
            squared, owners = self._search(query, wanted, among)
        hits = (
            Hit(math.sqrt(distance), self.digests[owner])
            for distance, owner in zip(squared, owners, strict=True)
        )
        return sorted(hits)[:k]

    def _search(self, query: Vectors, wanted: int, among: Any) -> tuple[list[float], list[int]]:  # noqa: ANN401
        """Squared distances and owners of up to ``wanted`` vectors, nearest first."""
        squared, places = self.vectors.search(query, wanted, params=among)
        found = places[0] >= 0
        return squared[0, found].tolist(), self._owner[places[0, found]].tolist()

    def _parameters(self, seen: NDArray[np.bool_]) -> Any:  # noqa: ANN401
        selector = _faiss.IDSelectorBitmap(np.packbits(seen, bitorder="little"))
        if not self.probes:
            return _faiss.SearchParameters(sel=selector)
        share = max(int(seen.sum()), 1) / len(seen)
        wider = 2 / share if share < 1 else 1  # the nearest of few lie further, and in cells further out
        probes = min(math.ceil(self.probes * wider), self.vectors.nlist)
        return _faiss.SearchParametersIVF(sel=selector, nprobe=probes)


def _cells(rows: Vectors) -> Any:  # noqa: ANN401 - no stubs
    """Cells around centres that every so-manieth vector tells; the same ones from the same vectors."""
    cells = round(math.sqrt(len(rows)))
    vectors = _faiss.index_factory(rows.shape[1], f"IVF{cells},Flat")
    vectors.cp.niter = 10
    vectors.train(np.ascontiguousarray(rows[:: max(len(rows) // (cells * _PER_CELL), 1)]))
    vectors.add(rows)
    return vectors


def _probes(vectors: Any, rows: Vectors) -> int:  # noqa: ANN401
    """The fewest cells, doubled from one on, at which a sample finds its ten nearest, itself not counted."""
    k = min(11, len(rows))
    sample = np.ascontiguousarray(rows[:: max(len(rows) // _SAMPLE, 1)][:_SAMPLE])
    true = _faiss.knn(sample, rows, k)[0][:, -1] * (1 + 1e-4)  # other sums of the same squares
    probes = 1
    while probes < vectors.nlist:
        found = vectors.search(sample, k, params=_faiss.SearchParametersIVF(nprobe=probes))[0]
        if (found[:, 1:] <= true[:, np.newaxis]).mean() >= RECALL:
            break
        probes *= 2
    return min(probes, int(vectors.nlist))
