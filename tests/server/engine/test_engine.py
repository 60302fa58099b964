"""The engine with a real tiny model: right answers from any number of threads, and the base always back."""

import gc
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from weakref import ref

import numpy as np
import pytest
import torch
from numba import get_num_threads

import openmp
from bitswitch.base.load import load
from bitswitch.core import Mix, Request, Want
from bitswitch.engine.admission import FEW
from bitswitch.engine.engine import Engine
from bitswitch.engine.planes import Planes
from bitswitch.errors import (
    DeadlineExceededError,
    InvalidSwitchError,
    NotFiniteError,
    OverloadedError,
    UnavailableError,
)
from bitswitch_store.switch import BaseIdentity
from oracle import written
from switches import random_switch
from tiny import make_base

TEXTS = ["who wrote hamlet", "free prize call now", "i loved the movie it was brilliant", "a", ""]


def make(folder, *, dtype=None, **limits):
    base = load(folder, dtype=dtype)
    shapes = {name: tuple(p.shape) for name, p in base.parameters.items()}
    switches = {f"s{i}": random_switch(shapes, 0.3, i, base=base.identity) for i in range(6)}
    fetched = []

    def fetch(digest):
        fetched.append(digest)
        if digest == "corrupt":
            raise InvalidSwitchError("the blob of 'corrupt' is damaged")
        return switches[digest]

    engine = Engine(base, fetch, **limits)
    engine.switches, engine.fetched, engine.base = switches, fetched, base
    return engine


@pytest.fixture
def engine(tiny_base):
    engine = make(tiny_base)
    engine.start()
    yield engine
    engine.stop(10)


def request(engine, mix, texts=TEXTS[:1], want=Want.EMBED, **more):
    return Request(mix, want, engine.base.encode(texts, want=want), **more)


def statically(engine, mix, text):
    """The embedding at weights written by the oracle into a fresh copy of the model."""
    base = load(engine.base.folder)
    weights = written(dict(base.parameters), [(engine.switches[digest], weight) for digest, weight in mix])
    with torch.no_grad():
        for name, parameter in base.parameters.items():
            parameter.copy_(weights[name])
    return base.embed(base.forward(base.encode([text], want=Want.EMBED)))[0].numpy()


MIXES = [
    Mix(),
    Mix.of([("s0", 1.0)]),
    Mix.of([("s1", 1.0)]),
    Mix.of([("s2", 0.5), ("s3", 0.5)]),
    Mix.of([(f"s{i}", 0.2) for i in range(6)]),
]


def test_answers_are_those_of_statically_written_weights(engine):
    for mix in (*MIXES, *reversed(MIXES)):
        result = engine.submit(request(engine, mix, TEXTS)).result(30)
        assert result.mix == mix
        assert result.values.dtype == np.float32
        for text, values in zip(TEXTS, result.values, strict=True):
            np.testing.assert_allclose(values, statically(engine, mix, text), atol=2e-6)
    assert engine.verify().intact


def test_many_threads_many_mixes(engine):
    alone = {
        (mix, text): engine.submit(request(engine, mix, [text])).result(30).values[0]
        for mix in MIXES
        for text in TEXTS
    }
    chance = random.Random(0)
    asked = [chance.choice(list(alone)) for _ in range(300)]

    def ask(what):
        mix, text = what
        return engine.submit(request(engine, mix, [text], tenant=text)).result(60).values[0]

    with ThreadPoolExecutor(16) as pool:
        for what, values in zip(asked, pool.map(ask, asked), strict=True):
            np.testing.assert_allclose(values, alone[what], atol=2e-6)
    verdict = engine.verify()
    assert verdict.intact
    assert verdict.checked == len(engine.base.parameters)


def test_more_rows_than_a_pass_takes_come_back_in_order(tiny_base):
    engine = make(tiny_base, batch_rows=3, batch_tokens=30)
    engine.start()
    texts = [TEXTS[i % len(TEXTS)] + " movie" * (i % 7) for i in range(40)]
    result = engine.submit(request(engine, MIXES[1], texts)).result(60)
    singles = [engine.submit(request(engine, MIXES[1], [text])).result(60).values[0] for text in texts]
    np.testing.assert_allclose(result.values, np.stack(singles), atol=2e-6)
    engine.stop(10)


def test_a_damaged_switch_fails_its_own_request_alone(engine):
    bad = engine.submit(request(engine, Mix.of([("s0", 0.5), ("corrupt", 0.5)])))
    good = engine.submit(request(engine, MIXES[1]))
    with pytest.raises(InvalidSwitchError, match="damaged"):
        bad.result(30)
    assert good.result(30).values.shape == (1, 32)
    assert engine.verify().intact


def test_a_forward_that_fails_restores_the_base_and_the_engine_goes_on(engine):
    broken = request(engine, MIXES[2])
    broken.rows[0].fields["input_ids"][0] = 10**6  # no such token
    with pytest.raises(IndexError):
        engine.submit(broken).result(30)
    assert engine.state().mix == Mix()
    assert engine.verify().intact
    assert engine.submit(request(engine, MIXES[2])).result(30).mix == MIXES[2]


def test_idle_means_the_bare_base(engine):
    engine.submit(request(engine, MIXES[4])).result(30)
    waited = time.monotonic() + 10
    while engine.state().mix and time.monotonic() < waited:
        time.sleep(0.01)
    state = engine.state()
    assert state.mix == Mix()
    assert state.journal_bytes == 0
    assert state.transitions == 2
    assert set(state.resident) == set(MIXES[4].digests)


def test_overload_is_refused_at_the_door_and_what_was_taken_is_answered(tiny_base):
    engine = make(tiny_base, queue_limit=4)
    engine.start()
    hold, held = threading.Event(), threading.Event()

    judge = engine._loop._judge

    def stall():
        held.set()
        hold.wait(30)
        judge()

    engine._loop._judge = stall
    engine._queue.wake()
    assert held.wait(10)
    taken = [engine.submit(request(engine, MIXES[1])) for _ in range(4)]
    with pytest.raises(OverloadedError):
        engine.submit(request(engine, MIXES[1]))
    late = taken[0]
    assert late.cancel()
    hold.set()
    assert all(future.result(30).mix == MIXES[1] for future in taken[1:])
    engine.stop(10)


def test_the_pace_is_known_where_each_step_takes_all_that_wait(tiny_base):
    """As under overload: nobody waits when a step begins, and others have come by the time it ends."""
    engine = make(tiny_base, queue_seconds=0.2)
    engine.start()
    answers = []

    def slow(*_):
        if len(answers) < 20:
            answers.append(engine.submit(request(engine, Mix())))
        time.sleep(0.02)

    with ExitStack() as inside:
        for _ in range(FEW):
            inside.enter_context(engine.admission.admitted("a", 100))
        with engine.admission.admitted("a", 1):  # a first guess: those 800 tokens take a tenth of a second
            pass
        hook = engine.base.model.register_forward_pre_hook(slow)
        engine.submit(request(engine, Mix())).result(30)
        while len(answers) < 20:
            time.sleep(0.01)
        hook.remove()
        with pytest.raises(OverloadedError), engine.admission.admitted("a", 1):
            pass
    engine.stop(10)


def test_a_rest_after_callers_that_went_is_no_slow_step(tiny_base):
    """As when a load generator ends: what waits at the end of a step is cancelled, and long nothing comes."""
    engine = make(tiny_base)
    engine.start()
    rate = engine._loop._pace.rate

    def leave(*_):
        engine.submit(request(engine, Mix())).cancel()

    hook = engine.base.model.register_forward_pre_hook(leave)
    engine.submit(request(engine, Mix())).result(30)
    hook.remove()
    time.sleep(1.0)
    engine.submit(request(engine, Mix())).result(30)
    assert engine._loop._pace.rate == rate
    engine.stop(10)


@pytest.mark.parametrize("family", ["llama", "fnet"])
def test_a_decoder_and_what_sees_padding_answer_each_row_as_alone(tmp_path, family):
    engine = make(make_base(tmp_path / family, family))
    engine.start()
    for want in (Want.EMBED, Want.FEATURES):
        rows = engine.base.encode(TEXTS, want=want)
        alone = [engine.submit(Request(Mix(), want, (row,))).result(30).values[0] for row in rows]
        together = engine.submit(Request(Mix(), want, rows)).result(30).values
        np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)
    mixed = [engine.submit(request(engine, mix, TEXTS)) for mix in MIXES]
    for mix, future in zip(MIXES, mixed, strict=True):
        expected = np.stack([statically(engine, mix, text) for text in TEXTS])
        np.testing.assert_allclose(future.result(30).values, expected, atol=1e-4)
    engine.stop(10)


def test_a_look_at_the_weights_is_no_part_of_a_step(tiny_base):
    """It takes seconds where a base is large, and the pace would say that nobody can be let in."""
    engine = make(tiny_base)
    done = []
    pace, runner = engine._loop._pace, engine._runner

    def noting(what, then):
        return lambda *given: [done.append(what), then(*given)][1]

    pace.step, pace.pause = noting("step", pace.step), noting("pause", pace.pause)
    runner.verify = noting("look", runner.verify)
    engine.start()
    asked = []

    def another(*_):
        if len(asked) < 3:
            asked.extend((engine.submit(request(engine, Mix())), engine._loop.verdict()))

    hook = engine.base.model.register_forward_pre_hook(another)
    engine.submit(request(engine, Mix())).result(30)
    while len(asked) < 3 or not all(one.done() for one in asked):
        time.sleep(0.01)
    hook.remove()
    engine.stop(10)
    looks = [place for place, what in enumerate(done) if what == "look"]
    assert looks
    for place in looks:
        assert "pause" in done[done.index("step") : place]
        assert done[:place][::-1].index("pause") < done[:place][::-1].index("step")


def test_an_evicted_switch_leaves_memory_at_once(tiny_base):
    """Not when Python's collector comes by, which knows nothing of arrays' sizes."""
    engine = make(tiny_base, resident_bytes=1)
    made, build = [], engine._make_ready

    def noting(switch):
        ready = build(switch)
        made.append(ref(ready.planes))
        return ready

    engine._make_ready = noting
    engine.start()
    gc.collect()
    gc.disable()
    try:
        for digest in ("s0", "s1", "s2"):
            engine.submit(request(engine, Mix.of([(digest, 1.0)]))).result(30)
        assert made[0]() is None
    finally:
        gc.enable()
    engine.stop(10)


def test_deadlines_and_cancelled_requests(engine):
    past = engine.submit(request(engine, MIXES[1], deadline=time.monotonic() - 1))
    with pytest.raises(DeadlineExceededError):
        past.result(30)
    for _ in range(20):
        engine.submit(request(engine, MIXES[3])).cancel()
    assert engine.submit(request(engine, MIXES[0])).result(30).mix == Mix()
    assert engine.verify().intact


def test_stopping_answers_what_waits_and_takes_no_more(tiny_base):
    engine = make(tiny_base)
    with pytest.raises(UnavailableError):
        engine.submit(request(engine, MIXES[0]))
    engine.start()
    futures = [engine.submit(request(engine, mix)) for mix in MIXES * 4]
    engine.stop(30)
    assert [future.result(0).mix for future in futures] == MIXES * 4
    assert not engine.state().ready
    with pytest.raises(UnavailableError):
        engine.submit(request(engine, MIXES[0]))


def test_a_changed_weight_is_found_and_named(engine):
    name = next(iter(engine.base.parameters))
    with torch.no_grad():
        engine.base.parameters[name].view(-1)[0] += 1
    verdict = engine.verify()
    assert not verdict.intact
    assert verdict.differing == (name,)


def test_a_switch_is_made_ready_without_threads_that_stay(engine):
    """GNU's OpenMP keeps them beside the engine's, and then lets none of them spin."""
    openmp.require()
    with ThreadPoolExecutor(1) as one:
        one.submit(get_num_threads).result()  # it is there, and numba's own
        before = openmp.count()
        one.submit(engine.check, engine.switches["s0"]).result()
        assert openmp.count() == before
        one.submit(Planes, engine._arena, engine.switches["s0"]).result()
        assert openmp.count() > before  # what it would be otherwise


def test_switches_of_another_base_or_shape_are_refused(engine):
    shapes = {name: tuple(p.shape) for name, p in engine.base.parameters.items()}
    name = next(iter(shapes))
    identity = engine.base.identity
    engine.check(random_switch(shapes, 0.1, 0, base=identity))
    with pytest.raises(InvalidSwitchError, match="belongs to base bert sha256:0000"):
        engine.check(random_switch(shapes, 0.1, 0))
    with pytest.raises(InvalidSwitchError, match="no tensor nowhere"):
        engine.check(random_switch({"nowhere": (3,)}, 1.0, 0, base=identity))
    with pytest.raises(InvalidSwitchError, match="in the switch and"):
        engine.check(random_switch({name: (3, 3)}, 1.0, 0, base=identity))
    other = BaseIdentity("roberta", identity.digest)
    with pytest.raises(InvalidSwitchError, match="belongs to base roberta"):
        engine.check(random_switch(shapes, 0.1, 0, base=other))


def test_a_start_that_fails_says_so(tiny_base, monkeypatch):
    engine = make(tiny_base)

    def broken():
        raise RuntimeError("no compiler")

    monkeypatch.setattr(engine._runner.swap, "warm_up", broken)
    with pytest.raises(UnavailableError, match="did not start"):
        engine.start()
    assert not engine.state().ready
    with pytest.raises(UnavailableError):
        engine.submit(request(engine, MIXES[0]))
    with pytest.raises(UnavailableError):
        engine.verify()


def test_verdicts_do_not_keep_requests_waiting(engine):
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            assert engine.verify().intact

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    results = [engine.submit(request(engine, mix)).result(30) for mix in MIXES * 2]
    stop.set()
    for asker in askers:
        asker.join(30)
    assert [result.mix for result in results] == MIXES * 2


def test_a_verdict_that_cannot_be_reached_leaves_the_engine_alive(engine, monkeypatch):
    def no_threads(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(type(engine.base), "digest", no_threads)
        with pytest.raises(RuntimeError, match="new thread"):
            engine.verify()
    assert engine.verify().intact


def test_an_answer_that_is_not_finite_is_no_answer(engine):
    shapes = {name: tuple(p.shape) for name, p in engine.base.parameters.items()}
    huge = random_switch(shapes, 1.0, 9, base=engine.base.identity)
    engine.switches["huge"] = huge
    mix = Mix.of([("huge", 3e38)])
    with pytest.raises(NotFiniteError, match="smaller weights"):
        engine.submit(request(engine, mix)).result(30)
    assert engine.verify().intact


def test_a_switch_beyond_the_budget_is_served_all_the_same(tiny_base):
    engine = make(tiny_base, resident_bytes=0)
    engine.start()
    for mix in MIXES:
        assert engine.submit(request(engine, mix)).result(30).mix == mix
    engine.stop(10)
    assert engine.state().resident == {}
