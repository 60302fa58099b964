"""From an `Answer` to what its request leaves behind: headers, metrics, the fields that all lists share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from bitswitch.answer import Answer, Item
from bitswitch.api.wire import MixPart, RouteOut, Usage
from bitswitch.core import Timing, Want


@dataclass(frozen=True)
class Served:
    """What `middleware.Envelope` tells of a request that was answered."""

    want: Want
    timing: Timing
    tokens: int
    abstained: int = 0
    """Inputs that ``auto`` found no switch for."""


def note(request: Request, served: Served) -> None:
    """Leave ``served`` for the envelope."""
    request.state.served = served


def request_id(request: Request) -> str:
    """The id that the envelope gave."""
    return str(request.state.request_id)


def head(request: Request, prefix: str, model: str, tokens: int) -> dict[str, Any]:
    """The fields of `wire.ListOut`."""
    return {
        "id": f"{prefix}-{request_id(request)}",
        "created": int(time.time()),
        "model": model,
        "usage": Usage(prompt_tokens=tokens, total_tokens=tokens),
    }


def answered(answer: Answer, want: Want) -> Served:
    """What to note of an answer."""
    abstained = sum(item.choice is not None and item.choice.abstained for item in answer.items)
    return Served(want, answer.timing, answer.tokens, abstained)


def common_mix(items: Sequence[Item]) -> list[MixPart] | None:
    """The one mix of all items, or None."""
    first = items[0].selection
    same = all(item.selection.mix == first.mix for item in items)
    return MixPart.of(first.parts) if same else None


def item_fields(index: int, item: Item) -> dict[str, Any]:
    """The fields that a datum of any task has."""
    return {
        "index": index,
        "mix": MixPart.of(item.selection.parts),
        "route": None if item.choice is None else RouteOut(**RouteOut.fields_of(item.choice)),
        "truncated": item.truncated,
    }
