"""The bounded queue in front of the model, and who goes next.

Tenants take turns; within a tenant the oldest request goes first, and everybody's requests of the
same mix go along in its batch. So a transition is shared by all who need it, no tenant waits behind
another's backlog, and nobody starves. Knows nothing of weights or of the model.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from bitswitch.core import Request, Result
from bitswitch.errors import DeadlineExceededError, OverloadedError, UnavailableError


@dataclass(eq=False)
class Job:
    """A request that waits, and the future its answer goes to."""

    request: Request
    future: Future[Result] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)
    ready: bool = True
    """Whether its switches are in memory; until then it keeps its place and is passed over."""

    def claim(self) -> bool:
        """Begin with it: from now on it cannot be cancelled. False if nobody waits for it any more."""
        return not self.future.done() and self.future.set_running_or_notify_cancel()

    def fail(self, error: BaseException) -> None:
        """Give the waiting side the error, unless it has gone or been answered."""
        with suppress(InvalidStateError):  # cancelled or answered, perhaps this very moment
            self.future.set_exception(error)


class Queue:
    """Requests that wait for the engine's thread. Thread-safe.

    Args:
        limit: requests that may wait; one more is refused at once.
        batch_tokens: tokens of a group, at most (a single larger request goes alone).
        batch_rows: inputs of a group, at most (likewise).
    """

    def __init__(self, *, limit: int, batch_tokens: int, batch_rows: int) -> None:
        self._limit = limit
        self._batch_tokens = batch_tokens
        self._batch_rows = batch_rows
        self._jobs: dict[str, deque[Job]] = {}  # by tenant; the dict's order is whose turn it is
        self._changed = threading.Condition()
        self._open = True
        self._woken = False

    def __len__(self) -> int:
        with self._changed:
            return self._count()

    def _count(self) -> int:
        return sum(map(len, self._jobs.values()))

    def put(self, job: Job) -> None:
        """Let a job wait.

        Raises:
            OverloadedError: as many as may wait do so already.
            UnavailableError: the server is stopping.
        """
        with self._changed:
            if not self._open:
                raise UnavailableError("The server is stopping; try another replica.", retry_after=1.0)
            if self._count() >= self._limit:
                self._drop_gone()
            if self._count() >= self._limit:
                raise OverloadedError(
                    f"{self._limit} requests are waiting already, as many as may; try again shortly.",
                    retry_after=1.0,
                )
            self._jobs.setdefault(job.request.tenant, deque()).append(job)
            self._changed.notify_all()

    def mark_ready(self, job: Job) -> None:
        """The job's switches are in memory now."""
        with self._changed:
            job.ready = True
            self._changed.notify_all()

    def take(self, timeout: float | None) -> list[Job]:
        """The next group: jobs of one mix, at least one. Empty after ``timeout`` seconds without any, after
        `wake`, or when the queue is closed and nothing is left.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._woken or self._first() is not None or self._drained(), timeout
            )
            self._woken = False
            first = self._first()
            return [] if first is None else self._group(first)

    def wake(self) -> None:
        """Let `take` return although there may be nothing to take."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more; what waits is still handed out."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether it takes no more and nothing waits."""
        with self._changed:
            return self._drained()

    def _drained(self) -> bool:
        return not self._open and not self._count()

    def _drop_gone(self) -> None:
        """Forget the jobs that nobody waits for, whoever's they are."""
        now = time.monotonic()
        for tenant, jobs in list(self._jobs.items()):
            self._keep(tenant, [job for job in jobs if not _gone(job, now)])

    def _keep(self, tenant: str, jobs: Iterable[Job]) -> None:
        self._jobs[tenant] = deque(jobs)
        if not self._jobs[tenant]:
            del self._jobs[tenant]

    def _first(self) -> Job | None:
        """The oldest ready job of the tenant whose turn it is."""
        self._drop_gone()
        return next((job for jobs in self._jobs.values() for job in jobs if job.ready), None)

    def _group(self, first: Job) -> list[Job]:
        """``first`` and what fits beside it of the same mix; taken out, the tenant's turn is over."""
        tenant = first.request.tenant
        group, tokens, rows = [first], first.request.tokens, len(first.request.rows)
        for jobs in self._jobs.values():
            for job in jobs:
                request = job.request
                if job is first or not job.ready or request.mix != first.request.mix:
                    continue
                if (
                    tokens + request.tokens > self._batch_tokens
                    or rows + len(request.rows) > self._batch_rows
                ):
                    continue
                group.append(job)
                tokens += request.tokens
                rows += len(request.rows)
        taken = set(map(id, group))
        turn = self._jobs.pop(tenant)
        self._jobs[tenant] = turn
        for name, jobs in list(self._jobs.items()):
            self._keep(name, [job for job in jobs if id(job) not in taken])
        return group


def _gone(job: Job, now: float) -> bool:
    """Whether nobody waits for the job any more; says so to a waiting side that is too late."""
    if job.future.done():
        return True
    deadline = job.request.deadline
    if deadline is not None and now > deadline:
        waited = now - job.submitted
        job.fail(DeadlineExceededError(f"The request waited {waited:.1f} s, longer than it may; try again."))
        return True
    return False
