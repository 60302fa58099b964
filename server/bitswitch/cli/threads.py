"""How threads that compute wait for their next piece of work: awake for a moment, then asleep.

Knows nothing of what is computed.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_SPINS = 10_000
"""Looks for work before a thread falls asleep: .1 to .5 ms, as processors take .01 to .05 µs for one. Longer
than what lies between two layers of a pass, far shorter than what lies between two passes.
"""

SETTINGS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(_SPINS)}
"""What `let_threads_doze` puts into the environment."""

_HARD = 2
"""OpenMP's ``omp_pause_hard``: nothing is kept."""


def let_threads_doze() -> None:
    """Let OpenMP's threads look for work a moment before they sleep. Before torch or numba is loaded, or it
    changes nothing.

    To wake a thread takes as long as a small layer does. By default they would spin for milliseconds, and
    while they do, the event loop and whoever else shares the machine wait for their cores. Who sets
    ``OMP_WAIT_POLICY`` or ``GOMP_SPINCOUNT`` in the environment is not overruled.

    GNU's OpenMP lets none spin while there are more of its threads than cores, busy or not, and every thread
    that has ever divided its work among others keeps these for as long as it lives. So in a server the
    engine's thread has to be the only one that does; see `let_threads_go`.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)


def let_threads_go() -> None:
    """End the threads that this one has divided its work among so far; new ones come if it does so again.

    Where OpenMP is older than 5.0, or not to be found, they stay.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).omp_pause_resource_all(_HARD)
