"""Auto-Switch: the shares of the switches among the K nearest query vectors are the weights of the mix.

Source: *Less is More: Efficient Model Merging with Binary Task Switch*, CVPR 2025, section on
Auto-Switch. Ours beyond the paper: visibility, a metric fitted on what is visible, and abstention where an
input is likelier foreign. Knows nothing of how features are computed, nor of what becomes of the mix.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from bitswitch.core import Route, RouteMode
from bitswitch.errors import InvalidSwitchError
from bitswitch.memory import give_back
from bitswitch.router.view import NOTHING, Codes, View
from bitswitch_store.switch import QuerySet

VIEWS = 16
"""Sets of visible switches whose view is kept; the one used longest ago goes first."""


class AutoSwitch:
    """Routes inputs to mixes of the switches whose query sets it holds; safe from any thread.

    The first `pick` among a set of switches fits its view: 0.06 s of one core for eleven of 100 queries
    of 384 values, 0.73 s for 300. Others are routed by theirs meanwhile. Call it off the event loop.

    Args:
        recipe: which features the inputs come as; only query sets of the same recipe are taken.
        dim: how many values a feature vector has. None: as many as the first query set's.
        k: how many nearest query vectors vote; all of them where fewer are visible.
        mode: whether the votes mix switches, or the one with the most of them answers alone.
        quantile: the share of a task's own inputs that shall not be abstained from; see
            `votes.conformal_quantile`. A higher one answers more foreign inputs.

    Raises:
        ValueError: ``k`` or ``quantile`` out of range.
    """

    def __init__(
        self,
        *,
        recipe: str,
        dim: int | None = None,
        k: int = 10,
        mode: RouteMode = RouteMode.MIX,
        quantile: float = 0.9,
    ) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 neighbour has to vote")
        if not 0 < quantile <= 1:
            raise ValueError(f"quantile is {quantile}; it lies above 0 and is at most 1")
        self.recipe = recipe
        self.k = k
        self.mode = mode
        self.quantile = quantile
        self._dim = dim
        self._lock = threading.Lock()
        self._fitting = threading.Lock()  # one at a time, or those who wait would all fit the same
        self._sets: dict[str, Codes] = {}
        self._views: OrderedDict[frozenset[str], View] = OrderedDict()

    def __contains__(self, digest: object) -> bool:
        return digest in self._sets

    def __len__(self) -> int:
        return len(self._sets)

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
        width = queries.features.shape[1]
        codes = Codes(queries.features)
        with self._lock:
            if self._dim not in (None, width):
                raise InvalidSwitchError(
                    f"a vector of the query set has {width} values;"
                    f" this router compares vectors of {self._dim}"
                )
            self._dim = width
            self._sets.setdefault(digest, codes)

    def remove(self, digest: str) -> None:
        """Route to a switch no more; one that is not there is no error. Holds for every later `pick`."""
        with self._lock:
            if self._sets.pop(digest, None) is not None:
                for key in [key for key in self._views if digest in key]:
                    del self._views[key]

    def pick(self, features: NDArray[np.float32], visible: Collection[str]) -> list[Route]:
        """One route per input, of no other input's making.

        An input is abstained from when it is stranger to the switch with the most votes than that one's
        own query vectors are to the others, or when there is no switch to see; its neighbours are told all
        the same. Of equally near query vectors the one with the smaller digest counts first.

        Args:
            features: float32 (inputs, dim), by the router's recipe.
            visible: digests of the switches that may be chosen; the others neither win, nor shift a vote,
                nor have a part in the metric. Those without a query set here are skipped.

        Raises:
            ValueError: the features have another shape.
        """
        dim = self._dim
        if features.ndim != 2 or (dim is not None and features.shape[1] != dim):
            raise ValueError(f"features are {features.shape}; (inputs, {dim or 'dim'}) is compared")
        if not len(features):
            return []
        view = self._view(visible)
        return [NOTHING if view is None else view.route(row, self.k, self.mode) for row in features]

    def _view(self, visible: Collection[str]) -> View | None:
        """The view of those of ``visible`` that are here now; None if there are none."""
        key, view = self._kept(visible)
        if view is not None or not key:
            return view
        with self._fitting:
            key, view = self._kept(visible)
            if view is not None or not key:
                return view
            with self._lock:
                sets = {digest: self._sets[digest] for digest in key if digest in self._sets}
            if not sets:
                return None
            view = View.of(sets, self.quantile)
            give_back()
            with self._lock:
                # A switch may have gone meanwhile: then this view is for this once.
                if all(self._sets.get(digest) is codes for digest, codes in sets.items()):
                    self._views[frozenset(sets)] = view
                while len(self._views) > VIEWS:
                    self._views.popitem(last=False)
            return view

    def _kept(self, visible: Collection[str]) -> tuple[frozenset[str], View | None]:
        with self._lock:
            key = frozenset(digest for digest in visible if digest in self._sets)
            view = self._views.get(key)
            if view is not None:
                self._views.move_to_end(key)
            return key, view
