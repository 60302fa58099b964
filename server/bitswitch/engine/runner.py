"""Carries steps out: sets the weights, runs the model, gives every job its answer, and learns what it costs.

For the engine's thread alone. Knows nothing of who waits, of turns, or of where switches come from.
"""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from bitswitch.base.faults import BaseError
from bitswitch.base.model import Base, Hidden
from bitswitch.base.source import stored_weights
from bitswitch.core import Result, Row, Timing, Want
from bitswitch.engine.arena import Arena
from bitswitch.engine.batch import Answer, Batch
from bitswitch.engine.costs import Costs, Line
from bitswitch.engine.job import Job
from bitswitch.engine.memory import lacks_memory, no_memory
from bitswitch.engine.mixes import Part
from bitswitch.engine.overlay import Overlay
from bitswitch.engine.schedule import Scheduler, Step
from bitswitch.engine.state import Verdict
from bitswitch.engine.swap import Swap
from bitswitch.engine.tables import Tables
from bitswitch.engine.threads import claim
from bitswitch.errors import BitswitchError, NotFiniteError, UnavailableError

_log = logging.getLogger(__name__)

_MANY = 16
_TRIES = 5


class Runner:
    """The model, its weights, and what is done with them.

    Args:
        base: its parameters are in ``arena``.
        arena: the weights, at the base.
        batch_tokens: padded tokens of one forward pass, at most.
        batch_rows: inputs of one forward pass, at most.

    Attributes:
        swap: the weights' one writer.
        running: requests that are being answered.
        steps: how many there have been; see `EngineState`.
        torn: whether a step left the weights neither at the base nor at a mix; from before its callers hear
            of it until they are loaded anew.
    """

    def __init__(self, base: Base, arena: Arena, *, batch_tokens: int, batch_rows: int) -> None:
        self._base = base
        self._batch_tokens = batch_tokens
        self._batch_rows = batch_rows
        self._loaded = base.digest()
        self._costs = Costs(forward=_measured(base))
        self._tables = Tables(base, arena)  # it may settle that all is written
        self._overlay = Overlay(base, arena)
        self._scheduler = Scheduler(self._costs, batch_tokens=batch_tokens, batch_rows=batch_rows)
        self.swap = Swap(arena)
        self.torn = False
        self.running = 0
        self.steps = dict.fromkeys(("stay", "switch", "overlay"), 0)

    def warm_up(self) -> None:
        """Compile the kernels, or read them from numba's cache; in the thread that is to run."""
        claim()
        self.swap.warm_up()
        if self._overlay.reason is not None:
            _log.info("no mixed batches: %s", self._overlay.reason)
        if self._tables.reason is not None:
            _log.info("tables of embeddings are written whole: %s", self._tables.reason)

    def choose(self, waiting: Sequence[Sequence[Job]]) -> Step:
        """The next step; see `Scheduler.choose`."""
        overlays = self._overlay.reason is None
        return self._scheduler.choose(waiting, self.swap.mix, self.swap.active, overlays=overlays)

    def run(self, step: Step) -> bool:
        """Answer a step's jobs; whatever goes wrong reaches their callers, and the base comes back.

        Returns:
            Whether all went well.

        Raises:
            TornError: the base did not come back; the callers have been told.
        """
        jobs = [job for job in step.jobs if job.claim()]
        if not jobs:
            return False
        self.running = len(jobs)
        started = time.monotonic()
        try:
            active = self.swap.active
            planes = [part.planes for part in jobs[0].parts] if step.mix else []
            with self.swap.at(step.mix, planes) as swapped:
                self.steps["overlay" if step.overlaid else "switch" if swapped else "stay"] += 1
                if swapped:
                    self._costs.transition.observe(active + self.swap.active, swapped)
                begun = time.perf_counter()
                for number, answer in self._answers(jobs, overlaid=step.overlaid):
                    waited, forward = started - jobs[number].submitted, time.perf_counter() - begun
                    self._give(jobs[number], answer, Timing(queue=waited, swap=swapped, forward=forward))
                    self.running -= 1
        except Exception as error:
            self.torn = self.swap.torn or bool(self.swap.mix)
            told = _told(error, torn=self.torn)
            if not isinstance(error, BitswitchError):
                _log.exception("a step of %d requests failed", len(jobs))
            for job in jobs:
                job.fail(told)
            if self.torn:
                raise TornError(f"{type(error).__name__}: {error}") from error
            return False  # the thread lives on for everybody else
        finally:
            self.running = 0
        return True

    def rest(self) -> None:
        """Go back to the bare base."""
        self.swap.rest()

    def verify(self) -> Verdict:
        """Go back to the bare base, and compare it with what was loaded."""
        self.rest()
        return self._compare()

    def reload(self) -> float:
        """Load the base anew from its checkpoint, prove that it is the same, and give the seconds it took.

        Raises:
            BaseError: the checkpoint is gone, or no longer what it was.
        """
        started = time.perf_counter()
        gc.collect()  # a failed step's tensors; its error may be what they hang on
        if self._base.device.type == "cuda":
            torch.cuda.empty_cache()
        self.swap.reload(stored_weights(self._base))
        verdict = self._compare()
        if not verdict.intact:
            raise BaseError(
                f"{self._base.folder} no longer holds what was loaded from it"
                f" ({', '.join(verdict.differing[:5])}); put the checkpoint back,"
                " or start anew to serve what it holds now"
            )
        self.torn = False
        return time.perf_counter() - started

    def _compare(self) -> Verdict:
        started = time.perf_counter()
        now = self._base.digest()
        differing = tuple(name for name, digest in self._loaded.items() if now.get(name) != digest)
        return Verdict(not differing, differing, len(now), time.perf_counter() - started)

    def _answers(self, jobs: Sequence[Job], *, overlaid: bool) -> Iterator[tuple[int, Answer]]:
        """The answers to jobs, at the weights as they are or with each job's own mix laid over them."""

        def forward(rows: Sequence[Row], owners: Sequence[int]) -> Hidden:
            if jobs[owners[0]].request.want is Want.FEATURES:
                return self._base.forward_lower(rows)
            if overlaid:
                return self._overlay_pass(rows, [jobs[o] for o in owners])
            return self._pass(rows, jobs[owners[0]].parts)

        batch = Batch(self._base, [job.request for job in jobs], [job.head for job in jobs], forward)
        tokens = self._scheduler.enough(jobs, overlaid=overlaid)
        return batch.run(tokens=tokens, rows=self._batch_rows, waste=self._costs.waste())

    def _pass(self, rows: Sequence[Row], parts: Sequence[Part]) -> Hidden:
        begun = time.perf_counter()
        hidden = self._tables.forward(rows, parts)
        self._base.wait()
        self._costs.forward.observe(_padded(rows), time.perf_counter() - begun)
        return hidden

    def _overlay_pass(self, rows: Sequence[Row], owners: Sequence[Job]) -> Hidden:
        begun = time.perf_counter()
        hidden = self._overlay.forward(rows, [job.parts for job in owners])
        self._base.wait()
        taken, size = time.perf_counter() - begun, _padded(rows)
        if taken < self._costs.forward(size):  # a plain pass would have taken no longer than this one
            self._costs.forward.observe(size, taken)
        work = sum(job.active * row.length for row, job in zip(rows, owners, strict=True))
        if work:
            longer = max(taken - self._costs.forward(size), 0.0)
            self._costs.overlay.observe(work, longer, within=taken)
        return hidden

    def _give(self, job: Job, answer: Answer, timing: Timing) -> None:
        if isinstance(answer, Exception):
            job.fail(answer)
        elif not np.isfinite(answer).all():
            job.fail(
                NotFiniteError(
                    "The model's answer at this mix is not finite: its weights leave the range of"
                    f" {self._base.dtype}; ask with smaller weights, or serve the base in float32.",
                    param="model",
                )
            )
        else:
            job.future.set_result(Result(answer, job.request.mix, timing, sum(self.steps.values())))


class TornError(RuntimeError):
    """The weights are neither at the base nor at a mix; only `Runner.reload` helps."""

    @property
    def for_lack_of_memory(self) -> bool:
        """Whether that was the cause."""
        return lacks_memory(self.__cause__)


def _told(error: Exception, *, torn: bool) -> Exception:
    """What the callers of a step hear of its failure."""
    if isinstance(error, BitswitchError):
        return error
    if torn:
        return UnavailableError(
            "The server's weights are being loaded anew; try again shortly.", retry_after=1.0
        )
    return no_memory() if lacks_memory(error) else error


def _measured(base: Base) -> Line:
    """What passes cost before any was asked for: the quickest of a few, of one row and of many."""
    row = base.encoder.samples()[-1]
    seconds = [math.inf, math.inf]
    for _ in range(_TRIES):
        for i, rows in enumerate(([row], [row] * _MANY)):
            begun = time.perf_counter()
            base.forward(rows)
            base.wait()
            seconds[i] = min(seconds[i], time.perf_counter() - begun)
    few, many = seconds
    slope = max(many - few, 0.0) / (_padded([row] * _MANY) - row.length)
    return Line(fixed=max(few - slope * row.length, 0.0), slope=slope, size=_padded([row] * _MANY))


def _padded(rows: Sequence[Row]) -> int:
    return len(rows) * max(row.length for row in rows)
