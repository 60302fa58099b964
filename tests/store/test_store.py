from __future__ import annotations

import logging
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from small import BASE, OTHER_BASE, small_switch

from bitswitch_store import file
from bitswitch_store.store import Conflict, CorruptBlob, Entry, InvalidName, NotStored, Store, StoreError
from bitswitch_store.switch import SwitchError

PUBLISHER = Path(__file__).with_name("publisher.py")


def opened(root: Path) -> closing[Store]:
    return closing(Store(root, base=BASE))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "store") as store:
        yield store


def small(seed: int = 0, **values: object) -> bytes:
    return file.write(small_switch(seed, **values))


def blobs(store: Store) -> set[str]:
    return set(store.blobs.digests())


def test_a_switch_that_is_put_comes_back_after_reopening(tmp_path: Path):
    data = small(3, labels=("no", "yes", "perhaps"))
    with opened(tmp_path / "store") as store:
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
    with opened(tmp_path / "store") as store:
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


def test_a_switch_of_another_base_is_refused(store: Store, tmp_path: Path):
    data = small(base=OTHER_BASE)
    with pytest.raises(SwitchError, match=f"base roberta {OTHER_BASE.digest}; .* serves bert {BASE.digest}"):
        store.put(data, tenant="acme")
    assert blobs(store) == set()
    with closing(Store(tmp_path / "store", base=None)) as any_base:
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
    store.path(entry.digest).write_bytes(damaged)
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
    start = data.index(whole.features.tobytes())
    path.write_bytes(bytes(data[:start]) + whole.features.tobytes() + bytes(len(data) - start - 96))
    found = store.queries(entry.digest)
    assert found.recipe == whole.recipe
    assert (found.features == whole.features).all()
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
    store.put(small(2), tenant="acme", name="a")
    store.put(small(1), tenant="acme", name="a")
    store.put(small(1), tenant="other", name="b")
    store.delete("acme", "a", 1)
    assert store.path(mine.digest)
    assert [entry.version for entry in store.delete("acme", "a")] == [2, 3]
    assert blobs(store) == {mine.digest}
    store.delete("other", "b")
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
    assert [path.name for path in (tmp_path / "a % b?c").iterdir()] == ["blobs"]
    with closing(Store(tmp_path / "a % b?c", base=BASE)) as store:
        assert store.list("acme") == []
    assert (tmp_path / "a % b?c" / "catalog.sqlite3").is_file()


def test_blobs_without_a_version_are_reported_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with opened(tmp_path) as store:
        entry = store.put(small(1), tenant="acme")
        orphan = store.blobs.put(small(2))
    with caplog.at_level(logging.WARNING), opened(tmp_path) as store:
        assert store.orphans() == {orphan}
        assert blobs(store) == {orphan, entry.digest}
    assert f"1 blobs belong to no switch, such as {orphan}" in caplog.text


def test_eight_threads_publish_to_one_name(store: Store, tmp_path: Path):
    files = [small(seed) for seed in range(40)]
    with opened(tmp_path / "store") as second, ThreadPoolExecutor(8) as pool:
        entries = list(
            pool.map(lambda i: (store, second)[i % 2].put(files[i], tenant="acme", name="a"), range(40))
        )
    assert sorted(entry.version for entry in entries) == list(range(1, 41))
    assert [entry.digest for entry in entries] == [file.digest(data) for data in files]
    assert store.list("acme") == sorted(entries, key=lambda entry: entry.version)
    assert blobs(store) == {entry.digest for entry in entries}


def test_a_put_of_bytes_that_another_deletes_keeps_them(store: Store, tmp_path: Path):
    """Every row has its blob at all times, whoever puts and deletes the same bytes at once."""
    data = small()

    def churn(tenant: str) -> None:
        with opened(tmp_path / "store") as mine:
            for _ in range(12):
                digest = mine.put(data, tenant=tenant).digest
                assert mine.path(digest).read_bytes() == data
                mine.delete(tenant, "trec6")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(churn, ("a", "b", "c")))
    assert blobs(store) == set()


def test_a_kill_at_any_instant_loses_nothing_that_was_said_to_be_done(tmp_path: Path):
    root, files = tmp_path / "store", tmp_path / "files"
    files.mkdir()
    for number in range(12):
        (files / f"{number:02}").write_bytes(small(number))
    seed = random.randrange(1 << 32)
    print("seed", seed)
    instant = random.Random(seed)
    done: dict[int, str] = {}  # version → digest, of those not deleted
    deleted: set[int] = set()
    for _ in range(4):
        for said in _published_until_killed(
            root, files, after=instant.randrange(5, 15), wait=instant.random()
        ):
            if said[0] == "put":
                assert int(said[1]) not in deleted
                done[int(said[1])] = said[2]
            else:
                del done[int(said[1])]
                deleted.add(int(said[1]))
        with opened(root) as store:
            _check_after_kill(store, done, deleted)
    assert done
    assert deleted


def _published_until_killed(root: Path, files: Path, *, after: int, wait: float) -> list[list[str]]:
    """What the publisher said was done; killed after so many lines and a share of its usual turn."""
    process = subprocess.Popen([sys.executable, PUBLISHER, root, files], stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline()]
    began = time.monotonic()
    lines += [process.stdout.readline() for _ in range(after)]
    time.sleep(wait * min(0.1, (time.monotonic() - began) / after))
    process.kill()
    lines += process.communicate(timeout=30)[0].splitlines(keepends=True)
    assert lines[0] == "open\n"
    return [line.split() for line in lines[1:] if line.endswith("\n")]


def _check_after_kill(store: Store, done: dict[int, str], deleted: set[int]) -> None:
    entries = store.list("acme")
    stored = {entry.version: entry.digest for entry in entries}
    # What was under way may be done or not, though nobody was told: at most one put or delete.
    extra, missing = stored.keys() - done.keys(), done.keys() - stored.keys()
    assert len(extra) + len(missing) <= 1
    assert not extra & deleted
    assert stored.items() >= {version: done[version] for version in done.keys() - missing}.items()
    for entry in entries:
        assert file.digest(file.write(store.get(entry.digest))) == entry.digest
        assert store.find("acme", "a", str(entry.version)) == entry
    for digest in blobs(store):
        store.blobs.read(digest)  # whole, an orphan too
    assert len(store.orphans()) <= 4  # one a kill at most
    # From here on it is known.
    for version in missing:
        del done[version]
        deleted.add(version)
    done.update(stored)
