"""Listening, and leaving: from SIGTERM on the server says that it is not ready, answers what came, and ends.

Knows nothing of what is answered.
"""

from __future__ import annotations

import asyncio
import socket
import time
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LAST_WORDS = 1.0
"""Seconds before the end of the grace time at which those who still wait are told that nobody will come."""
KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open: longer than clients and proxies keep theirs (mostly 60), or a
request crosses with our closing and fails for nothing."""


class Leaving(Protocol):
    """What has to know that the server is about to end."""

    def drain(self) -> None:
        """It is: from now on, say so to whoever asks whether it is ready."""

    def dismiss(self) -> None:
        """Time is up: tell those who wait."""


class Listener(uvicorn.Server):
    """uvicorn's server, with manners when it is told to end.

    Args:
        app: what answers.
        leaving: hears of the end.
        drain_seconds: from the signal on, how long requests are still taken while the server says that it is
            not ready: as long as a load balancer needs to notice. A second signal cuts it short.
        grace_seconds: after that, how long what was taken may take to be answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        leaving: Leaving,
        *,
        host: str,
        port: int,
        access_log: bool,
        drain_seconds: float,
        grace_seconds: float,
    ) -> None:
        self._farewell = _Farewell(app)
        config = uvicorn.Config(
            self._farewell,
            host=host,
            port=port,
            log_config=None,
            access_log=access_log,
            timeout_graceful_shutdown=max(round(grace_seconds), 1),
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        super().__init__(config)
        self._leaving = leaving
        self._drain_seconds = drain_seconds
        self._grace_seconds = grace_seconds
        self._signal: tuple[int, FrameType | None] | None = None
        self._ends = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal asks us to end."""
        self._leaving.drain()
        self._farewell.begun = True
        if self._signal is not None or not self._drain_seconds:
            super().handle_exit(sig, frame)
        self._signal = (sig, frame)
        self._ends = time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        if self._signal is not None and not self.should_exit and time.monotonic() >= self._ends:
            super().handle_exit(*self._signal)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, answer what was taken, stop the parts."""
        last = max(self._grace_seconds - LAST_WORDS, 0.0)
        timer = asyncio.get_running_loop().call_later(last, self._leaving.dismiss)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()


class _Farewell:
    """Once the end has begun, each answer closes its connection: the caller's next request goes elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def sending(message: Message) -> None:
            if self.begun and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive, sending if scope["type"] == "http" else send)
