"""The life of a request below HTTP: what is submitted, and what becomes of it when something goes wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bitswitch.answer import Answers
from bitswitch.base.load import load
from bitswitch.core import InputLimits, Want
from bitswitch.errors import (
    DeadlineExceededError,
    InputTooLongError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    RouteAbstainedError,
    StoredSwitchError,
)
from bitswitch.pieces import together
from bitswitch_store import file
from running import BANKING, FAR, FILMS


@pytest.fixture
def submitted(monkeypatch):
    """Records what the real engine of a house is given: (request, future) in order."""

    def record(house):
        given = []
        submit = house.engine.submit

        def recording(request):
            future = submit(request)
            given.append((request, future))
            return future

        monkeypatch.setattr(house.engine, "submit", recording)
        return given

    return record


def limited(house, **limits):
    """Answers by the parts of a house, with limits of their own."""
    parts = {"base": house.base, "engine": house.engine, "router": house.router, "store": house.store}
    return Answers(**{**parts, "max_inputs": 64, "timeout": 20, **limits})


async def waiting(house, count):
    async with asyncio.timeout(10):
        while house.engine.state().waiting < count:
            await asyncio.sleep(0.005)


def test_auto_is_one_request_for_the_features_and_one_per_mix(house, submitted):
    given = submitted(house)
    inputs = [BANKING[0], FILMS[3], BANKING[1], BANKING[2]]
    answer = asyncio.run(house.answers.classify("default", "auto", inputs, request_id="mine"))
    features, *tasks = (request for request, _ in given)
    assert (features.want, features.mix, len(features.rows)) == (Want.FEATURES, (), 4)
    mixes = [item.selection.mix for item in answer.items]
    assert len(set(mixes)) > 1
    assert [(task.mix, len(task.rows)) for task in tasks] == list(Counter(mixes).items())
    for request in (features, *tasks):
        assert (request.tenant, request.id) == ("default", "mine")
        assert request.deadline is not None
    assert answer.tokens == sum(task.tokens for task in tasks)
    times = [future.result().timing for _, future in given]
    assert answer.timing in [times[0] + time for time in times[1:]]


def test_a_named_model_is_one_request(house, submitted):
    given = submitted(house)
    asyncio.run(house.answers.embed("default", "topic*0.5+bare*0.5", [BANKING[0], FAR, FILMS[0]]))
    ((request, _),) = given
    assert (len(request.rows), len(request.mix), request.head) == (3, 2, None)


def test_nothing_is_computed_when_one_input_is_abstained_from(house, submitted):
    given = submitted(house)
    with pytest.raises(RouteAbstainedError, match="near input 1"):
        asyncio.run(house.answers.classify("default", "auto", [BANKING[0], FAR]))
    assert [request.want for request, _ in given] == [Want.FEATURES]


def test_another_tenant_sees_nothing_of_it(house):
    with pytest.raises(ModelNotFoundError):
        asyncio.run(house.answers.classify("acme", "topic", ["a"]))
    with pytest.raises(ModelNotFoundError):
        asyncio.run(house.answers.classify("acme", "default/topic", ["a"]))
    (choice,) = asyncio.run(house.answers.route("acme", [BANKING[0]])).choices
    assert choice.abstained
    assert choice.neighbours == ()
    with pytest.raises(RouteAbstainedError, match="No switch is near"):
        asyncio.run(house.answers.classify("acme", "auto", [BANKING[0]]))


@pytest.mark.parametrize(("count", "error"), [(0, InvalidRequestError), (65, InputTooLongError)])
def test_the_number_of_inputs_is_limited(house, count, error):
    for ask in (house.answers.classify, house.answers.embed):
        with pytest.raises(error):
            asyncio.run(ask("default", "topic", ["a"] * count))
    with pytest.raises(error):
        asyncio.run(house.answers.route("default", ["a"] * count))


@pytest.mark.parametrize("long", ["abcdef", ("a", "abcdef"), ("abcdef", "a")])
def test_a_text_too_long_to_tokenize_is_refused_before_it_is(house, submitted, long):
    given = submitted(house)
    brief = limited(house, base=load(house.base.folder, limits=InputLimits(text_chars=5)))
    asks = (
        brief.classify("default", "entail", ["abcde", long]),
        brief.embed("default", "base", ["abcde", long]),
        brief.route("default", ["abcde", long]),
    )
    for ask in asks:
        with pytest.raises(
            InputTooLongError, match=r"Input 1 has a text of 6 characters; .* at most 5"
        ) as told:
            asyncio.run(ask)
        assert told.value.param == "input.1"
    assert given == []
    asyncio.run(brief.classify("default", "entail", ["abcde", ("abcde", "a")]))


def test_one_request_has_so_many_mixes(house, submitted):
    inputs = [BANKING[0], FILMS[3], BANKING[0]]
    given = submitted(house)
    with pytest.raises(InputTooLongError, match="need 2 different mixes; one request has at most 1"):
        asyncio.run(limited(house, max_mixes=1).classify("default", "auto", inputs))
    assert [request.want for request, _ in given] == [Want.FEATURES]
    answer = asyncio.run(limited(house, max_mixes=2).classify("default", "auto", inputs))
    assert len({item.selection.mix for item in answer.items}) == 2


def test_the_engine_gets_a_large_group_in_pieces(house, submitted):
    inputs = [*BANKING[:3], *FILMS[:2]]
    whole = asyncio.run(house.answers.classify("default", "topic", inputs))
    given = submitted(house)
    cut = limited(house, batch_rows=2)
    answer = asyncio.run(cut.classify("default", "topic", inputs))
    assert [len(request.rows) for request, _ in given] == [2, 2, 1]
    assert answer.tokens == whole.tokens
    for got, expected in zip(answer.items, whole.items, strict=True):
        np.testing.assert_allclose(got.values, expected.values, atol=1e-6)
    assert answer.timing == together([future.result() for _, future in given])
    given.clear()
    routed = asyncio.run(cut.route("default", inputs)).choices
    assert [len(request.rows) for request, _ in given] == [2, 2, 1]
    distances = [choice.distance for choice in asyncio.run(house.answers.route("default", inputs)).choices]
    np.testing.assert_allclose([choice.distance for choice in routed], distances, atol=1e-5)


def damaged(house):
    path = house.store.path(house.store.find("default", "topic").digest)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def unfit(house):
    """As another release of the server may have let it in."""
    switch = house.switch("topic")
    head = replace(switch.head, config={**switch.head.config, "problem_type": "guesswork"})
    house.store.put(file.write(replace(switch, head=head)), tenant="default", name="topic")


@pytest.mark.parametrize("spoil", [damaged, unfit])
def test_that_a_stored_switch_cannot_be_served_is_not_the_caller_s_fault(gated, gate, spoil):
    gate.set()
    spoil(gated)
    for ask in (gated.answers.classify, gated.answers.embed):
        with pytest.raises(StoredSwitchError, match=r"^The stored switch cannot be served: ") as told:
            asyncio.run(ask("default", "topic", ["a"]))
        assert (told.value.status, told.value.code, told.value.param) == (500, "switch_unusable", None)
    assert gated.engine.verify().intact


def test_a_caller_who_goes_takes_their_request_along(gated, submitted):
    given = submitted(gated)

    async def scenario():
        task = asyncio.create_task(gated.answers.classify("default", "topic", ["a"]))
        await waiting(gated, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert [future.cancelled() for _, future in given] == [True]


def test_when_one_group_is_refused_the_others_are_dropped(gated, submitted):
    """The queue holds two: one request that waits, and the first of two groups."""
    given = submitted(gated)

    async def scenario():
        first = asyncio.create_task(gated.answers.classify("default", "entail", ["a"]))
        await waiting(gated, 1)
        with pytest.raises(OverloadedError):
            await gated.answers.classify("default", "auto", [BANKING[0], FILMS[3]])
        first.cancel()

    asyncio.run(scenario())
    _, (features, _), (group, dropped) = given
    assert features.want is Want.FEATURES
    assert (group.want, dropped.cancelled()) == (Want.CLASSIFY, True)


def test_who_waits_too_long_is_told(gated):
    hasty = limited(gated, timeout=0.2)
    with pytest.raises(DeadlineExceededError, match=r"within 0\.2 s"):
        asyncio.run(hasty.classify("default", "topic", ["a"]))


def test_a_switch_that_is_deleted_while_its_request_waits_still_answers_it(gated, gate):
    async def scenario():
        task = asyncio.create_task(gated.answers.classify("default", "topic", ["a"]))
        await waiting(gated, 1)
        await asyncio.to_thread(gated.publisher.withdraw, "default", "topic", None, force=False)
        gate.set()
        assert (await task).model == "topic@1"
        with pytest.raises(ModelNotFoundError, match="'topic' does not exist"):
            await gated.answers.classify("default", "topic", ["a"])

    asyncio.run(scenario())
