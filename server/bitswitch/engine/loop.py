"""What the engine's thread does from its first moment to its last: steps, looks at the weights, and mending.

Knows nothing of where requests come from or of how switches get into memory.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue

from bitswitch.engine.pace import Pace
from bitswitch.engine.queue import Queue
from bitswitch.engine.recovery import Reason, Recovery
from bitswitch.engine.runner import Runner, TornError
from bitswitch.engine.schedule import Step
from bitswitch.engine.state import Condition, Verdict
from bitswitch.errors import UnavailableError

_log = logging.getLogger(__name__)

LINGER = 0.05
"""Seconds without work after which the weights go back to the base's."""


class Loop:
    """The one thread that owns the model.

    Args:
        runner: carries out what is to be done.
        queue: who waits.
        pace: is told how fast it goes.
        verify_every: seconds between two comparisons of the weights with what was loaded; 0 for none.

    Attributes:
        ended: why the thread has ended; None before.
        failed_checks: how often the weights were not the base's when they had to be.
    """

    def __init__(self, runner: Runner, queue: Queue, pace: Pace, *, verify_every: float) -> None:
        self._runner = runner
        self._queue = queue
        self._pace = pace
        self._stopping = threading.Event()
        self._recovery = Recovery(runner.reload, self._stopping.wait)
        self._verify_every = verify_every
        self._verified = time.monotonic()
        self._verdicts: SimpleQueue[Future[Verdict]] = SimpleQueue()
        self._started = threading.Event()
        self.ended: BaseException | None = None
        self.failed_checks = 0
        self._thread = threading.Thread(target=self._run, name="bitswitch-engine", daemon=True)

    def start(self) -> None:
        """Let the thread begin, and wait until it takes steps or has ended."""
        self._thread.start()
        self._started.wait()

    def stop(self, timeout: float | None) -> None:
        """Wait for the thread's end, which comes once the closed queue is empty."""
        self._stopping.set()
        self._thread.join(timeout)

    def verdict(self) -> Future[Verdict]:
        """Ask for a look at the weights."""
        verdict: Future[Verdict] = Future()
        self._verdicts.put(verdict)
        self._queue.wake()
        if self.ended is not None:  # meanwhile, and perhaps before it saw the question
            self._abandon()
        return verdict

    @property
    def running(self) -> bool:
        """Whether the thread takes steps, or will once it has mended the weights."""
        return self._started.is_set() and self.ended is None

    @property
    def condition(self) -> Condition:
        """What it is about."""
        if self.ended is not None:
            return Condition.STOPPED if isinstance(self.ended, UnavailableError) else Condition.FAILED
        if not self._started.is_set():
            return Condition.STARTING
        # Not `Swap.torn`: from outside of the thread, weights on their way look like weights left halfway.
        mending = self._recovery.cause is not None or self._runner.torn
        return Condition.MENDING if mending else Condition.READY

    @property
    def reason(self) -> str:
        """Why it is not ready; empty while it is."""
        return str(self.ended or self._recovery.cause or "")

    @property
    def reloads(self) -> dict[str, int]:
        """How often the base was loaded anew, by `Reason`."""
        return dict(self._recovery.reloads)

    def _run(self) -> None:
        """The thread's whole life."""
        ended: BaseException = UnavailableError("The engine has stopped; try again shortly.", retry_after=1.0)
        try:
            self._runner.warm_up()
            self._started.set()
            while not self._queue.closed:
                try:
                    self._turn()
                except TornError as error:
                    reason = Reason.MEMORY if error.for_lack_of_memory else Reason.TRANSITION
                    self._mend(reason, str(error))
                except BaseException as error:  # noqa: BLE001 - whatever it is, others shall be served
                    _log.exception("the engine's loop failed")
                    self._mend(Reason.THREAD, f"{type(error).__name__}: {error}")
            self._runner.rest()
        except BaseException as error:  # noqa: BLE001 - it is told to everybody who asks from now on
            _log.exception("the engine's thread ended; nothing is served until the server is started anew")
            ended = error
        finally:
            self.ended = ended
            self._started.set()  # nobody shall wait for a thread that is gone
            self._abandon()

    def _turn(self) -> None:
        """One step, or one look at the weights, or the way back to the base when nothing is asked."""
        step = self._queue.take(self._patience(), self._runner.choose)
        try:
            self._judge()
            if step:
                self._step(step)
            else:
                self._pace.pause()
                self._runner.rest()
        except BaseException:
            for job in step.jobs if step else ():
                job.fail(UnavailableError("The engine failed; try again shortly.", retry_after=1.0))
            raise

    def _step(self, step: Step) -> None:
        self._pace.step(sum(job.request.tokens for job in step.jobs))
        if self._runner.run(step):
            self._recovery.went_well()
        if self._queue.idle:  # not its length: who has gone, or waits for the disk, keeps no step waiting
            self._pace.rest()

    def _patience(self) -> float | None:
        """Seconds to wait for requests before there is something else to do."""
        patience = LINGER if self._runner.swap.mix else math.inf
        if self._verify_every:
            patience = min(patience, max(self._until_check(), 0.0))
        return None if patience == math.inf else patience

    def _until_check(self) -> float:
        return self._verified + self._verify_every - time.monotonic()

    def _judge(self) -> None:
        """Compare the weights if it is time to, or if somebody asked: all of them hear one verdict, once
        the weights are mended if need be.
        """
        waiting = self._asking()
        if not waiting and not (self._verify_every and self._until_check() <= 0):
            return
        self._verified = time.monotonic()
        self._pace.pause()
        try:
            verdict = self._runner.verify()
        except Exception as error:
            _log.exception("the weights could not be verified")
            for one in waiting:
                one.set_exception(error)
            if self._runner.swap.mix:  # it failed on the way back
                raise TornError(f"{type(error).__name__}: {error}") from error
            return
        try:
            if not verdict.intact:
                self.failed_checks += 1
                self._mend(Reason.CHECK, f"{', '.join(verdict.differing[:5])}: not the base's")
        finally:
            for one in waiting:
                one.set_result(verdict)

    def _mend(self, reason: Reason, cause: str) -> None:
        self._pace.pause()
        self._recovery.mend(reason, cause)

    def _asking(self) -> list[Future[Verdict]]:
        asking: list[Future[Verdict]] = []
        with suppress(Empty):
            while True:
                asking.append(self._verdicts.get_nowait())
        return asking

    def _abandon(self) -> None:
        """Tell those who still wait that nobody will come."""
        self._queue.close()
        error = UnavailableError("The engine has stopped; try again shortly.", retry_after=1.0)
        for job in self._queue.empty():
            job.fail(error)
        for verdict in self._asking():
            verdict.set_exception(error)
