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
from bitswitch.selection import Part
from bitswitch.tenants.usage import BASE, Switch, Use


@dataclass(frozen=True)
class Served:
    """What `middleware.Envelope` tells of a request that was answered."""

    want: Want
    timing: Timing
    tokens: int
    inputs: int
    model: str
    """As resolved."""
    uses: tuple[tuple[Switch, Use], ...]
    """What each switch was used for; not all of it together."""
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


def answered(answer: Answer, want: Want, tenant: str) -> Served:
    """What to note of an answer to ``tenant``."""
    return Served(
        want,
        answer.timing,
        answer.tokens,
        len(answer.items),
        answer.model,
        tuple(_uses(answer, tenant).items()),
        abstained=sum(item.choice is not None and item.choice.abstained for item in answer.items),
    )


def _uses(answer: Answer, tenant: str) -> dict[Switch, Use]:
    """What each switch was used for. A mix counts whole for each of its parts: each was needed for all of it.

    A pass's seconds go to the inputs by their tokens.
    """
    uses: dict[Switch, Use] = {}
    for item in answer.items:
        tokens = item.row.length
        seconds = answer.timing.forward * tokens / max(answer.tokens, 1)
        for switch in [_switch(part, tenant) for part in item.selection.parts] or [BASE]:
            more = Use(0 if switch in uses else 1, 1, tokens, seconds)
            uses[switch] = uses[switch] + more if switch in uses else more
    return uses


def _switch(part: Part, tenant: str) -> Switch:
    owner, _, name = part.name.rpartition("/")
    return owner or tenant, name, part.version


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
        "truncated": item.row.truncated,
    }
