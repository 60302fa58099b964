"""Query vectors in 8 bits a value: in a switch's file, and where the router keeps those of every switch.

Knows nothing of files, recipes or metrics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = 127


class Codes:
    """Vectors in 8 bits a value, each to its own largest value: a quarter of the memory of float32.

    Args:
        codes: int8 (vectors, dim), from -127 to 127; may lie in a file that is mapped into memory.
        steps: float32 (vectors, 1), what 1 stands for in each row.
    """

    def __init__(self, codes: NDArray[np.int8], steps: NDArray[np.float32]) -> None:
        self.codes = codes
        self.steps = steps

    @classmethod
    def of(cls, vectors: NDArray[np.floating[Any]]) -> Codes:
        """Of vectors, (vectors, dim), finite."""
        rows = vectors.astype(np.float32)
        steps = np.abs(rows).max(axis=1, keepdims=True) / np.float32(_LARGEST)
        return cls(np.rint(rows / np.where(steps > 0, steps, 1)).astype(np.int8), steps)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def canonical(self) -> bool:
        """Whether `of` can have made them: a row's largest value is 127 steps, or it is all zero."""
        if not (np.isfinite(self.steps).all() and (self.steps >= 0).all()):
            return False
        highest, lowest = (
            end(self.codes, axis=1, keepdims=True).astype(np.int16) for end in (np.max, np.min)
        )
        largest = np.maximum(highest, -lowest)
        return bool((largest == np.where(self.steps > 0, _LARGEST, 0)).all())

    @property
    def largest(self) -> float:
        """The largest of all magnitudes."""
        return _LARGEST * float(self.steps.max())

    def vectors(self) -> NDArray[np.float32]:
        """What they stand for: float32 (vectors, dim)."""
        vectors: NDArray[np.float32] = self.codes * self.steps
        return vectors
