"""The load generator: closed-loop clients on keep-alive connections, in a process of its own.

    python -m benchmarks.load < plan.json > outcome.json

Each client sends its next request when its last one is answered. Requests are bytes before the clock starts
and answers are only counted, so that the generator takes little of the cores it shares with the server; what
it took is part of the outcome. Knows nothing of what is asked or of who answers.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import cast

import httptools
import uvloop

_LONGER = 0.05
"""Seconds between looks at whether every client has an answer."""


@dataclass(frozen=True)
class Plan:
    """What to send.

    Attributes:
        bodies: per client, the JSON bodies that it sends in turn, over and over.
        warm_up: seconds of load before the clock starts.
        seconds: how long the clock runs; longer if a client has no answer by then.
    """

    port: int
    path: str
    bodies: Sequence[Sequence[str]]
    seconds: float
    warm_up: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What came of it while the clock ran.

    Attributes:
        latencies: seconds from sending to the answer's last byte, per client, in order.
        rate: answers per second: of each client by the time that it waited for them, as it did nothing else.
        cpu: share of one core that the generator itself took.
    """

    latencies: list[list[float]]
    rate: float
    cpu: float

    @property
    def all_latencies(self) -> list[float]:
        """Of all clients."""
        return [one for client in self.latencies for one in client]


def run(plan: Plan) -> Outcome:
    """Carry ``plan`` out in a process of its own.

    Raises:
        subprocess.CalledProcessError: a request was refused; standard error says with what.
    """
    command = [sys.executable, "-m", "benchmarks.load"]
    root = Path(__file__).parents[1]
    given = json.dumps(asdict(plan))
    done = subprocess.run(command, input=given, text=True, check=True, stdout=subprocess.PIPE, cwd=root)
    return Outcome(**json.loads(done.stdout))


class _Client(asyncio.Protocol):
    """One connection. `httptools` calls the ``on_…`` methods."""

    def __init__(self, requests: Sequence[bytes], failed: asyncio.Future[None]) -> None:
        self._requests = cycle(requests)
        self._failed = failed
        self.times: list[tuple[float, float]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed the connection: {exc}")

    def on_body(self, body: bytes) -> None:
        if self._parser.get_status_code() != 200:
            self._fail(f"HTTP {self._parser.get_status_code()}: {body[:500]!r}")

    def answered_since(self, started: float) -> bool:
        return bool(self.times) and self.times[-1][1] >= started

    def on_message_complete(self) -> None:
        self.times.append((self._sent, time.perf_counter()))
        self._send()

    def _send(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def _fail(self, why: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(RuntimeError(why))


async def _run(plan: Plan) -> Outcome:
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    requests = [[request_bytes(plan.port, plan.path, body) for body in bodies] for bodies in plan.bodies]
    clients = [_Client(own, failed) for own in requests]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", plan.port)
    await asyncio.wait({failed}, timeout=plan.warm_up)
    started, busy = time.perf_counter(), time.process_time()
    await asyncio.wait({failed}, timeout=plan.seconds)
    while not failed.done() and not all(client.answered_since(started) for client in clients):
        await asyncio.wait({failed}, timeout=_LONGER)
    ended, busy = time.perf_counter(), time.process_time() - busy
    if failed.done():
        failed.result()
    failed.cancel()
    latencies = [
        [stop - start for start, stop in client.times if started <= stop <= ended] for client in clients
    ]
    return Outcome(
        latencies=latencies,
        # Not by the window: it holds all or none of the answers that a step gives at once.
        rate=sum(len(own) / sum(own) for own in latencies),
        cpu=busy / (ended - started),
    )


def request_bytes(port: int, path: str, body: str) -> bytes:
    """A whole POST request with a JSON body."""
    payload = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


if __name__ == "__main__":
    json.dump(asdict(uvloop.run(_run(Plan(**json.load(sys.stdin))))), sys.stdout)
