"""Logs: one line per event, JSON or for people; never what was asked, never a key.

Takes in the standard library's loggers as well (ours, uvicorn's; start that with ``log_config=None``).
Knows nothing of what is logged. It drops fields by name at any depth; it cannot know what a message or
an exception's text holds, so texts and keys do not belong there either.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

PRIVATE = frozenset(
    {"authorization", "api_key", "x_api_key", "key", "input", "inputs", "text", "texts", "prompt", "messages"}
)
"""Field names that are dropped, in any case, ``-`` and ``_`` being the same."""

_HANDLER = "bitswitch"


def configure(level: str, *, json: bool, stream: TextIO | None = None) -> None:
    """Set up logging for the process; a second call replaces the first one's doing.

    Args:
        level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        json: one JSON object per line; otherwise lines for people.
        stream: where to; standard error where none is given.

    Raises:
        ValueError: an unknown level.
    """
    if level.lower() not in ("debug", "info", "warning", "error", "critical"):
        raise ValueError(f"the log level is {level!r}; it is debug, info, warning, error or critical")
    every: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # A plain traceback: the prettier ones show local variables, and those hold the inputs.
        structlog.processors.format_exc_info,
        drop_private,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *every,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    target = stream if stream is not None else sys.stderr
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(target)
    handler.set_name(_HANDLER)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=every,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for earlier in [one for one in root.handlers if one.get_name() == _HANDLER]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level.upper())


def drop_private(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: `PRIVATE` fields are left out, in nested mappings and lists too."""
    return {name: _without_private(value) for name, value in event.items() if not _is_private(name)}


def _without_private(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _without_private(inner) for name, inner in value.items() if not _is_private(name)}
    if isinstance(value, list | tuple):
        return [_without_private(inner) for inner in value]
    return value


def _is_private(name: object) -> bool:
    return isinstance(name, str) and name.lower().replace("-", "_") in PRIVATE
