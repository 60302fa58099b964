"""What the engine tells of itself: plain values, taken at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
        ready: whether requests are taken.
    """

    waiting: int
    running: int
    mix: Mix
    resident: Mapping[str, int]
    pinned: tuple[str, ...]
    transitions: int
    steps: Mapping[str, int]
    journal_bytes: int
    ready: bool
