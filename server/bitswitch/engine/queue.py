"""The bounded queue in front of the model: who waits, and whose turn it is.

Tenants take turns: the one whose last turn is the longest ago is next, and its oldest request goes first;
who goes along with it is for the scheduler to say. So no tenant waits behind another's backlog. Knows nothing
of weights or of the model.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from bitswitch.engine.job import Job
from bitswitch.engine.ready import ReadySwitch
from bitswitch.engine.schedule import Step
from bitswitch.engine.turns import Turns
from bitswitch.errors import OverloadedError, UnavailableError

Choose = Callable[[Sequence[Sequence[Job]]], Step]
"""Given those who could be served (see `Scheduler.choose`), says what to do next."""


class Queue:
    """Requests that wait for the engine's thread. Thread-safe.

    Args:
        limit: requests that may wait; one more is refused at once.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._jobs: dict[str, deque[Job]] = {}
        self._turns = Turns()
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

    def make_ready(self, job: Job, switches: Mapping[str, ReadySwitch]) -> None:
        """The job's switches are in memory now."""
        with self._changed:
            job.switches = switches
            self._changed.notify_all()

    def take(self, timeout: float | None, choose: Choose) -> Step | None:
        """The next step, its jobs taken out. None after ``timeout`` seconds without any, after `wake`, or
        when the queue is closed and nothing is left.
        """
        waiting: list[list[Job]] = []

        def look() -> bool:
            nonlocal waiting
            waiting = self._waiting()
            return bool(waiting) or self._woken or self._drained()

        with self._changed:
            self._changed.wait_for(look, timeout)
            self._woken = False
            if not waiting:
                return None
            step = choose(waiting)
            self._remove(step.jobs)
            return step

    def empty(self) -> list[Job]:
        """Take out all there are, ready or not."""
        with self._changed:
            everybody = [job for jobs in self._jobs.values() for job in jobs]
            self._jobs.clear()
            return everybody

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
    def idle(self) -> bool:
        """Whether nobody could be served now: who waits, if anybody does, has gone or lacks a switch."""
        with self._changed:
            return not self._waiting()

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
            self._keep(tenant, [job for job in jobs if not job.gone(now)])

    def _keep(self, tenant: str, jobs: Iterable[Job]) -> None:
        self._jobs[tenant] = deque(jobs)
        if not self._jobs[tenant]:
            del self._jobs[tenant]

    def _waiting(self) -> list[list[Job]]:
        """The ready jobs of each tenant that has some, in the order of their turns."""
        self._drop_gone()
        order = self._turns.order(self._jobs)
        lines = ([job for job in self._jobs[tenant] if job.switches is not None] for tenant in order)
        return [line for line in lines if line]

    def _remove(self, jobs: Sequence[Job]) -> None:
        """Take these out; the turn of the first one's tenant is over."""
        self._turns.over(jobs[0].request.tenant)
        taken = set(map(id, jobs))
        for name in {job.request.tenant for job in jobs}:
            self._keep(name, [job for job in self._jobs[name] if id(job) not in taken])
