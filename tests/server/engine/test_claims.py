"""Whose work is divided among how many threads."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from numba import config, get_num_threads

from bitswitch.engine.threads import alone, claim


@pytest.fixture
def thread():
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as one:
        yield one
    torch.set_num_threads(before)  # what threads born later begin with


@pytest.mark.parametrize("threads", [1, 2, 10_000])
def test_what_is_claimed_is_torchs_and_stays(thread, threads):
    thread.submit(torch.set_num_threads, threads).result()
    thread.submit(claim).result()
    torch.set_num_threads(3)
    assert thread.submit(torch.get_num_threads).result() == threads
    assert thread.submit(get_num_threads).result() == min(threads, config.NUMBA_NUM_THREADS)


def test_alone_is_for_a_while_and_for_its_thread(thread):
    most = thread.submit(get_num_threads).result()

    def within():
        with alone():
            return get_num_threads(), ThreadPoolExecutor(1).submit(get_num_threads).result()

    assert thread.submit(within).result() == (1, most)
    assert thread.submit(get_num_threads).result() == most


def test_a_pool_that_two_threads_must_not_use_at_once_is_refused():
    """What numba takes where no OpenMP library is found, as in slim container images."""
    script = "from bitswitch.engine.threads import claim; claim()"
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ThreadsError: numba finds no OpenMP library" in done.stderr
