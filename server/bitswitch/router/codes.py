"""The query vectors of one switch as the router keeps them: 8 bits a value. Knows nothing of metrics or
views.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Codes:
    """The query vectors of one switch in 8 bits a value, each to its own largest value.

    A step is 1/127 of that; a router keeps those of every switch, in a quarter of the memory of float32.

    Args:
        codes: int8 (queries, dim); may lie in a file that is mapped into memory.
        steps: float32 (queries, 1), what 1 stands for in each row.
    """

    def __init__(self, codes: NDArray[np.int8], steps: NDArray[np.float32]) -> None:
        self.codes = codes
        self.steps = steps

    @classmethod
    def of(cls, vectors: NDArray[np.floating[Any]]) -> Codes:
        """Of vectors, (queries, dim), finite."""
        rows = vectors.astype(np.float32)
        steps = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
        return cls(np.rint(rows / np.where(steps > 0, steps, 1)).astype(np.int8), steps)

    def __len__(self) -> int:
        return len(self.codes)

    def vectors(self) -> NDArray[np.float32]:
        """What they stand for: float32 (queries, dim)."""
        vectors: NDArray[np.float32] = self.codes * self.steps
        return vectors
