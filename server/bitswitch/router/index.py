"""Query vectors of some switches in a FAISS index, to be searched and never changed.

Knows nothing of votes, of recipes, or of why a switch is in it. Two things it vouches for:

* A distance depends on the two vectors alone. FAISS likes to turn searches into a matrix product,
  x² − 2xy + y², which loses digits and depends on what shares the batch: large batches, and on several
  cores even a single row among 10,000 vectors. Never with a selector of single vectors, though, and in no
  release for a single row with one; every search here is that, so it is the plain sum of squares.
* Ties do not depend on the order of the switches. FAISS keeps the vector stored first; here equal distances
  are ordered by digest, also across the border of the k nearest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

# The wheel's stubs show the C++ signatures; the Python classes take arrays and keywords instead.
_faiss: Any = faiss


class Hit(NamedTuple):
    """A query vector near the input; hits sort by Euclidean distance, then by digest."""

    distance: float
    digest: str


class QueryIndex:
    """The nearest query vectors of a fixed set of switches; search from any thread.

    Args:
        blocks: by digest, the vectors of a switch, (queries, dim) of any float; kept as float32. At least
            one vector in all.
    """

    def __init__(self, blocks: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        self._digests = tuple(blocks)
        self._owner = np.repeat(np.arange(len(blocks), dtype=np.int32), [*map(len, blocks.values())])
        rows = np.concatenate([*blocks.values()]).astype(np.float32)
        self._vectors = _faiss.IndexFlatL2(rows.shape[1])
        self._vectors.add(rows)
        every = np.packbits(np.ones(len(rows), dtype=bool), bitorder="little")
        self._all = _faiss.SearchParameters(sel=_faiss.IDSelectorBitmap(every))

    def nearest(self, row: NDArray[np.floating[Any]], k: int) -> list[Hit]:
        """The k query vectors nearest to ``row``, or all of them when they are fewer.

        Args:
            row: (dim,) of any float; compared as float32.
            k: how many; at least 1.

        Returns:
            Sorted by distance, equal distances by digest. Empty for a row that is not finite.
        """
        query = np.ascontiguousarray(row, dtype=np.float32)[np.newaxis]
        wanted = k + 1
        squared, owners = self._search(query, wanted)
        # While the last one found is as near as the k-th, more of its equals may lie beyond it.
        while len(owners) == wanted and squared[-1] == squared[k - 1]:
            wanted *= 2
            squared, owners = self._search(query, wanted)
        hits = (
            Hit(math.sqrt(distance), self._digests[owner])
            for distance, owner in zip(squared, owners, strict=True)
        )
        return sorted(hits)[:k]

    def _search(self, query: NDArray[np.float32], wanted: int) -> tuple[list[float], list[int]]:
        """Squared distances and owners of up to ``wanted`` vectors, nearest first."""
        squared, places = self._vectors.search(query, wanted, params=self._all)
        found = places[0] >= 0
        return squared[0, found].tolist(), self._owner[places[0, found]].tolist()
