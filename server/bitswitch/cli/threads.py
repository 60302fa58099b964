"""How threads that compute wait for their next piece of work: asleep.

Knows nothing of what is computed.
"""

from __future__ import annotations

import os


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait. Before torch or numba is loaded, or it changes nothing.

    torch and numba have a pool of threads each. By default a pool that waits spins for milliseconds, and
    while it does, the other pool, the event loop and whoever else shares the machine wait for its cores. Who
    sets ``OMP_WAIT_POLICY`` in the environment is not overruled.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
