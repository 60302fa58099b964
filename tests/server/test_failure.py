"""What callers and operators see when something breaks, over HTTP; the weights are verified after each.

`docs/failure.md` is the table of these.
"""

import contextlib
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from bitswitch.engine import cpu, recovery
from bitswitch.engine.admission import FEW
from bitswitch_store import database
from running import House, serving

TEXT = "my card was charged twice"


@pytest.fixture
def broken_soon(tiny_base, switch_files, tmp_path, monkeypatch):
    """A house of this test's own, to break things in."""
    monkeypatch.setattr(recovery, "PAUSE", 0.01)
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0)
    built = House.build(tiny_base, tmp_path / "store", queue_seconds=1.0)
    with built.running(switch_files.values()) as house:
        yield house


@pytest.fixture
def caller(broken_soon):
    with serving(broken_soon.app()) as address, httpx.Client(base_url=address, timeout=30) as http:
        yield http


def ask(caller, model="topic", text=TEXT):
    return caller.post("/v1/classify", json={"model": model, "input": text})


def metric(caller, name, **labels):
    for family in text_string_to_metric_families(caller.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def is_unavailable(answer):
    """A 503 that a client's library retries."""
    return (
        answer.status_code == 503
        and answer.json()["error"]["code"] == "unavailable"
        and int(answer.headers["retry-after"]) >= 1
        and float(answer.headers["retry-after-ms"]) > 0
    )


def whole(caller):
    return caller.get("/v1/admin/verify").json()["intact"]


def at_base(caller):
    return not caller.get("/v1/admin/state").json()["mix"]


def until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.005)


def failing(monkeypatch, times=1):
    """The real kernel writes half of the blocks, and then there is no memory."""
    complete, left = cpu.transition, [times]

    def transition(*arguments):
        if not left[0]:
            return complete(*arguments)
        left[0] -= 1
        halves = list(arguments)
        halves[10] = np.where(np.arange(len(halves[10])) % 2, halves[10], -1).astype(np.int32)
        complete(*halves)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cpu, "transition", transition)


def test_out_of_memory_halfway(caller, monkeypatch, caplog):
    before = ask(caller).json()["data"]
    until(lambda: at_base(caller))
    failing(monkeypatch)
    refused = ask(caller)
    assert is_unavailable(refused)
    assert "loaded anew" in refused.json()["error"]["message"]
    assert "CUDA" not in refused.text
    until(lambda: caller.get("/health").status_code == 200)
    assert ask(caller).json()["data"] == before
    assert metric(caller, "bitswitch_base_reloads_total", reason="memory") == 1
    assert "the base is loaded anew (memory): OutOfMemoryError: CUDA out of memory" in caplog.text
    assert "the base is back, bit for bit" in caplog.text
    assert whole(caller)


def test_the_engine_s_thread_fails_and_nobody_who_waits_is_lost(broken_soon, caller, monkeypatch, caplog):
    scheduler, broken = broken_soon.engine._runner._scheduler, []
    choose = scheduler.choose

    def once(*arguments, **named):
        if not broken:
            broken.append(1)
            raise RuntimeError("a bug in the scheduler")
        return choose(*arguments, **named)

    monkeypatch.setattr(scheduler, "choose", once)
    assert ask(caller).status_code == 200
    assert broken
    assert metric(caller, "bitswitch_base_reloads_total", reason="thread") == 1
    assert "a bug in the scheduler" in caplog.text
    assert whole(caller)


def test_weights_that_differ_are_mended_and_the_server_is_not_ready_meanwhile(
    broken_soon, caller, monkeypatch, caplog
):
    right = ask(caller).json()["data"]
    until(lambda: at_base(caller))  # on the way there the journal would put the weight right
    go, begun = threading.Event(), threading.Event()
    reload = broken_soon.engine._loop._recovery._reload

    def slow():
        begun.set()
        go.wait(20)
        return reload()

    monkeypatch.setattr(broken_soon.engine._loop._recovery, "_reload", slow)
    with torch.no_grad():
        next(iter(broken_soon.base.parameters.values())).view(-1)[7] += 1
    found = []
    with httpx.Client(base_url=caller.base_url, timeout=30) as other:
        asking = threading.Thread(target=lambda: found.append(other.get("/v1/admin/verify").json()))
        asking.start()
        assert begun.wait(20)
        for path in ("/health", "/v2/health/ready"):
            assert caller.get(path).status_code == 503
            assert "mending" in caller.get(path).text
        assert is_unavailable(caller.get("/health"))
        assert caller.get("/v2/health/live").status_code == 200
        assert metric(caller, "bitswitch_ready") == 0
        state = caller.get("/v1/admin/state").json()
        assert (state["ready"], state["condition"]) == (False, "mending")
        waiting = []
        patient = threading.Thread(target=lambda: waiting.append(ask(other)))
        patient.start()
        until(lambda: caller.get("/v1/admin/state").json()["waiting"] == 1)
        go.set()
        asking.join(20)
        patient.join(20)
    assert not found[0]["intact"]
    assert len(found[0]["differing"]) == 1
    assert waiting[0].json()["data"] == right
    assert metric(caller, "bitswitch_base_check_failures_total") == 1
    assert metric(caller, "bitswitch_base_reloads_total", reason="check") == 1
    assert metric(caller, "bitswitch_ready") == 1
    assert f"(check): {found[0]['differing'][0]}" in caplog.text
    assert whole(caller)


def test_a_server_that_cannot_be_mended_asks_to_be_started_anew(broken_soon, caller, caplog):
    (broken_soon.base.folder / "model.safetensors").rename(broken_soon.base.folder / "away")
    try:
        with torch.no_grad():
            next(iter(broken_soon.base.parameters.values())).view(-1)[0] += 1
        assert not caller.get("/v1/admin/verify").json()["intact"]
    finally:
        (broken_soon.base.folder / "away").rename(broken_soon.base.folder / "model.safetensors")
    until(lambda: caller.get("/v2/health/live").status_code == 503)
    assert is_unavailable(ask(caller))
    assert is_unavailable(caller.get("/health"))
    assert str(broken_soon.base.folder) not in caller.get("/health").text
    state = caller.get("/v1/admin/state").json()
    assert state["condition"] == "failed"
    assert "has no model.safetensors" in state["reason"]
    assert metric(caller, "bitswitch_base_reloads_total", reason="check") == recovery.IN_A_ROW
    assert "nothing is served until the server is started anew" in caplog.text


def test_a_blob_that_is_damaged_on_disk(broken_soon, caller, switch_files, caplog):
    right = ask(caller).json()["data"]
    entry = broken_soon.store.find("default", "topic")
    broken_soon.engine.forget(entry.digest)
    path = broken_soon.store.path(entry.digest)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    refused = ask(caller)
    assert refused.status_code == 500
    assert refused.json()["error"]["code"] == "switch_unusable"
    assert "publish it again" in refused.json()["error"]["message"]
    assert ask(caller, model="polarity").status_code == 200
    assert metric(caller, "bitswitch_request_failure_total", code="switch_unusable") == 1
    assert "is damaged" in caplog.text
    assert whole(caller)
    again = caller.post("/v1/switches", files={"file": switch_files["topic"].read_bytes()})
    assert again.status_code in (200, 201)
    assert ask(caller).json()["data"] == right


def test_the_database_is_away(broken_soon, caller, caplog):
    assert ask(caller).status_code == 200
    path = Path(broken_soon.store.database._engine.url.database)
    broken_soon.store.database._engine.dispose()  # as if the connections had broken
    files = [path, *path.parent.glob(path.name + "-*")]
    for one in files:
        one.rename(f"{one}.away")
    path.mkdir()
    refused = ask(caller)
    assert is_unavailable(refused)
    assert "sqlite" not in refused.text.lower()
    assert is_unavailable(caller.get("/v1/switches"))
    assert caller.post("/v1/embeddings", json={"model": "base", "input": TEXT}).status_code == 200
    assert caller.get("/health").status_code == 200  # no replica would do better
    assert "the store does not answer" in caplog.text
    path.rmdir()
    for one in files:
        Path(f"{one}.away").rename(one)
    assert ask(caller).status_code == 200
    assert whole(caller)


def test_the_database_is_held_by_another_process(broken_soon, caller, switch_files):
    path = broken_soon.store.database._engine.url.database
    upload = {"file": switch_files["topic"].read_bytes()}
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = caller.post("/v1/switches", files=upload, data={"name": "another"})
        assert is_unavailable(refused)
        assert ask(caller).status_code == 200  # reading needs no turn
        other.execute("ROLLBACK")
    assert caller.get("/v1/switches/another").status_code == 404
    assert caller.post("/v1/switches", files=upload, data={"name": "another"}).status_code in (200, 201)
    assert ask(caller, model="another").status_code == 200
    assert whole(caller)


def test_uploads_that_wait_for_the_store_keep_nobody_waiting(broken_soon, switch_files, monkeypatch):
    """More of them than there are threads for requests."""
    hold, entered = threading.Event(), threading.Semaphore(0)
    put = broken_soon.store.put

    def slow(*given, **named):
        entered.release()
        assert hold.wait(30)
        return put(*given, **named)

    monkeypatch.setattr(broken_soon.store, "put", slow)
    data, app = switch_files["topic"].read_bytes(), broken_soon.app()
    publishing = app.state.parts.publishing
    with (
        serving(app) as address,
        httpx.Client(base_url=address, timeout=30) as caller,
        ThreadPoolExecutor(40) as pool,
    ):
        uploads = [
            pool.submit(caller.post, "/v1/switches", files={"file": data}, data={"name": f"more{n}"})
            for n in range(40)
        ]
        assert entered.acquire(timeout=20)
        until(lambda: publishing.statistics().tasks_waiting > 35)
        assert ask(caller).status_code == 200
        assert not any(upload.done() for upload in uploads)
        hold.set()
        assert {upload.result().status_code for upload in uploads} == {201}
        assert whole(caller)


def test_a_caller_hangs_up_in_the_middle_of_the_body(caller, caplog):
    caplog.set_level("INFO")
    with socket.create_connection((caller.base_url.host, caller.base_url.port)) as line:
        line.sendall(
            b"POST /v1/classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        time.sleep(0.05)
    until(lambda: "the caller hung up" in caplog.text)
    assert "failed" not in caplog.text
    assert metric(caller, "bitswitch_request_failure_total", code="request_cancelled") == 1


def test_a_caller_hangs_up(broken_soon, caller, monkeypatch, caplog):
    caplog.set_level("INFO")
    hold, held = threading.Event(), threading.Event()
    judge = broken_soon.engine._loop._judge

    def stall():
        held.set()
        hold.wait(20)
        judge()

    monkeypatch.setattr(broken_soon.engine._loop, "_judge", stall)
    broken_soon.engine._queue.wake()
    assert held.wait(20)
    body = b'{"model": "topic", "input": "my card"}'
    with socket.create_connection((caller.base_url.host, caller.base_url.port)) as line:
        line.sendall(
            b"POST /v1/classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        until(lambda: caller.get("/v1/admin/state").json()["waiting"] == 1)
    until(lambda: "the caller hung up" in caplog.text)
    hold.set()
    until(lambda: caller.get("/v1/admin/state").json()["waiting"] == 0)
    assert metric(caller, "bitswitch_request_failure_total", code="request_cancelled") == 1
    assert ask(caller).status_code == 200
    assert whole(caller)


def test_more_than_the_model_can_do_is_refused_at_the_door(broken_soon, caller):
    admission = broken_soon.engine.admission
    with contextlib.ExitStack() as inside:
        for _ in range(FEW):
            inside.enter_context(admission.admitted("default", 10**9))
        refused = ask(caller)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert "none may wait longer than 1 s" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) > 1
        assert metric(caller, "bitswitch_request_failure_total", code="overloaded") == 1
        assert caller.get("/health").status_code == 200
    assert ask(caller).status_code == 200
    assert not admission._inside
