"""Copies of blobs on this machine's disk, so that an object store is not asked for the same bytes twice.

Knows nothing of where the blobs come from. Several processes may share one folder.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

from bitswitch_store.blobs import DirectoryBlobs
from bitswitch_store.errors import CorruptBlob, NotStored

_IN_USE_SECONDS = 10
"""A copy used within this time is not dropped: somebody may be about to open it."""


class Cache:
    """Blobs by digest, the least recently used dropped.

    Args:
        root: the folder; made if missing.
        limit: bytes of all copies together; what was used within the last seconds stays beyond it, and as
            a process counts only what it makes itself, each further one may add a tenth before it looks.

    Raises:
        StoreError: the folder cannot be made or written.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._copies = DirectoryBlobs(root)
        self._tenth = limit // 10
        self._most = limit - self._tenth  # once it was walked; then a tenth may come before the next walk
        self._shrinking = threading.Lock()
        self._new = limit  # about the bytes since the last walk; at first all, as nobody has looked yet

    def read(self, digest: str) -> bytes | None:
        """The bytes, checked against the digest; None if there is no copy, or only a damaged one."""
        try:
            data = self._copies.read(digest)
        except NotStored:
            return None
        except CorruptBlob:
            self.drop(digest)
            return None
        self.path(digest)
        return data

    def path(self, digest: str) -> Path | None:
        """The file of a copy; None if there is none."""
        try:
            path = self._copies.path(digest)
            os.utime(path)  # used now
        except (NotStored, FileNotFoundError):
            return None
        return path

    def keep(self, data: bytes) -> Path | None:
        """Make a copy; the path of its file, or None if another process dropped it at once.

        Raises:
            OSError: it cannot be written.
        """
        path = self.path(self._copies.put(data))
        self._grow(len(data))
        return path

    def adopt(self, path: Path, digest: str) -> None:
        """Make a copy of a file, or a link to it. Raises as `keep` does."""
        size = path.stat().st_size
        self._copies.adopt(path, digest)
        self._grow(size)

    def drop(self, digest: str) -> None:
        """Remove a copy if there is one."""
        self._copies.delete(digest)

    def _grow(self, size: int) -> None:
        """Count a copy, and walk the folder now and then: a walk takes as long as there are copies."""
        with self._shrinking:
            self._new += size
            if self._new > self._tenth:
                self._new = 0
                self._shrink()

    def _shrink(self) -> None:
        found = []
        for digest in self._copies.digests():
            with contextlib.suppress(NotStored, FileNotFoundError):  # another process dropped it
                about = self._copies.path(digest).stat()
                found.append((about.st_mtime, about.st_size, digest))
        left = sum(size for _, size, _ in found)
        for used, size, digest in sorted(found):
            if left <= self._most or used > time.time() - _IN_USE_SECONDS:
                return
            self.drop(digest)
            left -= size
