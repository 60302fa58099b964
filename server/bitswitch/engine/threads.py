"""How many threads the work of one is divided among. Knows nothing of what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from numba import config, get_num_threads, set_num_threads, threading_layer


class ThreadsError(ValueError):
    """Compiled kernels cannot be run here as a server has to; one sentence says what is missing."""


def claim() -> None:
    """Let this thread divide its work among as many as torch is set to, whatever is set for others later.

    Raises:
        ThreadsError: numba found nothing to divide work with but its own pool. That ends the process when two
            threads use it at once, as the engine's does and the one that makes switches ready.
    """
    threads = torch.get_num_threads()
    set_num_threads(min(threads, config.NUMBA_NUM_THREADS))  # the first time, it sets torch's to all cores
    torch.set_num_threads(threads)
    if threading_layer() == "workqueue":
        raise ThreadsError(
            "numba finds no OpenMP library on this system; install it (Debian and Ubuntu: apt-get install"
            " libgomp1; Fedora: dnf install libgomp; elsewhere see numba's page on threading layers)"
        )


@contextmanager
def alone() -> Iterator[None]:
    """Let compiled kernels that this thread calls run in it alone."""
    most = get_num_threads()
    set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(most)
