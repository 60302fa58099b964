"""Errors as HTTP answers: one shape for all, and one handler for each family of exceptions."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from bitswitch.errors import (
    BitswitchError,
    ConflictError,
    InputTooLongError,
    InvalidRequestError,
    InvalidSwitchError,
    NotFoundError,
    QuotaExceededError,
    UnavailableError,
)
from bitswitch_store.errors import StoreUnavailable
from bitswitch_store.store import Conflict, InvalidName, NotStored, QuotaExceeded, TooLarge
from bitswitch_store.switch import SwitchError

_log = logging.getLogger(__name__)

_MOST_TOLD = 3
_CODES = {404: "not_found", 405: "method_not_allowed"}
_RETRY_AFTER = 1.0


def respond(scope: Scope, error: BitswitchError) -> JSONResponse:
    """The answer that tells ``error``, in the shape that clients of the scope's path read."""
    told = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return _respond(scope, error.status, told, _headers(error))


def _respond(scope: Scope, status: int, error: Mapping[str, Any], headers: Mapping[str, str]) -> JSONResponse:
    scope["state"]["failed"] = error["code"]  # for the metrics
    path = scope["path"]
    inference_protocol = path == "/v2" or path.startswith("/v2/")
    content = {"error": error["message"]} if inference_protocol else {"error": error}
    return JSONResponse(content, status, dict(headers))


def _headers(error: BitswitchError) -> dict[str, str]:
    match error.status:
        case 401:
            return {"www-authenticate": "Bearer"}
        case 409:
            return {"x-should-retry": "false"}
        case 429 | 503:
            seconds = error.retry_after or _RETRY_AFTER
            return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(round(seconds * 1000))}
    return {}


def install(app: FastAPI) -> None:
    """Let ``app`` answer errors in this shape."""
    kinds: list[type[Exception]] = [BitswitchError, StoreUnavailable, *_KINDS]
    for kind in kinds:
        app.add_exception_handler(kind, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    return respond(request.scope, _told(error))


_KINDS: Mapping[type[Exception], tuple[type[BitswitchError], str | None]] = {
    SwitchError: (InvalidSwitchError, "file"),
    InvalidName: (InvalidRequestError, "name"),
    NotStored: (NotFoundError, None),
    TooLarge: (InputTooLongError, "file"),
    QuotaExceeded: (QuotaExceededError, None),
    Conflict: (ConflictError, None),
}
"""The store's exceptions, as ones that a caller can be told, and the field that they are about."""


def _told(error: Exception) -> BitswitchError:
    """``error`` as one that a caller can be told."""
    if isinstance(error, BitswitchError):
        return error
    if isinstance(error, StoreUnavailable):  # whose text may tell where the database is
        _log.error("the store does not answer: %s", error)
        return UnavailableError("The store does not answer now; try again shortly.", retry_after=1.0)
    for kind, (told, param) in _KINDS.items():
        if isinstance(error, kind):
            return told(_sentence(error), param=param)
    raise error


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return respond(request.scope, invalid(error.errors()))


def invalid(errors: Sequence[Mapping[str, Any]]) -> InvalidRequestError:
    """Pydantic's errors as one of ours: the first few, and the field of the first."""
    told = [_field_fault(one) for one in errors[:_MOST_TOLD]]
    left = len(errors) - len(told)
    more = f" ({left} more)" if left else ""
    return InvalidRequestError(" ".join(told) + more, param=_path(errors[0]) or None)


def _path(error: Mapping[str, Any]) -> str:
    return ".".join(str(step) for step in error["loc"] if step not in ("body", "query", "path"))


def _field_fault(error: Mapping[str, Any]) -> str:
    path = _path(error)[:200]
    match error["type"]:
        case "missing":
            return f"{path} is missing."
        case "extra_forbidden":
            return f"{path} is not a field of this request."
        case "input" | "data":
            return f"{path} {error['msg']}."
        case "fields":
            return f"{path or 'The body'} {error['msg']}."
    return f"{path}: {error['msg']}."


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own: no such path, no such method, a form that cannot be read."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    match error.status_code:
        case 404:
            message = f"There is no path {path[:200]!r}."
        case 405:
            message = f"{request.method} is not a method of {path[:200]!r}."
        case _:
            message = f"{error.detail}"
    code = _CODES.get(error.status_code, "invalid_request")
    shape = {"message": message, "type": InvalidRequestError.type, "param": None, "code": code}
    headers = {"allow": _allowed(request)} if error.status_code == 405 else error.headers or {}
    return _respond(request.scope, error.status_code, shape, headers)


def _allowed(request: Request) -> str:
    """The methods of a path, over all routes: Starlette tells those of the first one it comes to."""
    methods: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(methods - {request.method}))
