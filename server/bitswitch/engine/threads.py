"""How many threads a compiled kernel gets. Knows nothing of what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from numba import get_num_threads, set_num_threads


@contextmanager
def alone() -> Iterator[None]:
    """This thread, and no other."""
    most = get_num_threads()
    set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(most)
