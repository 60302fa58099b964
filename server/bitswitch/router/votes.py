"""The arithmetic of the votes: hits to shares, and left-out scores to the score at which to abstain.

Knows nothing of vectors or of FAISS.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from bitswitch.core import Neighbour
from bitswitch.router.index import Hit


def count(hits: Sequence[Hit]) -> tuple[Neighbour, ...]:
    """Each hit is one vote for its switch.

    Returns:
        One entry per switch voted for, its share and its nearest distance; the largest share first,
        then the nearest, then by digest. The shares are k-ths and sum to 1.
    """
    distances: dict[str, list[float]] = defaultdict(list)
    for hit in hits:
        distances[hit.digest].append(hit.distance)
    neighbours = (
        Neighbour(digest, share=len(found) / len(hits), distance=min(found))
        for digest, found in distances.items()
    )
    return tuple(sorted(neighbours, key=lambda one: (-one.share, one.distance, one.digest)))


def conformal_quantile(scores: Sequence[float], quantile: float) -> float:
    """The score within which a further input of the same task falls with probability ``quantile``.

    The ⌈(n + 1)·quantile⌉-th smallest of the n scores, the largest one when n is too small for that:
    split conformal prediction's quantile (Vovk et al. 2005), with leave-one-out scores. Leaving one out
    breaks exact exchangeability a little, so the coverage is approximate.

    Args:
        scores: see `Metric.strangeness_within`; at least one.
        quantile: above 0, at most 1.
    """
    n = len(scores)
    # Less a hair, or 200 · 0.95 = 190.00000000000003 would ask for the 191st.
    rank = math.ceil((n + 1) * quantile - 1e-9)
    return sorted(scores)[min(rank, n) - 1]
