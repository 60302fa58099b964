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
            # A long step has faded in part itself, or one of a minute would count for minutes.
            left = MEMORY * (1 - fading) / (now - begun) if now > begun else 1.0
            self._tokens = self._tokens * fading + done * left
            self._seconds = self._seconds * fading + (now - begun) * left
            self.rate = self._tokens / self._seconds
        self._begun = now, tokens

    def rest(self, *, now: float | None = None) -> None:
        """Nobody waits. The step that was, if there was one, could have held more: it tells no more than that
        the model is at least as fast. Else a rate that is too low would let in so few that it stayed.

        Args:
            now: `time.monotonic()` seconds.
        """
        now = time.monotonic() if now is None else now
        if self._begun is not None:
            begun, tokens = self._begun
            if tokens > self.rate * (now - begun):
                self.step(0, now=now)
        self._begun = None

    def pause(self) -> None:
        """The model does something else: the step that was tells nothing."""
        self._begun = None
