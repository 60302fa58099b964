"""What was fitted on a set of switches: their metric, the index of their query vectors in it, their
thresholds.

Immutable, but for thresholds, which are worked out when a switch first wins. Knows nothing of callers or
of how fits are kept.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from bitswitch.router import votes
from bitswitch.router.index import QueryIndex
from bitswitch.router.metric import Floats, Metric
from bitswitch.router.moments import Moments
from bitswitch_store.codes import Codes

VOTE_AXES = 24
"""Axes in which the nearest are searched, at most: one fewer than tasks is all there is to tell them by."""
LENDERS = 32
"""Switches of whose thresholds a set of a single query borrows the median; the first ones by digest."""


@dataclass(frozen=True, eq=False)
class Fit:
    """See the module; build one with `of`.

    Attributes:
        sets: by digest, what it was fitted on.
        moments: their sums, from which the next fit's are made.
    """

    sets: Mapping[str, Codes]
    moments: Moments
    metric: Metric
    index: QueryIndex
    vote_axes: int
    quantile: float
    _known: dict[str, tuple[Floats, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, sets: Mapping[str, Codes], quantile: float, near: Fit | None = None) -> Fit:
        """Fit one.

        Args:
            sets: by digest; at least one.
            quantile: see `votes.conformal_quantile`.
            near: one of nearly the same sets. Saves summing up what is in both, and changes nothing else.
        """
        moments = _moments(sets, near)
        metric = Metric.fit(moments)
        axes = vote_axes(metric)
        blocks = {digest: in_axes(metric, sets[digest], axes) for digest in sorted(sets)}
        return cls(sets, moments, metric, QueryIndex.of(blocks), axes, quantile)

    def own(self, digest: str, codes: Codes) -> tuple[Floats, float]:
        """The mean of a switch's query vectors in the metric, and the strangeness above which an input is
        no longer of its task."""
        known = self._known.get(digest)
        if known is None:
            places = self.metric.place(codes.vectors())
            threshold = self._threshold(places) if len(places) > 1 else self._borrowed()
            known = self._known[digest] = (places.mean(axis=0), threshold)
        return known

    def _threshold(self, places: Floats) -> float:
        return votes.conformal_quantile(self.metric.strangeness_within(places).tolist(), self.quantile)

    def _borrowed(self) -> float:
        """A set of a single query has no distribution: it borrows the median of those that have one."""
        lenders = (codes for _, codes in sorted(self.sets.items()) if len(codes) > 1)
        found = [self._threshold(self.metric.place(codes.vectors())) for codes in islice(lenders, LENDERS)]
        return statistics.median(found) if found else math.inf


def vote_axes(metric: Metric) -> int:
    """How many of a metric's axes the nearest are searched in."""
    return min(max(metric.tasks - 1, 1), VOTE_AXES, len(metric.gains))


def in_axes(metric: Metric, codes: Codes, axes: int) -> NDArray[np.float32]:
    """A switch's query vectors as they are searched: float32 (queries, axes)."""
    return metric.place(codes.vectors(), axes).astype(np.float32)


def differing(sets: Mapping[str, Codes], others: Mapping[str, Codes]) -> list[str]:
    """The digests of ``sets`` that ``others`` does not hold as well; sorted."""
    return sorted(digest for digest, codes in sets.items() if others.get(digest) is not codes)


def _moments(sets: Mapping[str, Codes], near: Fit | None) -> Moments:
    if near is not None:
        came, went = differing(sets, near.sets), differing(near.sets, sets)
        if len(came) + len(went) < len(sets):
            left = near.moments.minus(near.sets[digest].vectors() for digest in went)
            return left.plus(sets[digest].vectors() for digest in came)
    return Moments.of(codes.vectors() for codes in sets.values())
