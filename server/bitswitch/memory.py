"""What the C library keeps of freed memory, given back to the system. Knows nothing of who freed it."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Return freed memory, holes between what is in use included; milliseconds.

    Worth it after work that took much and freed most of it: GNU's library keeps what threads free for them.
    Another library's does nothing.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
