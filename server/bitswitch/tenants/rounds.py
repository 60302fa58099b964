"""Small work that is done every second, in a thread of its own. Knows nothing of what it is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Rounds:
    """Does each piece of work once a second, from `start` to `stop`, and once more at each of them.

    A piece that fails is logged, once until it succeeds again, and does not keep the others from theirs.
    """

    def __init__(self, *work: Callable[[], object], seconds: float = 1.0) -> None:
        self._work = work
        self._seconds = seconds
        self._failing: set[Callable[[], object]] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rounds", daemon=True)

    def start(self) -> None:
        """All of it once, then again every second."""
        self._once()
        self._thread.start()

    def stop(self) -> None:
        """All of it once more, and no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._once()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            self._once()

    def _once(self) -> None:
        for piece in self._work:
            try:
                piece()
            except Exception:  # noqa: BLE001 - the thread goes on: a database that is away comes back
                if piece not in self._failing:
                    self._failing.add(piece)
                    _log.exception("%s failed; it is tried again every second", piece)
            else:
                self._failing.discard(piece)
