"""The engine: one thread owns the model, takes the steps that the scheduler chooses, and answers requests.

Everything that touches the resident weights or runs the model happens in that thread. Others hand in a
`Request` and get a future. Knows nothing of names, tenants' rights, routes or HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import nullcontext
from functools import partial
from weakref import ref

from bitswitch.base.heads import Heads
from bitswitch.base.model import Base
from bitswitch.core import Request, Result
from bitswitch.engine.admission import Admission
from bitswitch.engine.arena import Arena
from bitswitch.engine.job import Job
from bitswitch.engine.loop import Loop
from bitswitch.engine.memory import lacks_memory, no_memory
from bitswitch.engine.pace import Pace
from bitswitch.engine.planes import Planes
from bitswitch.engine.queue import Queue
from bitswitch.engine.ready import ReadySwitch
from bitswitch.engine.residency import Residency
from bitswitch.engine.runner import Runner
from bitswitch.engine.state import Condition, EngineState, Verdict
from bitswitch.engine.tables import large_tables
from bitswitch.engine.threads import alone, claim
from bitswitch.errors import BitswitchError, InvalidSwitchError, UnavailableError
from bitswitch_store.switch import Switch, SwitchError

GUESS = 1e4
"""Tokens per second, until it is known how many."""


class Engine:
    """One resident base, set to any mix of switches, answering requests.

    Args:
        base: its parameters are moved into one arena; nobody else may write them from now on.
        fetch: gives a switch by its digest; called from other threads, what it raises reaches the caller
            of that request.
        queue_limit: requests that may wait.
        batch_tokens: padded tokens of one forward pass, at most.
        batch_rows: inputs of one forward pass, at most.
        resident_bytes: memory for ready switches.
        queue_seconds: that a request may wait for others; see `Admission`.
        verify_every: seconds between two comparisons of the weights with what was loaded; 0 for none.

    Attributes:
        admission: to be asked before anything is done for a request.
    """

    def __init__(
        self,
        base: Base,
        fetch: Callable[[str], Switch],
        *,
        queue_limit: int = 1024,
        batch_tokens: int = 8192,
        batch_rows: int = 64,
        resident_bytes: int = 512 * 2**20,
        queue_seconds: float = math.inf,
        verify_every: float = 0.0,
    ) -> None:
        claim()  # for the passes that show what they cost
        self._base = base
        self._fetch = fetch
        self._heads = Heads(base)
        self._arena = Arena(base.parameters, looked_up=large_tables(base))
        self._runner = Runner(base, self._arena, batch_tokens=batch_tokens, batch_rows=batch_rows)
        self._queue = Queue(limit=queue_limit)
        self._residency = Residency(self._build, budget=resident_bytes)
        pace = Pace(GUESS)
        self.admission = Admission(pace, seconds=queue_seconds)
        self._loop = Loop(self._runner, self._queue, pace, verify_every=verify_every)
        self._draining = False

    def start(self) -> None:
        """Compile the kernels, run the model once, and begin to take requests.

        Raises:
            UnavailableError: it could not; the log and the cause say why.
        """
        self._loop.start()
        if self._loop.ended is not None:
            raise UnavailableError(f"The engine did not start: {self._loop.reason}") from self._loop.ended

    def drain(self) -> None:
        """Say that this engine is about to stop; requests are taken and answered all the same."""
        self._draining = True

    def dismiss(self) -> None:
        """Tell those who wait that they will not be served here; what is being computed is answered."""
        for job in self._queue.empty():
            job.fail(UnavailableError("The server is stopping; try another replica.", retry_after=1.0))

    def stop(self, timeout: float | None = None) -> None:
        """Take no more requests, answer those that wait, and end with the base's weights.

        Args:
            timeout: seconds to wait for that.
        """
        self._queue.close()
        self._loop.stop(timeout)
        self._residency.close()

    def submit(self, request: Request) -> Future[Result]:
        """Hand in a request. Cancelling the future drops it while it waits.

        Raises:
            OverloadedError: the queue is full.
            UnavailableError: the engine is not running.
        """
        self._require_running()
        needed = request.mix.digests if request.head is None else {*request.mix.digests, request.head}
        hold = self._residency.hold(needed, request.tenant)
        job = Job(request)
        if hold.prepared.done() and hold.prepared.exception() is None:
            job.switches = hold.prepared.result()
        job.future.add_done_callback(lambda _: hold.release())  # however it ends
        try:
            self._queue.put(job)
        except BitswitchError:
            job.future.cancel()
            raise
        if job.switches is None:
            # The queue has the job. From here, through its own future, it would keep itself in memory, and
            # its switches with it, until Python's collector comes by.
            hold.prepared.add_done_callback(partial(self._prepared, ref(job)))
        return job.future

    def check(self, switch: Switch) -> None:
        """Whether a switch fits this base: identity, parameters, shapes, head.

        Raises:
            InvalidSwitchError: the first thing that does not fit.
        """
        identity = self._base.identity
        if switch.base != identity:
            raise InvalidSwitchError(
                f"the switch belongs to base {switch.base.architecture} {switch.base.digest};"
                f" this server's is {identity.architecture} {identity.digest}"
            )
        self._make_ready(switch)

    def verify(self) -> Verdict:
        """Digest the resident weights, at mix ``()`` between two groups, and compare with what was loaded.

        Where they differ, the base is loaded anew before this returns.

        Raises:
            UnavailableError: the engine is not running.
        """
        self._require_running()
        return self._loop.verdict().result()

    def pin(self, digest: str, *, tenant: str) -> None:
        """Keep a switch in memory until `unpin` or `forget`; returns once it is ready. Before `start` too.

        Args:
            tenant: at whose turn it is built.

        Raises:
            ConflictError: what is pinned would not fit into the memory for ready switches.
            UnavailableError: the engine has stopped.
            Exception: what ``fetch`` raised.
        """
        try:
            self._residency.pin(digest, tenant)
        except CancelledError as error:
            raise UnavailableError("The engine has stopped; try again shortly.", retry_after=1.0) from error

    def unpin(self, digest: str) -> None:
        """Let a switch go again when memory is short; one that is not pinned is no error."""
        self._residency.unpin(digest)

    def forget(self, digest: str) -> None:
        """Free the memory of a switch that is not served any more."""
        self._residency.forget(digest)

    def state(self) -> EngineState:
        """What goes on right now."""
        swap = self._runner.swap
        return EngineState(
            waiting=len(self._queue),
            running=self._runner.running,
            mix=swap.mix,
            resident=self._residency.sizes(),
            pinned=self._residency.pins(),
            transitions=swap.transitions,
            steps=dict(self._runner.steps),
            journal_bytes=swap.journal_bytes,
            condition=self._condition,
            reason=self._loop.reason,
            reloads=self._loop.reloads,
            failed_checks=self._loop.failed_checks,
        )

    @property
    def _condition(self) -> Condition:
        condition = self._loop.condition
        return Condition.STOPPING if self._draining and condition is Condition.READY else condition

    def _require_running(self) -> None:
        if not self._loop.running:
            raise UnavailableError("The engine is not running; try again shortly.", retry_after=1.0)

    def _build(self, digest: str) -> ReadySwitch:
        try:
            return self._make_ready(self._fetch(digest))
        except Exception as error:
            if lacks_memory(error):
                raise no_memory() from error
            raise

    def _make_ready(self, switch: Switch) -> ReadySwitch:
        # The cores are the engine's thread's where it computes on them; see `bitswitch.cli.threads`.
        sharing = alone() if self._base.device.type == "cpu" else nullcontext()
        try:
            with sharing:
                planes = Planes(self._arena, switch)
            head = None if switch.head is None else self._heads.build(switch.head)
        except (SwitchError, ValueError) as error:
            raise InvalidSwitchError(f"the switch does not fit this base: {error}") from error
        return ReadySwitch(planes, head)

    def _prepared(self, waiting: ref[Job], done: Future[Mapping[str, ReadySwitch]]) -> None:
        """A job's switches are in memory, or never will be."""
        job = waiting()
        if job is None:  # it has ended, and the queue has dropped it
            return
        if done.cancelled():  # the job has ended before, or the server is stopping
            job.fail(UnavailableError("The engine has stopped; try again shortly.", retry_after=1.0))
        elif (error := done.exception()) is not None:
            job.fail(error)
            self._queue.wake()
        else:
            self._queue.make_ready(job, done.result())
