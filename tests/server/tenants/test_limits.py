"""A tenant's limits: what is counted, when it is refused, and until when."""

from __future__ import annotations

import threading

import pytest

from bitswitch.errors import InputTooLongError, RateLimitedError
from bitswitch.tenants import limit_table
from bitswitch.tenants.limits import Limits, Quotas
from bitswitch.tenants.rounds import Rounds
from bitswitch_store.database import Database
from bitswitch_store.errors import InvalidName, StoreUnavailable


class Clock:
    now = 1_700_000_000.0 - 1_700_000_000 % 60


@pytest.fixture
def clock(monkeypatch):
    """The time that the library counts by; it stands still, at the beginning of a minute."""
    clock = Clock()
    monkeypatch.setattr("limits.storage.memory.time.time", lambda: clock.now)
    return clock


def quotas(**limits):
    return Quotas(dict, Limits(**limits))


def test_without_limits_everything_is_admitted_and_nothing_is_told():
    free = quotas()
    permits = [free.admit("acme") for _ in range(1000)]
    permits[0].check_inputs(10**6)
    permits[0].charge([10**9])
    assert permits[0].headers() == {}
    assert permits[0].limits.room == Limits().room


def test_requests_per_minute_are_each_tenant_s_own_and_come_back(clock):
    strict = quotas(requests_per_minute=3)
    for left in (2, 1, 0):
        headers = strict.admit("acme").headers()
        assert headers["x-ratelimit-limit-requests"] == "3"
        assert headers["x-ratelimit-remaining-requests"] == str(left)
    with pytest.raises(RateLimitedError, match="'acme' has 3 requests per minute") as refused:
        strict.admit("acme")
    strict.admit("other")
    # What it says is true: a little before, there is still none; then there is.
    clock.now += refused.value.retry_after - 0.5
    with pytest.raises(RateLimitedError):
        strict.admit("acme")
    clock.now += 1
    strict.admit("acme")
    clock.now += 120
    assert strict.admit("acme").headers()["x-ratelimit-remaining-requests"] == "2"


def test_tokens_are_charged_whole_or_not_at_all(clock):
    strict = quotas(tokens_per_minute=100)
    permit = strict.admit("acme")
    permit.charge([30, 30])
    with pytest.raises(RateLimitedError, match="100 tokens per minute, and 50 more") as refused:
        permit.charge([50])
    permit.charge([40])
    assert permit.headers()["x-ratelimit-remaining-tokens"] == "0"
    with pytest.raises(RateLimitedError):
        strict.admit("acme")  # before anything of the next request is tokenized
    with pytest.raises(InputTooLongError, match="takes 101 tokens"):
        strict.admit("other").charge([101])
    assert 60 < refused.value.retry_after < 120
    clock.now += refused.value.retry_after + 30
    strict.admit("acme").charge([50])


def test_a_refused_request_uses_nothing(clock):
    strict = quotas(requests_per_minute=2, concurrent_requests=1)
    first = strict.admit("acme")
    for _ in range(5):
        with pytest.raises(RateLimitedError, match="1 requests answered at once"):
            strict.admit("acme")
    first.release()
    strict.admit("acme").release()
    with pytest.raises(RateLimitedError, match="2 requests per minute"):
        strict.admit("acme")


def test_a_permit_released_twice_is_released_once():
    strict = quotas(concurrent_requests=2)
    one, _two = strict.admit("acme"), strict.admit("acme")
    one.release()
    one.release()
    strict.admit("acme")
    with pytest.raises(RateLimitedError):
        strict.admit("acme")


def test_inputs_and_their_tokens_are_bounded():
    permit = quotas(batch_inputs=2, input_tokens=10).admit("acme")
    permit.check_inputs(2)
    permit.charge([10, 10])
    with pytest.raises(InputTooLongError, match="3 inputs; tenant 'acme' may send 2"):
        permit.check_inputs(3)
    with pytest.raises(InputTooLongError, match="Input 1 has 11 tokens") as refused:
        permit.charge([10, 11])
    assert refused.value.param == "input.1"


def test_threads_together_get_no_more_than_one_alone(clock):
    strict = quotas(requests_per_minute=500)
    admitted = []

    def ask():
        for _ in range(100):
            try:
                admitted.append(strict.admit("acme"))
            except RateLimitedError:
                return

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 500


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'db'}")
    yield database
    database.close()


def test_a_tenant_s_own_limits_go_over_the_default_one_by_one(database):
    default = Limits(requests_per_minute=60, batch_inputs=8)
    assert limit_table.read(database, default) == {}
    limit_table.change(database, "acme", {"requests_per_minute": 600, "stored_bytes": 1000})
    limit_table.change(database, "acme", {"batch_inputs": limit_table.UNLIMITED})
    read = limit_table.read(database, default)
    assert read == {"acme": Limits(requests_per_minute=600, stored_bytes=1000)}
    limit_table.change(database, "acme", dict.fromkeys(limit_table.NAMES))
    assert limit_table.read(database, default) == {}


@pytest.mark.parametrize("values", [{"requests_per_minute": 0}, {"requests_per_minute": -2}, {"unknown": 1}])
def test_a_limit_that_is_none_is_refused(database, values):
    with pytest.raises(ValueError, match="at least 1"):
        limit_table.change(database, "acme", values)
    with pytest.raises(InvalidName):
        limit_table.change(database, "No Tenant", {"requests_per_minute": 1})
    assert limit_table.read(database, Limits()) == {}


def test_limits_change_while_the_server_runs_and_outlive_a_database_that_is_away(database):
    away = threading.Event()

    def read():
        if away.is_set():
            raise StoreUnavailable("the database does not answer")
        return limit_table.read(database, Limits())

    running = Quotas(read, Limits())
    seen, failed = threading.Event(), threading.Event()

    def look():
        if running.of("acme").batch_inputs == 3:
            (failed if away.is_set() else seen).set()

    rounds = Rounds(running.refresh, look, seconds=0.01)
    rounds.start()
    limit_table.change(database, "acme", {"batch_inputs": 3})
    assert seen.wait(10)
    away.set()
    assert failed.wait(10)  # the round went on, and the limit is what it was
    rounds.stop()
