"""The metric in which inputs and query vectors are compared: closed form, from the query sets in sight alone.

Two Gaussian models of an input at once. *Of a task*: around the task's mean, with the covariance that all
tasks have within themselves, shrunk towards a sphere. *Foreign*: around the mean of the tasks' means, with
that covariance, the one between the means, and some room in every direction. The axes diagonalise both.
Along the first ones tasks differ most (Fisher's discriminants); the odds of the two models say how strange
an input is, as the relative Mahalanobis distance does (Ren et al. 2021, arXiv 2106.09022).
Knows nothing of switches, votes or FAISS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitswitch.router.moments import STEP, Moments

SHRINKAGE = 0.2
"""Share of the sphere in the covariance within tasks."""
ROOM = 0.05
"""Variance of foreign means in every direction, as a share of the mean variance between tasks."""
BETWEEN = 0.6
"""Variance between tasks over that within, where there are too few to tell: measured, eleven tasks."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Metric:
    """Axes along which the variance within a task is 1 and the coordinates do not correlate.

    Attributes:
        axes: (dim, dim), the one along which tasks differ most first. All of them: the last ones are where
            a query vector would look least strange for having been fitted on.
        gains: (dim,), how much larger than 1 the variance of foreign inputs is; falling.
        origin: (dim,), the mean of the tasks' means.
        tasks: how many there are.
        freedom: how many independent vectors the covariance within tasks was estimated from.
    """

    axes: Floats
    gains: Floats
    origin: Floats
    tasks: int
    freedom: int

    @classmethod
    def fit(cls, moments: Moments) -> Metric:
        """From the sums over the query sets of some tasks; at least one."""
        tasks, dim = moments.tasks, len(moments.total)
        freedom = max(moments.vectors - tasks, 1)
        within = moments.scatter * (STEP**2 / freedom)
        origin = moments.total * (STEP / tasks)
        between = (moments.outer * STEP**2 - tasks * np.outer(origin, origin)) / max(tasks - 1, 1)
        # Vectors that are all equal have no scale of their own; any one does then.
        apart = float(np.trace(between)) / dim
        sphere = float(np.trace(within)) / dim or (apart if apart * dim > STEP**2 / 8 else 1.0)
        within = (1 - SHRINKAGE) * within + SHRINKAGE * sphere * np.eye(dim)
        # The means of few tasks say little of how far tasks lie apart: as if two more had been seen.
        apart = (apart * (tasks - 1) + BETWEEN * sphere * 2) / (tasks + 1)
        whiten = np.linalg.inv(np.linalg.cholesky(within))
        gains, turn = np.linalg.eigh(whiten @ (between + ROOM * apart * np.eye(dim)) @ whiten.T)
        # In an order of their own in memory, or products with saved ones would have other last digits.
        axes = np.ascontiguousarray((whiten.T @ turn)[:, ::-1])
        return cls(axes, np.ascontiguousarray(gains[::-1]), origin @ axes, tasks, freedom)

    def place(self, vectors: NDArray[np.floating], axes: int | None = None) -> Floats:
        """Coordinates of vectors (rows, dim) along the first ``axes``, or (None) all: (rows, axes).

        The last digits may depend on how many rows and axes.
        """
        return np.asarray(vectors.astype(np.float64) @ self.axes[:, :axes])

    def strangeness(self, places: Floats, centre: Floats) -> Floats:
        """How much likelier inputs are foreign than of the task around ``centre``.

        Args:
            places: (rows, dim).
            centre: (dim,), the mean of the task's query vectors.

        Returns:
            Twice the logarithm of the ratio of the densities, up to one constant: (rows,).
        """
        own = np.square(places - centre).sum(axis=1)
        foreign = (np.square(places - self.origin) / (1 + self.gains)).sum(axis=1)
        return np.asarray(own - foreign)

    def strangeness_within(self, places: Floats) -> Floats:
        """The strangeness of each query vector of a task, had it not been in the task's query set.

        Leaving a vector out moves the mean of its set and takes a matrix of rank one from the covariance,
        which the formula of Sherman and Morrison accounts for; nothing is fitted again.

        Args:
            places: (queries, dim), all of the set; at least two.
        """
        n = len(places)
        centre = places.mean(axis=0)
        residual = places - centre
        offset = places - self.origin + residual / ((n - 1) * self.tasks)
        weight = (1 - SHRINKAGE) * n / (n - 1) / self.freedom
        shrunk = 1 / (1 + self.gains)

        def without(square: Floats, leverage: Floats) -> Floats:
            return weight * square / np.maximum(1 - weight * leverage, 1e-3)

        own = np.square(residual).sum(axis=1)
        own = (own + without(own**2, own)) * (n / (n - 1)) ** 2
        foreign = (np.square(offset) * shrunk).sum(axis=1)
        crossed = (offset * residual * shrunk).sum(axis=1)
        foreign += without(crossed**2, (np.square(residual) * shrunk).sum(axis=1))
        if self.tasks > 1:  # the covariance between the means moves with the mean, to first order
            pull = (offset * (centre - self.origin) * shrunk).sum(axis=1)
            foreign += 2 * pull * crossed / ((n - 1) * (self.tasks - 1))
        return np.asarray(own - foreign)
