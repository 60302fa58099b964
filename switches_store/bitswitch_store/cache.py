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
        limit: bytes of all copies together; what was used within the last seconds stays beyond it.

    Raises:
        StoreError: the folder cannot be made or written.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._copies = DirectoryBlobs(root)
        self._limit = limit
        self._shrinking = threading.Lock()

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
        with self._shrinking:
            self._shrink()
        return path

    def adopt(self, path: Path, digest: str) -> None:
        """Make a copy of a file, or a link to it. Raises as `keep` does."""
        self._copies.adopt(path, digest)
        with self._shrinking:
            self._shrink()

    def drop(self, digest: str) -> None:
        """Remove a copy if there is one."""
        self._copies.delete(digest)

    def _shrink(self) -> None:
        found = []
        for digest in self._copies.digests():
            with contextlib.suppress(NotStored, FileNotFoundError):  # another process dropped it
                about = self._copies.path(digest).stat()
                found.append((about.st_mtime, about.st_size, digest))
        left = sum(size for _, size, _ in found)
        for used, size, digest in sorted(found):
            if left <= self._limit or used > time.time() - _IN_USE_SECONDS:
                return
            self.drop(digest)
            left -= size
