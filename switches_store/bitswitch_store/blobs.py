"""Bytes by their digest, and how a directory keeps them. POSIX: it locks files and syncs folders.

Knows nothing of switches, of names or of who owns what: a blob is bytes, and its sha256 is its name.
Blobs never change; putting the same bytes twice is one blob.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from bitswitch_store.errors import CorruptBlob, NotStored, StoreError
from bitswitch_store.switch import DIGEST

ALGORITHM = "sha256"

_log = logging.getLogger(__name__)


class Blobs(Protocol):
    """Where blobs live. Every method may be called from many threads and processes at once."""

    def put(self, data: bytes) -> str:
        """Keep the bytes and return their digest, ``sha256:<hex>``; they are durable on return."""

    def adopt(self, path: Path, digest: str) -> None:
        """Keep the bytes of a finished file, as `put` would, without reading them into memory at once.

        The file is given away: it may be removed from now on, and is never written again.

        Raises:
            CorruptBlob: its bytes have another digest.
        """

    def read(self, digest: str) -> bytes:
        """The blob's bytes, checked against its digest.

        Raises:
            NotStored: there is no such blob.
            CorruptBlob: what is stored has another digest.
        """

    def path(self, digest: str) -> Path:
        """A file with the blob's bytes, to be read only; unchecked. NotStored if there is no such blob."""

    def raw(self, digest: str) -> bytes:
        """The bytes as they lie where blobs are kept, past any copy; unchecked. NotStored if none."""

    def modified(self, digest: str) -> datetime:
        """When the blob was last put, UTC. NotStored if there is none."""

    def has(self, digest: str) -> bool:
        """Whether there is such a blob; False for anything that is no digest."""

    def delete(self, digest: str) -> None:
        """Remove the blob if there is one."""

    def digests(self) -> Iterator[str]:
        """The digests of all blobs, in no order."""


class DirectoryBlobs:
    """Blobs as the files ``<root>/sha256/<first two hex digits>/<hex>``.

    A blob is written to ``<root>/tmp``, synced, read back, and renamed to its place, so under its name
    there is never a part of it. What writers that were killed left in ``tmp`` is removed on opening.

    Raises:
        StoreError: the directory cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self._blobs = root / ALGORITHM
        self._temporary = root / "tmp"
        self._lock = root / "writing.lock"
        try:
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._temporary.mkdir(exist_ok=True)
            for folder in (root, root.parent):  # or a power cut could take the new folders themselves
                _sync(folder)
            self._remove_leftovers()
        except OSError as error:
            raise StoreError(
                f"blobs cannot be kept in {root} ({error.strerror}); give a directory this user can write"
            ) from error

    def put(self, data: bytes) -> str:
        """See `Blobs.put`. A blob that is there but corrupt is replaced.

        Raises:
            CorruptBlob: what was written reads back with another digest; nothing was kept.
        """
        digest = digest_of(data)
        self._keep(digest, lambda temporary: temporary.write_bytes(data))
        return digest

    def adopt(self, path: Path, digest: str) -> None:
        """See `Blobs.adopt`. Not even copied, where it lies in the same file system."""
        self._keep(digest, lambda temporary: _link(path, temporary))

    def read(self, digest: str) -> bytes:
        """See `Blobs.read`."""
        data = self.raw(digest)
        if digest_of(data) != digest:
            raise damaged(digest)
        return data

    def path(self, digest: str) -> Path:
        """See `Blobs.path`."""
        if not self.has(digest):
            raise missing(digest)
        return self._place(digest)

    def raw(self, digest: str) -> bytes:
        """See `Blobs.raw`."""
        try:
            return self.path(digest).read_bytes()
        except FileNotFoundError:  # deleted since `path` looked
            raise missing(digest) from None

    def modified(self, digest: str) -> datetime:
        """See `Blobs.modified`."""
        try:
            return datetime.fromtimestamp(self.path(digest).stat().st_mtime, UTC)
        except FileNotFoundError:
            raise missing(digest) from None

    def has(self, digest: str) -> bool:
        """See `Blobs.has`."""
        return DIGEST.fullmatch(digest) is not None and self._place(digest).is_file()

    def delete(self, digest: str) -> None:
        """See `Blobs.delete`."""
        if DIGEST.fullmatch(digest):
            self._place(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """See `Blobs.digests`."""
        for path in self._blobs.glob("??/*"):
            digest = f"{ALGORITHM}:{path.name}"
            if DIGEST.fullmatch(digest):
                yield digest

    def _place(self, digest: str) -> Path:
        name = digest.removeprefix(f"{ALGORITHM}:")
        return self._blobs / name[:2] / name

    def _keep(self, digest: str, write: Callable[[Path], object]) -> None:
        """Let ``write`` write a temporary file, unless the blob is there and whole."""
        place = self._place(digest)
        if not _whole(place, digest):
            place.parent.mkdir(exist_ok=True)
            self._write(write, digest, place)
        else:
            with contextlib.suppress(FileNotFoundError):  # collected just now
                os.utime(place)  # put now, as far as anybody's patience with it goes
        # Also when another writer put it there: it may not have come to its own sync yet.
        _sync(place.parent)
        _sync(self._blobs)

    def _write(self, write: Callable[[Path], object], digest: str, place: Path) -> None:
        with self._locked(fcntl.LOCK_SH):
            handle, name = tempfile.mkstemp(dir=self._temporary)
            os.close(handle)
            temporary = Path(name)
            try:
                write(temporary)
                _sync(temporary)
                if digest_of(temporary) != digest:
                    raise CorruptBlob(f"{temporary} reads back other bytes than were written; check the disk")
                temporary.replace(place)
            finally:
                temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        """Hold the lock file, shared by all writers, while inside; the system lets go of it for the dead."""
        with self._lock.open("ab") as file:
            fcntl.flock(file, kind)
            yield

    def _remove_leftovers(self) -> None:
        with contextlib.suppress(BlockingIOError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            # Nobody is writing, in any process: whatever lies here lost its writer.
            left = list(self._temporary.iterdir())
            for path in left:
                path.unlink()
            if left:
                _log.warning(
                    "%s: removed %d unfinished files of writers that were killed", self._blobs, len(left)
                )


def digest_of(data: bytes | Path) -> str:
    """The name of these bytes, ``sha256:<hex>``; a file's are read in pieces."""
    if isinstance(data, bytes):
        return f"{ALGORITHM}:{hashlib.sha256(data).hexdigest()}"
    with data.open("rb") as file:
        return f"{ALGORITHM}:{hashlib.file_digest(file, ALGORITHM).hexdigest()}"


def _whole(place: Path, digest: str) -> bool:
    """Whether these bytes lie there; somebody else may collect them meanwhile."""
    try:
        return place.is_file() and digest_of(place) == digest
    except FileNotFoundError:
        return False


def missing(digest: str) -> NotStored:
    """What is raised for a blob that is not there."""
    return NotStored(f"there is no blob {digest!r} in this store")


def damaged(digest: str) -> CorruptBlob:
    """What is raised for a blob whose bytes changed."""
    return CorruptBlob(f"the blob {digest} is damaged: its bytes have another digest; put the switch again")


def _link(path: Path, place: Path) -> None:
    """``place`` is another name of the file, or a copy where the file system has no such thing."""
    place.unlink()
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)


def _sync(path: Path) -> None:
    """Make a file's bytes or a folder's entries durable, as fsync(2) asks for."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
