"""What the engine's work costs on this machine, learnt while it works: a straight line for each kind.

Knows nothing of requests or weights: sizes and seconds go in, seconds come out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_FADING = 0.98
"""What an observation still weighs when the next one comes: some fifty of them count."""

_BELIEF = 1e-3
"""What the first guess weighs for good, so that sizes all alike still give a line."""


class Line:
    """``seconds = fixed + slope · size`` by least squares, the latest observations counting most.

    Args:
        fixed: a first guess, in seconds.
        slope: a first guess, in seconds per unit of size.
        size: a usual size, so that the guess has its weight there.
    """

    def __init__(self, *, fixed: float, slope: float, size: float) -> None:
        self.fixed = fixed
        self.slope = slope
        self._unit = size
        ends = ((0.0, fixed), (1.0, fixed + slope * size))
        self._belief = [_BELIEF * sum(part) for part in zip(*(_moments(x, y) for x, y in ends), strict=True)]
        self._seen = [0.0] * len(self._belief)

    def __call__(self, size: float) -> float:
        """Seconds that work of this size will take."""
        return self.fixed + self.slope * size

    def size(self, seconds: float) -> float:
        """Of the largest work that takes no longer; below 0 where nothing is so quick."""
        return (seconds - self.fixed) / self.slope if self.slope else math.inf

    def observe(self, size: float, seconds: float) -> None:
        """Work of this size took so long."""
        new = _moments(size / self._unit, seconds)
        self._seen = [_FADING * old + one for old, one in zip(self._seen, new, strict=True)]
        n, x, y, xx, xy = (a + b for a, b in zip(self._seen, self._belief, strict=True))
        slope = (n * xy - x * y) / (n * xx - x * x)
        slope = min(max(slope, 0.0), xy / xx)  # neither part of a cost is below nothing
        self.fixed = max((y - slope * x) / n, 0.0)
        self.slope = slope / self._unit


def _moments(x: float, y: float) -> tuple[float, float, float, float, float]:
    return 1.0, x, y, x * x, x * y


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

    def enough(self, loss: float) -> float:
        """Padded tokens above which a larger pass saves less than this share of its time."""
        return self.waste() * (1 - loss) / loss

    def waste(self) -> float:
        """Padded tokens that cost as much as one more pass."""
        return self.forward.size(2 * self.forward.fixed)
