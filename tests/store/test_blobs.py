"""What any place of blobs does; what a directory's files and an object store's copies do besides."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from places import damage, drop_copy

import s3
from bitswitch_store import blobs as module
from bitswitch_store.blobs import Blobs, DirectoryBlobs, digest_of
from bitswitch_store.cache import Cache
from bitswitch_store.errors import CorruptBlob, NotStored, StoreError, StoreUnavailable
from bitswitch_store.place import open_blobs

ABSENT = "sha256:" + "0" * 64


@pytest.fixture(params=["directory", "file", "memory", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """Each kind of place; ``memory`` is an object store in this process."""
    match request.param:
        case "directory":
            return open_blobs(tmp_path)
        case "file":
            return open_blobs(tmp_path / "other", f"file://{tmp_path}/blobs")
        case "memory":
            return in_memory(tmp_path)
        case _:
            return open_blobs(tmp_path, request.getfixturevalue("bucket_url"))


def in_memory(tmp_path: Path, limit: int = 10**9) -> Blobs:
    pytest.importorskip("obstore", reason="obstore is not installed")
    from obstore.store import MemoryStore

    from bitswitch_store.object_blobs import ObjectBlobs, Objects

    memory = MemoryStore()
    return ObjectBlobs(
        Objects(asked=memory, written=memory), cache=Cache(tmp_path / "cache", limit), shown="memory://"
    )


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(tmp_path / "blobs")


def leftovers(tmp_path: Path) -> list[Path]:
    return [path for folder in ("blobs", "cache") for path in (tmp_path / folder).glob("tmp/*")]


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5000])
def test_what_is_put_is_read(blobs: Blobs, tmp_path: Path, data: bytes):
    digest = blobs.put(data)
    assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    for _ in range(2):
        assert blobs.read(digest) == blobs.raw(digest) == data
        assert blobs.path(digest).read_bytes() == data
        assert blobs.has(digest)
        drop_copy(blobs, digest)
    assert leftovers(tmp_path) == []


def test_a_directory_keeps_a_blob_under_its_digest(directory: DirectoryBlobs, tmp_path: Path):
    hexadecimal = hashlib.sha256(b"x").hexdigest()
    path = directory.path(directory.put(b"x"))
    assert path == tmp_path / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal


def test_the_same_bytes_are_one_blob(blobs: Blobs):
    digest = blobs.put(b"same")
    assert blobs.put(b"same") == digest
    assert list(blobs.digests()) == [digest]


def test_a_directory_writes_the_same_bytes_once(directory: DirectoryBlobs):
    path = directory.path(directory.put(b"same"))
    os.utime(path, (0, 0))
    before = path.stat().st_ino
    directory.put(b"same")
    assert path.stat().st_ino == before


def test_a_blob_says_when_it_was_put_last(blobs: Blobs):
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 counts whole seconds
    digest = blobs.put(b"new")
    assert before <= blobs.modified(digest) <= datetime.now(UTC) + timedelta(seconds=2)
    if isinstance(blobs, DirectoryBlobs):
        os.utime(blobs.path(digest), (0, 0))
        assert blobs.modified(digest).year == 1970
        blobs.put(b"new")
        assert before <= blobs.modified(digest)
    for absent in (ABSENT, "sha256:../outside"):
        with pytest.raises(NotStored):
            blobs.modified(absent)


def test_many_threads_put_the_same_and_different_bytes(blobs: Blobs, tmp_path: Path):
    data = [bytes([i % 10]) * 100_000 for i in range(80)]
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(blobs.put, data))
    assert [blobs.read(digest) for digest in digests] == data
    assert len(list(blobs.digests())) == 10
    assert leftovers(tmp_path) == []


def test_delete_removes_and_may_be_repeated(blobs: Blobs):
    kept, gone = blobs.put(b"kept"), blobs.put(b"gone")
    blobs.delete(gone)
    blobs.delete(gone)
    assert not blobs.has(gone)
    assert list(blobs.digests()) == [kept]
    with pytest.raises(NotStored, match=gone):
        blobs.read(gone)
    with pytest.raises(NotStored, match=gone):
        blobs.path(gone)


@pytest.mark.parametrize(
    "digest", [ABSENT, "", "sha256:", "sha256:../../catalog.sqlite3", "md5:" + "0" * 64, "sha256:" + "A" * 64]
)
def test_what_is_no_digest_is_not_there(blobs: Blobs, digest: str):
    assert not blobs.has(digest)
    blobs.delete(digest)
    for ask in (blobs.path, blobs.read, blobs.raw):
        with pytest.raises(NotStored):
            ask(digest)


def test_a_path_is_no_digest(directory: DirectoryBlobs, tmp_path: Path):
    outside = tmp_path / "blobs" / "outside"
    outside.write_bytes(b"not a blob")
    assert (tmp_path / "blobs" / "sha256" / ".." / "outside").is_file()
    assert not directory.has("sha256:../outside")
    directory.delete("sha256:../outside")
    assert outside.is_file()


@pytest.mark.parametrize("wrong", [b"", b"goof", b"good and more"])
def test_a_damaged_blob_is_refused_and_mended_by_putting_it_again(blobs: Blobs, wrong: bytes):
    digest = blobs.put(b"good")
    damage(blobs, digest, wrong)
    with pytest.raises(CorruptBlob, match=digest):
        blobs.read(digest)
    assert blobs.raw(digest) == wrong
    assert blobs.put(b"good") == digest
    assert blobs.read(digest) == blobs.raw(digest) == b"good"


def test_a_copy_saves_asking_and_a_damaged_one_is_fetched_anew(tmp_path: Path):
    blobs = in_memory(tmp_path)
    import obstore

    digest = blobs.put(b"good")
    obstore.delete(blobs._objects, f"sha256/{digest[7:9]}/{digest[7:]}")
    assert blobs.read(digest) == b"good"
    assert blobs.path(digest).read_bytes() == b"good"
    assert not blobs.has(digest)
    blobs.put(b"good")
    blobs.path(digest).write_bytes(b"goof")
    assert blobs.read(digest) == b"good"
    assert blobs.path(digest).read_bytes() == b"good"


def test_a_damaged_object_becomes_no_copy(tmp_path: Path):
    blobs = in_memory(tmp_path)
    digest = blobs.put(b"good")
    damage(blobs, digest, b"goof")
    with pytest.raises(CorruptBlob):
        blobs.path(digest)
    assert blobs._cache.path(digest) is None


def test_copies_are_bounded_and_the_least_recently_used_goes(tmp_path: Path):
    blobs = in_memory(tmp_path, limit=300)
    digests = [blobs.put(bytes([number]) * 100) for number in range(3)]
    for age, digest in zip((100, 300, 200), digests, strict=True):
        path = blobs._cache.path(digest)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    new = blobs.put(b"n" * 150)
    assert [blobs._cache.path(digest) is not None for digest in (*digests, new)] == [True, False, False, True]
    assert blobs.path(digests[1]).read_bytes() == b"\1" * 100  # fetched again


def test_a_copy_in_use_stays_beyond_the_bound(tmp_path: Path):
    blobs = in_memory(tmp_path, limit=10)
    paths = [blobs.path(blobs.put(bytes([number]) * 100)) for number in range(3)]
    assert all(path.is_file() for path in paths)


def test_copies_are_seldom_listed_and_bounded_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Once at the start, as others may have left copies, and then once a tenth of the limit."""
    walks = []
    digests = DirectoryBlobs.digests

    def counted(self: DirectoryBlobs) -> Iterator[str]:
        walks.append(self)
        return digests(self)

    monkeypatch.setattr(DirectoryBlobs, "digests", counted)
    cache, given = Cache(tmp_path / "cache", 1000), tmp_path / "given"
    for number in range(200):
        data = b"%010d" % number
        if number % 2:
            cache.keep(data)
        else:
            given.write_bytes(data)
            cache.adopt(given, digest_of(data))
            given.unlink()
        os.utime(cache.path(digest_of(data)), (number, number))
        held = sum(path.stat().st_size for path in (tmp_path / "cache" / "sha256").glob("??/*"))
        assert min(10 * (number + 1), 800) <= held <= 1000
    assert cache.path(digest_of(data)) is not None
    assert len(walks) <= 1 + 2000 // 100


def test_copies_that_others_left_are_seen_at_the_first_of_ours(tmp_path: Path):
    for number in range(3):
        left = Cache(tmp_path / "cache", 10**9).keep(bytes([number]) * 100)
        os.utime(left, (number, number))
    cache = Cache(tmp_path / "cache", 250)
    cache.keep(b"x")
    copies = [cache.path(digest_of(bytes([number]) * 100)) for number in range(3)]
    assert [copy is not None for copy in copies] == [False, True, True]


def test_a_copy_that_is_dropped_as_it_is_made_does_not_fail_the_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As another process that deletes the same blob does."""
    blobs = in_memory(tmp_path)
    put = DirectoryBlobs.put

    def put_and_lose(self: DirectoryBlobs, data: bytes) -> str:
        digest = put(self, data)
        self.delete(digest)
        return digest

    monkeypatch.setattr(DirectoryBlobs, "put", put_and_lose)
    digest = blobs.put(b"data")
    assert blobs.read(digest) == b"data"
    with pytest.raises(NotStored):
        blobs.path(digest)


def test_a_cache_that_cannot_be_written_holds_nobody_up(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    blobs = in_memory(tmp_path)
    place = tmp_path / "cache" / "sha256" / hashlib.sha256(b"data").hexdigest()[:2]
    place.write_text("a file where the folder should be")
    digest = blobs.put(b"data")
    assert blobs.read(digest) == b"data"
    assert "cache cannot be written" in caplog.text
    with pytest.raises(StoreError, match="cache cannot be written"):
        blobs.path(digest)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3:///nothing", "Unable to recognise URL .*; give s3://bucket/prefix"),
        ("ftp://host/folder", "Unable to recognise URL"),
        ("file://host/folder", "give a folder as file:///path/of/it"),
        ("file:///", "give a folder as file:///path/of/it"),
    ],
)
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, url: str, told: str):
    pytest.importorskip("obstore", reason="obstore is not installed")
    with pytest.raises(StoreError, match=told):
        open_blobs(tmp_path, url)


def test_a_bucket_that_is_not_there_is_refused(tmp_path: Path, bucket_url: str):
    with pytest.raises(StoreError, match=r"cannot be kept in s3://absent/x .*NoSuchBucket.*give a place"):
        open_blobs(tmp_path, "s3://absent/x")


def test_an_object_store_that_goes_away_is_said_to_be_and_copies_are_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("obstore", reason="obstore is not installed")
    try:
        with s3.server() as address:
            for name, value in s3.environment(address).items():
                monkeypatch.setenv(name, value)
            blobs = open_blobs(tmp_path, f"s3://{s3.bucket(address)}")
            here, there = blobs.put(b"here"), blobs.put(b"there")
            drop_copy(blobs, there)
    except s3.NoS3Error as error:
        pytest.skip(str(error))
    assert blobs.read(here) == b"here"
    for ask in (blobs.read, blobs.path, blobs.raw, blobs.has, blobs.modified, blobs.delete):
        with pytest.raises(StoreUnavailable, match=r"s3://bucket-\d+ does not answer .*; try again"):
            ask(there)
    with pytest.raises(StoreUnavailable):
        list(blobs.digests())
    with pytest.raises(StoreUnavailable):
        blobs.put(b"new")


def test_a_put_that_finds_the_blob_and_loses_it_to_a_collector_writes_it(
    directory: DirectoryBlobs, monkeypatch: pytest.MonkeyPatch
):
    """Between the look and the reading another process may remove it."""
    digest = directory.put(b"bytes")
    read = module.digest_of

    def collected(data: bytes | Path) -> str:
        if isinstance(data, Path):
            monkeypatch.setattr(module, "digest_of", read)
            data.unlink()
        return read(data)

    monkeypatch.setattr(module, "digest_of", collected)
    assert directory.put(b"bytes") == digest
    assert directory.read(digest) == b"bytes"


def test_opening_removes_what_a_killed_writer_left(directory: DirectoryBlobs, tmp_path: Path):
    digest = directory.put(b"whole")
    (tmp_path / "blobs" / "tmp" / "half").write_bytes(b"ha")
    again = DirectoryBlobs(tmp_path / "blobs")
    assert leftovers(tmp_path) == []
    assert again.read(digest) == b"whole"


def test_opening_leaves_a_writer_that_lives_alone(directory: DirectoryBlobs, tmp_path: Path):
    (tmp_path / "blobs" / "tmp" / "half").write_bytes(b"ha")
    with (tmp_path / "blobs" / "writing.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        DirectoryBlobs(tmp_path / "blobs")
        assert len(leftovers(tmp_path)) == 1
        directory.put(b"another writer is not held up")
    DirectoryBlobs(tmp_path / "blobs")
    assert leftovers(tmp_path) == []


def test_foreign_files_are_no_blobs(directory: DirectoryBlobs, tmp_path: Path):
    digest = directory.put(b"one")
    (tmp_path / "blobs" / "sha256" / "ab").mkdir(exist_ok=True)
    (tmp_path / "blobs" / "sha256" / "ab" / "README").write_text("hello")
    assert list(directory.digests()) == [digest]


def test_a_root_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        StoreError, match=r"cannot be kept in .*file/blobs \(Not a directory\); give a directory"
    ):
        DirectoryBlobs(tmp_path / "file" / "blobs")


def test_a_write_that_fails_leaves_nothing(directory: DirectoryBlobs, tmp_path: Path):
    place = tmp_path / "blobs" / "sha256" / hashlib.sha256(b"data").hexdigest()[:2]
    place.write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"exists|directory"):
        directory.put(b"data")
    assert leftovers(tmp_path) == []
    assert list(directory.digests()) == []
