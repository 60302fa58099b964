"""Who waits, and whose turn it is: limits, deadlines, cancellation, and what is not in memory yet."""

import threading
import time

import pytest

from bitswitch.core import Mix
from bitswitch.engine.queue import Queue
from bitswitch.engine.schedule import Step
from bitswitch.errors import DeadlineExceededError, OverloadedError, UnavailableError
from jobs import A, B, job, names


def oldest(waiting):
    """A scheduler that does one job at a time."""
    return Step((waiting[0][0],), waiting[0][0].request.mix)


def everybody(waiting):
    return Step(tuple(one for line in waiting for one in line), Mix(), overlaid=True)


def filled(*jobs, limit=100):
    waiting = Queue(limit=limit)
    for one in jobs:
        waiting.put(one)
    return waiting


def test_tenants_take_turns_and_the_oldest_goes_first():
    backlog = [job(f"big{i}", tenant="big") for i in range(5)]
    waiting = filled(*backlog, job("small0", B, tenant="small"), job("small1", B, tenant="small"))
    order = [names(waiting.take(0, oldest))[0] for _ in range(7)]
    assert order == ["big0", "small0", "big1", "small1", "big2", "big3", "big4"]
    assert waiting.take(0, oldest) is None


def test_who_comes_back_after_a_turn_of_others_is_next():
    waiting = filled(*(job(f"big{i}", tenant="big") for i in range(4)), job("small0", tenant="small"))
    assert [names(waiting.take(0, oldest))[0] for _ in range(3)] == ["big0", "small0", "big1"]
    waiting.put(job("small1", tenant="small"))  # it has had its turn before `big` had its last one
    assert names(waiting.take(0, oldest)) == ["small1"]
    assert names(waiting.take(0, oldest)) == ["big2"]


def test_the_scheduler_sees_who_can_be_served_by_tenant():
    seen = []

    def look(waiting):
        seen.extend([[one.request.id for one in line] for line in waiting])
        return oldest(waiting)

    waiting = filled(
        job("1", tenant="x"), job("2", tenant="y", ready=False), job("3", tenant="x"), job("4", tenant="z")
    )
    waiting.take(0, look)
    assert seen == [["1", "3"], ["4"]]


def test_what_is_taken_is_gone():
    waiting = filled(job("1", tenant="x"), job("2", tenant="y"), job("3", tenant="x"))
    assert sorted(names(waiting.take(0, everybody))) == ["1", "2", "3"]
    assert len(waiting) == 0


def test_one_more_than_the_limit_is_refused_and_a_place_gets_free():
    waiting = filled(job("1"), job("2", B), limit=2)
    with pytest.raises(OverloadedError, match="2 requests are waiting") as refused:
        waiting.put(job("3"))
    assert refused.value.retry_after == 1.0
    waiting.take(0, oldest)
    waiting.put(job("4"))
    assert len(waiting) == 2


def test_what_nobody_waits_for_is_dropped():
    late = job("late", deadline=time.monotonic() - 1)
    gone = job("gone")
    gone.future.cancel()
    waiting = filled(late, gone, job("alive"))
    assert names(waiting.take(0, everybody)) == ["alive"]
    with pytest.raises(DeadlineExceededError, match="longer than it may"):
        late.future.result(0)
    assert len(waiting) == 0


def test_a_job_whose_switch_is_not_in_memory_keeps_its_place():
    cold = job("cold", A, ready=False)
    waiting = filled(cold, job("warm", B))
    assert names(waiting.take(0, oldest)) == ["warm"]
    assert waiting.take(0, oldest) is None
    waiting.make_ready(cold, {})
    assert names(waiting.take(0, oldest)) == ["cold"]


def test_take_waits_and_is_woken():
    waiting = Queue(limit=1)
    for wake in (lambda: waiting.put(job("1")), waiting.wake, waiting.close):
        timer = threading.Timer(0.05, wake)
        timer.start()
        started = time.monotonic()
        waiting.take(None, oldest)
        assert time.monotonic() - started < 5
        timer.join()


def test_closed_takes_no_more_and_hands_out_the_rest():
    waiting = filled(job("1"))
    waiting.close()
    with pytest.raises(UnavailableError):
        waiting.put(job("2"))
    assert not waiting.closed
    assert names(waiting.take(None, oldest)) == ["1"]
    assert waiting.closed
    assert waiting.take(None, oldest) is None


def test_emptying_gives_everybody_ready_or_not():
    waiting = filled(job("1", tenant="x"), job("2", tenant="y", ready=False))
    assert [one.request.id for one in waiting.empty()] == ["1", "2"]
    assert len(waiting) == 0


def test_a_job_that_failed_meanwhile_is_not_served():
    failed, late = job("failed", tenant="b"), job("late", tenant="c", deadline=time.monotonic() - 1)
    waiting = filled(job("first", tenant="a"), failed, late, job("last", tenant="d"))
    failed.fail(OSError("the blob is corrupt"))
    assert names(waiting.take(0, everybody)) == ["first", "last"]
    assert not failed.claim()


def test_cancelled_jobs_make_room():
    jobs = [job(str(i), ready=False) for i in range(3)]
    waiting = filled(*jobs, limit=3)
    for one in jobs[:2]:
        one.future.cancel()
    waiting.put(job("next"))
    assert len(waiting) == 2
