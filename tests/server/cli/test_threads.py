"""How the threads that compute are set up before there are any."""

import os
import threading

import pytest

from bitswitch.cli.threads import in_passing, let_threads_doze

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


def test_work_in_passing_is_done_elsewhere_by_a_thread_that_ends():
    thread = in_passing(threading.current_thread)
    assert thread is not threading.current_thread()
    thread.join(10)
    assert not thread.is_alive()


def test_what_work_in_passing_raises_is_the_callers():
    def broken():
        raise SystemExit(3)

    with pytest.raises(SystemExit, match="3"):
        in_passing(broken)
