"""When the weights cannot be trusted: the base comes back bit for bit, those who wait are answered, and there
is an end to trying.
"""

import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_engine import MIXES, make, request, statically

from bitswitch.core import Mix
from bitswitch.engine import cpu, recovery
from bitswitch.engine.recovery import GaveUpError, Reason, Recovery
from bitswitch.engine.state import Condition
from bitswitch.errors import UnavailableError
from tiny import make_base


@pytest.fixture
def make_engine(tmp_path, monkeypatch):
    """Engines over a base of this test's own; stopped at the end."""
    monkeypatch.setattr(recovery, "PAUSE", 0.01)
    engines = []
    base = make_base(tmp_path / "base")

    def make_one(**limits):
        engines.append(make(base, **limits))
        engines[-1].start()
        return engines[-1]

    yield make_one
    for engine in engines:
        engine.stop(10)


@pytest.fixture
def engine(make_engine):
    return make_engine()


def answer(engine, mix):
    return engine.submit(request(engine, mix)).result(30).values[0]


def is_right(engine, mix=MIXES[3]):
    """Whether answers and weights are what they must be."""
    np.testing.assert_allclose(answer(engine, mix), statically(engine, mix, "who wrote hamlet"), atol=2e-6)
    return engine.verify().intact


def until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.002)


def failing_halfway(monkeypatch, error, times=1):
    """The CPU's real kernel, which for some calls writes every second block and then raises."""
    whole, left = cpu.transition, [times]

    def transition(*arguments):
        if not left[0]:
            return whole(*arguments)
        left[0] -= 1
        halves = list(arguments)
        for place in (4, 10):  # the old and the new journal's blocks
            halves[place] = np.where(np.arange(len(halves[place])) % 2, halves[place], -1).astype(np.int32)
        whole(*halves)
        raise error

    monkeypatch.setattr(cpu, "transition", transition)


@pytest.mark.parametrize("start", [Mix(), MIXES[4]], ids=["from the base", "from another mix"])
@pytest.mark.parametrize("mix", [MIXES[1], MIXES[3]], ids=["one switch", "two"])
def test_memory_that_runs_out_halfway_brings_the_base_back_and_others_are_served(
    engine, monkeypatch, start, mix
):
    answer(engine, start)
    changed = []
    reload = engine._runner.reload

    def looking():
        changed.append(not engine._runner._compare().intact)
        return reload()

    monkeypatch.setattr(engine._loop._recovery, "_reload", looking)
    with monkeypatch.context() as patch:
        failing_halfway(patch, torch.OutOfMemoryError("CUDA out of memory"))
        with pytest.raises(UnavailableError, match="loaded anew") as told:
            engine.submit(request(engine, mix)).result(30)
    assert told.value.retry_after == 1.0
    until(lambda: engine.state().ready)
    assert changed == [True]  # or the test would prove nothing
    assert engine.state().reloads == {"thread": 0, "transition": 0, "memory": 1, "check": 0}
    assert is_right(engine)


def test_a_transition_under_way_is_no_reason_not_to_be_ready(engine, monkeypatch):
    kernel, seen = engine._runner.swap._kernel, []
    transition = kernel.transition

    def watched(planes, weights):
        kernel.torn = True  # what another thread finds while the weights are on their way
        seen.append(engine.state().condition)
        transition(planes, weights)

    monkeypatch.setattr(kernel, "transition", watched)
    assert is_right(engine)
    assert set(seen) == {Condition.READY}


def test_another_error_halfway_is_counted_as_what_it_is(engine, monkeypatch):
    with monkeypatch.context() as patch:
        failing_halfway(patch, RuntimeError("an illegal memory access"))
        with pytest.raises(UnavailableError):
            engine.submit(request(engine, MIXES[1])).result(30)
    until(lambda: engine.state().ready)
    assert engine.state().reloads["transition"] == 1
    assert is_right(engine)


def test_memory_that_is_missing_before_the_first_write_costs_one_request(engine, monkeypatch):
    answer(engine, MIXES[4])

    def no_room(*_):
        raise MemoryError("no room for a journal")

    with monkeypatch.context() as patch:
        patch.setattr(engine._runner.swap._kernel, "_room", no_room)
        with pytest.raises(UnavailableError, match="no memory left"):
            engine.submit(request(engine, MIXES[1])).result(30)
    assert sum(engine.state().reloads.values()) == 0
    assert is_right(engine)


def test_memory_that_runs_out_in_the_forward_pass_costs_one_request(engine, monkeypatch):
    def no_room(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(engine._runner, "_pass", no_room)
        with pytest.raises(UnavailableError, match="no memory left"):
            engine.submit(request(engine, MIXES[1])).result(30)
    assert sum(engine.state().reloads.values()) == 0
    assert is_right(engine)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(1)], ids=repr)
def test_an_error_in_the_loop_is_survived(engine, monkeypatch, error, caplog):
    calls = []

    choose = engine._runner._scheduler.choose

    def broken(*arguments, **named):
        calls.append(1)
        if len(calls) == 1:
            raise error
        return choose(*arguments, **named)

    monkeypatch.setattr(engine._runner._scheduler, "choose", broken)
    waiting = [engine.submit(request(engine, mix)) for mix in MIXES]
    for mix, future in zip(MIXES, waiting, strict=True):  # nobody was taken yet: everybody is answered
        assert future.result(30).mix == mix
    assert engine.state().reloads["thread"] == 1
    assert "the engine's loop failed" in caplog.text
    assert is_right(engine)


def test_an_error_outside_of_exceptions_reaches_those_it_met(engine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine._runner, "_pass", lambda *_: (_ for _ in ()).throw(SystemExit(1)))
        with pytest.raises(UnavailableError, match="engine failed"):
            engine.submit(request(engine, MIXES[1])).result(30)
    until(lambda: engine.state().ready)
    assert is_right(engine)


def test_a_check_that_fails_brings_the_base_back(engine, caplog):
    name = next(iter(engine.base.parameters))
    with torch.no_grad():
        engine.base.parameters[name].view(-1)[0] += 1
    assert engine.verify().differing == (name,)
    state = engine.state()
    assert state.ready
    assert state.failed_checks == 1
    assert state.reloads["check"] == 1
    assert f"(check): {name}" in caplog.text
    assert is_right(engine)


def test_the_engine_looks_after_its_weights_by_itself(make_engine):
    engine = make_engine(verify_every=0.02)
    with torch.no_grad():
        next(iter(engine.base.parameters.values())).view(-1)[0] += 1
    until(lambda: engine.state().reloads["check"] == 1)
    assert is_right(engine)
    assert engine.state().failed_checks == 1


def test_requests_wait_while_the_base_is_loaded_and_nobody_is_told_it_is_ready(engine, monkeypatch):
    go, begun = threading.Event(), threading.Event()
    reload = engine._runner.reload

    def slow():
        begun.set()
        go.wait(30)
        return reload()

    monkeypatch.setattr(engine._loop._recovery, "_reload", slow)
    with torch.no_grad():
        next(iter(engine.base.parameters.values())).view(-1)[0] += 1
    asker = threading.Thread(target=engine.verify)
    asker.start()
    assert begun.wait(30)
    state = engine.state()
    assert (state.ready, state.condition) == (False, Condition.MENDING)
    assert "not the base's" in state.reason
    waiting = engine.submit(request(engine, MIXES[1]))
    hurried = engine.submit(request(engine, MIXES[1], deadline=time.monotonic()))
    go.set()
    assert waiting.result(30).mix == MIXES[1]
    assert hurried.exception(30) is not None
    asker.join(30)
    assert engine.state().ready
    assert is_right(engine)


def test_there_is_an_end_to_trying_and_everybody_hears_why(engine, monkeypatch):
    failing_halfway(monkeypatch, torch.OutOfMemoryError("out of memory"), times=100)
    for _ in range(recovery.IN_A_ROW + 1):
        with pytest.raises(UnavailableError):
            engine.submit(request(engine, MIXES[1])).result(30)
    until(lambda: engine.state().condition is Condition.FAILED)
    state = engine.state()
    assert state.reloads["memory"] == recovery.IN_A_ROW
    assert "3 times in a row" in state.reason
    assert "out of memory" in state.reason
    with pytest.raises(UnavailableError, match="not running"):
        engine.submit(request(engine, MIXES[0]))


def test_a_step_that_goes_well_starts_the_count_anew(engine, monkeypatch):
    for _ in range(recovery.IN_A_ROW + 2):
        with monkeypatch.context() as patch:
            failing_halfway(patch, torch.OutOfMemoryError("out of memory"))
            with pytest.raises(UnavailableError):
                engine.submit(request(engine, MIXES[1])).result(30)
        answer(engine, MIXES[2])
    assert engine.state().ready


def test_another_checkpoint_in_its_place_is_not_served(make_engine):
    engine = make_engine()
    path = engine.base.folder / "model.safetensors"
    weights = load_file(path)
    name = next(iter(engine.base.parameters))
    save_file({**weights, name: weights[name] + 1}, path, metadata={"format": "pt"})
    with torch.no_grad():
        engine.base.parameters[name].view(-1)[0] += 1
    engine.verify() if engine.state().ready else None
    until(lambda: engine.state().condition is Condition.FAILED)
    assert f"no longer holds what was loaded from it ({name})" in engine.state().reason


def test_a_checkpoint_that_comes_back_is_read(engine, monkeypatch):
    path = engine.base.folder / "model.safetensors"
    away = path.with_suffix(".away")
    path.rename(away)
    monkeypatch.setattr(engine._loop._recovery, "_wait", lambda seconds: seconds and away.rename(path))
    with torch.no_grad():
        next(iter(engine.base.parameters.values())).view(-1)[0] += 1
    engine.verify()
    assert engine.state().reloads["check"] == 2
    assert is_right(engine)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_come_back_bit_for_bit_whatever_they_are_stored_in(tmp_path, dtype):
    for stored in (dtype, torch.float32):
        folder = make_base(tmp_path / f"{stored}", dtype=stored)
        engine = make(folder, dtype=str(dtype).removeprefix("torch."))
        engine.start()
        with torch.no_grad():
            for parameter in engine.base.parameters.values():
                parameter.zero_()
        assert not engine.verify().intact
        assert engine.verify().intact
        engine.stop(10)


def test_a_recovery_waits_longer_each_time_and_gives_up():
    waits = []

    def reload():
        raise OSError("the disk is gone")

    mending = Recovery(reload, waits.append)
    with pytest.raises(GaveUpError, match="the disk is gone"):
        mending.mend(Reason.THREAD, "a bug")
    assert waits == [0, recovery.PAUSE, 2 * recovery.PAUSE]
    assert mending.reloads["thread"] == recovery.IN_A_ROW
    assert "a bug; then loading it anew failed" in mending.cause
