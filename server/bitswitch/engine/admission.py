"""Who is let in: nobody who would wait longer for the model than is set.

Asked before anything is done for a request, it counts what was let in and is not answered yet, in tokens, and
what the model gets through in a second. Knows nothing of weights, texts or HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bitswitch.engine.pace import Pace
from bitswitch.errors import OverloadedError

FEW = 8
"""So many requests are always let in: they may be slow, but they are no overload."""

_SOONEST = 0.1
"""Seconds; to try again before that is of no use to anybody."""


@dataclass(eq=False)
class Ticket:
    """One request that was let in.

    Attributes:
        tokens: that the model has to read for it; a guess until it is tokenized.
    """

    tenant: str
    tokens: int


class Admission:
    """The requests that were let in and have no answer yet. Thread-safe.

    Args:
        pace: how fast the model is.
        seconds: that a request may wait for others, at most, once `FEW` are inside.
    """

    def __init__(self, pace: Pace, *, seconds: float) -> None:
        self._pace = pace
        self._seconds = seconds
        self._inside: dict[str, dict[Ticket, None]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def admitted(self, tenant: str, tokens: int) -> Iterator[Ticket]:
        """Let a request in for as long as the block lasts.

        Raises:
            OverloadedError: it would wait too long; says how long what is before it will take.
        """
        ticket = Ticket(tenant, tokens)
        with self._lock:
            wait = self._wait(ticket)
            if wait > self._seconds and sum(map(len, self._inside.values())) >= FEW:
                raise OverloadedError(
                    f"The requests before this one take the model about {wait:.1f} s, and none may wait"
                    f" longer than {self._seconds:g} s; try again in {wait:.1f} s.",
                    retry_after=max(wait, _SOONEST),
                )
            self._inside.setdefault(tenant, {})[ticket] = None
        try:
            yield ticket
        finally:
            with self._lock:
                del self._inside[tenant][ticket]
                if not self._inside[tenant]:
                    del self._inside[tenant]

    def _wait(self, ticket: Ticket) -> float:
        """Seconds of work before a request is through, its own not among them.

        Tenants take turns: until this one has been served what it asked, no other has been served more.
        """
        loads = {tenant: sum(one.tokens for one in inside) for tenant, inside in self._inside.items()}
        own = loads.pop(ticket.tenant, 0)
        before = own + sum(min(load, own + ticket.tokens) for load in loads.values())
        return before / self._pace.rate
