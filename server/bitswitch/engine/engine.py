"""The engine: one thread owns the model, takes groups of requests of equal mix, and answers them.

Everything that touches the resident weights or runs the model happens in that thread. Others hand in a
`Request` and get a future. Knows nothing of names, tenants' rights, routes or HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np

from bitswitch.base.heads import ClassificationHead
from bitswitch.base.model import Base
from bitswitch.core import Request, Result, Timing, Want
from bitswitch.engine.arena import Arena
from bitswitch.engine.batch import Batch
from bitswitch.engine.planes import Planes
from bitswitch.engine.queue import Job, Queue
from bitswitch.engine.residency import ReadySwitch, Residency
from bitswitch.engine.state import EngineState, Verdict
from bitswitch.engine.swap import Swap
from bitswitch.errors import BitswitchError, InvalidSwitchError, NotFiniteError, UnavailableError
from bitswitch_store.switch import Switch, SwitchError

_log = logging.getLogger(__name__)

LINGER = 0.05
"""Seconds without work after which the weights go back to the base's."""


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
    ) -> None:
        self._base = base
        self._fetch = fetch
        self._batch_tokens = batch_tokens
        self._batch_rows = batch_rows
        self._arena = Arena(base.parameters)
        self._swap = Swap(self._arena)
        self._loaded = base.digest()
        self._queue = Queue(limit=queue_limit, batch_tokens=batch_tokens, batch_rows=batch_rows)
        self._residency = Residency(self._build, budget=resident_bytes)
        self._builder = ThreadPoolExecutor(1, thread_name_prefix="bitswitch-switches")
        self._verdicts: SimpleQueue[Future[Verdict]] = SimpleQueue()
        self._running = 0
        self._started = threading.Event()
        self._ended: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="bitswitch-engine", daemon=True)

    def start(self) -> None:
        """Compile the kernels, run the model once, and begin to take requests.

        Raises:
            UnavailableError: it could not; the log and the cause say why.
        """
        self._thread.start()
        self._started.wait()
        if self._ended is not None:
            raise UnavailableError("The engine did not start; the log says why.") from self._ended

    def stop(self, timeout: float | None = None) -> None:
        """Take no more requests, answer those that wait, and end with the base's weights.

        Args:
            timeout: seconds to wait for that.
        """
        self._queue.close()
        self._thread.join(timeout)
        self._builder.shutdown(wait=False, cancel_futures=True)

    def submit(self, request: Request) -> Future[Result]:
        """Hand in a request. Cancelling the future drops it while it waits.

        Raises:
            OverloadedError: the queue is full.
            UnavailableError: the engine is not running.
        """
        self._require_running()
        missing = [digest for digest in self._needed(request) if digest not in self._residency]
        job = Job(request, ready=not missing)
        self._queue.put(job)
        if missing:
            self._builder.submit(self._prepare, job, missing)
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

        Raises:
            UnavailableError: the engine is not running.
        """
        self._require_running()
        verdict: Future[Verdict] = Future()
        self._verdicts.put(verdict)
        self._queue.wake()
        return verdict.result()

    def forget(self, digest: str) -> None:
        """Free the memory of a switch that is not served any more."""
        self._residency.forget(digest)

    def state(self) -> EngineState:
        """What goes on right now."""
        return EngineState(
            waiting=len(self._queue),
            running=self._running,
            mix=self._swap.mix,
            resident=self._residency.sizes(),
            transitions=self._swap.transitions,
            journal_bytes=self._swap.journal_bytes,
            ready=self._is_running,
        )

    @property
    def _is_running(self) -> bool:
        return self._started.is_set() and self._ended is None

    def _require_running(self) -> None:
        if not self._is_running:
            raise UnavailableError("The engine is not running; try again shortly.", retry_after=1.0)

    @staticmethod
    def _needed(request: Request) -> tuple[str, ...]:
        head = (request.head,) if request.head is not None else ()
        return tuple(dict.fromkeys((*request.mix.digests, *head)))

    def _build(self, digest: str) -> ReadySwitch:
        return self._make_ready(self._fetch(digest))

    def _make_ready(self, switch: Switch) -> ReadySwitch:
        try:
            planes = Planes(self._arena, switch)
            head = None if switch.head is None else ClassificationHead(self._base, switch.head)
        except (SwitchError, ValueError) as error:
            raise InvalidSwitchError(f"the switch does not fit this base: {error}") from error
        return ReadySwitch(planes, head)

    def _prepare(self, job: Job, missing: list[str]) -> None:
        """Bring a job's switches into memory, outside the model's thread."""
        if job.future.done():  # its caller has gone meanwhile
            return
        try:
            for digest in missing:
                self._residency.get(digest)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must hear of it
            job.fail(error)
        self._queue.mark_ready(job)

    def _run(self) -> None:
        """The thread's whole life."""
        ended: BaseException = UnavailableError("The engine has stopped; try again shortly.", retry_after=1.0)
        try:
            self._warm_up()
            self._started.set()
            while not self._queue.closed:
                group = self._queue.take(LINGER if self._swap.mix else None)
                self._judge()
                if group:
                    self._serve(group)
                else:
                    self._swap.rest()
            self._swap.rest()
        except BaseException as error:  # noqa: BLE001 - it is told to everybody who asks from now on
            _log.exception("the engine's thread ended")
            ended = error
        finally:
            self._ended = ended
            self._started.set()  # nobody shall wait for a thread that is gone
            self._abandon()

    def _warm_up(self) -> None:
        self._swap.warm_up()
        self._base.forward(self._base.encode(["warm-up"], want=Want.EMBED))

    def _judge(self) -> None:
        """Answer those who asked for a verdict: all of them with one."""
        waiting = []
        while not self._verdicts.empty():
            waiting.append(self._verdicts.get())
        if not waiting:
            return
        try:
            self._swap.rest()
            started = time.perf_counter()
            now = self._base.digest()
            differing = tuple(name for name, digest in self._loaded.items() if now.get(name) != digest)
            verdict = Verdict(not differing, differing, len(now), time.perf_counter() - started)
        except Exception as error:  # noqa: BLE001 - those who asked must hear of it
            _log.exception("the weights could not be verified")
            for one in waiting:
                one.set_exception(error)
        else:
            for one in waiting:
                one.set_result(verdict)

    def _abandon(self) -> None:
        """Tell those who still wait that nobody will come."""
        self._queue.close()
        error = UnavailableError("The engine has stopped; try again shortly.", retry_after=1.0)
        while group := self._queue.take(0):
            for job in group:
                job.fail(error)
        while not self._verdicts.empty():
            self._verdicts.get().set_exception(error)

    def _serve(self, group: list[Job]) -> None:
        """Answer jobs of one mix; whatever goes wrong reaches their callers, and the base comes back."""
        live = [job for job in group if job.claim()]
        if not live:
            return
        self._running = len(live)
        started = time.monotonic()
        mix = live[0].request.mix
        try:
            needed = dict.fromkeys(digest for job in live for digest in self._needed(job.request))
            ready = {digest: self._residency.get(digest) for digest in needed}
            with self._swap.at(mix, [ready[digest].planes for digest in mix.digests]) as swapped:
                begun = time.perf_counter()
                heads = {digest: switch.head for digest, switch in ready.items()}
                batch = Batch(self._base, [job.request for job in live], heads)
                answers = batch.run(tokens=self._batch_tokens, rows=self._batch_rows)
                forward = time.perf_counter() - begun
        except Exception as error:  # noqa: BLE001 - the thread must live on for everybody else
            if not isinstance(error, BitswitchError):
                _log.exception("a group of %d requests failed", len(live))
            for job in live:
                job.fail(error)
        else:
            for job, values in zip(live, answers, strict=True):
                timing = Timing(queue=started - job.submitted, swap=swapped, forward=forward)
                if np.isfinite(values).all():
                    job.future.set_result(Result(values, mix, timing))
                else:
                    job.fail(self._not_finite())
        finally:
            self._running = 0

    def _not_finite(self) -> NotFiniteError:
        return NotFiniteError(
            "The model's answer at this mix is not finite: its weights leave the range of"
            f" {self._base.dtype}; ask with smaller weights, or serve the base in float32.",
            param="model",
        )
