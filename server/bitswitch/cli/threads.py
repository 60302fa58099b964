"""How threads that compute wait for their next piece of work: awake for a moment, then asleep.

Knows nothing of what is computed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")

_SPINS = 10_000
"""Looks for work before a thread falls asleep: .1 to .5 ms, as processors take .01 to .05 µs for one. Longer
than what lies between two layers of a pass, far shorter than what lies between two passes.
"""


def let_threads_doze() -> None:
    """Let OpenMP's threads look for work a moment before they sleep. Before torch or numba is loaded, or it
    changes nothing.

    To wake a thread takes as long as a small layer does. By default they would spin for milliseconds, and
    while they do, the event loop and whoever else shares the machine wait for their cores. Who sets
    ``OMP_WAIT_POLICY`` or ``GOMP_SPINCOUNT`` in the environment is not overruled.

    GNU's OpenMP lets none spin while there are more of its threads than cores, busy or not, and every thread
    that has ever divided its work among others keeps these for as long as it lives. So in a server the
    engine's thread has to be the only one that does; see `in_passing`.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))


def in_passing(work: Callable[[], _T]) -> _T:
    """What ``work`` returns, done by a thread that ends with it, as do those that it divides its work among.

    Ctrl-C does not wait for it.

    Raises:
        BaseException: what ``work`` raised.
    """
    done: Future[_T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            done.set_exception(error)

    threading.Thread(target=run, name="bitswitch-passing", daemon=True).start()
    return done.result()
