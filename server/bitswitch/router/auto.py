"""Auto-Switch: the shares of the switches among the K nearest query vectors are the weights of the mix.

Source: *Less is More: Efficient Model Merging with Binary Task Switch*, CVPR 2025, section on
Auto-Switch. Ours beyond the paper: visibility, a metric fitted on what is visible, and abstention where an
input is likelier foreign. Knows nothing of how features are computed, nor of what becomes of the mix.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitswitch.core import Route, RouteMode
from bitswitch.errors import InvalidSwitchError
from bitswitch.router.fit import Fit
from bitswitch.router.moments import LARGEST
from bitswitch.router.saved import Saved
from bitswitch.router.view import NOTHING, View
from bitswitch.router.views import AT_ONCE, CALLERS, MUCH, Views
from bitswitch_store.codes import Codes
from bitswitch_store.errors import StoreError
from bitswitch_store.switch import QuerySet, SwitchError

MANY = 100
"""So many query sets that were read at a start are worth a file of their own."""

_log = logging.getLogger(__name__)


class AutoSwitch:
    """Routes inputs to mixes of the switches whose query sets it holds; safe from any thread.

    A caller's first `pick` waits for a fit of what they see; how later ones follow what comes and goes says
    `views`. Call it off the event loop.

    Args:
        recipe: which features the inputs come as; only query sets of the same recipe are taken.
        dim: how many values a feature vector has. None: as many as the first query set's.
        k: how many nearest query vectors vote; all of them where fewer are visible.
        mode: whether the votes mix switches, or the one with the most of them answers alone.
        quantile: the share of a task's own inputs that shall not be abstained from; see
            `votes.conformal_quantile`. A higher one answers more foreign inputs.
        at_once: how many query vectors in sight are fitted anew whenever a switch comes or goes.
        folder: where what is more is kept for the next start; None keeps nothing.
        fetch: gives a stored switch's query set by its digest, None if it has none. What is in sight and not
            here is asked for once it is: another server may have published it. None: there is no store.

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
        quantile: float = 0.95,
        at_once: int = AT_ONCE,
        folder: Path | None = None,
        fetch: Callable[[str], QuerySet | None] | None = None,
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
        self._fetch = fetch
        self._unfit: set[str] = set()  # of the stored ones, by what their bytes hold: it never changes
        self._lock = threading.Lock()
        self._sets: dict[str, Codes] = {}
        self._change = 0
        self._saved = Saved(folder, recipe=recipe, quantile=quantile) if folder else None
        self._recalled: dict[str, Codes] | None = None
        self._written: set[str] = set()
        self._fits_written: dict[str, Fit] = {}
        self._views = Views(quantile, at_once=at_once, keep=self._keep)
        self._asked: OrderedDict[tuple[str, frozenset[str]], tuple[tuple[int, int], View]] = OrderedDict()

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
        codes = queries.codes
        width = codes.codes.shape[1]
        if codes.largest > LARGEST:
            raise InvalidSwitchError(
                f"a value of the query set is larger than {LARGEST:g}; features by {self.recipe!r} are not"
            )
        with self._lock:
            if self._dim not in (None, width):
                raise InvalidSwitchError(
                    f"a vector of the query set has {width} values;"
                    f" this router compares vectors of {self._dim}"
                )
            self._dim = width
            if digest not in self._sets:
                self._sets[digest] = codes
                self._change += 1

    def learn(self, digest: str) -> None:
        """Let a stored switch be routed to, if it has a query set.

        Raises:
            InvalidSwitchError: as `add`.
            Exception: what ``fetch`` raised.
        """
        queries = self._fetch(digest) if self._fetch else None
        if queries is None:
            self._unfit.add(digest)
            return
        try:
            self.add(digest, queries)
        except InvalidSwitchError:
            self._unfit.add(digest)
            raise

    def recall(self, digest: str) -> bool:
        """Let a switch be routed to whose query set was kept at an earlier start; whether it was."""
        if self._recalled is None:
            self._recalled = self._saved.codes() if self._saved else {}
            self._written = set(self._recalled)
        codes = self._recalled.get(digest)
        with self._lock:
            if codes is None or self._dim not in (None, codes.codes.shape[1]):
                return False
            self._dim = codes.codes.shape[1]
            self._sets.setdefault(digest, codes)
            self._change += 1
        return True

    def resume(self) -> None:
        """Take up the fits that were kept, once every switch that is stored was recalled or added.

        They stand in like any other; what was deleted since is not in sight and has no vote. Where many sets
        were added, they are kept now, and lie in that file instead of in memory until they are compared.
        """
        if self._saved:
            if len(self._sets.keys() - (self._recalled or {}).keys()) >= MANY:
                self._map(self._saved)
            known = {**(self._recalled or {}), **self._sets}
            fits = [*self._saved.fits(known)]
            self._fits_written = dict(fits)
            self._views.resume(fits)
        self._recalled = {}

    def remove(self, digest: str) -> None:
        """Route to a switch no more; one that is not there is no error. Holds for every later `pick`."""
        with self._lock:
            if self._sets.pop(digest, None) is None:
                return
            self._change += 1
            self._asked.clear()
        self._views.forget(digest)

    def settle(self) -> None:
        """Wait until every caller's routes are those of a fresh start."""
        self._views.settle()

    def close(self) -> None:
        """End the thread that fits; what is there routes on."""
        self._views.close()

    def pick(
        self, features: NDArray[np.float32], visible: Collection[str], *, caller: str = ""
    ) -> list[Route]:
        """One route per input, of no other input's making.

        An input is abstained from when it is stranger to the switch with the most votes than that one's
        own query vectors are to the others, or when there is no switch to see; its neighbours are told all
        the same. Of equally near query vectors the one with the smaller digest counts first.

        Args:
            features: float32 (inputs, dim), by the router's recipe.
            visible: digests of the switches that may be chosen; the others neither win, nor shift a vote,
                nor have a part in the metric. Those without a query set are skipped. A frozenset that
                is asked for again and again costs least.
            caller: who may see them. Where many come or go, the metric of what they saw before serves until
                the next one is fitted; nobody else's does.

        Raises:
            ValueError: the features have another shape.
        """
        dim = self._dim
        if features.ndim != 2 or (dim is not None and features.shape[1] != dim):
            raise ValueError(f"features are {features.shape}; (inputs, {dim or 'dim'}) is compared")
        if not len(features):
            return []
        view = self._view(visible, caller)
        return [NOTHING if view is None else view.route(row, self.k, self.mode) for row in features]

    def _view(self, visible: Collection[str], caller: str) -> View | None:
        """A view of those of ``visible`` that are here now; None if there are none."""
        asked = (caller, visible if isinstance(visible, frozenset) else frozenset(visible))
        with self._lock:
            state = (self._change, self._views.turn)
            before, view = self._asked.get(asked, (None, None))
            if view is not None and before == state:
                self._asked.move_to_end(asked)
                return view
        self._meet(asked[1])
        with self._lock:
            state = (self._change, self._views.turn)
            sets = {digest: self._sets[digest] for digest in asked[1] if digest in self._sets}
        if not sets:
            return None
        view = self._views.of(caller, sets)
        with self._lock:
            if self._change == state[0]:  # or a switch may have gone meanwhile: this view is for this once
                self._asked[asked] = (state, view)
            while len(self._asked) > CALLERS:
                self._asked.popitem(last=False)
        return view

    def _meet(self, visible: Collection[str]) -> None:
        """Learn of those that are seen for the first time. One that cannot be had now is asked for again."""
        for digest in [one for one in visible if one not in self._sets and one not in self._unfit]:
            try:
                self.learn(digest)
            except (StoreError, SwitchError, InvalidSwitchError) as error:
                _log.warning("%s is not routed to: %s", digest, error)

    def _map(self, saved: Saved) -> None:
        try:
            written = self._write(saved)
        except OSError as error:
            _log.warning("query sets stay in memory, as they cannot be kept: %s", error)
            return
        kept = saved.codes() if written else {}
        with self._lock:
            self._sets.update({digest: kept[digest] for digest in self._sets.keys() & kept.keys()})

    def _write(self, saved: Saved) -> bool:
        """Keep the query sets unless few have changed, which a start reads by itself; whether it did."""
        with self._lock:
            sets = dict(self._sets)
        if len(sets.keys() ^ self._written) <= MUCH * len(sets):
            return False
        saved.write_codes(sets)
        self._written = set(sets)
        return True

    def _keep(self, fits: Mapping[str, Fit]) -> None:
        """Write down what a start would take long for."""
        if self._saved is None or not fits:
            return
        self._write(self._saved)
        for caller, fit in fits.items():
            if self._fits_written.get(caller) is not fit:
                self._saved.write_fit(caller, fit)
        self._fits_written = dict(fits)
