"""Who is let in: by the work before them, tenant by tenant; and how fast the model is taken to be."""

from contextlib import ExitStack

import pytest

from bitswitch.engine.admission import FEW, Admission
from bitswitch.engine.pace import Pace
from bitswitch.errors import OverloadedError


@pytest.fixture
def admission():
    """A hundred tokens a second, and none waits longer than one."""
    return Admission(Pace(100.0), seconds=1.0)


def test_as_much_is_let_in_as_the_model_does_in_time(admission):
    with ExitStack() as inside:
        for _ in range(11):  # the last one has 100 tokens before it
            inside.enter_context(admission.admitted("a", 10))
        with pytest.raises(OverloadedError, match=r"about 1\.1 s.*longer than 1 s") as refused:
            inside.enter_context(admission.admitted("a", 10))
        assert refused.value.retry_after == pytest.approx(1.1)
    with admission.admitted("a", 10):
        pass


def test_a_few_are_let_in_whatever_their_size(admission):
    with ExitStack() as inside:
        for number in range(FEW):
            inside.enter_context(admission.admitted("ab"[number % 2], 10_000))
        for tenant in ("a", "b"):
            with pytest.raises(OverloadedError):
                inside.enter_context(admission.admitted(tenant, 1))
        with admission.admitted("c", 1):  # it would not wait long
            pass


def test_what_is_known_better_counts(admission):
    with ExitStack() as inside:
        tickets = [inside.enter_context(admission.admitted("a", 10_000)) for _ in range(FEW)]
        with pytest.raises(OverloadedError):
            inside.enter_context(admission.admitted("a", 1))
        for ticket in tickets:
            ticket.tokens = 5
        with admission.admitted("a", 1):
            pass


def test_a_crowd_does_not_keep_others_out(admission):
    with ExitStack() as inside:
        for _ in range(11):
            inside.enter_context(admission.admitted("crowd", 10))
        for _ in range(5):  # the sixth would have 50 of its own and 60 of the crowd's before it
            inside.enter_context(admission.admitted("small", 10))
        for tenant in ("small", "crowd"):
            with pytest.raises(OverloadedError):
                inside.enter_context(admission.admitted(tenant, 10))


def test_many_tenants_are_a_crowd_too(admission):
    with ExitStack() as inside:
        for tenant in range(11):
            inside.enter_context(admission.admitted(str(tenant), 10))
        with pytest.raises(OverloadedError):
            inside.enter_context(admission.admitted("one more", 10))


def test_who_failed_is_not_inside_any_more(admission):
    with ExitStack() as inside:
        for _ in range(FEW - 1):
            inside.enter_context(admission.admitted("a", 10_000))
        with pytest.raises(RuntimeError), admission.admitted("a", 10_000):
            raise RuntimeError
        with admission.admitted("a", 1):
            pass


def test_the_pace_is_that_of_steps_with_others_behind_them():
    pace = Pace(1e4)
    now = 0.0
    for _ in range(100):
        pace.step(200, now=now)
        now += 0.1
    assert pace.rate == pytest.approx(2000, rel=0.01)
    for _ in range(100):  # nobody waits: what passes until the next step says nothing
        pace.step(1, now=now)
        pace.rest(now=now + 0.1)
        now += 10
    assert pace.rate == pytest.approx(2000, rel=0.01)


def test_a_rest_is_no_work():
    pace = Pace(1e4)
    pace.step(200, now=0.0)
    pace.rest(now=0.1)
    pace.step(200, now=100.0)
    pace.pause()
    pace.step(200, now=200.0)
    assert pace.rate == 1e4


def test_a_rate_that_is_too_low_does_not_last():
    """It lets in so few that each step takes them all, and could have held more."""
    pace = Pace(1e4)
    pace.step(100, now=0.0)
    pace.step(100, now=20.0)
    assert pace.rate < 10
    for second in range(30, 100):
        pace.step(200, now=second)
        pace.rest(now=second + 0.05)
    assert pace.rate == pytest.approx(4000, rel=0.2)


def test_the_pace_follows_what_changes():
    pace = Pace(1e4)
    now = 0.0
    for seconds in (0.01, 0.1):
        for _ in range(round(10 / seconds)):
            pace.step(100, now=now)
            now += seconds
    assert pace.rate == pytest.approx(1000, rel=0.01)
