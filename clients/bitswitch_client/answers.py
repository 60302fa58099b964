"""What the server answers, as frozen values. How they are read from its JSON stands in `reading`."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Generic, TypeAlias, TypeVar

D = TypeVar("D")


@dataclass(frozen=True)
class Timing:
    """Where a request's time went on the server, in seconds; nan where it did not say.

    ``swap`` and ``inference`` are those of the whole batch it was computed in.
    """

    queue: float
    swap: float
    inference: float
    total: float


@dataclass(frozen=True)
class Part:
    """One switch of a mix."""

    name: str
    version: int
    weight: float


Mix: TypeAlias = tuple[Part, ...]


@dataclass(frozen=True)
class Neighbour:
    """One switch among the nearest query vectors of an input.

    Attributes:
        share: its share of the votes, 0 to 1.
        distance: of its nearest query vector, in the router's metric.
    """

    name: str
    version: int
    share: float
    distance: float


@dataclass(frozen=True)
class Route:
    """What ``auto`` chooses for one input, and why.

    Attributes:
        mix: the chosen switches and their weights; empty for the bare base.
        abstained: whether the input is too strange to every task.
        distance: how much stranger the input is to the switch with the most votes than to inputs at large,
            mostly below 0 for its own; None if there is none to see.
        threshold: the largest distance that is no abstention; None for any.
        confidence: how likely the switch with the most votes is the right one of those in sight, 0 to 1.
    """

    mix: Mix
    abstained: bool
    distance: float | None
    threshold: float | None
    confidence: float
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Classified:
    """The answer to one input.

    Attributes:
        label: the likeliest label.
        probs: probabilities in the order of ``labels``; a regression's raw value.
        mix: the switches the weights were set to; empty for the bare base.
        route: why these, if ``auto`` chose them.
        truncated: whether the input was longer than the model reads.
    """

    label: str
    labels: tuple[str, ...]
    probs: tuple[float, ...]
    mix: Mix
    route: Route | None
    truncated: bool


@dataclass(frozen=True)
class Embedded:
    """The embedding of one input.

    Attributes:
        vector: float32 (dim,), an ``array('f')``, which numpy reads without a copy.
        mix, route, truncated: as in `Classified`; where ``auto`` abstained, the bare base answered.
    """

    vector: array[float]
    mix: Mix
    route: Route | None
    truncated: bool


@dataclass(frozen=True)
class Answer(Generic[D]):
    """The answer to a list of inputs.

    Attributes:
        id: names this answer; the server's log has it too.
        model: what was asked, versions resolved; can be asked again as it is.
        data: one per input, in the inputs' order.
        tokens: tokens read, special ones included.
    """

    id: str
    model: str
    data: tuple[D, ...]
    tokens: int
    timing: Timing


Classification: TypeAlias = Answer[Classified]
Embedding: TypeAlias = Answer[Embedded]
Routing: TypeAlias = Answer[Route]


@dataclass(frozen=True)
class Model:
    """A name that ``model`` may hold; ``parent`` is ``base`` for a switch, None for ``base`` and ``auto``."""

    id: str
    owned_by: str
    root: str
    parent: str | None


@dataclass(frozen=True)
class Published:
    """One version of a switch in the server's store; ``size`` in bytes, ``pinned`` if it stays in memory."""

    tenant: str
    name: str
    version: int
    digest: str
    size: int
    task: str
    labels: tuple[str, ...]
    aliases: tuple[str, ...]
    public: bool
    pinned: bool
    metric: Mapping[str, float]
    base_digest: str
    created: datetime


@dataclass(frozen=True)
class Used:
    """A tenant's use of one switch on one day, UTC.

    Attributes:
        id: names the row, for ``after``.
        owner, name, version: of the switch; ``"", "base", 0`` is the bare base, and without a name the row is
            all of the tenant's day: a mix counts whole for each of its switches, so theirs add up to more.
        seconds: of forward passes.
    """

    id: str
    day: date
    tenant: str
    owner: str
    name: str
    version: int
    requests: int
    inputs: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Action:
    """Something that was changed: whose, what, by the key with which id, in which request."""

    id: int
    at: datetime
    tenant: str
    key: str | None
    action: str
    target: str
    digest: str | None
    request_id: str


@dataclass(frozen=True)
class Sharing:
    """Who sees a switch, all its versions, besides its owner: everybody if ``public``, ``tenants`` anyway."""

    name: str
    public: bool
    tenants: tuple[str, ...]


@dataclass(frozen=True)
class KeyInfo:
    """Whose key it is: ``id`` None for the server's own, ``role`` caller, publisher or admin."""

    id: str | None
    tenant: str
    role: str
    expires: datetime | None


@dataclass(frozen=True)
class Verdict:
    """Whether the resident weights are the base's, bit for bit; ``checked`` counts tensors."""

    intact: bool
    differing: tuple[str, ...]
    checked: int
    seconds: float


@dataclass(frozen=True)
class State:
    """What goes on in the server right now: requests, bytes of each switch in memory by its digest, and the
    digests of those that are pinned there.
    """

    ready: bool
    condition: str
    reason: str
    waiting: int
    running: int
    mix: tuple[tuple[str, float], ...]
    resident: Mapping[str, int]
    pinned: tuple[str, ...]
    transitions: int
    steps: Mapping[str, int]
    journal_bytes: int
    reloads: Mapping[str, int]
    failed_checks: int
