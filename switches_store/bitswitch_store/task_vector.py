"""The task vector τ: what fine-tuning added to each weight, read one tensor at a time.

Knows nothing of how τ is made into bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bitswitch_store.checkpoint import Checkpoint, CheckpointError

Progress = Callable[[str, int, int], None]


class TaskVector:
    """``fine-tune − base`` in float32, by the base's tensor names.

    Scalars (0-d tensors) are left out: no switch touches them.

    Attributes:
        names: sorted.
    """

    def __init__(
        self,
        base: Checkpoint,
        finetuned: Checkpoint,
        pairs: Sequence[tuple[str, str]],
        progress: Progress | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            base: the base.
            finetuned: its fine-tune.
            pairs: (name in the base, name in the fine-tune), equal shapes.
            progress: told (name, how many-th, of how many) at every tensor read; a rule that reads the
                vector more than once counts anew each time.
        """
        self._base = base
        self._finetuned = finetuned
        self._partner = {name: partner for name, partner in pairs if base.shape(name)}
        self._progress = progress
        self.names = tuple(sorted(self._partner))
        self._position = {name: i for i, name in enumerate(self.names, start=1)}

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape."""
        return self._base.shape(name)

    def numel(self, name: str) -> int:
        """How many weights the tensor has."""
        return math.prod(self.shape(name))

    def read(self, name: str) -> NDArray[np.float32]:
        """τ of one tensor, float32 in its shape, finite.

        Raises:
            CheckpointError: a weight, or the difference, is not finite.
        """
        base, finetuned = self._base.tensor(name), self._finetuned.tensor(self._partner[name])
        with np.errstate(invalid="ignore", over="ignore"):
            tau = finetuned - base
        if not np.isfinite(tau).all():
            whose, where = "fine-tune", self._partner[name]
            if np.isfinite(finetuned).all() and not np.isfinite(base).all():
                whose, where = "base", name
            raise CheckpointError(f"{where} of the {whose} has a weight that is not finite or too large")
        if self._progress is not None:
            self._progress(name, self._position[name], len(self.names))
        return tau
