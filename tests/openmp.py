"""The threads of this process, those that OpenMP divides work among included."""

from pathlib import Path

import pytest
from numba import get_num_threads, threading_layer

_TASKS = Path("/proc/self/task")


def require():
    """Skip the test where they cannot be counted, or nothing is divided by OpenMP."""
    if not _TASKS.exists():
        pytest.skip("counts threads as Linux does")
    if get_num_threads() == 1 or threading_layer() != "omp":
        pytest.skip("nothing is divided here, or not by OpenMP")


def count():
    """How many there are."""
    return len(list(_TASKS.iterdir()))
