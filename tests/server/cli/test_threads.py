"""How the threads that compute are set up before there are any."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numba import get_num_threads, njit, prange, threading_layer

from bitswitch.cli.threads import let_threads_doze, let_threads_go

GIVEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.fixture
def bare(monkeypatch):
    for name in GIVEN:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_threads_look_for_work_and_then_sleep(bare):
    let_threads_doze()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"  # what other runtimes than GNU's go by
    assert 0 < int(os.environ["GOMP_SPINCOUNT"]) < 300_000  # GNU's own default


@pytest.mark.parametrize("name", GIVEN)
def test_what_the_user_has_set_is_not_overruled(bare, name):
    bare.setenv(name, "7")
    let_threads_doze()
    assert os.environ[name] == "7"
    if name == "OMP_WAIT_POLICY":
        assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux does")
def test_threads_are_let_go_and_come_again():
    if get_num_threads() == 1 or threading_layer() != "omp":
        pytest.skip("nothing is divided here, or not by OpenMP")

    def divide():
        torch.get_num_threads()  # its OpenMP is numba's too once it is loaded
        _fill(np.empty(1000))
        return len(list(Path("/proc/self/task").iterdir()))

    with ThreadPoolExecutor(1) as one:
        divided = one.submit(divide).result()
        one.submit(let_threads_go).result()
        assert len(list(Path("/proc/self/task").iterdir())) < divided
        assert one.submit(divide).result() == divided


@njit(parallel=True)
def _fill(values):
    for i in prange(len(values)):
        values[i] = i
