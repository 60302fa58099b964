"""Uploads: written piece by piece, kept without a copy, bounded in size and in what reading them costs."""

from __future__ import annotations

import hashlib
import json
import resource
import tracemalloc
from contextlib import closing, contextmanager

import numpy as np
import pytest
from small import BASE, small_switch

from bitswitch_store import container, file, index
from bitswitch_store.audit import Actor, listed
from bitswitch_store.errors import CorruptBlob, QuotaExceeded, StoreError, TooLarge
from bitswitch_store.index import Record
from bitswitch_store.room import Room
from bitswitch_store.store import Store
from bitswitch_store.switch import SwitchError
from bitswitch_store.varint import varint

SHAPES = {"encoder.layer.0.weight": (8, 12)}


@pytest.fixture
def store(tmp_path):
    with closing(Store(tmp_path / "store", base=BASE, shapes=SHAPES)) as store:
        yield store


def incoming(tmp_path):
    return [path for path in (tmp_path / "store" / "incoming").iterdir() if path.name != "receiving.lock"]


def receive_all(store, pieces):
    with store.receive(2**22) as upload:
        for piece in pieces:
            upload.write(piece)


def received(store, data, most=2**20):
    upload = store.receive(most)
    entered = upload.__enter__()
    for at in range(0, len(data), 1000):
        entered.write(data[at : at + 1000])
    return upload, entered


def test_an_upload_becomes_the_blob_itself_and_leaves_nothing(store, tmp_path):
    data = file.write(small_switch())
    context, upload = received(store, data)
    assert (upload.size, upload.digest) == (len(data), file.digest(data))
    checked = store.read(upload)
    entry = store.put(checked, tenant="acme", name="a")
    assert store.path(entry.digest).stat().st_ino == upload.path.stat().st_ino
    context.__exit__(None, None, None)
    assert store.path(entry.digest).read_bytes() == data
    assert incoming(tmp_path) == []
    assert list((tmp_path / "store" / "blobs" / "tmp").iterdir()) == []


def test_an_upload_is_copied_where_files_cannot_be_linked(store, monkeypatch):
    def no_links(*_args):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", no_links)
    data = file.write(small_switch())
    context, upload = received(store, data)
    entry = store.put(store.read(upload), tenant="acme", name="a")
    context.__exit__(None, None, None)
    assert store.path(entry.digest).read_bytes() == data


def test_a_file_that_changed_after_it_was_checked_is_not_kept(store):
    context, upload = received(store, file.write(small_switch()))
    checked = store.read(upload)
    upload.path.write_bytes(b"other")
    with pytest.raises(CorruptBlob):
        store.put(checked, tenant="acme", name="a")
    context.__exit__(None, None, None)
    assert store.orphans() == set()
    assert store.list("acme") == []


def test_an_upload_stops_at_its_limit(store, tmp_path):
    with store.receive(1500) as upload:
        upload.write(b"x" * 1000)
        with pytest.raises(TooLarge, match="1500 bytes"):
            upload.write(b"x" * 501)
        assert upload.size == 1000
    assert incoming(tmp_path) == []


@contextmanager
def full_disk(size):
    """Files take so many bytes and no more."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


@pytest.mark.parametrize("piece", [1448, 30_000])
def test_an_upload_that_the_disk_does_not_take_goes_at_once(store, tmp_path, piece):
    with full_disk(100_003):
        with pytest.raises(StoreError, match="cannot be written: File too large"):
            receive_all(store, [b"x" * piece] * 100)
        assert incoming(tmp_path) == []


def test_an_upload_whose_last_bytes_the_disk_does_not_take_is_refused(store, tmp_path):
    with full_disk(1000), store.receive(2**20) as upload:
        upload.write(b"x" * 1001)
        with pytest.raises(StoreError, match="cannot be written: File too large"):
            store.read(upload)
    assert incoming(tmp_path) == []


def test_what_a_killed_receiver_left_is_removed_unless_another_is_receiving(store, tmp_path):
    left = tmp_path / "store" / "incoming" / "tmp-left"
    with store.receive(10):
        left.write_bytes(b"x")
        Store(tmp_path / "store", base=BASE).close()
        assert left.exists()
    Store(tmp_path / "store", base=BASE).close()
    assert not left.exists()


@pytest.mark.parametrize(
    ("room", "says"),
    [
        (Room(switches=1), "stored switches: tenant 'acme' has 1 of 1"),
        (Room(bytes=4 * len(file.write(small_switch())) // 3), "stored bytes"),
    ],
)
def test_there_is_no_more_room_than_there_is(store, room, says):
    first = store.put(file.write(small_switch(1)), tenant="acme", name="a", room=room)
    with pytest.raises(QuotaExceeded, match=says):
        store.put(file.write(small_switch(2)), tenant="acme", name="a", room=room)
    assert list(store.blobs.digests()) == [first.digest]
    assert store.put(file.write(small_switch(1)), tenant="acme", name="a", room=room) == first
    store.put(file.write(small_switch(2)), tenant="other", name="a", room=room)
    store.delete("acme", "a")
    assert store.put(file.write(small_switch(2)), tenant="acme", name="a", room=room).version == 2


def test_the_last_room_is_given_once(store, monkeypatch):
    """Whoever saw room for it, and then lost it to another, is refused in the end."""
    keep = store._keep

    def kept_while_another_publishes(checked):
        monkeypatch.setattr(store, "_keep", keep)
        store.put(file.write(small_switch(2)), tenant="acme", name="b", room=Room(switches=1))
        keep(checked)

    monkeypatch.setattr(store, "_keep", kept_while_another_publishes)
    with pytest.raises(QuotaExceeded):
        store.put(file.write(small_switch(1)), tenant="acme", name="a", room=Room(switches=1))
    assert [entry.name for entry in store.list("acme")] == ["b"]


def test_the_audit_names_the_hand(store):
    store.put(file.write(small_switch()), tenant="acme", name="a", by=Actor("k1", "req-1"))
    store.delete("acme", "a")
    store.put(file.write(small_switch()), tenant="other", name="a")
    rows = listed(store.database, "acme")
    assert [(row.action, row.target, row.key, row.request_id) for row in rows] == [
        ("published", "a@1", "k1", "req-1"),
        ("deleted", "a@1", None, ""),
    ]
    assert len(listed(store.database, None)) == 3
    assert listed(store.database, None, after=rows[-1].id)[0].tenant == "other"


# What follows is refused, and reading it costs next to nothing.


def rebuilt(change):
    found = container.read(memoryview(file.write(small_switch())))
    strings, arrays = dict(found.metadata), {name: found.array(name) for name in found.entries}
    change(strings, arrays)
    return container.write(strings, arrays)


def headed(header, body=b""):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return len(text).to_bytes(8, "little") + text + body


def claiming(*records):
    def change(_, arrays):
        arrays["index"] = np.frombuffer(index.write(records), np.uint8)

    return rebuilt(change)


def inflating():
    """100 tensors of 2^30 weights, by a few bytes each that leave out all rows but one."""
    return claiming(*(Record(f"t{i:03}", (2**20, 2**10), 1, 2 + 8, False, 9) for i in range(100)))


def huge_head():
    """4 GB, all of it in the file: as sparse as the file system likes it."""
    found = container.read(memoryview(file.write(small_switch())))
    arrays = {name: (entry.dtype, entry.shape) for name, entry in found.entries.items()}
    arrays["head.classifier.weight"] = ("F32", (2, 2**29))
    return container.header(found.metadata, arrays)


def head_of_nothing():
    """No bytes, of a shape that no array has."""
    found = container.read(memoryview(file.write(small_switch())))
    arrays = {name: (entry.dtype, entry.shape) for name, entry in found.entries.items()}
    arrays["head.z"] = ("F32", (0, 2**36, 2**36))
    return container.header(found.metadata, arrays) + found.data[found.start :]


def many_queries(_, arrays):
    arrays["queries"] = np.frombuffer(varint(12) + varint(2000) + varint(0), np.uint8)


def claiming_queries(*plane, dim=2**13):
    """1,000 vectors, their first plane this."""

    def change(_, arrays):
        arrays["queries"] = np.frombuffer(varint(dim) + varint(1000) + bytes(plane), np.uint8)
        arrays["query_steps"] = np.zeros(1000, np.float32)

    return lambda: rebuilt(change)


def many_knobs(_, arrays):
    arrays["knobs"] = np.full(2**20, 0.5, np.float16)


def knob(value):
    def change(_, arrays):
        knobs = arrays["knobs"].astype(np.float32)
        knobs[0] = value
        arrays["knobs"] = knobs

    return lambda: rebuilt(change)


HOSTILE = {
    "header of 2^63": (lambda: (2**63).to_bytes(8, "little") + b"{}", 0, "a header of"),
    "header of 2^64 - 1": (lambda: b"\xff" * 8 + b"{}", 0, "a header of"),
    "header past the end": (lambda: (2**20).to_bytes(8, "little") + b"{}", 0, "ends inside its header"),
    "deep header": (lambda: headed(b"[" * 2**20), 0, "not JSON"),
    "deep objects": (lambda: headed(b'{"a":' * 100_000), 0, "not JSON"),
    "key twice": (lambda: headed(b'{"a":1,"a":1}'), 0, "a key twice"),
    "overlap": (
        lambda: headed(
            {
                "__metadata__": {},
                "a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
                "b": {"dtype": "U8", "shape": [8], "data_offsets": [4, 12]},
            },
            b"\0" * 12,
        ),
        0,
        "overlaps",
    ),
    "missing range": (
        lambda: headed(
            {"__metadata__": {}, "a": {"dtype": "U8", "shape": [2**36], "data_offsets": [0, 2**36]}}
        ),
        0,
        "but 0 follow",
    ),
    "unordered": (
        lambda: headed(
            {"__metadata__": {}, "a": {"dtype": "U8", "shape": [8], "data_offsets": [8, 0]}}, b"\0" * 8
        ),
        0,
        "a beginning and an end",
    ),
    "inflates": (inflating, 0, "lists 100 tensors; this base has 1"),
    "other weights": (
        lambda: claiming(Record("encoder.layer.0.weight", (2**20, 2**10), 1, 10, False, 9)),
        0,
        "the base's is (8, 12)",
    ),
    "other tensor": (lambda: claiming(Record("x", (8, 12), 1, 10, False, 9)), 0, "no parameter of this base"),
    "head of 4 GB": (huge_head, 2**32, "the head has 4294967296 bytes"),
    "head of nothing": (head_of_nothing, 0, "entry 'head.z' has the shape [0, 68719476736, 68719476736]"),
    "query sets": (lambda: rebuilt(many_queries), 0, "query set is (2000, 12)"),
    "query zeros": (claiming_queries(0, dim=2**16), 0, "at most 8388608 values are read"),
    "query plane": (claiming_queries(*varint(2**13 * 1001), 0, 0, 0), 0, "too few for 8200192 signs"),
    "query plane of one": (claiming_queries(1, 1, 1, 1), 0, "code 1 needs 1025024 to"),
    "query plane of rows": (claiming_queries(8, 8 + 2, 4, 0, 3, 0, 0), 0, "3 of 8192 weights are active"),
    "knobs": (lambda: rebuilt(many_knobs), 0, "1048576 knobs, but its tensors have room for 8"),
    "knob of 1e38": (knob(1e38), 0, "no fine-tuning"),
    "knob of infinity": (knob(np.inf), 0, "not finite"),
    "knob of nan": (knob(np.nan), 0, "not finite"),
}


@pytest.mark.parametrize(("make", "sparse", "says"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_for_next_to_nothing(store, make, sparse, says):
    data = make()
    with store.receive(2**40) as upload:
        upload.write(data)
        upload.finish()
        if sparse:  # all zeros from here on, and no block of the disk
            with upload.path.open("r+b") as out:
                rest = container.read(memoryview(file.write(small_switch())))
                queries_and_more = len(rest.data) - rest.start - rest.size("head.classifier.weight")
                out.truncate(len(data) + sparse + queries_and_more)
        tracemalloc.start()
        try:
            with pytest.raises(SwitchError) as refused:
                store.read(upload)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert says in str(refused.value)
    # The header is read whole before it is believed, and JSON in Python takes some times its text.
    assert peak < 2**17 + 8 * min(len(data), container.MAX_HEADER)


@pytest.mark.parametrize("depth", [container.MAX_DEPTH, container.MAX_DEPTH + 1, 500])
def test_a_config_is_nested_so_deep_and_no_deeper(depth):
    def change(strings, _):
        strings["head_config"] = '{"a":' * depth + "1" + "}" * depth

    data = rebuilt(change)
    if depth <= container.MAX_DEPTH:
        assert file.write(file.read(data)) == data
    else:
        with pytest.raises(SwitchError, match="nested deeper than 32"):
            file.read(data)


def test_a_file_s_words_do_not_end_a_line_of_the_log():
    data = claiming(Record("a\nERROR all is lost\x1b[31m", (8, 12), 1, 15, False, 9))
    with pytest.raises(SwitchError) as refused:
        file.read(data)
    assert str(refused.value).isprintable()


def test_an_upload_is_not_loaded_to_be_checked(store):
    """What is in memory beside the switch goes with its largest tensor, not with the file's head."""
    switch = small_switch()
    data = rebuilt(
        lambda _, arrays: arrays.update({"head.classifier.weight": np.ones((2, 2**20), np.float32)})
    )
    context, upload = received(store, data, most=2**25)
    assert upload.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    size = len(data)
    del data
    tracemalloc.start()
    checked = store.read(upload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    context.__exit__(None, None, None)
    assert checked.switch.task == switch.task
    assert peak < 1.5 * size  # the head, once, and a byte for every four while it is checked
