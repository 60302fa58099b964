"""A request that waits, and the future its answer goes to. Knows nothing of queues or weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from bitswitch.base.heads import ClassificationHead
from bitswitch.core import Request, Result
from bitswitch.engine.mixes import Part
from bitswitch.engine.ready import ReadySwitch
from bitswitch.errors import DeadlineExceededError


@dataclass(eq=False)
class Job:
    """One request on its way through the engine."""

    request: Request
    switches: Mapping[str, ReadySwitch] | None = None
    """Those it needs, by digest; None until all are in memory: it keeps its place and is passed over."""
    future: Future[Result] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What its mix is made of. Once `switches` are there."""
        return tuple(Part(self.ready(digest).planes, weight) for digest, weight in self.request.mix)

    @property
    def head(self) -> ClassificationHead | None:
        """What answers, if it is a classification. Once `switches` are there."""
        return None if self.request.head is None else self.ready(self.request.head).head

    @cached_property
    def active(self) -> int:
        """How many weights its mix touches, a weight counted for each switch that does."""
        return sum(part.planes.active for part in self.parts)

    def ready(self, digest: str) -> ReadySwitch:
        """One of its switches. Once `switches` are there."""
        assert self.switches is not None
        return self.switches[digest]

    def claim(self) -> bool:
        """Begin with it: from now on it cannot be cancelled. False if nobody waits for it any more."""
        return not self.future.done() and self.future.set_running_or_notify_cancel()

    def fail(self, error: BaseException) -> None:
        """Give the waiting side the error, unless it has gone or been answered."""
        with suppress(InvalidStateError):  # cancelled or answered, perhaps this very moment
            self.future.set_exception(error)

    def gone(self, now: float) -> bool:
        """Whether nobody waits for it any more; says so to a waiting side that is too late.

        Args:
            now: `time.monotonic()` seconds.
        """
        if self.future.done():
            return True
        deadline = self.request.deadline
        if deadline is not None and now > deadline:
            waited = now - self.submitted
            self.fail(
                DeadlineExceededError(f"The request waited {waited:.1f} s, longer than it may; try again.")
            )
            return True
        return False
