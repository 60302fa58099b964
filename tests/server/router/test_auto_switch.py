"""Auto-Switch: the paper's weights, visibility, abstention, and what must not matter."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch.core import Mix, RouteMode
from bitswitch.errors import InvalidSwitchError
from bitswitch.router import AutoSwitch
from bitswitch_store.errors import StoreUnavailable
from bitswitch_store.switch import QuerySet

RECIPE = "hidden:1|mean|l2"
DIM = 3
# Few values in few places: equal vectors and equal distances come up all the time.
COORDINATE = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0])
VECTOR = st.lists(COORDINATE, min_size=DIM, max_size=DIM)
VECTORS = st.lists(VECTOR, min_size=1, max_size=6)
SETS = st.dictionaries(st.sampled_from("abcdef"), VECTORS, min_size=1, max_size=5)


def query_set(vectors) -> QuerySet:
    return QuerySet.of(np.array(vectors, np.float32), RECIPE)


def router(sets, *, k: int = 4, quantile: float = 0.9, mode: RouteMode = RouteMode.MIX) -> AutoSwitch:
    auto = AutoSwitch(recipe=RECIPE, k=k, quantile=quantile, mode=mode)
    for digest, vectors in sets.items():
        auto.add(digest, query_set(vectors))
    return auto


def features(vectors):
    return np.array(vectors, np.float32)


def tasks(count: int, *, seed: int = 0, size: int = 40, apart: float = 6.0) -> dict[str, np.ndarray]:
    """Tasks in clouds around centres of their own; the directions are not equally wide."""
    rng = np.random.default_rng(seed)
    widths = np.linspace(0.2, 3, 8)
    return {
        name: (rng.standard_normal(8) * apart + rng.standard_normal((size, 8)) * widths).astype(np.float32)
        for name in "abcdefgh"[:count]
    }


def test_a_route_says_what_was_chosen_and_why():
    clouds = tasks(3)
    (route,) = router(clouds).pick(clouds["b"].mean(axis=0, keepdims=True), "abc")
    assert route.mix == Mix.of([("b", 1)])
    assert route.head == "b"
    assert not route.abstained
    assert route.distance < route.threshold
    assert [(one.digest, one.share) for one in route.neighbours] == [("b", 1.0)]


def test_between_two_tasks_the_mix_has_both_and_the_heavier_answers():
    clouds = tasks(2, apart=0.3)
    routes = router(clouds, k=9, quantile=1).pick(np.concatenate([*clouds.values()]), "ab")
    mixed = [route for route in routes if len(route.mix) == 2]
    assert mixed
    for route in mixed:
        weights = dict(route.mix)
        assert route.head == max(weights, key=lambda digest: weights[digest])


def test_top1_is_the_heaviest_of_the_mix_alone_and_differs_in_nothing_else():
    clouds = tasks(2, apart=0.3)
    inputs = np.concatenate([*clouds.values(), np.full((1, 8), 60, np.float32)])
    mixed = router(clouds, k=9).pick(inputs, "ab")
    alone = router(clouds, k=9, mode=RouteMode.TOP1).pick(inputs, "ab")
    assert any(len(route.mix) == 2 for route in mixed)
    assert any(route.abstained for route in mixed)
    for one, other in zip(mixed, alone, strict=True):
        assert other.mix == Mix.of([] if one.abstained else [(one.head, 1)])
        assert replace(other, mix=one.mix) == one


def test_the_confidence_is_the_share_of_the_votes_and_none_without_any():
    clouds = tasks(2, apart=0.3)
    routes = router(clouds, k=9).pick(np.concatenate([*clouds.values()]), "ab")
    assert {route.confidence for route in routes} > {5 / 9, 8 / 9}
    assert all(route.confidence == max(one.share for one in route.neighbours) for route in routes)
    (nothing,) = router(clouds).pick(np.zeros((1, 8), np.float32), [])
    assert nothing.confidence == 0


def test_the_metric_looks_past_the_directions_in_which_every_task_is_wide():
    rng = np.random.default_rng(6)

    def around(x: float) -> np.ndarray:
        wide = rng.normal(0, 4, (60, 7))
        return np.concatenate([x + rng.normal(0, 0.1, (60, 1)), wide], axis=1).astype(np.float32)

    auto = router({"left": around(-1), "right": around(1)})
    for side, x in (("left", -1), ("right", 1)):
        routes = auto.pick(around(x), ["left", "right"])
        assert sum(route.neighbours[0].digest == side for route in routes) >= 53


def test_k_shrinks_to_what_is_visible():
    auto = router({"a": [[0, 0, 0]], "b": [[0, 1, 0], [1, 0, 0]]}, k=10)
    (route,) = auto.pick(features([[0, 0, 0]]), ["a", "b"])
    assert {one.digest: one.share for one in route.neighbours} == {"a": 1 / 3, "b": 2 / 3}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_far_from_everything_it_abstains_and_says_from_what(count: int):
    clouds = tasks(count)
    for route in router(clouds).pick(np.full((1, 8), 60, np.float32), clouds):
        assert route.abstained
        assert route.mix == Mix.of()
        assert route.head is None
        assert route.distance > route.threshold
        assert route.neighbours[0].digest in clouds


@pytest.mark.parametrize("count", [1, 3, 6])
def test_few_of_a_task_s_own_inputs_are_abstained_from(count: int):
    clouds = tasks(count, size=400)
    auto = router({name: cloud[:200] for name, cloud in clouds.items()}, quantile=0.9)
    routes = auto.pick(np.concatenate([cloud[200:] for cloud in clouds.values()]), clouds)
    refused = sum(route.abstained for route in routes) / len(routes)
    assert 0.05 < refused < 0.17


@pytest.mark.parametrize("visible", [[], ["never added"]])
def test_with_nothing_to_see_it_abstains(visible: list[str]):
    for auto in (router({}), router({"a": [[0, 0, 0]]})):
        (route,) = auto.pick(np.zeros((1, DIM), np.float32), visible)
        assert route.abstained
        assert route.distance == math.inf
        assert route.neighbours == ()


def test_features_that_are_not_finite_are_abstained_from():
    auto = router({"a": [[0, 0, 0], [0, 0, 1]]})
    routes = auto.pick(features([[math.nan, 0, 0], [math.inf, 0, 0], [0, 0, 0]]), ["a"])
    assert [route.abstained for route in routes] == [True, True, False]


def test_no_inputs_no_routes():
    assert router({"a": [[0, 0, 0]]}).pick(np.zeros((0, DIM), np.float32), ["a"]) == []


def test_a_query_set_of_another_recipe_or_dim_is_refused():
    auto = AutoSwitch(recipe=RECIPE, dim=DIM)
    with pytest.raises(InvalidSwitchError, match=r"'hidden:2\|mean'.*compares 'hidden:1\|mean\|l2'"):
        auto.add("a", QuerySet.of(np.zeros((2, DIM)), "hidden:2|mean"))
    with pytest.raises(InvalidSwitchError, match="has 4 values; this router compares vectors of 3"):
        auto.add("a", query_set(np.zeros((2, 4))))
    assert "a" not in auto
    assert len(auto) == 0


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 1, 3)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"\(inputs, 3\) is compared"):
        router({"a": [[0, 0, 0]]}).pick(np.zeros(shape, np.float32), ["a"])


@pytest.mark.parametrize("values", [{"k": 0}, {"quantile": 0.0}, {"quantile": 1.1}])
def test_parameters_out_of_range_are_refused(values: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(values))):
        AutoSwitch(recipe=RECIPE, **values)


@settings(deadline=None)
@given(SETS, VECTORS, st.integers(1, 9))
def test_shares_sum_to_one_and_agree_with_the_mix(sets, inputs, k):
    for route in router(sets, k=k).pick(features(inputs), sets):
        total = min(k, sum(map(len, sets.values())))
        assert sum(round(one.share * total) for one in route.neighbours) == total
        assert sum(one.share for one in route.neighbours) == pytest.approx(1)
        order = [(-one.share, one.distance) for one in route.neighbours]
        assert order == sorted(order)
        assert (
            route.abstained == (route.distance > route.threshold) == (route.mix == ()) == (route.head is None)
        )
        if not route.abstained:
            assert route.mix == Mix.of((one.digest, one.share) for one in route.neighbours)


@settings(deadline=None)
@given(SETS, VECTORS, VECTORS)
def test_an_invisible_switch_changes_nothing(sets, inputs, hidden):
    before = router(sets).pick(features(inputs), sets)
    for first in (True, False):
        both = {"0": hidden, **sets} if first else {**sets, "0": hidden}
        assert router(both).pick(features(inputs), sets) == before


@settings(deadline=None)
@given(SETS, VECTORS, VECTORS)
def test_adding_then_removing_changes_nothing(sets, inputs, passing):
    auto = router(sets)
    visible = [*sets, "0"]
    before = auto.pick(features(inputs), visible)
    auto.add("0", query_set(passing))
    auto.remove("0")
    assert auto.pick(features(inputs), visible) == before


@settings(deadline=None)
@given(SETS, VECTORS, st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_nothing(sets, inputs, random):
    shuffled = list(sets.items())
    random.shuffle(shuffled)
    assert router(dict(shuffled)).pick(features(inputs), sets) == router(sets).pick(features(inputs), sets)


def test_a_row_is_independent_of_its_batch(monkeypatch: pytest.MonkeyPatch):
    # FAISS shall take its matrix product wherever it would.
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 1)
    rng = np.random.default_rng(3)
    auto = AutoSwitch(recipe=RECIPE, dim=64)
    for digest in "abcd":
        auto.add(digest, query_set(rng.standard_normal((600, 64))))
    inputs = rng.standard_normal((120, 64)).astype(np.float32)
    together = auto.pick(inputs, "abcd")
    assert together == [auto.pick(row[np.newaxis], "abcd")[0] for row in inputs]
    assert together[::-1] == auto.pick(inputs[::-1], "abcd")


def test_threads_add_and_remove_while_others_pick():
    rng = np.random.default_rng(4)
    visible = [f"{number:02}" for number in range(12)]
    auto = AutoSwitch(recipe=RECIPE, dim=8, k=5)
    auto.add("stays", query_set(rng.standard_normal((20, 8))))
    inputs = rng.standard_normal((6, 8)).astype(np.float32)
    failures: list[BaseException] = []
    start, stop = threading.Barrier(5), threading.Event()

    def digests(route):
        return {one.digest for one in route.neighbours} | set(route.mix.digests)

    def change(own: list[str], seed: int) -> None:
        local = np.random.default_rng(seed)
        for turn in range(60):
            digest = own[turn % len(own)]
            auto.add(digest, query_set(local.standard_normal((local.integers(1, 30), 8))))
            assert digest in auto
            auto.remove(digest)
            # Only this thread adds it: from here on nobody can be routed to it.
            for route in auto.pick(inputs, [digest, "stays"]):
                assert digests(route) == {"stays"}

    def pick() -> None:
        while not stop.is_set():
            for route in auto.pick(inputs, [*visible, "stays"]):
                assert digests(route) <= {*visible, "stays"}
                assert sum(one.share for one in route.neighbours) == pytest.approx(1)

    def guarded(work, *values) -> None:
        try:
            start.wait()
            work(*values)
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread below
            failures.append(error)

    changers = [threading.Thread(target=guarded, args=(change, visible[i::3], i)) for i in range(3)]
    pickers = [threading.Thread(target=guarded, args=(pick,)) for _ in range(2)]
    for thread in (*changers, *pickers):
        thread.start()
    for thread in changers:
        thread.join()
    stop.set()
    for thread in pickers:
        thread.join()
    assert failures == []
    assert len(auto) == 1


def test_what_cannot_be_had_now_is_asked_for_again_and_what_has_no_query_set_is_not(caplog):
    asked = []

    def fetch(digest):
        asked.append(digest)
        if digest == "away" and asked.count("away") == 1:
            raise StoreUnavailable("the database does not answer")
        if digest == "foreign":
            return QuerySet.of(np.ones((1, DIM)), "hidden:9|mean|l2")
        return None if digest == "bare" else query_set([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    auto = AutoSwitch(recipe=RECIPE, k=5, fetch=fetch)
    visible = frozenset(("away", "bare", "foreign"))
    assert not auto.pick(features([[1, 0, 0]]), visible)[0].neighbours
    assert "away is not routed to: the database does not answer" in caplog.text
    assert [near.digest for near in auto.pick(features([[1, 0, 0]]), visible)[0].neighbours] == ["away"]
    auto.pick(features([[1, 0, 0]]), visible | {"other"})
    assert sorted(asked) == ["away", "away", "bare", "foreign", "other"]
