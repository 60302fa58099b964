"""What a metric has to know of many query sets, as sums that a set can join and leave.

The sums are of integers and exact: a set that left leaves no trace, not in the last digit, and neither
their order nor the number of threads matters. So a metric from sums kept over a thousand comings and
goings is the one of a fresh start, and sums may be taken over from those of other switches without
telling anything of these. Knows nothing of covariances, switches or views.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

STEP = 2.0**-13
"""Vectors are rounded to multiples of this; under a hundredth of what the codes of a unit vector lose."""
LARGEST = 64.0
"""Values up to this are taken: 2¹⁹ steps, so that a product is below 2⁴⁰ and a block's sum below 2⁵³."""
_ROWS = 4096
"""Rows in one product of float64, whose sums are exact integers as long as there are no more."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over query sets; in units of `STEP`, or of its square.

    Attributes:
        tasks: how many sets.
        vectors: how many vectors in all.
        total: int64 (dim,), the sum of the sets' means.
        outer: int64 (dim, dim), the sum of mean·meanᵀ.
        scatter: int64 (dim, dim), the sum over all vectors of residual·residualᵀ, each from its set's mean.
    """

    tasks: int
    vectors: int
    total: Integers
    outer: Integers
    scatter: Integers

    @classmethod
    def none(cls, dim: int) -> Moments:
        """Of no sets at all."""
        square = np.zeros((dim, dim), np.int64)
        return cls(0, 0, np.zeros(dim, np.int64), square, square)

    @classmethod
    def of(cls, sets: Iterable[NDArray[np.floating]]) -> Moments:
        """Of some sets, each (queries, dim), values up to `LARGEST`; at least one. Each is let go at once."""
        sets = iter(sets)
        first = next(sets)
        return cls.none(first.shape[1]).plus(chain((first,), sets))

    def plus(self, sets: Iterable[NDArray[np.floating]]) -> Moments:
        """These and some more sets."""
        return self._changed(sets, 1)

    def minus(self, sets: Iterable[NDArray[np.floating]]) -> Moments:
        """Without some of the sets that are in."""
        return self._changed(sets, -1)

    def _changed(self, sets: Iterable[NDArray[np.floating]], sign: int) -> Moments:
        tasks, vectors = self.tasks, self.vectors
        total, outer, scatter = self.total.copy(), self.outer.copy(), self.scatter.copy()
        for means, residuals, count in _blocks(sets):
            tasks += sign * count
            vectors += sign * len(residuals)
            total += sign * means.sum(axis=0).astype(np.int64)
            outer += sign * (means.T @ means).astype(np.int64)
            for start in range(0, len(residuals), _ROWS):
                rows = residuals[start : start + _ROWS]
                scatter += sign * (rows.T @ rows).astype(np.int64)
        return Moments(tasks, vectors, total, outer, scatter)


def _blocks(
    sets: Iterable[NDArray[np.floating]],
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], int]]:
    """Means and residuals of so many sets at a time as make a product worth it; whole numbers in float64."""
    means: list[NDArray[np.float64]] = []
    residuals: list[NDArray[np.float64]] = []
    waiting = 0
    for one in sets:
        rows = np.rint(one.astype(np.float64) / STEP)
        means.append(np.rint(rows.mean(axis=0)))
        residuals.append(rows - means[-1])
        waiting += len(one)
        if waiting >= _ROWS - 256:
            yield np.stack(means), np.concatenate(residuals), len(means)
            means, residuals, waiting = [], [], 0
    if means:
        yield np.stack(means), np.concatenate(residuals), len(means)
