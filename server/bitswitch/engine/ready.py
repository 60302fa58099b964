"""A switch in memory, in the form in which it is applied. Knows nothing of who keeps it there."""

from __future__ import annotations

from dataclasses import dataclass

from bitswitch.base.heads import ClassificationHead
from bitswitch.engine.planes import Planes


@dataclass(frozen=True, eq=False)
class ReadySwitch:
    """A switch in the form the kernel and the model take."""

    planes: Planes
    head: ClassificationHead | None

    @property
    def nbytes(self) -> int:
        """Bytes of memory held, head included."""
        return self.planes.nbytes + (self.head.nbytes if self.head else 0)
