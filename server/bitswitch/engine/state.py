"""What the engine tells of itself: plain values, taken at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bitswitch.core import Mix


@dataclass(frozen=True)
class Verdict:
    """Whether the resident weights are the base's, bit for bit.

    Attributes:
        differing: parameters whose bytes are not those that were loaded.
        checked: how many parameters were compared.
        seconds: how long it took.
    """

    intact: bool
    differing: tuple[str, ...]
    checked: int
    seconds: float


class Condition(StrEnum):
    """What an engine is about."""

    STARTING = "starting"
    READY = "ready"
    MENDING = "mending"
    """The base is being loaded anew; requests wait."""
    STOPPING = "stopping"
    """What was taken is answered; whoever can should ask elsewhere."""
    STOPPED = "stopped"
    FAILED = "failed"
    """For good: it takes a new process."""


@dataclass(frozen=True)
class EngineState:
    """What goes on inside, at one moment.

    Attributes:
        waiting, running: requests.
        mix: what the weights are set to.
        resident: bytes of each switch in memory, by digest.
        pinned: digests of the switches that stay in memory, sorted.
        steps: how many there have been, by what was done: ``stay`` at the weights as they were, ``switch`` to
            another mix first, or ``overlay`` many mixes over the base.
        journal_bytes: base values saved at present.
        condition: what the engine is about.
        reason: why it is not ready, for the operator; empty while it is.
        reloads: how often the base was loaded anew, by `recovery.Reason`.
        failed_checks: how often the weights were not the base's when they had to be.
    """

    waiting: int
    running: int
    mix: Mix
    resident: Mapping[str, int]
    pinned: tuple[str, ...]
    transitions: int
    steps: Mapping[str, int]
    journal_bytes: int
    condition: Condition
    reason: str
    reloads: Mapping[str, int]
    failed_checks: int

    @property
    def ready(self) -> bool:
        """Whether requests are taken and answered."""
        return self.condition is Condition.READY
