from __future__ import annotations

import fcntl
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bitswitch_store.blobs import DirectoryBlobs
from bitswitch_store.errors import CorruptBlob, NotStored, StoreError

ABSENT = "sha256:" + "0" * 64


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(tmp_path / "blobs")


def leftovers(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "blobs" / "tmp").iterdir())


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5000])
def test_what_is_put_is_read(blobs: DirectoryBlobs, tmp_path: Path, data: bytes):
    digest = blobs.put(data)
    hexadecimal = hashlib.sha256(data).hexdigest()
    assert digest == f"sha256:{hexadecimal}"
    assert blobs.read(digest) == data
    assert blobs.path(digest) == tmp_path / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal
    assert blobs.path(digest).read_bytes() == data
    assert blobs.has(digest)
    assert leftovers(tmp_path) == []


def test_the_same_bytes_are_one_blob_written_once(blobs: DirectoryBlobs):
    digest = blobs.put(b"same")
    file = blobs.path(digest).stat().st_ino
    assert blobs.put(b"same") == digest
    assert blobs.path(digest).stat().st_ino == file
    assert list(blobs.digests()) == [digest]


def test_many_threads_put_the_same_and_different_bytes(blobs: DirectoryBlobs, tmp_path: Path):
    data = [bytes([i % 10]) * 100_000 for i in range(80)]
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(blobs.put, data))
    assert [blobs.read(digest) for digest in digests] == data
    assert len(list(blobs.digests())) == 10
    assert leftovers(tmp_path) == []


def test_delete_removes_and_may_be_repeated(blobs: DirectoryBlobs):
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
def test_what_is_no_digest_is_not_there(blobs: DirectoryBlobs, digest: str):
    assert not blobs.has(digest)
    blobs.delete(digest)
    with pytest.raises(NotStored):
        blobs.path(digest)


def test_a_path_is_no_digest(blobs: DirectoryBlobs, tmp_path: Path):
    outside = tmp_path / "blobs" / "outside"
    outside.write_bytes(b"not a blob")
    assert (tmp_path / "blobs" / "sha256" / ".." / "outside").is_file()
    assert not blobs.has("sha256:../outside")
    blobs.delete("sha256:../outside")
    assert outside.is_file()


@pytest.mark.parametrize("damage", [b"", b"goof", b"good and more"])
def test_a_damaged_blob_is_refused_and_mended_by_putting_it_again(blobs: DirectoryBlobs, damage: bytes):
    digest = blobs.put(b"good")
    blobs.path(digest).write_bytes(damage)
    with pytest.raises(CorruptBlob, match=digest):
        blobs.read(digest)
    assert blobs.put(b"good") == digest
    assert blobs.read(digest) == b"good"


def test_opening_removes_what_a_killed_writer_left(blobs: DirectoryBlobs, tmp_path: Path):
    digest = blobs.put(b"whole")
    (tmp_path / "blobs" / "tmp" / "half").write_bytes(b"ha")
    again = DirectoryBlobs(tmp_path / "blobs")
    assert leftovers(tmp_path) == []
    assert again.read(digest) == b"whole"


def test_opening_leaves_a_writer_that_lives_alone(blobs: DirectoryBlobs, tmp_path: Path):
    (tmp_path / "blobs" / "tmp" / "half").write_bytes(b"ha")
    with (tmp_path / "blobs" / "writing.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        DirectoryBlobs(tmp_path / "blobs")
        assert len(leftovers(tmp_path)) == 1
        blobs.put(b"another writer is not held up")
    DirectoryBlobs(tmp_path / "blobs")
    assert leftovers(tmp_path) == []


def test_foreign_files_are_no_blobs(blobs: DirectoryBlobs, tmp_path: Path):
    digest = blobs.put(b"one")
    (tmp_path / "blobs" / "sha256" / "ab").mkdir(exist_ok=True)
    (tmp_path / "blobs" / "sha256" / "ab" / "README").write_text("hello")
    assert list(blobs.digests()) == [digest]


def test_a_root_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        StoreError, match=r"cannot be kept in .*file/blobs \(Not a directory\); give a directory"
    ):
        DirectoryBlobs(tmp_path / "file" / "blobs")


def test_a_write_that_fails_leaves_nothing(blobs: DirectoryBlobs, tmp_path: Path):
    place = tmp_path / "blobs" / "sha256" / hashlib.sha256(b"data").hexdigest()[:2]
    place.write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"exists|directory"):
        blobs.put(b"data")
    assert leftovers(tmp_path) == []
    assert list(blobs.digests()) == []
