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

from bitswitch.cli import serve
from bitswitch.settings import SettingsError, read_settings
from bitswitch_client import Client, ClientError
from running import House, make_switches


@pytest.fixture(scope="module")
def switches(tiny_base, tmp_path_factory):
    return make_switches(tiny_base, tmp_path_factory.mktemp("switches"))


@contextmanager
def serving(base, store, *options, **settings):
    """A server's process and a client of it, ready; killed if it still runs at the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bitswitch.cli", "serve", "--base", base, "--store", store]
    command += ["--port", port, "--log-json", *options]
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


@pytest.fixture(scope="module")
def stored(tiny_base, switches, tmp_path_factory):
    """A store with a switch of ours and one of another tenant."""
    folder = tmp_path_factory.mktemp("stored")
    house = House.build(tiny_base, folder)
    for tenant, task in (("default", "topic"), ("other", "polarity")):
        house.publisher.publish(switches[task].read_bytes(), tenant=tenant, name=task, public=False)
    house.store.close()
    return folder


def test_what_shall_be_pinned_is_ready_with_the_server(tiny_base, stored):
    with serving(tiny_base, stored, "--pin", "topic", "--pin", "other/polarity@1") as (_, client, _):
        state = client.state()
        assert len(state.pinned) == 2
        assert set(state.resident) == set(state.pinned)
        assert client.switch("topic").pinned


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nothing", "'nothing' does not exist"),
        ("topic@7", "'topic@7' does not exist"),
        ("topic*0.5", "not one switch"),
        ("topic+topic", "not one switch"),
        ("auto", "not one switch"),
        ("No Name", "is no name"),
        ("topic", "of the 1000 bytes"),
    ],
)
def test_a_pin_that_cannot_be_had_stops_the_start(tiny_base, stored, name, told):
    house = serve.House.build(read_settings(base=tiny_base, store=stored, resident_bytes=1000))
    with pytest.raises(SettingsError, match=r"^pin: ") as caught:
        house.pin([name])
    assert told in str(caught.value)
    house.store.close()


def test_the_router_is_as_it_was_set(tiny_base, tmp_path):
    given = {"router_k": 3, "router_mode": "top1", "router_quantile": 0.5}
    house = serve.House.build(read_settings(base=tiny_base, store=tmp_path, **given))
    assert (house.router.k, house.router.mode, house.router.quantile) == (3, "top1", 0.5)
    house.store.close()


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
