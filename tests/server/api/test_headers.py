"""What comes around an answer: ids, times, hints when to try again, health, metrics."""

from __future__ import annotations

import httpx
import pytest

from running import FAR, House, serving

ASK = {"model": "topic", "input": "who"}


@pytest.mark.parametrize("given", ["abc-123", "!~", "x" * 128])
def test_a_request_id_is_echoed(http, given):
    assert http.get("/health", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 129, "é".encode("latin-1"), "tab\there"])
def test_or_made_where_none_will_do(http, given):
    headers = {} if given is None else {"x-request-id": given}
    ids = {http.get("/health", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(one.startswith("req-") for one in ids)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/classify", ASK),
        ("/v1/embeddings", ASK),
        ("/v1/route", {"input": "who"}),
        (
            "/v2/models/topic/infer",
            {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["who"]}]},
        ),
    ],
)
def test_every_inference_answer_has_its_times(http, path, body):
    headers = http.post(path, json=body).headers
    queue, swap, inference, total = (
        float(headers[f"x-{name}-time"]) for name in ("queue", "swap", "inference", "total")
    )
    assert min(queue, swap) >= 0
    assert inference > 0
    assert total >= inference


def test_a_server_that_is_not_ready_says_so_and_when_to_ask_again(tiny_base, tmp_path):
    house = House.build(tiny_base, tmp_path / "store")
    with serving(house.app()) as address, httpx.Client(base_url=address) as http:
        assert http.get("/v2/health/live").status_code == 200
        for path in ("/health", "/v2/health/ready"):
            assert http.get(path).status_code == 503
        assert http.get("/v2/models/base/ready").json() == {"name": "base", "ready": False}
        refused = http.post("/v1/embeddings", json={"model": "base", "input": "a"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["retry-after-ms"] == "1000"
        house.engine.start()
        assert http.get("/health").json() == {"status": "ok"}
        assert http.post("/v1/embeddings", json={"model": "base", "input": "a"}).status_code == 200
        house.engine.stop(10)
        assert http.get("/v2/health/ready").json() == {
            "error": "The server is not ready for requests (stopped); try again shortly."
        }
    house.store.close()


def test_what_nobody_foresaw_becomes_a_constant_text(house, http, caplog):
    def broken():
        raise RuntimeError("a secret of the inside")

    app = house.app()
    app.add_api_route("/broken", broken)
    with serving(app) as address, caplog.at_level("ERROR"):
        response = httpx.get(f"{address}/broken", headers={"x-request-id": "mine"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "mine"
    assert "request mine to /broken failed" in caplog.text
    assert "a secret of the inside" in caplog.text


def test_the_metrics_count_what_happened(house):
    def value(text, name):
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))

    with serving(house.app()) as address, httpx.Client(base_url=address) as http:
        before = http.get("/metrics")
        http.post("/v1/classify", json=ASK)
        http.post("/v1/classify", json={**ASK, "model": "nosuch"})
        http.post("/v1/classify", json={"model": "auto", "input": FAR})
        http.post("/v1/embeddings", json={"model": "auto", "input": [FAR] * 2})
        after = http.get("/metrics").text
    assert before.headers["content-type"].startswith("text/plain")

    def grown(name):
        try:
            start = value(before.text, name)
        except StopIteration:
            start = 0.0
        return value(after, name) - start

    assert grown('bitswitch_request_success_total{want="classify"}') == 1
    assert grown('bitswitch_request_success_total{want="embed"}') == 1
    assert grown('bitswitch_request_failure_total{code="model_not_found"}') == 1
    assert grown('bitswitch_request_failure_total{code="route_abstained"}') == 1
    assert grown("bitswitch_router_abstentions_total") == 3
    assert grown("bitswitch_e2e_request_latency_seconds_count") == 2


def test_the_state_tells_what_is_resident(http, house):
    http.post("/v1/classify", json=ASK)
    state = http.get("/v1/admin/state").json()
    assert state["ready"] is True
    assert state["resident"][house.store.find("default", "topic").digest] > 0
    assert state["transitions"] >= 1
    assert state["waiting"] == 0
