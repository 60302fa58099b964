"""Which switches are ready in memory: built once for all who wait, kept while in use, the oldest go first.

Who needs switches takes a `Hold` of them when it begins to wait, and releases it when it is done; until
then none of them goes. Tenants take turns at what has to be built, so that nobody waits behind another's
backlog. Knows nothing of what a switch is, where it comes from or what is done with it.

There is one budget, for what is ready. Switch files need none: the system keeps those that were read
lately in memory that it has to spare, see `docs/decisions.md`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from bitswitch.engine.turns import Turns
from bitswitch.errors import ConflictError


class Sized(Protocol):
    """Anything that says how many bytes of memory it takes."""

    @property
    def nbytes(self) -> int: ...  # noqa: D102


R = TypeVar("R", bound=Sized)


@dataclass(eq=False)
class _Place(Generic[R]):
    """One switch that is ready, or asked for, or both."""

    digest: str
    ready: R | None = None
    holds: int = 0
    forgotten: bool = False
    """Nobody finds it any more; it lives on for those who hold it."""


class Hold(Generic[R]):
    """Somebody's need of some switches; `Residency.hold` gives it.

    Attributes:
        tenant: whose need it is.
        prepared: done when all are ready: the switches by digest, or why one could not be built.
            Cancelled if it is released before. Its callbacks may run in the building thread.
    """

    def __init__(
        self, places: Mapping[str, _Place[R]], tenant: str, release: Callable[[Hold[R]], None]
    ) -> None:
        self.tenant = tenant
        self.prepared: Future[Mapping[str, R]] = Future()
        self.places = places  # the residency's own, under its lock
        self._release = release

    def release(self) -> None:
        """Need them no more. From any thread; twice is once."""
        self._release(self)

    def lacking(self) -> _Place[R] | None:
        """The first of its switches that is not ready."""
        return next((place for place in self.places.values() if place.ready is None), None)

    def ready(self) -> dict[str, R]:
        """Its switches that are ready, by digest."""
        return {digest: place.ready for digest, place in self.places.items() if place.ready is not None}


class Residency(Generic[R]):
    """Ready switches by digest, within a budget of bytes. Thread-safe.

    One thread of its own builds them: all that one hold lacks, then what the next tenant's oldest hold does.
    When what is in use fills the budget, it waits until what it built before has been used, rather than build
    what would have to go again unused; but when nothing is left to wait for it goes on, whatever the size. So
    the budget is exceeded by one hold's switches at most, and by what is pinned.

    Args:
        build: makes a digest's switch ready; what it raises reaches all who wait for it.
        budget: bytes to keep.
    """

    def __init__(self, build: Callable[[str], R], *, budget: int) -> None:
        self._build = build
        self._budget = budget
        self._places: OrderedDict[str, _Place[R]] = OrderedDict()  # the least recently released first
        self._bytes = 0  # of all that is ready
        self._in_use = 0  # of what is ready and held
        self._waiting: OrderedDict[Hold[R], None] = OrderedDict()
        self._turns = Turns()
        self._turn: Hold[R] | None = None  # is built for
        self._served: set[Hold[R]] = set()  # had to wait, are prepared, and will be released
        self._pins: dict[str, Hold[R]] = {}
        self._building: _Place[R] | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._builder = ThreadPoolExecutor(1, thread_name_prefix="bitswitch-switches")

    def hold(self, digests: Iterable[str], tenant: str = "") -> Hold[R]:
        """Keep these switches, building those that are not there. Never blocks.

        Args:
            tenant: at whose turn they are built.
        """
        with self._lock:
            return self._hold(digests, tenant)

    def pin(self, digest: str, tenant: str = "") -> None:
        """Keep a switch until `unpin` or `forget`, building it first; waits for that. Twice is once.

        Raises:
            ConflictError: with it, what is pinned would exceed the budget; it is not pinned.
            CancelledError: the residency was closed.
            Exception: what building it raised.
        """
        hold = self.hold([digest], tenant)
        try:
            size = hold.prepared.result()[digest].nbytes
            with self._lock:
                if digest in self._pins:
                    return
                pinned = sum(one.ready()[name].nbytes for name, one in self._pins.items())
                if pinned + size > self._budget:
                    raise ConflictError(
                        f"The switch takes {size} bytes of memory, and {pinned} of the {self._budget} bytes"
                        " for ready switches are pinned already; unpin another or raise resident_bytes."
                    )
                if not hold.places[digest].forgotten:
                    self._pins[digest] = hold
                    self._served.discard(hold)
                    self._build_next()
        finally:
            if self._pins.get(digest) is not hold:
                hold.release()

    def pins(self) -> tuple[str, ...]:
        """The digests of what is pinned, sorted."""
        with self._lock:
            return tuple(sorted(self._pins))

    def unpin(self, digest: str) -> None:
        """Let a switch go again when memory is short; one that is not pinned is no error."""
        with self._lock:
            hold = self._pins.pop(digest, None)
        if hold is not None:
            hold.release()

    def forget(self, digest: str) -> None:
        """Free a switch's memory as soon as nobody holds it; who asks from now on gets it built anew."""
        self.unpin(digest)
        with self._lock:
            place = self._places.pop(digest, None)
            if place is not None:
                place.forgotten = True
                if not place.holds:
                    self._empty(place)

    def sizes(self) -> dict[str, int]:
        """Bytes of the ready switches by digest, in the order in which they would go."""
        with self._lock:
            return {
                digest: place.ready.nbytes
                for digest, place in self._places.items()
                if place.ready is not None
            }

    def close(self) -> None:
        """Build no more. Those who still wait are told."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        self._builder.shutdown(wait=False, cancel_futures=True)
        for hold in waiting:
            hold.release()

    def _hold(self, digests: Iterable[str], tenant: str) -> Hold[R]:
        places: dict[str, _Place[R]] = {}
        for digest in dict.fromkeys(digests):
            place = places[digest] = self._places.setdefault(digest, _Place(digest))
            place.holds += 1
            if place.ready is not None and place.holds == 1:
                self._in_use += place.ready.nbytes
        hold = Hold(places, tenant, self._release)
        if hold.lacking() is None:
            hold.prepared.set_result(hold.ready())
        elif self._closed:
            hold.prepared.cancel()
        else:
            self._waiting[hold] = None
            self._build_next()
        return hold

    def _release(self, hold: Hold[R]) -> None:
        with self._lock:
            places, hold.places = hold.places, {}
            self._waiting.pop(hold, None)
            self._served.discard(hold)
            for place in places.values():
                place.holds -= 1
                if not place.holds:
                    self._let_go(place)
            self._trim()
            self._build_next()
        hold.prepared.cancel()

    def _let_go(self, place: _Place[R]) -> None:
        """Nobody holds it any more."""
        if place.ready is not None:
            self._in_use -= place.ready.nbytes
        if place.forgotten:
            self._empty(place)
        elif place.ready is not None:
            self._places.move_to_end(place.digest)
        elif place is not self._building:
            del self._places[place.digest]

    def _build_next(self) -> None:
        """Begin with what the next who waits lacks, unless something else has to end before."""
        full = self._in_use >= self._budget and self._served
        if not self._waiting or full or self._building is not None or self._closed:
            return
        place = self._next().lacking()
        if place is None:
            return
        self._builder.submit(self._make, place)
        self._building = place

    def _next(self) -> Hold[R]:
        """Whom to build for: whoever was begun with, else the oldest hold of the tenant whose turn it is.

        One hold at a time is built to its end: parts of many would fill the memory and serve nobody.
        """
        if self._turn is None or self._turn not in self._waiting:
            first: dict[str, Hold[R]] = {}
            for hold in self._waiting:
                first.setdefault(hold.tenant, hold)
            tenant, *_ = self._turns.order(first)
            self._turns.over(tenant)
            self._turn = first[tenant]
        return self._turn

    def _make(self, place: _Place[R]) -> None:
        """One switch, in the builder's thread."""
        built: R | None = None
        error: BaseException | None = None
        try:
            built = self._build(place.digest)
        except BaseException as raised:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            error = raised
        with self._lock:
            self._building = None
            if built is not None:
                self._keep(place, built)
            elif not place.holds and not place.forgotten:
                del self._places[place.digest]
            told = [hold for hold in self._waiting if hold.places.get(place.digest) is place]
            told = [hold for hold in told if error is not None or hold.lacking() is None]
            for hold in told:
                del self._waiting[hold]
            if error is None:
                self._served.update(told)
            answers = [hold.ready() for hold in told]
            self._build_next()
        for hold, answer in zip(told, answers, strict=True):
            with suppress(InvalidStateError):  # released this very moment
                if error is not None:
                    hold.prepared.set_exception(error)
                else:
                    hold.prepared.set_result(answer)

    def _keep(self, place: _Place[R], built: R) -> None:
        if place.forgotten and not place.holds:
            return
        place.ready = built
        self._bytes += built.nbytes
        if place.holds:
            self._in_use += built.nbytes
        self._trim()

    def _trim(self) -> None:
        """Drop what nobody holds, the least recently used first, until the rest fits."""
        if self._bytes <= self._budget:
            return
        for digest, place in list(self._places.items()):
            if place.ready is not None and not place.holds:
                del self._places[digest]
                self._empty(place)
                if self._bytes <= self._budget:
                    return

    def _empty(self, place: _Place[R]) -> None:
        if place.ready is not None:
            self._bytes -= place.ready.nbytes
            place.ready = None
