"""Many switches: requests go on while a fit is made beside, and end up with what a fresh start gives."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from bitswitch.router import AutoSwitch
from bitswitch.router.fit import Fit
from bitswitch_store.switch import QuerySet

RECIPE = "hidden:1|mean|l2"
DIM = 8


def cloud(seed: int, size: int = 12) -> QuerySet:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal(DIM) + rng.standard_normal((size, DIM)) * np.linspace(0.1, 0.6, DIM)
    return QuerySet.of(rows, RECIPE)


CLOUDS = {name: cloud(seed) for seed, name in enumerate("abcdefghij")}
INPUTS = np.concatenate([queries.codes.vectors() for queries in CLOUDS.values()]).astype(np.float32)


def router(names: str, **values) -> AutoSwitch:
    auto = AutoSwitch(recipe=RECIPE, k=5, **{"at_once": 0, **values})
    for name in names:
        auto.add(name, CLOUDS[name])
    return auto


def voted(routes) -> set[str]:
    return {one.digest for route in routes for one in route.neighbours} | {
        digest for route in routes for digest in route.mix.digests
    }


class Held:
    """Fits that begin, say so, and end when they are let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Semaphore(0)
        self.let = threading.Event()
        real = Fit.of

        def fit(sets, quantile, near=None):
            self.begun.release()
            assert self.let.wait(60)
            return real(sets, quantile, near)

        monkeypatch.setattr(Fit, "of", fit)


@pytest.fixture
def closing():
    opened: list[AutoSwitch] = []
    yield lambda auto: opened.append(auto) or auto
    for auto in opened:
        auto.close()


def test_requests_are_answered_while_a_fit_is_held(monkeypatch: pytest.MonkeyPatch, closing):
    auto = closing(router("abcdef"))
    auto.pick(INPUTS, "abcdef")
    held = Held(monkeypatch)
    try:
        auto.add("g", CLOUDS["g"])
        auto.remove("b")
        own = CLOUDS["g"].codes.vectors()
        between = auto.pick(own, "acdefg")  # begins the fit, and is answered before it ends
        assert held.begun.acquire(timeout=60)
        assert [route.neighbours[0].digest for route in between] == ["g"] * len(own)
        assert "b" not in voted(auto.pick(INPUTS, "acdefg"))
        auto.remove("g")
        assert voted(auto.pick(INPUTS, "acdefg")) <= set("acdef")
    finally:
        held.let.set()
    auto.settle()
    assert auto.pick(INPUTS, "acdef") == router("acdef", at_once=10**6).pick(INPUTS, "acdef")


def test_a_caller_who_waits_for_a_first_fit_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch, closing):
    auto = closing(router("abcdefg"))
    auto.pick(INPUTS, "abc", caller="has one")
    held = Held(monkeypatch)
    waiting = threading.Thread(target=auto.pick, args=(INPUTS, "defg"), kwargs={"caller": "new"})
    waiting.start()
    try:
        assert held.begun.acquire(timeout=60)
        assert auto.pick(INPUTS, "abc", caller="has one")
        assert waiting.is_alive()
    finally:
        held.let.set()
        waiting.join()


def test_two_who_want_the_same_fit_make_one(monkeypatch: pytest.MonkeyPatch, closing):
    auto = closing(router("abcd"))
    held = Held(monkeypatch)
    pickers = [
        threading.Thread(target=auto.pick, args=(INPUTS, "abcd"), kwargs={"caller": name}) for name in "xyz"
    ]
    for thread in pickers:
        thread.start()
    held.let.set()
    for thread in pickers:
        thread.join()
    assert held.begun.acquire(blocking=False)
    assert not held.begun.acquire(blocking=False)


def test_once_settled_a_route_is_a_fresh_start_s(closing):
    rng = np.random.default_rng(5)
    auto, here = closing(router("abc")), set("abc")
    for turn in range(40):
        name = "abcdefghij"[rng.integers(10)]
        if name in here and len(here) > 1:
            here.remove(name)
            auto.remove(name)
        else:
            here.add(name)
            auto.add(name, CLOUDS[name])
        visible = sorted(here)[: 1 + turn % 7]
        between = auto.pick(INPUTS, visible)
        assert voted(between) <= set(visible)
        if turn % 5 == 4:
            auto.settle()
            fresh = router("".join(here), at_once=10**6)
            assert auto.pick(INPUTS, visible) == fresh.pick(INPUTS, visible)


def test_another_caller_s_fit_stands_in_for_nobody_else(closing):
    auto, alone = closing(router("abcdefg")), closing(router("abcdef"))
    auto.pick(INPUTS, "abcdefg", caller="sees g")  # were it taken, its metric would know g
    assert auto.pick(INPUTS, "abcdef", caller="does not") == alone.pick(INPUTS, "abcdef")


def test_what_was_mostly_not_fitted_is_waited_for(closing):
    auto = closing(router("abcdefg"))
    auto.pick(INPUTS, "ab")
    assert auto.pick(INPUTS, "abcdefg") == router("abcdefg").pick(INPUTS, "abcdefg")


def test_a_fit_that_fails_leaves_the_view_there_was(monkeypatch: pytest.MonkeyPatch, closing, caplog):
    auto = closing(router("abcdef"))
    auto.pick(INPUTS, "abcdef")

    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(Fit, "of", fail)
    auto.remove("a")
    assert voted(auto.pick(INPUTS, "abcdef")) <= set("bcdef")
    auto.settle()
    assert "could not fit" in caplog.text
    assert voted(auto.pick(INPUTS, "abcdef")) <= set("bcdef")


def test_few_switches_are_exact_at_once(closing):
    auto = closing(router("abc", at_once=10**6))
    auto.pick(INPUTS, "abc")
    auto.add("d", CLOUDS["d"])
    assert auto.pick(INPUTS, "abcd") == router("abcd").pick(INPUTS, "abcd")


@pytest.mark.parametrize("at_once", [0, 10**6])
def test_other_vectors_under_the_same_digest_are_others(closing, at_once: int):
    auto = closing(router("abcdef", at_once=at_once))
    auto.pick(INPUTS, "abcdef")
    auto.remove("a")
    auto.add("a", CLOUDS["j"])
    own = CLOUDS["j"].codes.vectors()
    assert voted(auto.pick(own, "abcdef")) == {"a"}
    auto.settle()
    fresh = router("bcdef", at_once=10**6)
    fresh.add("a", CLOUDS["j"])
    assert auto.pick(INPUTS, "abcdef") == fresh.pick(INPUTS, "abcdef")
