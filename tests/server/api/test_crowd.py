"""Many callers at once, callers that hang up, and a queue that is full."""

from __future__ import annotations

import asyncio
import random
import time

import anyio.to_thread
import httpx
import numpy as np
import pytest

from running import BANKING, FILMS, serving

MODELS = ("topic", "polarity", "entail", "topic*0.5+polarity*0.5", "auto")
TOPIC = {"model": "topic", "input": "who"}


def eventually(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_32_clients_get_the_answers_that_one_gets(http, address):
    rng = random.Random(0)
    texts = [*BANKING, *FILMS]
    bodies = [{"model": rng.choice(MODELS), "input": rng.sample(texts, rng.randint(1, 4))} for _ in range(96)]
    alone = [http.post("/v1/classify", json=body).json()["data"] for body in bodies]

    async def all_at_once():
        async def client(share):
            async with httpx.AsyncClient(base_url=address, timeout=60) as mine:
                return [(i, await mine.post("/v1/classify", json=bodies[i])) for i in share]

        done = await asyncio.gather(*(client(range(start, 96, 32)) for start in range(32)))
        return dict(pair for pairs in done for pair in pairs)

    together = asyncio.run(all_at_once())
    for i, expected in enumerate(alone):
        got = together[i].json()["data"]
        assert [datum["labels"] for datum in got] == [datum["labels"] for datum in expected]
        for datum, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(datum["probs"], other["probs"], atol=1e-5)
    assert http.get("/v1/admin/verify").json()["intact"] is True


def cancelled(http):
    lines = http.get("/metrics").text.splitlines()
    found = [
        line for line in lines if line.startswith('bitswitch_request_failure_total{code="request_cancelled"}')
    ]
    return float(found[0].split()[-1]) if found else 0.0


def test_who_hangs_up_is_not_computed_for(gated, gate):
    with serving(gated.app()) as address, httpx.Client(base_url=address) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/classify", json=TOPIC, timeout=0.3)
        eventually(lambda: cancelled(http) == 1)
        gate.set()
        assert (
            http.post("/v1/embeddings", json={"model": "bare", "input": "a"}, timeout=30).status_code == 200
        )
        # `topic` became ready first, and yet the only transitions were those of `bare`
        assert http.get("/v1/admin/verify").json()["intact"] is True
        text = http.get("/metrics").text
        assert 'bitswitch_request_success_total{want="classify"} 0.0' in text
        assert gated.engine.state().transitions <= 2


def test_a_full_queue_refuses_at_once_and_says_when_to_ask_again(gated, gate):
    async def scenario(address):
        async with httpx.AsyncClient(base_url=address, timeout=30) as http:
            waiting = [asyncio.create_task(http.post("/v1/classify", json=TOPIC)) for _ in range(2)]
            while gated.engine.state().waiting < 2:
                await asyncio.sleep(0.01)
            refused = await http.post("/v1/classify", json=TOPIC)
            alive = await http.get("/health")
            gate.set()
            return refused, alive, await asyncio.gather(*waiting)

    with serving(gated.app()) as address:
        refused, alive, answers = asyncio.run(scenario(address))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
    assert refused.headers["retry-after-ms"] == "1000"
    assert alive.status_code == 200
    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize("path", ["/health", "/v2/health/live", "/v2/health/ready"])
def test_health_does_not_wait_for_a_thread(house, path):
    async def scenario():
        threads = anyio.to_thread.current_default_thread_limiter()
        for _ in range(int(threads.total_tokens)):
            threads.acquire_on_behalf_of_nowait(object())
        transport = httpx.ASGITransport(house.app())
        async with asyncio.timeout(5), httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.get(path)

    assert asyncio.run(scenario()).status_code == 200
