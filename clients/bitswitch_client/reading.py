"""How the server's JSON becomes the values of `answers`.

A field that is missing raises `LookupError`; one that this client does not know is passed over.
"""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, TypeVar

import httpx

from bitswitch_client.answers import (
    Action,
    Answer,
    Classified,
    Embedded,
    KeyInfo,
    Mix,
    Model,
    Neighbour,
    Part,
    Published,
    Route,
    Sharing,
    State,
    Timing,
    Used,
    Verdict,
)

D = TypeVar("D")
JSON = Mapping[str, Any]


def timing(headers: Mapping[str, str]) -> Timing:
    """From ``x-queue-time`` and the like, which are in milliseconds."""

    def seconds(name: str) -> float:
        return float(headers.get(f"x-{name}-time", math.nan)) / 1000

    return Timing(seconds("queue"), seconds("swap"), seconds("inference"), seconds("total"))


def answer(response: httpx.Response, datum: Callable[[JSON], D]) -> Answer[D]:
    """A list over inputs, put in the inputs' order."""
    body = response.json()
    data = sorted(body["data"], key=lambda one: one["index"])
    return Answer(
        id=body["id"],
        model=body["model"],
        data=tuple(datum(one) for one in data),
        tokens=body["usage"]["total_tokens"],
        timing=timing(response.headers),
    )


def mix(value: list[JSON]) -> Mix:
    """A list of ``{name, version, weight}``."""
    return tuple(Part(part["name"], part["version"], part["weight"]) for part in value)


def route(value: JSON) -> Route:
    """What ``/v1/route`` answers for one input."""
    return Route(
        mix=mix(value["mix"]),
        abstained=value["abstained"],
        distance=value["distance"],
        threshold=value["threshold"],
        confidence=value["confidence"],
        neighbours=tuple(
            Neighbour(one["name"], one["version"], one["share"], one["distance"])
            for one in value["neighbours"]
        ),
    )


def _route_if_any(value: JSON) -> Route | None:
    return None if value["route"] is None else route(value["route"])


def classified(value: JSON) -> Classified:
    """What ``/v1/classify`` answers for one input."""
    return Classified(
        label=value["label"],
        labels=tuple(value["labels"]),
        probs=tuple(value["probs"]),
        mix=mix(value["mix"]),
        route=_route_if_any(value),
        truncated=value["truncated"],
    )


def embedded(value: JSON) -> Embedded:
    """What ``/v1/embeddings`` answers for one input, in base64."""
    return Embedded(
        vector=floats(value["embedding"]),
        mix=mix(value["mix"]),
        route=_route_if_any(value),
        truncated=value["truncated"],
    )


def floats(text: str) -> array[float]:
    """Base64 of little-endian float32 values.

    Raises:
        ValueError: it is not.
    """
    values = array("f")
    values.frombytes(base64.b64decode(text, validate=True))
    if sys.byteorder == "big":
        values.byteswap()
    return values


def model(value: JSON) -> Model:
    """One of ``/v1/models``."""
    return Model(value["id"], value["owned_by"], value["root"], value["parent"])


def published(value: JSON) -> Published:
    """One version of a switch."""
    return Published(
        tenant=value["tenant"],
        name=value["name"],
        version=value["version"],
        digest=value["digest"],
        size=value["size"],
        task=value["task"],
        labels=tuple(value["labels"]),
        aliases=tuple(value["aliases"]),
        public=value["public"],
        pinned=value["pinned"],
        metric=dict(value["metric"]),
        base_digest=value["base_digest"],
        created=datetime.fromisoformat(value["created"]),
    )


def used(value: JSON) -> Used:
    """One row of ``/v1/usage``."""
    return Used(
        id=value["id"],
        day=date.fromisoformat(value["day"]),
        tenant=value["tenant"],
        owner=value["owner"],
        name=value["name"],
        version=value["version"],
        requests=value["requests"],
        inputs=value["inputs"],
        tokens=value["tokens"],
        seconds=value["seconds"],
    )


def action(value: JSON) -> Action:
    """One row of ``/v1/audit``."""
    return Action(
        id=value["id"],
        at=datetime.fromisoformat(value["at"]),
        tenant=value["tenant"],
        key=value["key"],
        action=value["action"],
        target=value["target"],
        digest=value["digest"],
        request_id=value["request_id"],
    )


def sharing(value: JSON) -> Sharing:
    """Who sees a switch."""
    return Sharing(value["name"], value["public"], tuple(value["tenants"]))


def key(value: JSON) -> KeyInfo:
    """Whose key it is."""
    expires = value["expires"]
    return KeyInfo(
        value["id"],
        value["tenant"],
        value["role"],
        None if expires is None else datetime.fromisoformat(expires),
    )


def verdict(value: JSON) -> Verdict:
    """What ``/v1/admin/verify`` found."""
    return Verdict(value["intact"], tuple(value["differing"]), value["checked"], value["seconds"])


def state(value: JSON) -> State:
    """What ``/v1/admin/state`` says."""
    return State(
        ready=value["ready"],
        waiting=value["waiting"],
        running=value["running"],
        mix=tuple((part["digest"], part["weight"]) for part in value["mix"]),
        resident=dict(value["resident"]),
        pinned=tuple(value["pinned"]),
        transitions=value["transitions"],
        steps=dict(value["steps"]),
        journal_bytes=value["journal_bytes"],
        condition=value["condition"],
        reason=value["reason"],
        reloads=value["reloads"],
        failed_checks=value["failed_checks"],
    )
