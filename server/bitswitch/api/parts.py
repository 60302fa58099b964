"""What the endpoints work with. Built once in `create_app`; an endpoint asks for it by `House`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Protocol, cast

from anyio import CapacityLimiter
from fastapi import Depends, Request

from bitswitch.answer import Answers
from bitswitch.core import Mix
from bitswitch.observe.metrics import Metrics
from bitswitch.publish import Publisher
from bitswitch.tenants.caller import Caller
from bitswitch.tenants.keys import Keys
from bitswitch.tenants.limits import Permit, Quotas
from bitswitch.tenants.usage import Ledger
from bitswitch_store.audit import Actor
from bitswitch_store.store import Store
from bitswitch_store.switch import BaseIdentity


class Verdict(Protocol):
    """Whether the resident weights are the base's; the engine's word."""

    @property
    def intact(self) -> bool:
        """Bit for bit."""

    @property
    def differing(self) -> tuple[str, ...]:
        """Parameters that are not as they were loaded."""

    @property
    def checked(self) -> int:
        """Parameters compared."""

    @property
    def seconds(self) -> float:
        """How long it took."""


class State(Protocol):
    """What goes on in the engine."""

    @property
    def waiting(self) -> int:
        """Requests in the queue."""

    @property
    def running(self) -> int:
        """Requests being computed."""

    @property
    def mix(self) -> Mix:
        """What the weights are set to."""

    @property
    def resident(self) -> Mapping[str, int]:
        """Bytes of each switch in memory, by digest."""

    @property
    def pinned(self) -> tuple[str, ...]:
        """Digests of the switches that stay in memory."""

    @property
    def transitions(self) -> int:
        """Since the start."""

    @property
    def steps(self) -> Mapping[str, int]:
        """Since the start, by what was done; see `EngineState`."""

    @property
    def journal_bytes(self) -> int:
        """Base values saved."""

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""

    @property
    def condition(self) -> str:
        """In a word, what it is about; see `Condition`."""

    @property
    def reason(self) -> str:
        """Why it is not ready."""

    @property
    def reloads(self) -> Mapping[str, int]:
        """How often the base was loaded anew, by reason."""

    @property
    def failed_checks(self) -> int:
        """How often the weights were not the base's when they had to be."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a running server, as far as the API reaches.

    Attributes:
        verify: compares the resident weights with the base; blocks for up to seconds.
        state: what goes on in the engine, at once.
        base_name: what `root` of a model says.
        started: Unix time at which the base was loaded.
        publishing: uploads that are checked and stored at a time, in threads of their own: requests, resolved
            and tokenized in others, shall not wait behind them. One checks while another waits for the store.
    """

    answers: Answers
    publisher: Publisher
    store: Store
    verify: Callable[[], Verdict]
    state: Callable[[], State]
    keys: Keys
    quotas: Quotas
    ledger: Ledger
    metrics: Metrics
    base_name: str
    base_identity: BaseIdentity
    max_upload_bytes: int
    started: int
    publishing: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))


def parts_of(request: Request) -> Parts:
    """The parts behind this request's app."""
    return cast("Parts", request.app.state.parts)


def caller_of(request: Request) -> Caller:
    """Who calls; `door.Guarded` has admitted them."""
    return cast("Caller", request.state.caller)


def permit_of(request: Request) -> Permit:
    """The leave that `door.Guarded` got for this request; the envelope gives it back."""
    return cast("Permit", request.state.permit)


def actor_of(request: Request) -> Actor:
    """Who changes what this request changes."""
    return Actor(caller_of(request).key, str(request.state.request_id))


async def _parts(request: Request) -> Parts:  # async: FastAPI gives a plain function a thread
    return parts_of(request)


async def _caller(request: Request) -> Caller:
    return caller_of(request)


House = Annotated[Parts, Depends(_parts)]
Who = Annotated[Caller, Depends(_caller)]
