"""Which of many example inputs stand for all of them in a query set.

Knows neither what the vectors are of, nor switches.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

_ROUNDS = 20
_SEED = 1


def representatives(vectors: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """One vector of each cluster, the nearest to its mean (k-means).

    A draw at random has many vectors where many lie and misses what is rare; these are spread over all.

    Args:
        vectors: float32 (inputs, dim).
        count: how many are wanted, at least 1.

    Returns:
        Their rows, rising; all rows if there are no more than ``count``, and fewer where vectors are equal.
    """
    if len(vectors) <= count:
        return np.arange(len(vectors))
    # FAISS warns of fewer than 39 vectors to a cluster: it thinks of cells, where these are to be few.
    clusters = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=_ROUNDS,
        seed=_SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=2**20,
    )
    clusters.train(np.ascontiguousarray(vectors, np.float32))
    distances, owners = clusters.index.search(vectors, 1)
    order = np.argsort(distances[:, 0], kind="stable")
    _, nearest = np.unique(owners[order, 0], return_index=True)
    return np.sort(order[nearest]).astype(np.int64)
