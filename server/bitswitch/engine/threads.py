"""How many threads a compiled kernel gets. Knows nothing of what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from numba import get_num_threads, set_num_threads

_WAKING = 1.5e-4
"""Seconds of work that are worth a second thread: it sleeps, and takes a third as long to wake up."""


def threads(seconds: float) -> AbstractContextManager[None]:
    """All threads, for work that takes so long on one; for less, this one alone."""
    return nullcontext() if seconds >= _WAKING else alone()


@contextmanager
def alone() -> Iterator[None]:
    """This thread, and no other."""
    most = get_num_threads()
    set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(most)
