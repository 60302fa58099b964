"""A real S3-compatible server, moto's, in a process of its own; the buckets live in its memory."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

_buckets = count()


class NoS3Error(RuntimeError):
    """There is no server to be had; the message says why."""


def environment(address: str) -> dict[str, str]:
    """What an operator would set for it."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def server() -> Iterator[str]:
    """The address of a new server, for as long as the block lasts."""
    missing = [name for name in ("moto", "flask", "flask_cors") if importlib.util.find_spec(name) is None]
    if missing:
        raise NoS3Error(f"moto's S3 server is not installed ({', '.join(missing)} missing); it is in 'dev'")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, f"{address}/moto-api/")
        yield address
    finally:
        process.kill()
        process.wait()


def bucket(address: str) -> str:
    """The name of a new, empty bucket."""
    name = f"bucket-{next(_buckets)}"
    with urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT")):
        return name


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(address):
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
    raise NoS3Error(f"moto's S3 server did not come up (exit status {process.poll()})")
