"""How many threads the work of one is divided among. Knows nothing of what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from numba import config, get_num_threads, set_num_threads


def claim() -> None:
    """Let this thread divide its work among as many as torch is set to, whatever is set for others later."""
    threads = torch.get_num_threads()
    set_num_threads(min(threads, config.NUMBA_NUM_THREADS))  # the first time, it sets torch's to all cores
    torch.set_num_threads(threads)


@contextmanager
def alone() -> Iterator[None]:
    """Let compiled kernels that this thread calls run in it alone."""
    most = get_num_threads()
    set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(most)
