"""What is done when the resident weights can no longer be trusted: the base is loaded anew, and not for ever.

For the engine's thread alone; others may read. Knows nothing of weights, queues or requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum

_log = logging.getLogger(__name__)

IN_A_ROW = 3
"""Reloads without a step between them that went well, after which there is no other."""

PAUSE = 1.0
"""Seconds before a second reload in a row; twice that before a third. A disk may come back."""


class Reason(StrEnum):
    """Why the base had to be loaded anew."""

    THREAD = "thread"
    """The engine's own loop raised an error."""
    TRANSITION = "transition"
    """A transition ended halfway, or the way back to the base failed."""
    MEMORY = "memory"
    """The same, for lack of memory."""
    CHECK = "check"
    """The weights were not the base's when they had to be."""


class GaveUpError(RuntimeError):
    """The base was loaded anew as often as it may be in a row; the message says for what."""


class Recovery:
    """Loads the base anew, and counts how often.

    Args:
        reload: does it; gives the seconds that it took, or raises what stood in the way.
        wait: lets so many seconds pass.

    Attributes:
        reloads: how many there have been, those that failed among them, by `Reason`.
        cause: for what the base is being loaded anew right now; None while it is not.
    """

    def __init__(self, reload: Callable[[], float], wait: Callable[[float], object]) -> None:
        self._reload = reload
        self._wait = wait
        self._in_a_row = 0
        self.reloads = dict.fromkeys(map(str, Reason), 0)
        self.cause: str | None = None

    def went_well(self) -> None:
        """A step did: the reload before it, if there was one, did its work."""
        self._in_a_row = 0

    def mend(self, reason: Reason, cause: str) -> None:
        """Load the base anew, again if need be.

        Args:
            cause: what happened, for the log and for whoever asks why nothing is served.

        Raises:
            GaveUpError: this has happened too often in a row.
        """
        self.cause = cause
        while True:
            if self._in_a_row == IN_A_ROW:
                raise GaveUpError(
                    f"the base was loaded anew {IN_A_ROW} times in a row and no step went well;"
                    f" at last: {cause}"
                )
            self._wait(PAUSE * self._in_a_row)
            self._in_a_row += 1
            self.reloads[reason] += 1
            _log.error("the base is loaded anew (%s): %s", reason, cause)
            try:
                seconds = self._reload()
            except Exception as error:  # noqa: BLE001 - the next try may do better
                cause = self.cause = f"{cause}; then loading it anew failed: {error}"
                _log.exception("the base could not be loaded anew")
            else:
                break
        self.cause = None
        _log.warning("the base is back, bit for bit, after %.3f s", seconds)
