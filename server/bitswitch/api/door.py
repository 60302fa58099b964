"""What every request passes before its endpoint: key, role, host, origin, the body's encoding.

In this order, so that nobody without a key gets a body read. Knows no endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any, ClassVar
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from bitswitch.api.parts import parts_of
from bitswitch.errors import InvalidRequestError, PermissionError, UnsupportedMediaTypeError  # noqa: A004
from bitswitch.tenants.caller import Role

_UNCHANGING = ("GET", "HEAD", "OPTIONS")
_AS_JSON = ("", "application/json", "application/x-www-form-urlencoded")
"""The last is what ``curl -d`` sends unless told otherwise."""


class Guarded(APIRoute):
    """A route that needs a key, of any role. Every endpoint but the health ones is one, or more.

    Attributes:
        role: the least role that it needs.
    """

    role: ClassVar[Role] = Role.CALLER

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint behind the door."""
        endpoint = super().get_route_handler()

        async def handle(request: Request) -> Response:
            house = parts_of(request)
            keys = house.keys
            caller = request.state.caller = keys.admit(request.headers.get("authorization"))
            if not caller.role.reaches(self.role):
                raise PermissionError(
                    f"This takes a key of the role {self.role.value!r}; yours is {caller.role.value!r}."
                )
            if not keys.needed:
                _refuse_other_names(request)
                _refuse_other_sites(request)
            # Given back by `middleware.Envelope`, however the request ends.
            request.state.permit = house.quotas.admit(caller.tenant)
            if self.body_field is not None:
                request = await _with_json(request)
            return await endpoint(request)

        return handle


class Publishing(Guarded):
    """A route that changes switches of the caller's tenant."""

    role = Role.PUBLISHER


class Operating(Guarded):
    """A route for those who operate the server."""

    role = Role.ADMIN


def media_type(request: Request) -> str:
    """The content type without its parameters; empty if none is stated."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _refuse_other_names(request: Request) -> None:
    """A page's own name can be made to lead here, and its origin then equals the host; ours cannot be.

    Without a key the server listens at the loopback address alone (`tenants.caller.check_exposure`).
    """
    host = request.headers.get("host", "")
    if not _is_loopback(host):
        raise PermissionError(
            f"This server is not {host[:200]!r}; without a key it answers to localhost, 127.0.0.1 and [::1]."
        )


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _refuse_other_sites(request: Request) -> None:
    """Without keys, any web page a user has open could make their browser change things here."""
    origin = request.headers.get("origin")
    if origin is None or request.method in _UNCHANGING:
        return
    if origin.partition("://")[2] != request.headers.get("host"):
        raise PermissionError(
            f"A page of {origin!r} may not call this server; it has no key to tell friends by."
        )


class _JsonRequest(Request):
    """A request whose body has been read as JSON already."""

    def __init__(self, request: Request, value: Any) -> None:  # noqa: ANN401 - any JSON
        headers = [(name, text) for name, text in request.scope["headers"] if name != b"content-type"]
        headers.append((b"content-type", b"application/json"))
        super().__init__({**request.scope, "headers": headers}, request.receive)
        self._value = value

    async def body(self) -> bytes:
        return b"null"  # FastAPI only looks whether there is any

    async def json(self) -> Any:  # noqa: ANN401
        return self._value


async def _with_json(request: Request) -> Request:
    kind = media_type(request)
    if kind not in _AS_JSON and not kind.endswith("+json"):
        raise UnsupportedMediaTypeError(f"The body is {kind!r}; this endpoint reads 'application/json'.")
    value = read_json(await request.body())
    if not isinstance(value, dict):
        raise InvalidRequestError('The body is JSON, but not an object such as {"model": …}.')
    return _JsonRequest(request, value)


def read_json(body: bytes) -> Any:  # noqa: ANN401
    """Strict JSON: UTF-8, no NaN, no half surrogate pairs, no bottomless nesting.

    Raises:
        InvalidRequestError: it is something else; the message says what and where.
    """
    if not body.strip():
        raise InvalidRequestError("The body is empty; it is a JSON object.")
    try:
        body.decode("utf-8")
        return from_json(body, allow_inf_nan=False)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"The body is not UTF-8: byte {body[error.start]:#04x} at position {error.start}."
        ) from error
    except ValueError as error:
        raise InvalidRequestError(f"The body is not valid JSON: {error}.") from error
