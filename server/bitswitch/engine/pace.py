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

    def step(self, tokens: int, *, now: float | None = None) -> None:
        """A step begins; unless the model came to `rest`, all time since the last one began was that one's.

        Args:
            tokens: that it takes up.
            now: `time.monotonic()` seconds.
        """
        now = time.monotonic() if now is None else now
        if self._begun is not None:
            begun, done = self._begun
            fading = math.exp((begun - now) / MEMORY)
            self._tokens = self._tokens * fading + done
            self._seconds = self._seconds * fading + now - begun
            self.rate = self._tokens / self._seconds
        self._begun = now, tokens

    def rest(self) -> None:
        """Nobody waits: the step that was, if there was one, tells nothing: it could have held more."""
        self._begun = None
