"""Who goes next: turns between tenants, company of the same mix, limits, deadlines, cancellation."""

import threading
import time

import pytest

from bitswitch.core import Mix, Request, Row, Want
from bitswitch.engine.queue import Job, Queue
from bitswitch.errors import DeadlineExceededError, OverloadedError, UnavailableError

A, B = Mix.of([("a", 1.0)]), Mix.of([("b", 1.0)])


def job(name, mix=A, *, tenant="t", rows=1, length=4, **more):
    row = Row({"input_ids": [0] * length})
    ready = more.pop("ready", True)
    return Job(Request(mix, Want.EMBED, (row,) * rows, tenant=tenant, id=name, **more), ready=ready)


def queue(limit=100, batch_tokens=1000, batch_rows=100):
    return Queue(limit=limit, batch_tokens=batch_tokens, batch_rows=batch_rows)


def names(group):
    return [one.request.id for one in group]


def filled(*jobs, **limits):
    waiting = queue(**limits)
    for one in jobs:
        waiting.put(one)
    return waiting


def test_equal_mixes_go_together_and_the_oldest_first():
    waiting = filled(job("1", A), job("2", B), job("3", A), job("4", B))
    assert names(waiting.take(0)) == ["1", "3"]
    assert names(waiting.take(0)) == ["2", "4"]
    assert waiting.take(0) == []


def test_another_tenant_is_not_behind_a_backlog():
    backlog = [job(f"big{i}", Mix.of([(f"m{i}", 1.0)]), tenant="big") for i in range(50)]
    waiting = filled(*backlog, job("small", B, tenant="small"))
    assert [names(waiting.take(0))[0] for _ in range(4)] == ["big0", "small", "big1", "big2"]


def test_tenants_share_a_transition():
    waiting = filled(job("1", A, tenant="x"), job("2", B, tenant="x"), job("3", A, tenant="y"))
    assert names(waiting.take(0)) == ["1", "3"]


@pytest.mark.parametrize(
    ("limits", "first"),
    [({"batch_rows": 5}, ["0", "1"]), ({"batch_tokens": 17}, ["0", "1"]), ({}, ["0", "1", "2", "3"])],
)
def test_a_group_stays_within_rows_and_tokens(limits, first):
    waiting = filled(*(job(str(i), rows=2) for i in range(4)), **limits)
    assert names(waiting.take(0)) == first


def test_a_request_larger_than_a_batch_goes_alone():
    waiting = filled(job("large", rows=50), job("next"), batch_rows=8)
    assert names(waiting.take(0)) == ["large"]
    assert names(waiting.take(0)) == ["next"]


def test_one_more_than_the_limit_is_refused_and_a_place_gets_free():
    waiting = filled(job("1"), job("2", B), limit=2)
    with pytest.raises(OverloadedError, match="2 requests are waiting") as refused:
        waiting.put(job("3"))
    assert refused.value.retry_after == 1.0
    waiting.take(0)
    waiting.put(job("4"))
    assert len(waiting) == 2


def test_what_nobody_waits_for_is_dropped():
    late = job("late", deadline=time.monotonic() - 1)
    gone = job("gone")
    gone.future.cancel()
    waiting = filled(late, gone, job("alive"))
    assert names(waiting.take(0)) == ["alive"]
    with pytest.raises(DeadlineExceededError, match="longer than it may"):
        late.future.result(0)
    assert len(waiting) == 0


def test_a_job_whose_switch_is_not_in_memory_keeps_its_place():
    cold = job("cold", A, ready=False)
    waiting = filled(cold, job("warm", B))
    assert names(waiting.take(0)) == ["warm"]
    assert waiting.take(0) == []
    waiting.mark_ready(cold)
    assert names(waiting.take(0)) == ["cold"]


def test_take_waits_and_is_woken():
    waiting = queue()
    for wake in (lambda: waiting.put(job("1")), waiting.wake, waiting.close):
        timer = threading.Timer(0.05, wake)
        timer.start()
        started = time.monotonic()
        waiting.take(None)
        assert time.monotonic() - started < 5
        timer.join()


def test_closed_takes_no_more_and_hands_out_the_rest():
    waiting = filled(job("1"))
    waiting.close()
    with pytest.raises(UnavailableError):
        waiting.put(job("2"))
    assert not waiting.closed
    assert names(waiting.take(None)) == ["1"]
    assert waiting.closed
    assert waiting.take(None) == []


def test_a_job_that_failed_meanwhile_is_in_no_group():
    failed, late = job("failed", tenant="b"), job("late", tenant="c", deadline=time.monotonic() - 1)
    waiting = filled(job("first", tenant="a"), failed, late, job("last", tenant="d"))
    failed.fail(OSError("the blob is corrupt"))
    assert names(waiting.take(0)) == ["first", "last"]
    assert not failed.claim()


def test_cancelled_jobs_make_room():
    jobs = [job(str(i), ready=False) for i in range(3)]
    waiting = filled(*jobs, limit=3)
    for one in jobs[:2]:
        one.future.cancel()
    waiting.put(job("next"))
    assert len(waiting) == 2
