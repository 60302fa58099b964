"""Collects the store's garbage from time to time, in a thread of its own.

Knows when, not what. Any number of servers on one store may do so at once.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

from bitswitch_store.store import Store, StoreError

_log = logging.getLogger(__name__)

_LONGEST_WAIT = 600.0


class Collector:
    """Removes the files that nothing has named for a while.

    Args:
        after: seconds for which nothing has to have named one. It looks as often, but every ten minutes at
            least; the first time after that time, so that a start is not slower for it.
    """

    def __init__(self, store: Store, *, after: float) -> None:
        self._store = store
        self._after = timedelta(seconds=after)
        self._wait = min(after, _LONGEST_WAIT)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a file that is being removed is waited for, the others are left for next time."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._wait):
            try:
                gone = self._store.collect(older_than=self._after, stopping=self._stopping.is_set)
            except StoreError as error:
                _log.warning("the store's garbage is not collected now: %s", error)
            except Exception:  # noqa: BLE001 - a fault of ours is seen, and does not end the collecting
                _log.exception("the store's garbage is not collected now")
            else:
                if gone:
                    _log.info("collected %d files that no switch has any more", len(gone))
