"""What the engine's work costs on this machine, learnt while it works: a straight line for each kind.

Knows nothing of requests or weights: sizes and seconds go in, seconds come out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_FADING = 0.98
"""What an observation still weighs when the next one comes: some fifty of them count."""

_HELD_UP = 2.0
"""How many times what was expected an observation counts for at most."""

_LEAST = 1e-6
"""Seconds; what takes less is told apart no further."""

_BLUR = 0.2
"""The same as a share of a pass, where it is what that took longer than another. With passes that vary by a
tenth or a fifth the cost comes out right so (simulated: .74 to .99 of it); at 0 it could be taken for nothing
for good.
"""

_BELIEF = 4.0
"""How many observations the first guess of the line's shape weighs, for good."""


class Line:
    """``seconds = fixed + slope · size`` by least squares of the relative errors, the latest observations
    counting most.

    What is slower than expected weighs less, for work that was held up says little of what it costs. How the
    guess divides a cost into its two parts is never quite given up, only its height is: sizes all alike
    could not tell the two apart, and a machine that is busy gets slower in both.

    Args:
        fixed: a first guess, in seconds.
        slope: a first guess, in seconds per unit of size.
        size: a usual size, so that the guess has its weight there.
    """

    def __init__(self, *, fixed: float, slope: float, size: float) -> None:
        self.fixed = fixed
        self.slope = slope
        self._unit = size
        self._guess = (fixed, slope * size)
        self._seen = [0.0] * len(_moments(0.0, 0.0, 0.0))

    def __call__(self, size: float) -> float:
        """Seconds that work of this size will take."""
        return self.fixed + self.slope * size

    def size(self, seconds: float) -> float:
        """Of the largest work that takes no longer; below 0 where nothing is so quick."""
        return (seconds - self.fixed) / self.slope if self.slope else math.inf

    def observe(self, size: float, seconds: float, *, within: float = 0.0) -> None:
        """Work of this size took so long.

        Args:
            within: where it is by so much that something took longer, how long that took. The error is a
                share of this then, and a difference that comes out at nothing tells hardly more than others.
        """
        x = size / self._unit
        expected = self(size)
        seconds = min(seconds, _HELD_UP * max(expected, self._guess[0] + self._guess[1] * x))
        new = _moments(x, seconds, 1 / max(seconds, expected, _BLUR * within, _LEAST) ** 2)
        self._seen = [_FADING * old + one for old, one in zip(self._seen, new, strict=True)]
        n, x, y, xx, xy = (a + b for a, b in zip(self._seen, self._believed(), strict=True))
        slope = (n * xy - x * y) / (n * xx - x * x)
        slope = min(max(slope, 0.0), xy / xx)  # neither part of a cost is below nothing
        self.fixed = max((y - slope * x) / n, 0.0)
        self.slope = slope / self._unit

    def _believed(self) -> tuple[float, ...]:
        """The guess as two observations, at the height that was seen."""
        n, x, y, xx, xy = self._seen
        fixed, slope = self._guess
        square = fixed * fixed * n + 2 * fixed * slope * x + slope * slope * xx
        height = (fixed * y + slope * xy) / square if square else 1.0
        low, high = height * fixed, height * (fixed + slope)
        weight = _BELIEF / 2 / max(high, _LEAST) ** 2
        ends = (_moments(0.0, low, weight), _moments(1.0, high, weight))
        return tuple(map(sum, zip(*ends, strict=True)))


def _moments(x: float, y: float, weight: float) -> tuple[float, float, float, float, float]:
    return weight, weight * x, weight * y, weight * x * x, weight * x * y


@dataclass(frozen=True)
class Costs:
    """The three things that the engine spends time on.

    Attributes:
        forward: a pass of the model, by padded tokens.
        transition: by weights put back plus weights put in.
        overlay: what a pass takes longer where rows bring their own switches, by the sum over the rows of
            tokens times active weights.
    """

    forward: Line = field(default_factory=lambda: Line(fixed=5e-3, slope=1e-4, size=256))
    transition: Line = field(default_factory=lambda: Line(fixed=5e-4, slope=4e-9, size=1e6))
    overlay: Line = field(default_factory=lambda: Line(fixed=1e-3, slope=5e-11, size=1e8))

    def enough(self, loss: float, *, active: float | None = None) -> float:
        """Padded tokens above which a larger pass saves less than this share of its time.

        Args:
            loss: that share.
            active: where rows bring their own switches, how many weights these touch for a token.
        """
        fixed, slope = self.forward.fixed, self.forward.slope
        if active is not None:
            fixed += self.overlay.fixed
            slope += self.overlay.slope * active
        return fixed / slope * (1 - loss) / loss if slope else math.inf

    def waste(self) -> float:
        """Padded tokens that cost as much as one more pass."""
        return self.forward.size(2 * self.forward.fixed)
