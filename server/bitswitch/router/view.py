"""The switches one caller may see, as the router compares them: their own metric, index and thresholds.

A view is fitted on the query sets in it and on nothing else, so that what a caller may not see has no way
into a route. Immutable; knows nothing of callers or of how views are kept.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitswitch.core import Mix, Neighbour, Route, RouteMode
from bitswitch.router import votes
from bitswitch.router.index import QueryIndex
from bitswitch.router.metric import Floats, Metric

VOTE_AXES = 24
"""Axes in which the nearest are searched, at most: one fewer than tasks is all there is to tell them by."""

NOTHING = Route(Mix.of(), head=None, abstained=True, distance=math.inf, threshold=0.0)
"""The route of an input that nothing can be compared with."""


class Codes:
    """The query vectors of one switch in 8 bits a value, each to its own largest value.

    A step is 1/127 of that; a router keeps those of every switch, in a quarter of the memory of float32.

    Args:
        vectors: (queries, dim), finite.
    """

    def __init__(self, vectors: NDArray[np.floating[Any]]) -> None:
        rows = vectors.astype(np.float32)
        self._steps = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
        self._codes = np.rint(rows / np.where(self._steps > 0, self._steps, 1)).astype(np.int8)

    def vectors(self) -> NDArray[np.float32]:
        """What they stand for: float32 (queries, dim)."""
        vectors: NDArray[np.float32] = self._codes * self._steps
        return vectors


@dataclass(frozen=True, eq=False)
class View:
    """See the module; build one with `of`.

    Attributes:
        centres: by digest, the mean of a switch's query vectors in the metric.
        thresholds: by digest, the strangeness above which an input is no longer of the switch's task.
    """

    metric: Metric
    index: QueryIndex
    vote_axes: int
    centres: Mapping[str, Floats]
    thresholds: Mapping[str, float]

    @classmethod
    def of(cls, sets: Mapping[str, Codes], quantile: float) -> View:
        """Fit one.

        Args:
            sets: by digest; at least one.
            quantile: see `votes.conformal_quantile`.
        """
        digests = sorted(sets)
        metric = Metric.fit(sets[digest].vectors() for digest in digests)
        axes = min(max(len(digests) - 1, 1), VOTE_AXES, len(metric.gains))
        blocks, centres, found = {}, {}, {}
        for digest in digests:
            places = metric.place(sets[digest].vectors())
            blocks[digest], centres[digest] = places[:, :axes].astype(np.float32), places.mean(axis=0)
            if len(places) > 1:
                strange = metric.strangeness_within(places).tolist()
                found[digest] = votes.conformal_quantile(strange, quantile)
        # A set of a single query has no distribution: it borrows the median of those that have one.
        borrowed = statistics.median(found.values()) if found else math.inf
        thresholds = {digest: found.get(digest, borrowed) for digest in digests}
        return cls(metric, QueryIndex(blocks), axes, centres, thresholds)

    def route(self, row: NDArray[np.float32], k: int, mode: RouteMode) -> Route:
        """The route of one input, float32 (dim,), by the votes of its k nearest query vectors."""
        if not np.isfinite(row).all():
            return NOTHING
        place = self.metric.place(row[np.newaxis])
        hits = self.index.nearest(place[0, : self.vote_axes], k)
        neighbours: tuple[Neighbour, ...] = votes.count(hits)
        winner = neighbours[0].digest
        strange = float(self.metric.strangeness(place, self.centres[winner])[0])
        threshold = self.thresholds[winner]
        abstained = strange > threshold
        chosen = (
            ((one.digest, one.share) for one in neighbours) if mode is RouteMode.MIX else ((winner, 1.0),)
        )
        mix = Mix.of(() if abstained else chosen)
        head = None if abstained else winner
        return Route(mix, head, abstained, strange, threshold, neighbours)
