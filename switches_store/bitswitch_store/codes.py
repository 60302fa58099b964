"""Query vectors as small whole numbers: in a switch, and where the router keeps those of every switch.

Knows nothing of files, recipes or metrics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 63
"""Of the codes. Not above, or the difference of two is no int8 (`query_codes`)."""
_LEAST = float(np.finfo(np.float32).smallest_normal)  # of a step; shorter vectors become nothing


class Codes:
    """Vectors in whole steps, each to its own largest value: a quarter of the memory of float32.

    Args:
        codes: int8 (vectors, dim), from -`LARGEST` to `LARGEST`; may lie in a mapped file.
        steps: float32 (vectors, 1), what 1 stands for in each row.
    """

    def __init__(self, codes: NDArray[np.int8], steps: NDArray[np.float32]) -> None:
        self.codes = codes
        self.steps = steps

    @classmethod
    def of(cls, vectors: NDArray[np.floating[Any]]) -> Codes:
        """Of vectors, (vectors, dim), finite."""
        rows = vectors.astype(np.float32)
        steps = np.abs(rows).max(axis=1, keepdims=True) / np.float32(LARGEST)
        steps[steps < _LEAST] = 0
        return cls(np.rint(rows / np.where(steps > 0, steps, np.inf)).astype(np.int8), steps)

    def __len__(self) -> int:
        return len(self.codes)

    def fault(self) -> str | None:
        """Why `of` would never make these, in a few words; None if it might."""
        steps = self.steps
        ends = [end(self.codes, axis=1, keepdims=True).astype(np.int16) for end in (np.max, np.min)]
        largest = np.maximum(ends[0], -ends[1])
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(steps * np.float32(LARGEST))
        faults = {
            f"a step is not finite, or {LARGEST} times it is not": ~finite,
            "a step is negative": np.signbit(steps),
            f"a step is below {_LEAST:.3g}": (steps > 0) & (steps < _LEAST),
            f"a code is beyond {LARGEST}": largest > LARGEST,
            "a code is not 0 though its step is": (steps == 0) & (largest > 0),
            f"the largest code of a vector is not {LARGEST}": (steps > 0) & (largest < LARGEST),
        }
        return next((fault for fault, found in faults.items() if found.any()), None)

    @property
    def largest(self) -> float:
        """The largest of all magnitudes."""
        return LARGEST * float(self.steps.max())

    def vectors(self) -> NDArray[np.float32]:
        """What they stand for: float32 (vectors, dim)."""
        vectors: NDArray[np.float32] = self.codes * self.steps
        return vectors
