"""`Client` and `AsyncClient`: two ways to send the same calls.

What a call sends and how its answer is read stands in `calls`, once for both; here is only the sending.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from bitswitch_client import calls
from bitswitch_client.call import Call
from bitswitch_client.errors import TimedOutError, UnexpectedAnswerError, UnreachableError, api_error
from bitswitch_client.retries import Retries

P = ParamSpec("P")
T = TypeVar("T")
Outcome = httpx.Response | httpx.RequestError

BASE_URL = "http://127.0.0.1:8000"
TIMEOUT = 60.0


def _headers(api_key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def _finish(call: Call[T], outcome: Outcome) -> T:
    """What the caller gets.

    Raises:
        ClientError: the outcome is no answer to the call.
    """
    if isinstance(outcome, httpx.TimeoutException):
        raise TimedOutError(f"{call}: no answer in time ({type(outcome).__name__})") from outcome
    if isinstance(outcome, httpx.RequestError):
        raise UnreachableError(f"{call}: {outcome or type(outcome).__name__}") from outcome
    if not outcome.is_success and outcome.status_code not in call.answers:
        raise api_error(outcome)
    try:
        return call.parse(outcome)
    except (LookupError, TypeError, ValueError) as error:
        raise UnexpectedAnswerError(
            f"{call} got status {outcome.status_code} and a body that this client cannot read: {error!r}"
        ) from error


def _sync(build: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(build)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    return method


def _async(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @wraps(build)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(build(*args, **kwargs))

    return method


class Client:
    """Calls a bitswitch server and waits for its answers. Threads may share one.

    Args:
        base_url: where the server is, without a path's end such as ``/v1``.
        api_key: sent as ``Authorization: Bearer``; None sends none.
        timeout: seconds, or finer `httpx.Timeout`, for one try.
        retries: how patiently a full or starting server is asked again.
        transport: sends the requests, e.g. over a Unix socket; None is httpx's own.

    Every call raises `ApiError` for the server's no, `UnreachableError` or `TimedOutError` for no answer,
    `UnexpectedAnswerError` for one it cannot read.
    """

    def __init__(
        self,
        base_url: str = BASE_URL,
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout = TIMEOUT,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retries = retries
        self._http = httpx.Client(
            base_url=base_url, headers=_headers(api_key), timeout=timeout, transport=transport
        )

    classify = _sync(calls.classify)
    embed = _sync(calls.embed)
    route = _sync(calls.route)
    models = _sync(calls.models)
    switches = _sync(calls.switches)
    switch = _sync(calls.switch)
    publish = _sync(calls.publish)
    download = _sync(calls.download)
    delete = _sync(calls.delete)
    alias = _sync(calls.alias)
    unalias = _sync(calls.unalias)
    usage = _sync(calls.usage)
    audit = _sync(calls.audit)
    sharing = _sync(calls.sharing)
    share = _sync(calls.share)
    whoami = _sync(calls.whoami)
    pin = _sync(calls.pin)
    unpin = _sync(calls.unpin)
    verify = _sync(calls.verify)
    state = _sync(calls.state)
    ready = _sync(calls.ready)

    def send(self, call: Call[T]) -> T:
        """Make a call, again where that makes sense, and read its answer."""
        tried = 0
        while True:
            outcome = self._try(call)
            tried += 1
            pause = self._retries.pause(call, outcome, tried=tried)
            if pause is None:
                return _finish(call, outcome)
            time.sleep(pause)

    def _try(self, call: Call[Any]) -> Outcome:
        try:
            return self._http.request(**call.arguments())
        except httpx.RequestError as error:
            return error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """Calls a bitswitch server from asyncio; arguments and errors are those of `Client`.

    Leaving a call, by cancellation or a timeout around it, closes its connection, and the server drops
    the work.
    """

    def __init__(
        self,
        base_url: str = BASE_URL,
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout = TIMEOUT,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=base_url, headers=_headers(api_key), timeout=timeout, transport=transport
        )

    classify = _async(calls.classify)
    embed = _async(calls.embed)
    route = _async(calls.route)
    models = _async(calls.models)
    switches = _async(calls.switches)
    switch = _async(calls.switch)
    publish = _async(calls.publish)
    download = _async(calls.download)
    delete = _async(calls.delete)
    alias = _async(calls.alias)
    unalias = _async(calls.unalias)
    usage = _async(calls.usage)
    audit = _async(calls.audit)
    sharing = _async(calls.sharing)
    share = _async(calls.share)
    whoami = _async(calls.whoami)
    pin = _async(calls.pin)
    unpin = _async(calls.unpin)
    verify = _async(calls.verify)
    state = _async(calls.state)
    ready = _async(calls.ready)

    async def send(self, call: Call[T]) -> T:
        """Make a call, again where that makes sense, and read its answer."""
        tried = 0
        while True:
            outcome = await self._try(call)
            tried += 1
            pause = self._retries.pause(call, outcome, tried=tried)
            if pause is None:
                return _finish(call, outcome)
            await asyncio.sleep(pause)

    async def _try(self, call: Call[Any]) -> Outcome:
        try:
            return await self._http.request(**call.arguments())
        except httpx.RequestError as error:
            return error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
