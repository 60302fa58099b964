"""``bitswitch serve`` as a process of its own: ready, publishing, answering, and a clean end on SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from bitswitch_client import Client, ClientError
from running import make_switches


@pytest.fixture(scope="module")
def switches(tiny_base, tmp_path_factory):
    return make_switches(tiny_base, tmp_path_factory.mktemp("switches"))


def start(base, store):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bitswitch.cli", "serve", "--base", base, "--store", store]
    process = subprocess.Popen(
        [*map(str, command), "--port", str(port), "--log-json"], stderr=subprocess.PIPE, text=True
    )
    client = Client(f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        try:
            if client.ready():
                return process, client
        except ClientError:
            time.sleep(0.1)
    raise AssertionError("not ready within 120 s")


def test_a_server_s_life(tiny_base, switches, tmp_path):
    process, client = start(tiny_base, tmp_path / "store")
    for path in switches.values():
        client.publish(path)
    before = client.classify("topic", ["my card was charged twice", "great movie"])
    assert client.verify().intact
    process.send_signal(signal.SIGTERM)
    log = process.communicate(timeout=60)[1]
    assert process.returncode in (0, -signal.SIGTERM)
    assert '"event": "ready"' in log
    assert "charged twice" not in log

    # What was published is there after the start, routes included.
    process, client = start(tiny_base, tmp_path / "store")
    assert {one.name for one in client.switches()} == {"topic", "polarity", "entail", "bare"}
    again = client.classify("topic", ["my card was charged twice", "great movie"])
    for one, other in zip(before.data, again.data, strict=True):
        assert one.probs == pytest.approx(other.probs, abs=1e-6)
    assert client.classify("auto", "my card was charged twice please refund").data[0].mix
    process.terminate()
    process.communicate(timeout=60)


def test_requests_under_way_are_answered_at_the_end(tiny_base, switches, tmp_path):
    process, client = start(tiny_base, tmp_path / "store")
    client.publish(switches["topic"])
    client.classify("topic", "warm")
    answers, failures = [], []

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
    os.kill(process.pid, signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    process.communicate(timeout=60)
    # Those that had not reached the server yet find nobody there; whoever was taken is answered.
    assert answers
    assert all(type(error).__name__ in ("UnreachableError", "UnavailableError") for error in failures)
