"""Around every request, in plain ASGI: its id and times, its size, and what to do when its caller hangs up.

Knows no endpoint and no shape but that of errors.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitswitch.api.faults import respond
from bitswitch.api.record import Recorder
from bitswitch.core import Timing
from bitswitch.errors import BitswitchError, InputTooLongError, RequestCancelledError

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
UPLOAD_PATH = "/v1/switches"
_FORM_EXTRA = 64 * 1024
"""Bytes that a multipart form may add to its file: boundaries, part headers, the other fields."""


class Envelope:
    """Gives each request an id, its answer the times, and an error that nobody foresaw a constant text."""

    def __init__(self, app: ASGIApp, *, recorder: Recorder) -> None:
        self._app = app
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status: int | None = None

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if served := state.get("served"):
                    headers.update(_times(served.timing, time.perf_counter() - started))
                if permit := state.get("permit"):
                    headers.update(permit.headers())
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:  # the caller must not see what went wrong in here; the log does
            _log.exception("request %s to %s failed", request_id, scope["path"])
            if status is not None:
                raise
            fault = BitswitchError("The server failed to answer; its log says why, under this request's id.")
            await respond(scope, fault)(scope, receive, sending)
        finally:
            if permit := state.get("permit"):
                permit.release()
            self._recorder.ended(scope, status, time.perf_counter() - started)


def _times(timing: Timing, total: float) -> dict[str, str]:
    seconds = {"queue": timing.queue, "swap": timing.swap, "inference": timing.forward, "total": total}
    return {f"x-{name}-time": f"{1000 * value:.3f}" for name, value in seconds.items()}


class HangUp:
    """Cancels the work on a request whose caller has gone, so that what waits in the queue is dropped."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read, gone, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def reading() -> Message:
            if read.is_set():  # from here on, only the watch below listens to the connection
                await gone.wait()
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.disconnect":
                gone.set()
            if not message.get("more_body", False):
                read.set()
            return message

        async def sending(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                answered.set()

        async def watch() -> None:
            await read.wait()
            while not gone.is_set():
                if (await receive())["type"] == "http.disconnect":
                    gone.set()

        async def answer() -> None:
            await self._app(scope, reading, sending)

        work = asyncio.create_task(answer())
        listening = asyncio.create_task(watch())
        try:
            await asyncio.wait({work, listening}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not answered.is_set():
                work.cancel()
                await asyncio.wait({work})
            cancelled = work.cancelled()
            if not cancelled:
                try:
                    await work
                except ClientDisconnect:  # in the middle of the body
                    cancelled = True
            if cancelled:
                scope["state"]["failed"] = RequestCancelledError.code
                _log.info("request %s: the caller hung up", scope["state"]["request_id"])
        finally:
            listening.cancel()
            work.cancel()


class BodyLimit:
    """Refuses a body that is larger than may be, by what it says or by what comes.

    Args:
        body: bytes of a JSON body, at most.
        upload: bytes of an uploaded file, at most.
    """

    def __init__(self, app: ASGIApp, *, body: int, upload: int) -> None:
        self._app = app
        self._body = body
        self._upload = upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        uploads = scope["path"] == UPLOAD_PATH
        named = self._upload if uploads else self._body
        most = named + _FORM_EXTRA if uploads else named
        stated = Headers(scope=scope).get("content-length", "")
        came = 0

        async def reading() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > most or (stated.isdecimal() and int(stated[:18]) > most):
                what = "file" if uploads else "body"
                raise InputTooLongError(
                    f"The {what} is larger than {named} bytes, the most this server reads."
                )
            return message

        await self._app(scope, reading, send)
