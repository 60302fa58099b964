"""Any number of tasks that lie as real ones do: drawn from the query sets of real switches.

A task's mean is drawn around the mean of the real ones' means, with the covariance between these and a
tenth of its mean variance in every direction; its vectors around that, with the covariance within the
real tasks, shrunk by .2; all are of length 1. So it has the real ones' spectrum and not their shapes.
Knows nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitswitch_store.coded import CodedSwitch

Vectors = NDArray[np.float32]


class Tasks:
    """See the module.

    Args:
        sets: of the real ones, each (queries, dim).

    Raises:
        ValueError: there are fewer than two.
    """

    def __init__(self, sets: Sequence[NDArray[np.floating]]) -> None:
        if len(sets) < 2:
            raise ValueError(f"{len(sets)} query sets; two at least tell how tasks lie, see --switches")
        sets = [one.astype(np.float64) for one in sets]
        self.real = len(sets)
        self.dim = sets[0].shape[1]
        means = np.stack([one.mean(axis=0) for one in sets])
        scatter = sum((one - mean).T @ (one - mean) for one, mean in zip(sets, means, strict=True))
        within = np.asarray(scatter) / (sum(map(len, sets)) - len(sets))
        between = np.cov(means.T)
        self._origin = means.mean(axis=0)
        self._between = self._root(between, 1.0, 0.1)
        self._within = self._root(within, 0.8, 0.2)

    @classmethod
    def like(cls, switches: Iterable[Path]) -> Tasks:
        """Like those whose switch files these are."""
        found = (CodedSwitch(path).queries() for path in switches)
        return cls([queries.codes.vectors() for queries in found if queries is not None])

    def _root(self, covariance: NDArray[np.float64], own: float, sphere: float) -> NDArray[np.float64]:
        room = sphere * np.trace(covariance) / self.dim * np.eye(self.dim)
        return np.linalg.cholesky(own * covariance + room)

    def draw(self, count: int, size: int, *, seed: int = 0) -> Iterator[Vectors]:
        """The vectors of one task after the other, float32 (size, dim)."""
        chance = np.random.default_rng(seed)
        for _ in range(count):
            mean = self._origin + self._between @ chance.standard_normal(self.dim)
            rows = mean + chance.standard_normal((size, self.dim)) @ self._within.T
            yield (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
