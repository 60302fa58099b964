"""The switches one caller may see, as the router compares them: a fit, and what came or went since.

Where nothing did, the view is the fit of exactly these switches. Otherwise it stands in for that: what
went is masked inside the search and has no vote; what came is searched beside it, vector by vector, in
the same metric. The metric alone still knows what went and not yet what came. Immutable; knows nothing of
callers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitswitch.core import Mix, Neighbour, Route, RouteMode
from bitswitch.router import votes
from bitswitch.router.fit import Fit, differing, in_axes
from bitswitch.router.index import Hit, QueryIndex
from bitswitch_store.codes import Codes

NOTHING = Route(Mix.of(), head=None, abstained=True, distance=math.inf, threshold=0.0)
"""The route of an input that nothing can be compared with."""


class View:
    """Some switches in the metric of a fit.

    Args:
        fit: of these switches or of others; how many it shares with them is `shared`.
        sets: by digest, the switches in sight, and no others; at least one.
        before: an earlier view in the same fit, from which vectors that were placed are taken over.
    """

    def __init__(self, fit: Fit, sets: Mapping[str, Codes], before: View | None = None) -> None:
        self.fit = fit
        self.sets = sets
        came = differing(sets, fit.sets)
        self.shared = len(sets) - len(came)
        self.changes = len(came) + len(fit.sets) - self.shared
        """How many switches came or went since the fit; 0 where the view is exact."""
        placed = before.placed if before is not None and before.fit is fit else {}
        self.placed: dict[str, NDArray[np.float32]] = {
            digest: placed[digest] if digest in placed else in_axes(fit.metric, sets[digest], fit.vote_axes)
            for digest in came
        }
        self._tail = QueryIndex.of(self.placed, flat=_ANY) if came else None
        seen = sets.keys() - set(came)
        self._among: Any = fit.index.only(seen) if len(seen) < len(fit.sets) else None

    def route(self, row: NDArray[np.float32], k: int, mode: RouteMode) -> Route:
        """The route of one input, float32 (dim,), by the votes of its k nearest query vectors."""
        if not np.isfinite(row).all():
            return NOTHING
        place = self.fit.metric.place(row[np.newaxis])
        hits = self._nearest(place[0, : self.fit.vote_axes], k)
        if not hits:  # so large that no distance is finite
            return NOTHING
        neighbours: tuple[Neighbour, ...] = votes.count(hits)
        winner = neighbours[0].digest
        centre, threshold = self.fit.own(winner, self.sets[winner])
        strange = float(self.fit.metric.strangeness(place, centre)[0])
        abstained = strange > threshold
        chosen = (
            ((one.digest, one.share) for one in neighbours) if mode is RouteMode.MIX else ((winner, 1.0),)
        )
        mix = Mix.of(() if abstained else chosen)
        head = None if abstained else winner
        return Route(mix, head, abstained, strange, threshold, neighbours)

    def _nearest(self, place: NDArray[np.float64], k: int) -> list[Hit]:
        hits = self.fit.index.nearest(place, k, self._among) if self.shared else []
        if self._tail is not None:
            hits = sorted(hits + self._tail.nearest(place, k))[:k]
        return hits


_ANY = 2**62
"""A tail is searched vector by vector however long it is: it is there to be gone soon."""
