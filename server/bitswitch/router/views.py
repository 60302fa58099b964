"""Which view answers whom, and the fits that follow what comes and goes, in a thread of their own.

* Few switches are fitted whenever they change, by whoever asks first: it takes no longer than a pass or
  two.
* Of many, whoever asks goes on with the view that they have, in which what came is searched and what went
  is masked, and a fit of what they see now is begun beside. Once it is done their routes are those of a
  fresh start.
* Who has no view yet, or one in which less than half of what they see was fitted, waits for a fit.

A fit made for one caller is another's only where both see exactly the same. Knows nothing of inputs and
of k.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import faiss

from bitswitch.memory import give_back
from bitswitch.router.fit import Fit, differing
from bitswitch.router.view import View
from bitswitch_store.codes import Codes

AT_ONCE = 5_000
"""Query vectors in sight that are fitted while the request waits, at most: under .1 s of one core."""
CALLERS = 16
"""Callers whose view is kept; the one who asked longest ago goes first."""
VECTORS = 4_000_000
"""In all kept fits, about 100 bytes each; beyond it callers' views go, down to one."""
PACE = 9.0
"""A fit is begun so many times its duration after the last, unless much changed: a tenth of a core."""
MUCH = 0.05
"""Share of the switches that came or went by which a fit does not wait."""

_log = logging.getLogger(__name__)


class Views:
    """The views of the callers who asked last; safe from any thread.

    Args:
        quantile: see `votes.conformal_quantile`.
        at_once: see `AT_ONCE`.
        keep: called in the thread with the callers' fits once there are new ones of more vectors than that.
    """

    def __init__(
        self,
        quantile: float,
        *,
        at_once: int = AT_ONCE,
        keep: Callable[[Mapping[str, Fit]], None] = lambda _: None,
    ) -> None:
        self._quantile = quantile
        self._at_once = at_once
        self._save = keep
        self._unsaved = False
        self._changed = threading.Condition()
        self._kept: OrderedDict[str, View] = OrderedDict()
        self._gates: dict[frozenset[str], threading.Lock] = {}
        self._wanted: OrderedDict[str, Mapping[str, Codes]] = OrderedDict()
        self._awaited: str | None = None
        self._thread: threading.Thread | None = None
        self._busy = self._hurry = self._closed = False
        self.turn = 0
        """How many fits were made beside: a view from before the last one may not be the best there is."""

    def of(self, caller: str, sets: Mapping[str, Codes]) -> View:
        """The best view of exactly these switches that there is without much ado; see the module.

        Args:
            caller: whose earlier view may stand in.
            sets: by digest; at least one.
        """
        with self._changed:
            last = self._kept.get(caller)
        view = self._exact(sets)
        if view is None:
            vectors = sum(map(len, sets.values()))
            if last is not None and vectors > self._at_once:
                view = View(last.fit, sets, last)
            if view is None or 2 * view.shared < len(sets):
                view = self._fitted(sets)
        with self._changed:
            if self._kept.get(caller) is last:  # or a fit made beside has come first
                self._keep(caller, view)
            if view.changes:
                self._wanted[caller] = sets
                self._wake()
            else:
                self._wanted.pop(caller, None)
                if self._awaited == caller:  # the fit under way is of what they saw before
                    self._awaited = None
        return view

    def resume(self, fits: Iterable[tuple[str, Fit]]) -> None:
        """Begin with fits that were made earlier; each stands in for its caller's."""
        with self._changed:
            for caller, fit in fits:
                self._keep(caller, View(fit, fit.sets))

    def forget(self, digest: str) -> None:
        """Let go of small fits that a switch is in; of a large one it is gone with the next fit."""
        with self._changed:
            for caller, view in [*self._kept.items()]:
                if digest in view.fit.sets and len(view.fit.index) <= self._at_once:
                    del self._kept[caller]

    def settle(self) -> None:
        """Wait until no fit is wanted; those that are do not wait for their pace."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or not (self._wanted or self._unsaved or self._busy))
            self._hurry = False

    def close(self) -> None:
        """Begin no more fits, and wait for the one under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def kept(self) -> dict[str, View]:
        """By caller, the views there are."""
        with self._changed:
            return dict(self._kept)

    def _exact(self, sets: Mapping[str, Codes]) -> View | None:
        fits = (view.fit for view in self.kept().values())
        same = (fit for fit in fits if len(fit.sets) == len(sets) and not differing(sets, fit.sets))
        fit = next(same, None)
        return None if fit is None else View(fit, sets)

    def _fitted(self, sets: Mapping[str, Codes]) -> View:
        """Fit these now; who wants the same meanwhile waits for it, and nobody else."""
        key = frozenset(sets)
        with self._changed:
            gate = self._gates.setdefault(key, threading.Lock())
        with gate:
            view = self._exact(sets)
            if view is None:
                view = View(self._made(sets), sets)
        with self._changed:
            self._gates.pop(key, None)
        return view

    def _made(self, sets: Mapping[str, Codes]) -> Fit:
        """A fit, from the sums of the kept one that has most in common: whose it is does not matter."""
        fits = [view.fit for view in self.kept().values()]
        nearest = min(fits, key=lambda fit: len(sets.keys() ^ fit.sets.keys()), default=None)
        fit = Fit.of(sets, self._quantile, nearest)
        give_back()
        return fit

    def _keep(self, caller: str, view: View) -> None:
        before = self._kept.get(caller)
        if (before is None or before.fit is not view.fit) and len(view.fit.index) > self._at_once:
            self._unsaved = True
            self._wake()
        self._kept[caller] = view
        self._kept.move_to_end(caller)
        while len(self._kept) > 1 and (len(self._kept) > CALLERS or self._size() > VECTORS):
            self._kept.popitem(last=False)

    def _size(self) -> int:
        fits = {id(view.fit): len(view.fit.index) for view in self._kept.values()}
        return sum(fits.values())

    def _wake(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._follow, name="router-fit", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _follow(self) -> None:
        """The thread: one fit after the other, each of what its caller saw last, and then they are kept."""
        faiss.omp_set_num_threads(1)  # of this thread's searches and trainings alone
        if sys.platform == "linux":  # where a thread has a priority of its own: requests come first
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        due = 0.0
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                while not (self._closed or self._unsaved or (self._wanted and self._may_begin(due))):
                    self._changed.wait(max(due - time.monotonic(), 0) if self._wanted else None)
                if self._closed:
                    return
                self._busy = True
                saving, self._unsaved = self._unsaved, False
                caller, sets = ("", None) if saving else self._wanted.popitem(last=False)
                self._awaited = None if saving else caller
            began = time.monotonic()
            try:
                if sets is None:
                    fits = {caller: view.fit for caller, view in self.kept().items()}
                    self._save(
                        {caller: fit for caller, fit in fits.items() if len(fit.index) > self._at_once}
                    )
                else:
                    self._refit(caller, sets)
                    due = time.monotonic() + PACE * (time.monotonic() - began)
            except Exception:  # noqa: BLE001 - whatever it is, requests are answered by what there is
                _log.exception(
                    "the router could not %s; it goes on with what it has", "save" if saving else "fit"
                )

    def _may_begin(self, due: float) -> bool:
        if self._hurry or time.monotonic() >= due:
            return True
        views = (self._kept.get(caller) for caller in self._wanted)
        return any(view is not None and view.changes > MUCH * len(view.sets) for view in views)

    def _refit(self, caller: str, sets: Mapping[str, Codes]) -> None:
        view = self._exact(sets) or View(self._made(sets), sets)
        with self._changed:
            if caller in self._kept and self._awaited == caller:  # or it has not asked for long
                self._keep(caller, view)
            if self._wanted.get(caller) is sets:
                del self._wanted[caller]
            self.turn += 1
