"""The open-loop generator: requests arrive when they arrive, whatever became of those before them.

    python -m benchmarks.arrivals < plan.json > outcome.json

Arrivals are a Poisson process; each takes an idle keep-alive connection, or opens one. Every answer counts, a
refusal too. Knows nothing of what is asked or of who answers.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import httptools
import uvloop

from benchmarks.load import request_bytes


@dataclass(frozen=True)
class Plan:
    """What to send.

    Attributes:
        bodies: JSON bodies, sent in turn.
        phases: requests per second and for how many seconds, one after another.
    """

    port: int
    path: str
    bodies: Sequence[str]
    phases: Sequence[tuple[float, float]]
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        answers: of each request, in the order of the answers: when it was sent, in seconds from the start,
            how long the answer took, and its status (0: the connection broke).
        late: the most seconds by which a request was sent after its time.
    """

    answers: list[tuple[float, float, int]]
    late: float

    def of(self, status: int, start: float, stop: float) -> list[float]:
        """How long the answers of this status took, of requests sent between two moments."""
        return [took for sent, took, told in self.answers if told == status and start <= sent < stop]


def run(plan: Plan) -> Outcome:
    """Carry ``plan`` out in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.arrivals"]
    given = json.dumps(asdict(plan))
    root = Path(__file__).parents[1]
    done = subprocess.run(command, input=given, text=True, check=True, stdout=subprocess.PIPE, cwd=root)
    told = json.loads(done.stdout)
    return Outcome([(sent, took, status) for sent, took, status in told["answers"]], told["late"])


class _Line(asyncio.Protocol):
    """One connection, with at most one request on it. `httptools` calls the ``on_…`` methods."""

    def __init__(self, arrivals: _Arrivals) -> None:
        self._arrivals = arrivals
        self._sent: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, sent: float) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._sent = sent
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._end(self._parser.get_status_code())
        if self._parser.should_keep_alive():
            self._arrivals.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._arrivals.idle:
            self._arrivals.idle.remove(self)
        self._end(0)

    def _end(self, status: int) -> None:
        if self._sent is not None:
            self._arrivals.ended(self._sent, status)
            self._sent = None


class _Arrivals:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._requests = [request_bytes(plan.port, plan.path, body) for body in plan.bodies]
        self._times = list(_times(plan))
        self.idle: list[_Line] = []
        self._answers: list[tuple[float, float, int]] = []
        self._late = 0.0

    async def run(self) -> Outcome:
        self._began = time.perf_counter()
        sending = []
        for number, due in enumerate(self._times):
            wait = self._began + due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            self._late = max(self._late, -wait)
            sending.append(asyncio.ensure_future(self._send(self._requests[number % len(self._requests)])))
        await asyncio.gather(*sending)
        while len(self._answers) < len(self._times):
            await asyncio.sleep(0.05)
        return Outcome(self._answers, self._late)

    async def _send(self, request: bytes) -> None:
        sent = time.perf_counter()
        if self.idle:
            line = self.idle.pop()
        else:
            loop = asyncio.get_running_loop()
            try:
                _, line = await loop.create_connection(lambda: _Line(self), "127.0.0.1", self._plan.port)
            except OSError:
                self.ended(sent, 0)
                return
        line.send(request, sent)

    def ended(self, sent: float, status: int) -> None:
        self._answers.append((sent - self._began, time.perf_counter() - sent, status))


def _times(plan: Plan) -> list[float]:
    """When requests arrive, in seconds from the start."""
    chance, times, begin = random.Random(plan.seed), [], 0.0
    for rate, seconds in plan.phases:
        now = begin
        while (now := now + chance.expovariate(rate)) < begin + seconds:
            times.append(now)
        begin += seconds
    return times


if __name__ == "__main__":
    json.dump(asdict(uvloop.run(_Arrivals(Plan(**json.load(sys.stdin))).run())), sys.stdout)
