"""Auto-Switch: the shares of the switches among the K nearest query vectors are the weights of the mix.

Source: *Less is More: Efficient Model Merging with Binary Task Switch*, CVPR 2025, section on
Auto-Switch. Ours beyond the paper: visibility, and abstention where an input is far from everything.
Knows nothing of how features are computed, nor of what becomes of the mix.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from bitswitch.core import Mix, Route
from bitswitch.errors import InvalidSwitchError
from bitswitch.router import votes
from bitswitch.router.index import QueryIndex, Selection, spacing
from bitswitch_store.switch import QuerySet


class AutoSwitch:
    """Routes inputs to mixes of the switches whose query sets it holds; safe from any thread.

    A search takes milliseconds (1 ms of one core per input and 100 switches of 100 queries of 384
    values): call `pick` off the event loop.

    Args:
        recipe: which features the inputs come as; only query sets of the same recipe are taken.
        dim: how many values a feature vector has. None: as many as the first query set's.
        k: how many nearest query vectors vote; all of them where fewer are visible.
        quantile: the share of a task's own inputs that shall not be abstained from; see
            `votes.conformal_quantile`. Of 100 queries, 0.99 would already ask for the largest spacing,
            which one outlier sets.

    Raises:
        ValueError: ``k`` or ``quantile`` out of range.
    """

    def __init__(self, *, recipe: str, dim: int | None = None, k: int = 10, quantile: float = 0.95) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 neighbour has to vote")
        if not 0 < quantile <= 1:
            raise ValueError(f"quantile is {quantile}; it lies above 0 and is at most 1")
        self.recipe = recipe
        self.k = k
        self.quantile = quantile
        self._index = QueryIndex(dim)

    def __contains__(self, digest: object) -> bool:
        return digest in self._index

    def __len__(self) -> int:
        return len(self._index)

    def add(self, digest: str, queries: QuerySet) -> None:
        """Let a switch be routed to; one that is there already stays as it is.

        Raises:
            InvalidSwitchError: the query set has another recipe or another dim than the router's.
        """
        if queries.recipe != self.recipe:
            raise InvalidSwitchError(
                f"the query set holds features {queries.recipe!r};"
                f" this router compares {self.recipe!r}, make the switch again with those"
            )
        reach = None
        if len(queries.features) > 1:
            reach = votes.conformal_quantile(spacing(queries.features).tolist(), self.quantile)
        self._index.add(digest, queries.features, reach=reach)

    def remove(self, digest: str) -> None:
        """Route to a switch no more; one that is not there is no error. Holds for every later `pick`."""
        self._index.remove(digest)

    def pick(self, features: NDArray[np.float32], visible: Collection[str]) -> list[Route]:
        """One route per input, of no other input's making.

        An input is abstained from when its nearest query vector is further away than the reach of that
        vector's switch, or when there is none to see; its neighbours are told all the same. Of equally
        near query vectors the one with the smaller digest counts first.

        Args:
            features: float32 (inputs, dim), by the router's recipe.
            visible: digests of the switches that may be chosen; the others neither win nor shift a
                vote. Those without a query set here are skipped.

        Raises:
            ValueError: the features have another shape.
        """
        dim = self._index.dim
        if features.ndim != 2 or (dim is not None and features.shape[1] != dim):
            raise ValueError(f"features are {features.shape}; (inputs, {dim or 'dim'}) is compared")
        selection = self._index.select(visible)
        return [self._route(row, selection) for row in features]

    def _route(self, row: NDArray[np.float32], selection: Selection) -> Route:
        hits = self._index.nearest(row, self.k, selection)
        if not hits:
            return Route(Mix.of(), head=None, abstained=True, distance=math.inf, threshold=0.0)
        nearest = hits[0]
        neighbours = votes.count(hits)
        threshold = votes.reach_of(selection.blocks[nearest.slot], selection.blocks.values())
        abstained = nearest.distance > threshold
        mix = Mix.of(() if abstained else ((one.digest, one.share) for one in neighbours))
        return Route(mix, mix.heaviest, abstained, nearest.distance, threshold, neighbours)
