"""SIGTERM to a real server under load: nobody who was taken is lost, and the end comes in time."""

import asyncio
import signal
import time

import httpx
import pytest
from test_serve import serving

from running import make_switches


@pytest.fixture(scope="module")
def switches(tiny_base, tmp_path_factory):
    return make_switches(tiny_base, tmp_path_factory.mktemp("switches"))


ASKED = {"model": "topic", "input": ["great movie " * 10] * 16}
CLIENTS = 12


async def load(address, stop, told):
    """Clients that ask without a pause; each outcome goes to ``told``."""

    async def ask(http):
        while not stop.is_set():
            try:
                answer = await http.post("/v1/classify", json=ASKED)
            except httpx.ConnectError:  # nobody took it
                told.append("refused")
                return
            except httpx.HTTPError as error:
                told.append(repr(error))
                return
            told.append(answer.status_code)
            if answer.status_code == 200:
                assert len(answer.json()["data"]) == 16
            if answer.headers.get("connection") == "close":  # told to go elsewhere
                return

    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as http:
        await asyncio.gather(*(ask(http) for _ in range(CLIENTS)))


def end_under_load(process, client, address, *, seconds=1.0, ask_health=False):
    """Outcomes of the requests, whether it said that it is not ready, and how long the end took."""

    async def all_of_it():
        stop, told, health = asyncio.Event(), [], []
        clients = asyncio.create_task(load(address, stop, told))
        await asyncio.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        started, before = time.monotonic(), len(told)
        if ask_health:
            async with httpx.AsyncClient(base_url=address, timeout=10) as http:
                await asyncio.sleep(0.2)
                answer = await http.get("/health")
                health.append((answer.status_code, answer.headers["connection"], answer.text))
                health.append((await http.get("/v2/health/live")).status_code)
        await clients
        await asyncio.to_thread(process.wait, 60)
        return told, before, health, time.monotonic() - started

    return asyncio.run(all_of_it())


def test_nobody_who_was_taken_is_lost(tiny_base, switches, tmp_path):
    with serving(tiny_base, tmp_path / "store", grace_seconds=10) as (process, client, log):
        client.publish(switches["topic"])
        client.classify("topic", "warm")
        told, before, _, seconds = end_under_load(process, client, str(client._http.base_url))
        told_of_it = log.read_text()
    assert process.returncode in (0, -signal.SIGTERM)
    assert before > 0
    assert set(told) <= {200, 429}, told
    assert told[before:].count(200) > 0  # some were under way
    assert seconds < 13
    assert "Traceback" not in told_of_it


def test_a_load_balancer_gets_time_to_notice(tiny_base, switches, tmp_path):
    seconds = 1
    with serving(tiny_base, tmp_path / "store", drain_seconds=seconds) as (process, client, _):
        client.publish(switches["topic"])
        client.classify("topic", "warm")
        told, before, health, took = end_under_load(
            process, client, str(client._http.base_url), ask_health=True
        )
    (status, connection, text), live = health
    assert (status, connection) == (503, "close")
    assert "stopping" in text
    assert live == 200
    assert set(told) <= {200, 429}, told
    assert told[before:].count(200) > 0
    assert seconds <= took
