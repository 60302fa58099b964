"""How the threads that compute are set up before there are any, and let go."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numba import njit, prange

import openmp
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


def test_threads_are_let_go_and_come_again():
    openmp.require()

    def divide():
        torch.get_num_threads()  # its OpenMP is numba's too once it is loaded
        _fill(np.empty(1000))
        return openmp.count()

    with ThreadPoolExecutor(1) as one:
        divided = one.submit(divide).result()
        one.submit(let_threads_go).result()
        assert openmp.count() < divided
        assert one.submit(divide).result() == divided


@njit(parallel=True)
def _fill(values):
    for i in prange(len(values)):
        values[i] = i
