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
from starlette.types import Scope

from bitswitch.errors import (
    BitswitchError,
    ConflictError,
    InvalidRequestError,
    InvalidSwitchError,
    NotFoundError,
    UnavailableError,
)
from bitswitch_store.store import Conflict, InvalidName, NotStored, StoreUnavailable
from bitswitch_store.switch import SwitchError

_MOST_TOLD = 3
_CODES = {404: "not_found", 405: "method_not_allowed"}
_RETRY_AFTER = 1.0
_AWAY = 5.0
"""Seconds after which a store that was away is asked again."""

_log = logging.getLogger(__name__)


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
    for kind in (BitswitchError, SwitchError, Conflict, InvalidName, NotStored, StoreUnavailable):
        app.add_exception_handler(kind, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    return respond(request.scope, _told(error))


def _told(error: Exception) -> BitswitchError:
    """``error`` as one that a caller can be told."""
    match error:
        case BitswitchError():
            return error
        case SwitchError():
            return InvalidSwitchError(_sentence(error), param="file")
        case InvalidName():
            return InvalidRequestError(_sentence(error), param="name")
        case NotStored():
            return NotFoundError(_sentence(error))
        case StoreUnavailable():
            # What it says names hosts; whoever runs this finds it in the log.
            _log.error("the store is away: %s", error)
            return UnavailableError(
                "The store does not answer now; try again in a moment.", retry_after=_AWAY
            )
        case Conflict():
            return ConflictError(_sentence(error))
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
    return _respond(request.scope, error.status_code, shape, error.headers or {})
