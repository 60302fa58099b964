"""How fast the model gets through what waits for it, seen from outside: tokens per second while it is busy.

It holds all that a step costs, whatever kind of step, and how well requests go together. Knows nothing of
requests or weights.
"""

from __future__ import annotations

import math
import time

MEMORY = 1.0
"""Seconds of work after which what was seen counts a third."""

_BELIEF = 0.05
"""Seconds of work that the first guess counts for."""


class Pace:
    """For one thread to tell and for any to read.

    Args:
        rate: a first guess, in tokens per second.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._tokens = rate * _BELIEF
        self._seconds = _BELIEF
        self._begun: tuple[float, int] | None = None

    def step(self, tokens: int, *, more: bool, now: float | None = None) -> None:
        """A step begins.

        Args:
            tokens: that it takes up.
            more: whether anybody waits for the one after it: the time until that begins is the model's then.
            now: `time.monotonic()` seconds.
        """
        now = time.monotonic() if now is None else now
        if self._begun is not None:
            begun, done = self._begun
            fading = math.exp((begun - now) / MEMORY)
            self._tokens = self._tokens * fading + done
            self._seconds = self._seconds * fading + now - begun
            self.rate = self._tokens / self._seconds
        self._begun = (now, tokens) if more else None

    def rest(self) -> None:
        """What comes now, until the next step, is no work of the model."""
        self._begun = None
