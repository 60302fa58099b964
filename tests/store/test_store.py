from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from places import Place, age, damage
from small import BASE, OTHER_BASE, small_switch

from bitswitch_store import file, query_codes
from bitswitch_store.blobs import DirectoryBlobs
from bitswitch_store.store import Conflict, CorruptBlob, Entry, InvalidName, NotStored, Store, StoreError
from bitswitch_store.switch import SwitchError

NO_TIME = timedelta(0)


def small(seed: int = 0, **values: object) -> bytes:
    return file.write(small_switch(seed, **values))


def blobs(store: Store) -> set[str]:
    return set(store.blobs.digests())


def test_a_switch_that_is_put_comes_back_after_reopening(place: Place):
    data = small(3, labels=("no", "yes", "perhaps"))
    with place.opened() as store:
        entry = store.put(data, tenant="acme", public=True)
    assert entry == Entry(
        tenant="acme",
        name="trec6",
        version=1,
        digest=file.digest(data),
        size=len(data),
        task="trec6",
        labels=("no", "yes", "perhaps"),
        aliases=(),
        public=True,
        metric={"accuracy": 0.503},
        base_digest=BASE.digest,
        created=entry.created,
    )
    with place.opened() as store:
        assert store.find("acme", "trec6") == entry
        assert store.list("acme") == store.visible("other") == [entry]
        assert file.write(store.get(entry.digest)) == data
        assert store.path(entry.digest).read_bytes() == data
        assert store.orphans() == set()


def test_a_path_is_put_as_its_bytes_are(store: Store, tmp_path: Path):
    path = tmp_path / "some.switch"
    path.write_bytes(small())
    assert store.put(path, tenant="acme") == store.put(small(), tenant="acme")
    assert path.is_file()
    with pytest.raises(FileNotFoundError):
        store.put(tmp_path / "none", tenant="acme")


def test_a_switch_without_a_head_has_no_labels(store: Store):
    assert store.put(small(labels=None), tenant="acme").labels == ()


def test_the_same_bytes_again_create_nothing(store: Store):
    first = store.put(small(1), tenant="acme", name="a")
    assert store.put(small(1), tenant="acme", name="a") == first
    second = store.put(small(2), tenant="acme", name="a")
    again = store.put(small(1), tenant="acme", name="a")
    assert (second.version, again.version) == (2, 3)
    assert again.digest == first.digest
    assert blobs(store) == {first.digest, second.digest}


@pytest.mark.parametrize("data", [b"", b"not a switch at all", small()[:-1], small() + b"\0"])
def test_what_is_no_switch_is_refused_and_leaves_nothing(store: Store, data: bytes):
    with pytest.raises(SwitchError):
        store.put(data, tenant="acme", name="a")
    assert store.list("acme") == []
    assert blobs(store) == set()


def test_a_switch_of_another_base_is_refused(store: Store, place: Place):
    data = small(base=OTHER_BASE)
    with pytest.raises(SwitchError, match=f"base roberta {OTHER_BASE.digest}; .* serves bert {BASE.digest}"):
        store.put(data, tenant="acme")
    assert blobs(store) == set()
    with place.opened(base=None) as any_base:
        entry = any_base.put(data, tenant="acme")
        assert any_base.get(entry.digest).base == OTHER_BASE
    with pytest.raises(SwitchError, match=OTHER_BASE.digest):
        store.get(entry.digest)


def test_names_that_may_not_be_leave_no_blob(store: Store):
    for name in ("base", "auto", "No Name", ""):
        for tenant in ("acme", "other"):
            with pytest.raises(InvalidName):
                store.put(small(), tenant=tenant, name=name)
    with pytest.raises(InvalidName, match="the name 'Question Types' is not allowed; it is 1 to 64 of a-z"):
        store.put(small(task="Question Types"), tenant="acme")
    with pytest.raises(InvalidName, match="tenant"):
        store.put(small(), tenant="a/b")
    assert store.put(small(task="Question Types"), tenant="acme", name="types").task == "Question Types"
    assert len(blobs(store)) == 1


def test_get_and_path_of_what_is_not_stored(store: Store):
    for digest in (file.digest(b""), "trec6", "sha256:../../catalog.sqlite3"):
        with pytest.raises(NotStored, match="there is no blob"):
            store.get(digest)
        with pytest.raises(NotStored, match="there is no blob"):
            store.path(digest)


def test_a_damaged_file_is_named_and_mended_by_putting_it_again(store: Store):
    data = small()
    entry = store.put(data, tenant="acme")
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    damage(store.blobs, entry.digest, bytes(damaged))
    with pytest.raises(CorruptBlob, match=entry.digest):
        store.get(entry.digest)
    assert store.put(data, tenant="acme") == entry
    assert file.write(store.get(entry.digest)) == data


def test_what_was_read_is_put_as_it_is(store: Store):
    data = small()
    incoming = store.read(data)
    assert (incoming.digest, incoming.switch.task) == (file.digest(data), "trec6")
    assert store.put(incoming, tenant="acme") == store.put(data, tenant="acme")


def test_the_query_set_comes_without_the_rest(store: Store):
    entry = store.put(small(), tenant="acme")
    whole = store.get(entry.digest).queries
    path = store.path(entry.digest)
    data = bytearray(path.read_bytes())
    rest = data.index(steps := whole.codes.steps.tobytes()) + len(steps)
    start = data.index(query_codes.write(whole.codes.codes))
    path.write_bytes(bytes(data[:rest]) + bytes(start - rest) + bytes(data[start:]))
    found = store.queries(entry.digest)
    assert found.recipe == whole.recipe
    assert (found.codes.codes == whole.codes.codes).all()
    path.write_bytes(b"rotten")
    with pytest.raises(SwitchError):
        store.queries(entry.digest)
    with pytest.raises(NotStored):
        store.queries(file.digest(b""))


def test_aliases_point_to_versions(store: Store):
    entries = [store.put(small(seed), tenant="acme", name="a") for seed in (1, 2)]
    assert store.set_alias("acme", "a", "stable", 1).digest == entries[0].digest
    assert store.find("acme", "a", "stable").digest == entries[0].digest
    store.set_alias("acme", "a", "stable", 2)
    assert store.find("acme", "a", "stable").digest == entries[1].digest
    with pytest.raises(Conflict, match="stable → 2"):
        store.delete("acme", "a", 2)
    assert blobs(store) == {entry.digest for entry in entries}
    store.delete_alias("acme", "a", "stable")
    assert [entry.version for entry in store.delete("acme", "a", 2)] == [2]
    with pytest.raises(NotStored):
        store.delete_alias("acme", "a", "stable")


def test_a_blob_goes_with_the_last_version_that_has_it(store: Store):
    mine = store.put(small(1), tenant="acme", name="a")
    second = store.put(small(2), tenant="acme", name="a")
    store.put(small(1), tenant="acme", name="a")
    store.put(small(1), tenant="other", name="b")
    store.delete("acme", "a", 1)
    assert store.path(mine.digest)
    assert [entry.version for entry in store.delete("acme", "a")] == [2, 3]
    assert store.collect(older_than=NO_TIME) == [second.digest]
    assert blobs(store) == {mine.digest}
    store.delete("other", "b")
    assert store.collect(older_than=NO_TIME) == [mine.digest]
    assert blobs(store) == set()
    with pytest.raises(NotStored, match=mine.digest):
        store.get(mine.digest)
    with pytest.raises(NotStored, match="'acme' has no switch 'a'"):
        store.delete("acme", "a")


def test_a_root_that_is_a_file_is_refused(tmp_path: Path):
    root = tmp_path / "root"
    root.write_text("x")
    with pytest.raises(StoreError, match="root is a file; give a directory"):
        Store(root, base=None)
    with pytest.raises(StoreError, match="Not a directory"):
        Store(root / "below", base=None)
    assert root.read_text() == "x"


def test_the_catalog_may_lie_elsewhere(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'elsewhere.sqlite3'}"
    for expected in (1, 2):
        with closing(Store(tmp_path / "a % b?c", base=BASE, database_url=url)) as store:
            assert store.put(small(expected), tenant="acme").version == expected
    assert {path.name for path in (tmp_path / "a % b?c").iterdir()} == {"blobs", "incoming"}
    with closing(Store(tmp_path / "a % b?c", base=BASE)) as store:
        assert store.list("acme") == []
    assert (tmp_path / "a % b?c" / "catalog.sqlite3").is_file()


def test_a_deleted_version_is_still_had_by_those_who_resolved_it(store: Store):
    entry = store.put(small(1), tenant="acme")
    store.delete("acme", "trec6")
    assert store.find("acme", "trec6") is None
    assert store.collect() == []
    assert file.write(store.get(entry.digest)) == small(1)
    age(store, entry.digest, minutes=59)
    assert store.collect() == []
    age(store, entry.digest, minutes=61)
    assert store.collect() == [entry.digest]
    assert blobs(store) == set()
    assert store.collect(older_than=NO_TIME) == []


def test_what_is_published_again_is_no_garbage_any_more(store: Store):
    for _ in range(2):
        entry = store.put(small(1), tenant="acme", name="a")
        age(store, entry.digest, hours=2)
        assert store.collect() == []
        assert store.names(entry.digest)
        store.delete("acme", "a")
        assert not store.names(entry.digest)
    assert store.collect() == []  # the time counts from the last delete
    age(store, entry.digest, hours=2)
    assert store.collect() == [entry.digest]


def test_blobs_without_a_version_are_reported_and_collected(place: Place, caplog: pytest.LogCaptureFixture):
    with place.opened() as store:
        entry = store.put(small(1), tenant="acme")
        orphan = store.blobs.put(small(2))
    with caplog.at_level(logging.WARNING), place.opened() as store:
        assert store.orphans() == {orphan}
        assert store.collect() == []
        assert blobs(store) == {orphan, entry.digest}
        assert f"1 blobs belong to no switch, such as {orphan}; they are collected" in caplog.text
        if isinstance(store.blobs, DirectoryBlobs):
            age(store, orphan, minutes=61)
            assert store.collect() == [orphan]
        else:  # an object's age cannot be forged
            assert store.collect(older_than=timedelta(seconds=-2)) == [orphan]
        assert blobs(store) == {entry.digest}


def test_a_blob_that_went_before_its_row_is_forgotten(store: Store):
    """What a kill between the two leaves."""
    entry = store.put(small(1), tenant="acme")
    store.delete("acme", "trec6")
    store.blobs.delete(entry.digest)
    assert store.collect(older_than=NO_TIME) == [entry.digest]
    assert store.collect(older_than=NO_TIME) == []
    assert store.put(small(1), tenant="acme").version == 2
    assert file.write(store.get(entry.digest)) == small(1)


def test_eight_threads_publish_to_one_name(store: Store, place: Place):
    files = [small(seed) for seed in range(40)]
    with place.opened() as second, ThreadPoolExecutor(8) as pool:
        entries = list(
            pool.map(lambda i: (store, second)[i % 2].put(files[i], tenant="acme", name="a"), range(40))
        )
    assert sorted(entry.version for entry in entries) == list(range(1, 41))
    assert [entry.digest for entry in entries] == [file.digest(data) for data in files]
    assert store.list("acme") == sorted(entries, key=lambda entry: entry.version)
    assert blobs(store) == {entry.digest for entry in entries}


def test_a_put_of_bytes_that_another_deletes_and_collects_keeps_them(store: Store, place: Place):
    """Every row has its blob at all times, whoever puts, deletes and collects the same bytes at once."""
    data = small()

    def churn(tenant: str) -> None:
        with place.opened() as mine:
            for _ in range(12):
                digest = mine.put(data, tenant=tenant).digest
                assert mine.blobs.raw(digest) == data
                mine.delete(tenant, "trec6")
                mine.collect(older_than=NO_TIME)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(churn, ("a", "b", "c")))
    store.collect(older_than=NO_TIME)
    assert blobs(store) == set()
