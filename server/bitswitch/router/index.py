"""All query vectors of all switches in one FAISS index, searched among the visible switches only.

Knows nothing of votes, of recipes, or of why a switch is visible. Two things it vouches for:

* A distance depends on the two vectors alone. FAISS likes to turn searches into a matrix product,
  x² − 2xy + y², which loses digits and depends on what shares the batch: large batches, and on several
  cores even a single row among 10,000 vectors. Never with a selector, though, and in no release for a
  single row with one; every search here is that, so it is the plain sum of squared differences.
* Ties do not depend on the order of arrival. FAISS keeps the vector stored first; here equal distances
  are ordered by digest, also across the border of the k nearest.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from bitswitch.errors import InvalidSwitchError

# The wheel's stubs show the C++ signatures; the Python classes take arrays and keywords instead.
_faiss: Any = faiss


class Hit(NamedTuple):
    """A query vector near the input; hits sort by Euclidean distance, then by digest."""

    distance: float
    digest: str
    slot: int


@dataclass(frozen=True)
class Block:
    """The query vectors of one switch, as the index knows them.

    Attributes:
        slot: the number that all its vectors carry in FAISS; given once, never again to another switch.
        reach: the largest distance of an input that still counts as near; None when the set cannot say.
    """

    digest: str
    slot: int
    reach: float | None


@dataclass(frozen=True)
class Selection:
    """The visible switches, at the moment they were asked for: what a search may find."""

    blocks: Mapping[int, Block]
    """By slot."""
    slots: Any
    """FAISS's own form: one bit per slot."""


class QueryIndex:
    """Query vectors by switch; add, remove and search from any thread.

    The vectors of a switch carry its slot as their id, so that a hit *is* a vote and visibility is one
    bit per switch. A mutation holds the lock for about as long as one search; nothing is rebuilt.

    Args:
        dim: how many values a vector has. None: as many as those of the first switch.
    """

    def __init__(self, dim: int | None) -> None:
        self.dim = dim
        self._lock = threading.Lock()
        self._blocks: dict[str, Block] = {}
        self._next_slot = 0
        self._flat: Any = None
        self._vectors: Any = None

    def __contains__(self, digest: object) -> bool:
        return digest in self._blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, digest: str, vectors: NDArray[np.floating[Any]], *, reach: float | None) -> None:
        """Add a switch; one that is there already stays as it is, since equal digests have equal vectors.

        Args:
            digest: the switch.
            vectors: (queries, dim) of any float; kept as float32.
            reach: see `Block`.

        Raises:
            InvalidSwitchError: the vectors have another dim.
        """
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        width = rows.shape[1]
        with self._lock:
            if digest in self._blocks:
                return
            if self.dim not in (None, width):
                raise InvalidSwitchError(
                    f"a vector of the query set has {width} values;"
                    f" this router compares vectors of {self.dim}"
                )
            if self._vectors is None:
                self.dim = width
                self._flat = _faiss.IndexFlatL2(width)
                self._vectors = _faiss.IndexIDMap(self._flat)
            block = Block(digest, self._next_slot, reach)
            self._vectors.add_with_ids(rows, np.full(len(rows), block.slot, dtype=np.int64))
            self._blocks[digest] = block
            self._next_slot += 1

    def remove(self, digest: str) -> None:
        """Remove a switch; one that is not there is no error. No later search finds it."""
        with self._lock:
            block = self._blocks.pop(digest, None)
            if block is not None:
                self._vectors.remove_ids(np.array([block.slot], dtype=np.int64))

    def select(self, visible: Collection[str]) -> Selection:
        """Those of ``visible`` that are in the index; digests it does not know are skipped."""
        with self._lock:
            blocks = {block.slot: block for digest in visible if (block := self._blocks.get(digest))}
        seen = np.zeros(max(blocks, default=0) + 1, dtype=bool)
        seen[list(blocks)] = True
        bits = np.packbits(seen, bitorder="little")
        return Selection(blocks, _faiss.IDSelectorBitmap(bits))

    def nearest(self, row: NDArray[np.float32], k: int, selection: Selection) -> list[Hit]:
        """The k query vectors of the selection nearest to ``row``, or all of them when they are fewer.

        Args:
            row: float32 (dim,).
            k: how many; at least 1.
            selection: from `select`; a switch removed since then is not found.

        Returns:
            Sorted by distance, equal distances by digest. Empty for a row that is not finite.
        """
        if not selection.blocks:
            return []
        query = np.ascontiguousarray(row, dtype=np.float32)[np.newaxis]
        wanted = k + 1
        with self._lock:
            squared, slots = self._search(query, wanted, selection)
            # While the last one found is as near as the k-th, more of its equals may lie beyond it.
            while len(slots) == wanted and squared[-1] == squared[k - 1]:
                wanted *= 2
                squared, slots = self._search(query, wanted, selection)
        hits = [
            Hit(math.sqrt(distance), selection.blocks[slot].digest, slot)
            for distance, slot in zip(squared, slots, strict=True)
        ]
        return sorted(hits)[:k]

    def _search(
        self, query: NDArray[np.float32], wanted: int, selection: Selection
    ) -> tuple[list[float], list[int]]:
        """Squared distances and slots of up to ``wanted`` vectors, nearest first.

        Does by itself what a search of the `IndexIDMap` would do around that of its inner index. FAISS
        translates the few ids with a team of threads there, and waiting for the team to meet took 5 ms
        on two busy cores, against 0.2 ms for the search itself.
        """
        ids = self._vectors.id_map
        visible = _faiss.SearchParameters(sel=_faiss.IDSelectorTranslated(ids, selection.slots))
        squared, places = self._flat.search(query, wanted, params=visible)
        found = places[0] >= 0
        return squared[0, found].tolist(), [ids.at(place) for place in places[0, found].tolist()]


def spacing(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """How far each vector of a set is from its nearest other one, by the same arithmetic as a search.

    Args:
        vectors: (queries, dim), at least two.

    Returns:
        Euclidean distances, (queries,).
    """
    index = QueryIndex(None)
    index.add("set", vectors, reach=None)
    selection = index.select(["set"])
    # The nearest is the vector itself, or its equal, at distance 0; the second nearest is the other one.
    return np.array([index.nearest(row, 2, selection)[1].distance for row in vectors], dtype=np.float64)
