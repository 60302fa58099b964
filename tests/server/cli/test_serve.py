"""``bitswitch serve`` as a process of its own: ready, publishing, answering, and a clean end on SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from bitswitch_client import Client, ClientError
from running import make_switches


@pytest.fixture(scope="module")
def switches(tiny_base, tmp_path_factory):
    return make_switches(tiny_base, tmp_path_factory.mktemp("switches"))


@contextmanager
def serving(base, store, **settings):
    """A server's process and a client of it, ready; killed if it still runs at the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bitswitch.cli", "serve", "--base", base, "--store", store]
    command += ["--port", port, "--log-json"]
    environment = {
        **os.environ,
        **{f"BITSWITCH_{name.upper()}": str(value) for name, value in settings.items()},
    }
    # A file: a server that writes a line per request fills a pipe that nobody reads meanwhile, and waits.
    log = store.with_name("log")
    with (
        log.open("w") as written,
        subprocess.Popen([*map(str, command)], stderr=written, env=environment) as process,
        Client(f"http://127.0.0.1:{port}") as client,
    ):
        try:
            wait(process, client, log)
            yield process, client, log
        finally:
            process.kill()


def wait(process, client, log):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if client.ready():
                return
        except ClientError:
            time.sleep(0.1)
    raise AssertionError("not ready within 120 s")


def end(process, log):
    """Ask the process to end; gives its log."""
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert process.returncode in (0, -signal.SIGTERM)
    return log.read_text()


def test_a_server_s_life(tiny_base, switches, tmp_path):
    texts = ["my card was charged twice", "great movie"]
    with serving(tiny_base, tmp_path / "store") as (process, client, log):
        for path in switches.values():
            client.publish(path)
        before = client.classify("topic", texts)
        assert client.verify().intact
        told = end(process, log)
    assert '"event": "ready"' in told
    assert "charged twice" not in told

    # What was published is there after the next start, routes included.
    with serving(tiny_base, tmp_path / "store") as (_, client, _):
        assert {one.name for one in client.switches()} == {"topic", "polarity", "entail", "bare"}
        for one, other in zip(before.data, client.classify("topic", texts).data, strict=True):
            assert one.probs == pytest.approx(other.probs, abs=1e-6)
        assert client.classify("auto", "my card was charged twice please refund").data[0].mix


def test_requests_under_way_are_answered_at_the_end(tiny_base, switches, tmp_path):
    answers, failures = [], []
    with serving(tiny_base, tmp_path / "store") as (process, client, log):
        client.publish(switches["topic"])
        client.classify("topic", "warm")

        def ask():
            try:
                answers.append(client.classify("topic", ["great movie " * 10] * 64))
            except ClientError as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while client.state().running == 0 and not answers and time.monotonic() < deadline:
            time.sleep(0.005)
        end(process, log)
        for thread in threads:
            thread.join(60)
    # Those that had not reached the server yet find nobody there; whoever was taken is answered.
    assert answers
    assert all(type(error).__name__ in ("UnreachableError", "UnavailableError") for error in failures)
