"""Looking into the running server: is the base what was loaded, and what is going on."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from bitswitch.api.door import Operating
from bitswitch.api.parts import House, Who
from bitswitch.api.wire import Outgoing

router = APIRouter(route_class=Operating, tags=["admin"])


class BaseOut(Outgoing):
    """The resident base."""

    architecture: str
    digest: str


class VerifyResponse(Outgoing):
    """Whether the resident weights are the base's, bit for bit."""

    object: Literal["verification"] = "verification"
    intact: bool
    differing: list[str]
    checked: int
    base: BaseOut
    seconds: float


class WeightedDigest(Outgoing):
    """One switch of the mix that the weights are set to."""

    digest: str
    weight: float


class StateResponse(Outgoing):
    """What goes on right now."""

    object: Literal["state"] = "state"
    ready: bool
    condition: str
    reason: str
    waiting: int
    running: int
    mix: list[WeightedDigest]
    resident: dict[str, int]
    pinned: list[str]
    transitions: int
    steps: dict[str, int]
    journal_bytes: int
    reloads: dict[str, int]
    failed_checks: int


@router.get("/v1/admin/verify", summary="Prove that the base is unchanged")
def verify(house: House, who: Who) -> VerifyResponse:
    """Sets the weights back to the base's, digests them, and compares with what was loaded.

    Where they differ, the base has been loaded anew when this answers.
    """
    verdict = house.verify()
    return VerifyResponse(
        intact=verdict.intact,
        differing=list(verdict.differing),
        checked=verdict.checked,
        base=BaseOut(architecture=house.base_identity.architecture, digest=house.base_identity.digest),
        seconds=verdict.seconds,
    )


@router.get("/v1/admin/state", summary="See what goes on in the engine")
def state(house: House, who: Who) -> StateResponse:
    """Requests waiting and running, the weights' mix, the switches in memory."""
    now = house.state()
    return StateResponse(
        ready=now.ready,
        condition=now.condition,
        reason=now.reason,
        waiting=now.waiting,
        running=now.running,
        mix=[WeightedDigest(digest=digest, weight=weight) for digest, weight in now.mix],
        resident=dict(now.resident),
        pinned=list(now.pinned),
        transitions=now.transitions,
        steps=dict(now.steps),
        journal_bytes=now.journal_bytes,
        reloads=dict(now.reloads),
        failed_checks=now.failed_checks,
    )
