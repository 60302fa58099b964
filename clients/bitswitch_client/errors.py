"""What can go wrong with a call: one tree of errors, one class per answer of the server worth telling apart.

Knows the server's error body, ``{"error": {"message", "type", "param", "code"}}``, and nothing of the calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import httpx


class ClientError(Exception):
    """Whatever this client raises."""


class UnreachableError(ClientError):
    """The server could not be reached, or the connection broke before its answer was whole."""


class TimedOutError(UnreachableError):
    """The server's answer took longer than this client's ``timeout``."""


class UnexpectedAnswerError(ClientError):
    """An answer that is not of the shape this client knows: another server, or another version of it."""


class ApiError(ClientError):
    """The server said no.

    Attributes:
        message: its sentence.
        status: the HTTP status.
        type: the family of the fault, e.g. ``invalid_request_error``.
        code: the fault, e.g. ``model_not_found``; ``unknown`` where the answer came from something else
            than bitswitch, say a proxy.
        param: the field of the request the fault lies in, if one does.
        request_id: what the server's log calls this request.
        retry_after: seconds after which trying again makes sense, if it does.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str = "",  # noqa: A002 - the API's own word
        code: str = "unknown",
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.message = message
        self.status = status
        self.type = type
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after


class InvalidRequestError(ApiError):
    """400, 413, 422 and other 4xx: the request's own fault."""


class RouteAbstainedError(InvalidRequestError):
    """422 ``route_abstained``: ``auto`` found no switch near enough to the input."""


class AuthenticationError(ApiError):
    """401: no key, or one that is not known."""


class PermissionDeniedError(ApiError):
    """403: a known key whose role does not reach this far."""


class NotFoundError(ApiError):
    """404: there is no such model or switch, or not for this key."""


class ConflictError(ApiError):
    """409: it cannot be done as things stand, and trying again will not help."""


class OverloadedError(ApiError):
    """429: the queue or a quota is full; `ApiError.retry_after` says until when."""


class ServerError(ApiError):
    """5xx: the server's own fault."""


class UnavailableError(ServerError):
    """503: the server is starting, stopping or mending itself."""


_BY_CODE: Mapping[str, type[ApiError]] = {"route_abstained": RouteAbstainedError}
_BY_STATUS: Mapping[int, type[ApiError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    429: OverloadedError,
    503: UnavailableError,
}


def api_error(response: httpx.Response) -> ApiError:
    """The error that a response of status 400 or more stands for; its body may be anything."""
    body = _body(response)
    code = str(body.get("code") or "unknown")
    family = ServerError if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR else InvalidRequestError
    kind = _BY_CODE.get(code) or _BY_STATUS.get(response.status_code, family)
    return kind(
        str(body.get("message") or response.reason_phrase or "no message"),
        status=response.status_code,
        type=str(body.get("type") or ""),
        code=code,
        param=body.get("param"),
        request_id=response.headers.get("x-request-id"),
        retry_after=retry_after(response.headers),
    )


def _body(response: httpx.Response) -> Mapping[str, Any]:
    try:
        error = response.json()["error"]
    except (ValueError, LookupError, TypeError):
        return {}
    return error if isinstance(error, dict) else {"message": error}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by ``retry-after-ms``, or else by ``retry-after``; None where neither is a number."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None
