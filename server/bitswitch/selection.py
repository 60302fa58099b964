"""What a `model` means to one tenant at this moment: a mix of stored switches, in names and in digests.

A switch published or deleted a moment ago counts: the store is asked each time, or whether it has changed.
Knows nothing of the engine or of the router.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitswitch.core import Mix, Route
from bitswitch.errors import ModelNotFoundError, NotAClassifierError, RouteAbstainedError
from bitswitch.model_ref import BASE, ModelRef, Term
from bitswitch_store.queries import revision
from bitswitch_store.store import Entry, Store

TENANTS = 16
"""Whose routable switches are remembered: those who asked last."""


@dataclass(frozen=True)
class Part:
    """One switch of a mix, in the words of the tenant who asked.

    Attributes:
        name: ``name``, or ``tenant/name`` when another tenant shares it.
        labels: its head's label names; empty when it has no head.
    """

    name: str
    version: int
    digest: str
    labels: tuple[str, ...]
    weight: float = 1.0

    @property
    def ref(self) -> str:
        """``name@version``, as a request may write it."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Selection:
    """A resolved model.

    Attributes:
        mix: the weights to compute at.
        parts: the switches of the mix in the order they were asked for; equal ones merged.
        head: the switch with the largest weight, whose head answers; None for the bare base.
    """

    mix: Mix
    parts: tuple[Part, ...] = ()
    head: Part | None = None

    @property
    def model(self) -> str:
        """A `model` that means exactly this, versions named."""
        return "+".join(str(Term(part.ref, weight=part.weight)) for part in self.parts) or BASE


@dataclass(frozen=True)
class Choice:
    """What ``auto`` chose for one input, and why: a `Route` in names the tenant knows.

    Attributes:
        selection: the shares of the votes as a mix, or the heaviest alone; the bare base when it abstained.
        confidence: see `Route`.
        neighbours: each switch voted for, its share of the votes, its distance.
        distance: how strange the input is to the switch with the most votes, see `Route`; inf when there is
            none to see.
        threshold: the largest distance that would not have been an abstention.
    """

    selection: Selection
    abstained: bool
    distance: float
    threshold: float
    confidence: float = 0.0
    neighbours: tuple[tuple[Part, float, float], ...] = ()


def name_of(entry: Entry, tenant: str) -> str:
    """What ``tenant`` calls it, without its version."""
    return entry.name if entry.tenant == tenant else f"{entry.tenant}/{entry.name}"


def part_of(entry: Entry, tenant: str, weight: float = 1.0) -> Part:
    """``entry`` as ``tenant`` calls it."""
    return Part(name_of(entry, tenant), entry.version, entry.digest, entry.labels, weight)


def find(store: Store, tenant: str, term: Term, *, base: str | None = None) -> Entry:
    """The stored switch that a term names, if ``tenant`` may see it.

    Args:
        base: digest of the base it has to be of; None finds those of any, which can be kept, not served.

    Raises:
        ModelNotFoundError: there is none, or it is another tenant's own; the same answer for both.
    """
    entry = store.find(term.tenant or tenant, term.name, term.selector, seen_by=tenant, base=base)
    if entry is None:
        raise ModelNotFoundError(str(replace(term, weight=1.0)))
    return entry


def select(store: Store, tenant: str, ref: ModelRef, *, base: str) -> Selection:
    """Resolve the terms of a mix over the base with this digest.

    Raises:
        ModelNotFoundError: for the first term that names nothing this tenant may see.
    """
    entries = [(find(store, tenant, term, base=base), term.weight) for term in ref.terms]
    return of_parts(part_of(entry, tenant, weight) for entry, weight in entries)


def of_parts(parts: Iterable[Part]) -> Selection:
    """Merge parts of equal digest and leave out what weighs nothing."""
    merged: dict[str, Part] = {}
    for part in parts:
        before = merged.get(part.digest)
        weight = part.weight + (before.weight if before else 0.0)
        known = before or part
        merged[part.digest] = replace(known, weight=weight)
    mix = Mix.of((part.digest, part.weight) for part in merged.values())
    head = merged[mix.heaviest] if mix.heaviest else None
    return Selection(mix, tuple(part for part in merged.values() if part.digest in mix.digests), head)


def latest(entries: Iterable[Entry]) -> list[Entry]:
    """Of each switch the version its bare name means; in the order in which the names come."""
    current: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        key = (entry.tenant, entry.name)
        if key not in current or entry.version > current[key].version:
            current[key] = entry
    return list(current.values())


def routable(store: Store, tenant: str, *, base: str) -> dict[str, Part]:
    """What ``auto`` may choose from, by digest: the latest version of each of the base's switches.

    No older ones: two versions of one task have nearly the same query set, and among both ``auto`` would
    halve every vote. Where two names hold the same bytes, the tenant's own name wins, then the first.
    """
    entries = latest(store.visible(tenant, base=base))
    named: dict[str, Part] = {}
    for entry in sorted(entries, key=lambda entry: (entry.tenant != tenant, entry.tenant, entry.name)):
        named.setdefault(entry.digest, part_of(entry, tenant))
    return named


class Routable:
    """What `routable` says, asked anew once anything was written to the catalog; safe from any thread.

    With ten thousand switches in sight, asking takes longer than the request; whether anything was written is
    one row of an index. So what was shared or taken back a moment ago counts here as well.

    Args:
        base: digest of the base.
    """

    def __init__(self, store: Store, *, base: str) -> None:
        self._store = store
        self._base = base
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[tuple[int, int], tuple[Mapping[str, Part], frozenset[str]]]]
        self._known = OrderedDict()

    def of(self, tenant: str) -> tuple[Mapping[str, Part], frozenset[str]]:
        """The parts by digest, and the digests; the very same objects while nothing changes."""
        now = revision(self._store.database)  # first: what is written meanwhile is asked for once more
        with self._lock:
            known = self._known.get(tenant)
        if known is None or known[0] != now:
            named = routable(self._store, tenant, base=self._base)
            known = (now, (named, frozenset(named)))
        with self._lock:
            self._known[tenant] = known
            self._known.move_to_end(tenant)
            while len(self._known) > TENANTS:
                self._known.popitem(last=False)
        return known[1]


def choice_of(route: Route, named: Mapping[str, Part]) -> Choice:
    """``route`` in the names of `routable`; the heaviest switch first."""
    # The shortest decimal that is this fp32: 0.6 rather than 0.6000000238418579.
    parts = [replace(named[digest], weight=float(str(np.float32(weight)))) for digest, weight in route.mix]
    return Choice(
        of_parts(sorted(parts, key=lambda part: (-part.weight, part.name))),
        route.abstained,
        route.distance,
        route.threshold,
        route.confidence,
        tuple((named[near.digest], near.share, near.distance) for near in route.neighbours),
    )


def check_heads(selections: Sequence[Selection], choices: Sequence[Choice | None]) -> None:
    """Whether each input has a head to answer it.

    Args:
        choices: how each selection came about; None where it was named.

    Raises:
        RouteAbstainedError: ``auto`` chose nothing for an input.
        NotAClassifierError: the heaviest switch has no head, or there is no switch.
    """
    for index, (selection, choice) in enumerate(zip(selections, choices, strict=True)):
        if choice is not None and choice.abstained:
            raise RouteAbstainedError(
                f"No switch is near input {index}: its distance is {choice.distance:.3g}, of at most"
                f" {choice.threshold:.3g}; name a model instead of 'auto'.",
                param=f"input.{index}",
            )
        if selection.head is None:
            raise NotAClassifierError(
                "The bare base has no classification head; name a switch that has one.", param="model"
            )
        if not selection.head.labels:
            raise NotAClassifierError(
                f"The heaviest switch of the mix, {selection.head.ref}, has no classification head;"
                " name one that has, or ask for embeddings.",
                param="model",
            )
