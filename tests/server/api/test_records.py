"""Limits, usage, audit and logs over HTTP, at a server of their own."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import socket
import time

import httpx
import pytest
import structlog

from bitswitch.observe.logs import configure
from bitswitch.tenants import limit_table
from bitswitch.tenants.usage import Ledger
from bitswitch_store.errors import StoreUnavailable
from running import BANKING, House, serving

TOPIC = {"model": "topic", "input": "who wrote hamlet ?"}
KEY = "correct-horse-battery"


@pytest.fixture(scope="module")
def own(tiny_base, switch_files, tmp_path_factory):
    built = House.build(tiny_base, tmp_path_factory.mktemp("records"))
    with (
        built.running(switch_files[name] for name in ("topic", "polarity")) as house,
        serving(house.app()) as address,
        httpx.Client(base_url=address, timeout=30) as http,
    ):
        yield house, http


@pytest.fixture
def limited(own):
    """Sets the default tenant's limits for one test."""
    house, _ = own

    def limit(**values):
        limit_table.change(house.store.database, "default", values)
        house.quotas.refresh()

    yield limit
    limit(**dict.fromkeys(limit_table.NAMES))
    house.quotas.requests.__init__("requests")
    house.quotas.tokens.__init__("tokens")


def refusal(response):
    return response.status_code, response.json()["error"]["code"]


def test_requests_per_minute_are_refused_in_the_words_that_openai_s_clients_know(own, limited):
    _, http = own
    limited(requests_per_minute=2)
    first = http.post("/v1/classify", json=TOPIC)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"].endswith("s")
    assert http.get("/v1/models").status_code == 200
    refused = http.post("/v1/classify", content=b"not even read")
    assert refusal(refused) == (429, "rate_limit_exceeded")
    assert "2 requests per minute" in refused.json()["error"]["message"]
    assert 0 < int(refused.headers["retry-after-ms"]) <= 120_000
    assert int(refused.headers["retry-after"]) >= 1
    assert http.get("/health").status_code == 200


def test_tokens_are_refused_before_they_are_computed(own, limited):
    house, http = own
    limited(tokens_per_minute=11, input_tokens=9)
    assert http.post("/v1/classify", json=TOPIC).headers["x-ratelimit-remaining-tokens"] == "5"
    before = dict(house.engine.state().steps)
    assert refusal(http.post("/v1/classify", json=TOPIC)) == (429, "rate_limit_exceeded")
    assert refusal(http.post("/v1/embeddings", json={**TOPIC, "model": "auto"})) == (
        429,
        "rate_limit_exceeded",
    )
    long = http.post("/v1/classify", json={"model": "topic", "input": BANKING[0] * 2})
    assert refusal(long) == (413, "input_too_long")
    assert dict(house.engine.state().steps) == before


def test_inputs_are_refused_by_number(own, limited):
    _, http = own
    limited(batch_inputs=2)
    assert http.post("/v1/classify", json={"model": "topic", "input": ["a", "b"]}).status_code == 200
    refused = http.post("/v1/classify", json={"model": "topic", "input": ["a", "b", "c"]})
    assert refusal(refused) == (413, "input_too_long")


def test_stored_switches_and_bytes_are_refused_and_nothing_is_kept(own, limited, switch_files):
    house, http = own
    data = switch_files["entail"].read_bytes()
    blobs = set(house.store.blobs.digests())
    limited(stored_switches=2)
    refused = http.post("/v1/switches", files={"file": data})
    assert refusal(refused) == (403, "quota_exceeded")
    assert "Stored switches: tenant 'default' has 2 of 2" in refused.json()["error"]["message"]
    limited(stored_switches=None, stored_bytes=len(data))
    assert refusal(http.post("/v1/switches", files={"file": data})) == (403, "quota_exceeded")
    # the same bytes under the same name take no room
    again = http.post("/v1/switches", files={"file": switch_files["topic"].read_bytes()})
    assert (again.status_code, again.json()["version"]) == (201, 1)
    assert {one.name for one in house.store.list("default")} == {"topic", "polarity"}
    assert set(house.store.blobs.digests()) == blobs


def test_who_hangs_up_gives_their_place_back(gated, gate):
    limit_table.change(gated.store.database, "default", {"concurrent_requests": 1})
    gated.quotas.refresh()
    with serving(gated.app()) as address, httpx.Client(base_url=address, timeout=30) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/classify", json={"model": "topic", "input": "who"}, timeout=0.3)
        deadline = time.monotonic() + 10
        while (response := http.get("/v1/models")).status_code == 429:
            assert time.monotonic() < deadline
        assert response.status_code == 200
        while gated.quotas._running:  # the last answer is read before its place is given back
            assert time.monotonic() < deadline
        # nor does one that never sends its body keep its place
        with socket.create_connection((http.base_url.host, http.base_url.port), timeout=10) as plain:
            plain.sendall(b"POST /v1/classify HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{")
            while not gated.quotas._running:  # a request of ours could take the place before it does
                assert time.monotonic() < deadline
            assert http.get("/v1/models").status_code == 429
        while http.get("/v1/models").status_code == 429:
            assert time.monotonic() < deadline
        gate.set()
        assert http.post("/v1/classify", json={"model": "topic", "input": "who"}).status_code == 200


def rows(http, **query):
    answer = http.get("/v1/usage", params=query).json()
    return {(row["owner"], row["name"], row["version"]): row for row in answer["data"]}


def used(after, before, key):
    zero = {"requests": 0, "inputs": 0, "tokens": 0}
    return tuple(after[key][name] - before.get(key, zero)[name] for name in zero)


def test_usage_counts_each_switch_of_a_mix_whole_and_each_request_once(own):
    _, http = own
    before = rows(http)
    http.post(
        "/v1/classify", json={"model": "topic*0.5+polarity*0.5", "input": ["who", "who wrote hamlet ?"]}
    )
    http.post("/v1/classify", json=TOPIC)
    http.post("/v1/classify", json={"model": "none", "input": "who"})
    http.post("/v1/embeddings", json={"model": "base", "input": "who"})
    http.post("/v1/route", json={"input": "who"})
    after = rows(http)
    assert used(after, before, ("default", "topic", 1)) == (2, 3, 15)
    assert used(after, before, ("default", "polarity", 1)) == (1, 2, 9)
    assert used(after, before, ("", "base", 0)) == (2, 2, 6)
    assert used(after, before, ("", "", 0)) == (4, 5, 21)
    assert after["default", "topic", 1]["seconds"] > 0
    assert rows(http, to="2020-01-01") == {}
    assert rows(http, tenant="nobody") == {}
    assert rows(http, tenant="*") == rows(http)
    assert refusal(http.get("/v1/usage", params={"after": "x"})) == (400, "invalid_request")
    for day in ("yesterday", "0", "1764000000", "20200101", "2020-02-30"):
        refused = http.get("/v1/usage", params={"from": day})
        assert refusal(refused) == (400, "invalid_request")
        assert refused.json()["error"]["message"].startswith("from"), day


def test_every_change_is_on_record_and_no_refused_one_is(own, switch_files):
    _, http = own
    data = switch_files["entail"].read_bytes()
    last = http.get("/v1/audit", params={"limit": 1000}).json()["data"][-1]["id"]
    http.post("/v1/switches", files={"file": data}, headers={"x-request-id": "the-first"})
    http.post("/v1/switches", files={"file": data})
    http.post("/v1/switches", files={"file": data}, data={"public": "true"})
    http.put("/v1/switches/entail/aliases/prod", json={"version": 1})
    assert http.delete("/v1/switches/entail").status_code == 409
    http.delete("/v1/switches/entail", params={"force": True})
    found = http.get("/v1/audit", params={"after": last}).json()
    assert [(one["action"], one["target"]) for one in found["data"]] == [
        ("published", "entail@1"),
        ("made_public", "entail@1"),
        ("aliased", "entail@prod = 1"),
        ("unaliased", "entail@prod = 1"),
        ("deleted", "entail@1"),
    ]
    assert found["data"][0]["request_id"] == "the-first"
    assert {one["digest"] for one in found["data"]} == {"sha256:" + hashlib.sha256(data).hexdigest()}
    paged = http.get("/v1/audit", params={"after": last, "limit": 2}).json()
    assert ([one["action"] for one in paged["data"]], paged["has_more"]) == (
        ["published", "made_public"],
        True,
    )


def test_a_change_that_cannot_be_put_on_record_is_not_made(own, switch_files, monkeypatch):
    house, _ = own

    def fail(*_args, **_values):
        raise StoreUnavailable("no place for the audit")

    before = house.store.list("default")
    monkeypatch.setattr("bitswitch_store.audit.record", fail)
    for change in (
        lambda: house.store.put(switch_files["entail"], tenant="default", name="unseen"),
        lambda: house.store.set_alias("default", "topic", "unseen", 1),
        lambda: house.store.delete("default", "topic", force=True),
    ):
        with pytest.raises(StoreUnavailable):
            change()
    assert house.store.list("default") == before


@pytest.fixture
def logged():
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    stream = io.StringIO()
    configure("info", json=True, stream=stream)
    yield stream
    root.setLevel(level)
    root.handlers = handlers
    structlog.reset_defaults()


def test_the_log_has_a_line_for_each_request_and_neither_inputs_nor_keys(own, logged):
    house, _ = own
    secret = "unutterable"
    headers = {"authorization": f"Bearer {KEY}"}
    with serving(house.app(key=KEY)) as address, httpx.Client(base_url=address, headers=headers) as http:
        http.post("/v1/classify", json={"model": "topic", "input": secret})
        http.post("/v1/classify", json={"model": secret, "input": secret})
        http.post("/v1/classify", content=f'{{"model": {secret}')
        http.post(
            "/v1/classify",
            json={"model": "topic", "input": secret},
            headers={"authorization": f"Bearer {secret}"},
        )
        http.get(f"/v1/{secret}")
        http.get("/health")
        http.get("/v1/models", params={"q": secret})
    # The client logs in this process as well; and access lines, which `serve` writes at debug alone.
    others = ("httpx", "httpcore", "uvicorn.access")
    kept = [line for line in logged.getvalue().splitlines() if json.loads(line)["logger"] not in others]
    text = "\n".join(kept)
    assert secret not in text
    assert KEY not in text
    lines = [line for line in map(json.loads, text.splitlines()) if line["event"] == "request"]
    told = [(line["path"], line["status"], line["code"], line["tenant"], line["model"]) for line in lines]
    assert told == [
        ("/v1/classify", 200, None, "default", "topic@1"),
        ("/v1/classify", 404, "model_not_found", "default", None),
        ("/v1/classify", 400, "invalid_request", "default", None),
        ("/v1/classify", 401, "invalid_api_key", None, None),
        (None, 404, "not_found", None, None),
        ("/v1/models", 200, None, "default", None),
    ]
    assert (lines[0]["input_count"], lines[0]["tokens"]) == (1, 3)
    assert lines[0]["ms"] > 0


def test_usage_that_is_counted_touches_no_database(own, monkeypatch):
    house, http = own

    def fail(*_args):
        raise AssertionError("on the event loop")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "flush", fail)
        assert http.post("/v1/classify", json=TOPIC).status_code == 200
    house.ledger.flush()
