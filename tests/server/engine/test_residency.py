"""Ready switches: built once for all who wait, kept while held, the least recently used go first."""

import threading
import time
from concurrent.futures import CancelledError, wait
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch.engine.residency import Residency
from bitswitch.errors import ConflictError


@dataclass(frozen=True)
class Thing:
    name: str
    nbytes: int


class Builder:
    """Builds things of 10 bytes, or of as many as their name's digits say; only while its gate is open."""

    def __init__(self):
        self.begun = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, digest):
        self.begun.append(digest)
        assert self.gate.wait(10)
        if digest.startswith("corrupt"):
            raise OSError(f"the blob of {digest} is corrupt")
        return Thing(digest, int(digest[1:] or 10))


@pytest.fixture
def build():
    return Builder()


@pytest.fixture
def tier(build):
    tier = Residency(build, budget=25)
    yield tier
    build.gate.set()
    tier.close()


def use(tier, *digests):
    """Hold, wait, release; what was ready meanwhile."""
    hold = tier.hold(digests)
    ready = hold.prepared.result(10)
    hold.release()
    return ready


def settled(tier):
    """Whatever was asked for is built: the builder has come to something that was asked for later."""
    use(tier, "z")
    tier.forget("z")


def test_a_hold_gives_its_switches_by_digest(tier):
    assert use(tier, "a", "b", "a") == {"a": Thing("a", 10), "b": Thing("b", 10)}
    assert use(tier) == {}


def test_the_least_recently_used_goes_first(tier, build):
    for digest in ("a", "b", "a", "c"):
        use(tier, digest)
    assert tier.sizes() == {"a": 10, "c": 10}
    use(tier, "b")
    assert build.begun == ["a", "b", "c", "b"]


def test_what_is_ready_is_there_at_once(tier, build):
    use(tier, "a")
    build.gate.clear()
    hold = tier.hold(["a"])
    assert hold.prepared.done()
    hold.release()


def test_what_is_held_stays_although_it_is_the_oldest(tier, build):
    hold = tier.hold(["a"])
    for digest in ("b", "c", "d"):
        use(tier, digest)
    assert set(tier.sizes()) == {"a", "d"}
    hold.release()
    hold.release()
    for digest in ("b", "c"):
        use(tier, digest)
    assert set(tier.sizes()) == {"b", "c"}


def test_a_switch_larger_than_the_budget_is_built_and_not_kept(tier):
    assert use(tier, "a30")["a30"].nbytes == 30
    assert tier.sizes() == {}


def test_two_who_wait_for_the_same_get_the_same(tier, build):
    build.gate.clear()
    holds = [tier.hold(["a"]), tier.hold(["b", "a"]), tier.hold(["a"])]
    build.gate.set()
    first, second, third = (hold.prepared.result(10)["a"] for hold in holds)
    assert first is second is third
    assert build.begun == ["a", "b"]


def test_a_failure_reaches_all_who_wait_for_it_and_nobody_else(tier, build):
    use(tier, "a")
    build.gate.clear()
    failing = [tier.hold(["corrupt"]), tier.hold(["a", "corrupt", "b"])]
    other = tier.hold(["b"])
    build.gate.set()
    for hold in failing:
        with pytest.raises(OSError, match="corrupt"):
            hold.prepared.result(10)
        hold.release()
    assert other.prepared.result(10) == {"b": Thing("b", 10)}
    with pytest.raises(OSError, match="corrupt"):  # it may have been mended meanwhile: it is tried again
        use(tier, "corrupt")
    assert build.begun == ["a", "corrupt", "b", "corrupt"]


def test_nothing_is_built_that_would_have_to_go_again_before_it_is_used(tier, build):
    holds = [tier.hold([digest]) for digest in "abcdef"]
    built = []
    while holds:
        done, _ = wait([hold.prepared for hold in holds], 10, return_when="FIRST_COMPLETED")
        assert done
        assert sum(tier.sizes().values()) <= 25 + 10
        next(hold for hold in holds if hold.prepared.done()).release()
        built += [hold for hold in holds if hold.prepared.done()]
        holds = [hold for hold in holds if not hold.prepared.done()]
        for hold in built:
            hold.release()
    assert build.begun == list("abcdef")


def test_beyond_the_budget_one_hold_waits_for_another_s_release(tier, build):
    first = tier.hold(["a", "b", "c"])
    assert len(first.prepared.result(10)) == 3
    second = tier.hold(["d"])
    ready = tier.hold(["b"])
    assert ready.prepared.done()
    assert not second.prepared.done()
    assert build.begun == ["a", "b", "c"]
    first.release()
    assert second.prepared.result(10) == {"d": Thing("d", 10)}
    assert set(tier.sizes()) == {"b", "d"}


def test_a_hold_that_is_released_before_is_not_built_for(tier, build):
    build.gate.clear()
    busy, given_up = tier.hold(["a"]), tier.hold(["b"])
    given_up.release()
    with pytest.raises(CancelledError):
        given_up.prepared.result(10)
    build.gate.set()
    busy.prepared.result(10)
    settled(tier)
    assert build.begun == ["a", "z"]


def test_what_is_being_built_when_its_hold_is_released_is_not_built_twice(tier, build):
    build.gate.clear()
    tier.hold(["a"]).release()
    again = tier.hold(["a"])
    build.gate.set()
    again.prepared.result(10)
    assert build.begun == ["a"]


def test_what_is_pinned_stays_until_it_is_unpinned(tier, build):
    tier.pin("a")
    tier.pin("a")
    assert build.begun == ["a"]
    assert tier.pins() == ("a",)
    for digest in "bcde":
        use(tier, digest)
    assert set(tier.sizes()) == {"a", "e"}
    tier.unpin("a")
    tier.unpin("never there")
    for digest in "bc":
        use(tier, digest)
    assert set(tier.sizes()) == {"b", "c"}


def test_pins_that_fill_the_budget_do_not_stop_the_others(tier):
    for digest in ("a", "b15"):
        tier.pin(digest)
    for digest in "de":
        assert use(tier, digest)[digest].nbytes == 10
    assert set(tier.sizes()) == {"a", "b15"}


def test_a_pin_beyond_the_budget_is_refused_and_leaves_the_others(tier):
    tier.pin("a")
    with pytest.raises(ConflictError, match="takes 16 bytes of memory, and 10 of the 25 bytes"):
        tier.pin("b16")
    assert tier.pins() == ("a",)
    assert tier._in_use == 10
    tier.unpin("a")
    tier.pin("b16")


def test_a_pin_that_cannot_be_built_says_why_and_holds_nothing(tier):
    with pytest.raises(OSError, match="corrupt"):
        tier.pin("corrupt")
    assert tier.pins() == ()
    assert not tier._places


def test_what_is_forgotten_while_its_pin_is_built_is_not_pinned(tier, build):
    build.gate.clear()
    pinning = threading.Thread(target=tier.pin, args=("a",))
    pinning.start()
    while not build.begun:
        time.sleep(0.001)
    tier.forget("a")
    build.gate.set()
    pinning.join(10)
    assert tier.pins() == ()
    assert tier.sizes() == {}


def test_tenants_take_turns_at_what_has_to_be_built(build):
    tier = Residency(build, budget=1000)
    build.gate.clear()
    holds = [tier.hold([f"a{n}"], "many") for n in range(1, 6)]
    holds += [tier.hold(["b1", "b2"], "few"), tier.hold(["c1"], "one"), tier.hold(["b3"], "few")]
    build.gate.set()
    for hold in holds:
        hold.prepared.result(10)
        hold.release()
    tier.close()
    # Whoever is begun with is built for to the end; then it is another's turn.
    assert build.begun == ["a1", "b1", "b2", "c1", "a2", "b3", "a3", "a4", "a5"]


def test_forgetting_frees_it_and_the_next_who_asks_gets_it_anew(tier, build):
    first = use(tier, "a")["a"]
    tier.forget("a")
    tier.forget("never there")
    assert tier.sizes() == {}
    assert use(tier, "a")["a"] is not first
    tier.pin("a")
    tier.forget("a")
    assert tier.sizes() == {}
    assert tier.pins() == ()


def test_what_is_forgotten_while_it_is_held_lives_on_for_its_holder_alone(tier, build):
    hold = tier.hold(["a"])
    old = hold.prepared.result(10)["a"]
    tier.forget("a")
    assert tier.sizes() == {}
    new = tier.hold(["a"])
    assert new.prepared.result(10)["a"] is not old
    assert tier.sizes() == {"a": 10}
    hold.release()
    assert tier.sizes() == {"a": 10}
    new.release()


def test_what_is_forgotten_while_it_is_built_is_not_kept(tier, build):
    build.gate.clear()
    hold = tier.hold(["a"])
    tier.forget("a")
    build.gate.set()
    assert hold.prepared.result(10) == {"a": Thing("a", 10)}
    assert tier.sizes() == {}
    hold.release()
    assert tier.sizes() == {}


def test_who_comes_after_it_was_closed_is_told(tier):
    tier.close()
    with pytest.raises(CancelledError):
        tier.pin("a")
    assert tier.hold(["a"]).prepared.cancelled()


def test_who_waits_when_it_is_closed_is_told(tier, build):
    build.gate.clear()
    first, second = tier.hold(["a"]), tier.hold(["b"])
    tier.close()
    for hold in (first, second, tier.hold(["c"])):
        if hold.prepared.cancelled():
            continue
        hold.release()
    assert first.prepared.cancelled()
    assert second.prepared.cancelled()


DIGESTS = ["a3", "b5", "c8", "d12", "e20", "f40", "corrupt"]
STEPS = st.one_of(
    st.tuples(st.just("hold"), st.lists(st.sampled_from(DIGESTS), max_size=4)),
    st.tuples(st.just("release"), st.integers(0, 30)),
    st.tuples(st.sampled_from(["pin", "unpin", "forget"]), st.sampled_from(DIGESTS)),
)


def pin(tier, digest):
    with suppress(OSError, ConflictError):
        tier.pin(digest)


@given(st.lists(STEPS, max_size=40), st.integers(0, 50))
@settings(max_examples=150, deadline=None)
def test_whatever_is_asked_for_comes_and_the_books_are_right_afterwards(steps, budget):
    tier = Residency(Builder(), budget=budget)
    holds, pinning = [], []
    for kind, what in steps:
        if kind == "hold":
            holds.append((tier.hold(what, f"tenant {len(what)}"), what))
        elif kind == "release" and holds:
            holds.pop(what % len(holds))[0].release()
        elif kind == "pin":
            pinning.append(threading.Thread(target=pin, args=(tier, what)))
            pinning[-1].start()
        elif kind != "release":
            getattr(tier, kind)(what)
    while holds:  # whoever is prepared goes on and lets go, as in the engine
        done, _ = wait([hold.prepared for hold, _ in holds], 2, return_when="FIRST_COMPLETED")
        assert done, "everybody waits for somebody else"
        hold, what = next(one for one in holds if one[0].prepared.done())
        holds.remove((hold, what))
        if "corrupt" in what:
            assert isinstance(hold.prepared.exception(10), OSError)
        else:
            assert hold.prepared.result(10) == {digest: Thing(digest, int(digest[1:])) for digest in what}
        hold.release()
    for thread in pinning:
        thread.join(10)
        assert not thread.is_alive()
    assert sum(int(digest[1:]) for digest in tier.pins()) <= budget
    for digest in DIGESTS:
        tier.unpin(digest)
    settled(tier)
    sizes = tier.sizes()
    assert sum(sizes.values()) == tier._bytes <= budget
    assert tier._in_use == 0
    assert not tier._served
    assert set(tier._places) == set(sizes)
    tier.close()
