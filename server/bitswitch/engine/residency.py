"""Which switches are in memory ready to be applied: the least recently used go first.

Reads a switch through ``fetch`` when it is asked for; knows nothing of where that gets it from.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
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


class Residency:
    """Ready switches by digest, within a budget of bytes. Thread-safe.

    Args:
        build: makes a digest's switch ready; called outside the lock, so one slow switch holds up
            nobody else's.
        budget: bytes to keep at most. A switch in use lives on until its user lets go of it, and one
            that alone is larger than the budget is built but not kept.
    """

    def __init__(self, build: Callable[[str], ReadySwitch], *, budget: int) -> None:
        self._build = build
        self._budget = budget
        self._ready: OrderedDict[str, ReadySwitch] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __contains__(self, digest: str) -> bool:
        with self._lock:
            return digest in self._ready

    def find(self, digests: Collection[str]) -> dict[str, ReadySwitch] | None:
        """All of these, if every one is in memory."""
        with self._lock:
            if not all(digest in self._ready for digest in digests):
                return None
            for digest in digests:
                self._ready.move_to_end(digest)
            return {digest: self._ready[digest] for digest in digests}

    def get(self, digest: str) -> ReadySwitch:
        """The switch, built if it is not there. Whatever ``build`` raises goes through."""
        with self._lock:
            found = self._ready.get(digest)
            if found is not None:
                self._ready.move_to_end(digest)
                return found
        built = self._build(digest)
        with self._lock:
            self._drop(digest)  # another thread may have been quicker
            if built.nbytes <= self._budget:
                self._ready[digest] = built
                self._bytes += built.nbytes
            while self._bytes > self._budget:
                self._drop(next(iter(self._ready)))
        return built

    def forget(self, digest: str) -> None:
        """Free a switch's memory; it comes back when it is asked for."""
        with self._lock:
            self._drop(digest)

    def sizes(self) -> dict[str, int]:
        """Bytes by digest, the least recently used first."""
        with self._lock:
            return {digest: ready.nbytes for digest, ready in self._ready.items()}

    def _drop(self, digest: str) -> None:
        dropped = self._ready.pop(digest, None)
        if dropped is not None:
            self._bytes -= dropped.nbytes
