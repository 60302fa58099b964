"""Real servers in processes of their own: ours, and infinity-emb. Knows nothing of what they are asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from benchmarks.rivals.environment import OURS
from bitswitch.cli.demo import free_port

_START_SECONDS = 300
_QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1"}


class Server:
    """A server that is ready.

    Attributes:
        started: seconds from its start until it was ready.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, started: float) -> None:
        self.port = port
        self.started = started
        self._process = process

    def memory(self) -> float:
        """Its proportional set size in bytes (Linux): shared pages in parts, mapped files as far as read."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        return 1024 * float(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:")))

    def resident(self) -> float:
        """Its resident set size in bytes (Linux): whatever else runs, it is this process's own affair."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * float(
            next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
        )

    def ask(self, path: str, body: object) -> dict[str, object]:
        """One answer, read."""
        request = Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode())
        request.add_header("content-type", "application/json")
        return _read(request)

    def get(self, path: str) -> dict[str, object]:
        """The same of a path that takes no body."""
        return _read(Request(f"http://127.0.0.1:{self.port}{path}"))


def _read(request: Request) -> dict[str, object]:
    with urlopen(request, timeout=60) as answer:
        told: dict[str, object] = json.load(answer)
    return told


PATIENT = {"BITSWITCH_MAX_QUEUE_SECONDS": "600"}
"""Settings of a server that lets everybody in, however long they will wait."""


@contextmanager
def bitswitch(base: Path, store: Path, **environment: str) -> Iterator[Server]:
    """``bitswitch serve`` over a store, ready, for as long as the block lasts.

    Args:
        environment: settings beyond the defaults, as ``BITSWITCH_…`` variables.
    """
    port = free_port(0)
    command = [sys.executable, "-m", "bitswitch.cli", "serve", "--base", str(base), "--store", str(store)]
    command += ["--port", str(port), "--log-level", "warning"]
    with _running(command, port, "/v2/health/ready", {**os.environ, **environment}) as server:
        yield server


@contextmanager
def infinity(binaries: Path, base: Path) -> Iterator[Server]:
    """infinity-emb serving the bare base as ``base``, ready, for as long as the block lasts."""
    port = free_port(0)
    command = [str(binaries / "infinity_emb"), "v2", "--model-id", str(base), "--served-model-name", "base"]
    command += ["--engine", "torch", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    # Its warm-up runs 32 texts of 256 tokens, half a minute here; our load warms it up as well.
    command += ["--no-model-warmup", "--log-level", "error"]
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    clean |= {"PYTHONWARNINGS": "ignore", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    with _running(command, port, "/health", clean) as server:
        yield server


@contextmanager
def _running(command: Sequence[str], port: int, health: str, environment: dict[str, str]) -> Iterator[Server]:
    started = time.perf_counter()
    process = subprocess.Popen(command, env={**environment, **_QUIET})
    try:
        _wait(process, f"http://127.0.0.1:{port}{health}")
        yield Server(process, port, time.perf_counter() - started)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], health: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with status {process.returncode}")
        try:
            with urlopen(health, timeout=5):
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"{process.args} was not ready within {_START_SECONDS} s")
