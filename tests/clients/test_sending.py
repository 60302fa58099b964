"""How the client sends, asks again and tells errors: its own logic, against scripted answers.

What the server really answers is for `test_contract` and `test_live`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bitswitch_client import (
    ApiError,
    AsyncClient,
    AuthenticationError,
    Client,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    Retries,
    RouteAbstainedError,
    ServerError,
    TimedOutError,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
    calls,
    client,
)
from bitswitch_client.errors import retry_after

Step = httpx.Response | Exception
QUICK = Retries(most=3, first=0.001, longest=0.05)


class Script:
    """Answers one step after the other, and keeps what was asked."""

    def __init__(self, *steps: Step) -> None:
        self.steps = iter(steps)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        step = next(self.steps)
        if isinstance(step, Exception):
            raise step
        return step


class Ask:
    """One call, by `Client` or by `AsyncClient`: both must do the same."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def __call__(self, script: Script, call: calls.Call[Any], **options: Any) -> Any:
        options = {"retries": QUICK, "transport": httpx.MockTransport(script)} | options
        if not self.asynchronous:
            with Client("http://server", **options) as one:
                return one.send(call)

        async def ask() -> Any:
            async with AsyncClient("http://server", **options) as one:
                return await one.send(call)

        return asyncio.run(ask())


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return Ask(request.param)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses made, without making them."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(client.time, "sleep", made.append)
    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    return made


def ok(body: object = None, **headers: str) -> httpx.Response:
    return httpx.Response(200, json={"data": []} if body is None else body, headers=headers)


def no(status: int, code: str = "some_code", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    error = {"message": "A sentence.", "type": "some_type", "param": "model", "code": code}
    return httpx.Response(status, json={"error": error}, headers={"x-request-id": "req-1"} | named)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_model", InvalidRequestError),
        (401, "invalid_api_key", AuthenticationError),
        (403, "permission_denied", PermissionDeniedError),
        (404, "model_not_found", NotFoundError),
        (409, "conflict", ConflictError),
        (413, "input_too_long", InvalidRequestError),
        (422, "route_abstained", RouteAbstainedError),
        (422, "invalid_switch", InvalidRequestError),
        (500, "internal_error", ServerError),
        (504, "deadline_exceeded", ServerError),
    ],
)
def test_each_no_is_an_error_of_its_own_and_is_not_asked_again(
    ask: Ask, status: int, code: str, kind: type[ApiError]
) -> None:
    script = Script(no(status, code))
    with pytest.raises(ApiError) as caught:
        ask(script, calls.models())
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code, caught.value.type) == (status, code, "some_type")
    assert (caught.value.message, caught.value.param) == ("A sentence.", "model")
    assert caught.value.request_id == "req-1"
    assert str(caught.value) == f"A sentence. ({status} {code})"
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (502, {"html": "<h1>Bad gateway</h1>"}, "Bad Gateway"),
        (400, {"json": {"error": "The Open Inference Protocol's shape."}}, "The Open Inference"),
        (400, {"json": ["not", "ours"]}, "Bad Request"),
        (307, {"headers": {"location": "/elsewhere"}}, "Temporary Redirect"),
    ],
)
def test_a_no_that_is_not_in_our_shape_is_told_all_the_same(
    ask: Ask, status: int, answer: dict[str, Any], message: str
) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        ask(Script(httpx.Response(status, **answer)), calls.models())
    assert caught.value.code == "unknown"


@pytest.mark.parametrize(("status", "kind"), [(429, OverloadedError), (503, UnavailableError)])
def test_a_full_server_is_asked_again_as_often_as_allowed(
    ask: Ask, status: int, kind: type[ApiError]
) -> None:
    script = Script(no(status), no(status), no(status), ok())
    assert ask(script, calls.models()) == ()
    assert len(script.asked) == 4
    script = Script(*[no(status, retry_after_ms="7")] * 4)
    with pytest.raises(kind) as caught:
        ask(script, calls.models())
    assert len(script.asked) == 4
    assert caught.value.retry_after == 0.007
    script = Script(no(status))
    with pytest.raises(kind):
        ask(script, calls.models(), retries=Retries(most=0))


def test_the_server_says_how_long_to_wait(ask: Ask, pauses: list[float]) -> None:
    steps = [
        no(429, retry_after="2", retry_after_ms="1500"),
        no(429, retry_after="2"),
        no(429),
        no(429),
        ok(),
    ]
    ask(Script(*steps), calls.models(), retries=Retries(most=4, first=0.25, longest=10))
    assert 1.5 <= pauses[0] <= 1.5 * 1.25
    assert 2.0 <= pauses[1] <= 2.0 * 1.25
    assert 0.5 <= pauses[2] <= 1.0, "the third pause that nobody named: 0.25 s doubled twice, at most"
    assert 1.0 <= pauses[3] <= 2.0


def test_a_wait_longer_than_patience_is_the_callers_to_decide(ask: Ask) -> None:
    script = Script(no(429, retry_after="3600"), ok())
    with pytest.raises(OverloadedError) as caught:
        ask(script, calls.models())
    assert caught.value.retry_after == 3600
    assert len(script.asked) == 1


def test_a_server_that_says_not_to_is_not_asked_again(ask: Ask) -> None:
    script = Script(no(503, x_should_retry="false"), ok())
    with pytest.raises(UnavailableError):
        ask(script, calls.models())


@pytest.mark.parametrize(
    ("call", "fault", "tries"),
    [
        (calls.classify("a", "b"), httpx.ReadError("broken"), 4),
        (calls.publish(b"bytes"), httpx.RemoteProtocolError("gone"), 4),
        (calls.delete("a"), httpx.ReadError("broken"), 1),
        (calls.unalias("a", "b"), httpx.RemoteProtocolError("gone"), 1),
        (calls.delete("a"), httpx.ConnectError("refused"), 4),
        (calls.ready(), httpx.ConnectError("refused"), 1),
    ],
    ids=str,
)
def test_a_broken_connection_is_tried_again_where_that_does_no_harm(
    ask: Ask, call: calls.Call[Any], fault: Exception, tries: int
) -> None:
    script = Script(*[fault] * 4)
    with pytest.raises(UnreachableError, match=f"{call.method} .*{fault}"):
        ask(script, call)
    assert len(script.asked) == tries


def test_no_answer_in_time_is_told_as_that(ask: Ask) -> None:
    with pytest.raises(TimedOutError, match="GET /v1/models: no answer in time"):
        ask(Script(*[httpx.ReadTimeout("slow")] * 4), calls.models())


@pytest.mark.parametrize("body", [{}, [], {"data": [{"id": "x"}]}, {"data": 3}, None])
def test_an_answer_of_another_shape_is_refused_with_a_sentence(ask: Ask, body: object) -> None:
    response = httpx.Response(200, json=body) if body is not None else httpx.Response(200, text="hello")
    with pytest.raises(UnexpectedAnswerError, match="GET /v1/models got status 200"):
        ask(Script(response), calls.models())


def test_ready_is_a_yes_or_a_no(ask: Ask) -> None:
    assert ask(Script(ok({"ready": True})), calls.ready()) is True
    script = Script(no(503))
    assert ask(script, calls.ready()) is False
    assert len(script.asked) == 1


def test_the_key_goes_along(ask: Ask) -> None:
    script = Script(ok(), ok())
    ask(script, calls.models(), api_key="secret")
    assert script.asked[0].headers["authorization"] == "Bearer secret"
    ask(script, calls.models())
    assert "authorization" not in script.asked[1].headers


def test_names_cannot_leave_their_place_in_the_path(ask: Ask) -> None:
    script = Script(no(404))
    with pytest.raises(NotFoundError):
        ask(script, calls.switch("../admin/verify?x=1#", version="prod"))
    assert script.asked[0].url.raw_path == b"/v1/switches/..%2Fadmin%2Fverify%3Fx%3D1%23?version=prod"


def test_embeddings_travel_as_base64_and_come_in_the_inputs_order(ask: Ask) -> None:
    vectors = [(0.5, -1.25, 3e-8), (1.0, 2.0, 3.0)]
    data = [
        {
            "index": index,
            "embedding": base64.b64encode(struct.pack("<3f", *vectors[index])).decode(),
            "mix": [],
            "route": None,
            "truncated": False,
        }
        for index in (1, 0)
    ]
    body = {"id": "embed-1", "model": "base", "usage": {"total_tokens": 9}, "data": data}
    headers = {"x-queue-time": "1.5", "x-swap-time": "0", "x-inference-time": "20", "x-total-time": "23"}
    script = Script(httpx.Response(200, json=body, headers=headers))
    answer = ask(script, calls.embed("base", ["a", ("b", "c")], dimensions=3))
    assert [struct.pack("<3f", *one.vector) for one in answer.data] == [
        struct.pack("<3f", *v) for v in vectors
    ]
    assert answer.tokens == 9
    timing = answer.timing
    assert (timing.queue, timing.swap, timing.inference, timing.total) == (0.0015, 0.0, 0.02, 0.023)
    sent = httpx.Response(200, content=script.asked[0].content).json()
    assert sent == {
        "model": "base",
        "input": ["a", ["b", "c"]],
        "dimensions": 3,
        "encoding_format": "base64",
    }


def test_a_download_is_whole_or_not_there(ask: Ask, tmp_path: Path) -> None:
    digest = "sha256:" + hashlib.sha256(b"bytes").hexdigest()
    target = tmp_path / "got.safetensors"
    whole = httpx.Response(200, content=b"bytes", headers={"x-switch-digest": digest})
    assert ask(Script(whole), calls.download("a", target)) == target
    assert target.read_bytes() == b"bytes"
    broken = httpx.Response(200, content=b"byt", headers={"x-switch-digest": digest})
    with pytest.raises(UnexpectedAnswerError, match="digest"):
        ask(Script(broken), calls.download("a", tmp_path / "other.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["got.safetensors"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after-ms": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_what_counts_as_a_time_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_both_clients_have_every_call_under_its_own_name() -> None:
    built = {name for name, value in vars(calls).items() if _returns_call(value)}
    assert len(built) == 21
    for kind in (Client, AsyncClient):
        assert {name for name in built if getattr(kind, name).__wrapped__ is getattr(calls, name)} == built


def _returns_call(value: Callable[..., Any] | Awaitable[Any] | object) -> bool:
    return str(getattr(value, "__annotations__", {}).get("return", "")).startswith("Call[")
