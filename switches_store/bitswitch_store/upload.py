"""A file that is arriving: written piece by piece, digested on the way, and never larger than it may be.

Knows nothing of HTTP, nor of what the bytes mean. The file lies beside the blobs, so that keeping it costs no
copy; it goes when its receiver is done with it, and with the next start if that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bitswitch_store.errors import StoreError, TooLarge


class Upload:
    """One arriving file; for one writer at a time.

    Args:
        path: where it is written to.
        most: bytes it may have.

    Attributes:
        size: bytes written so far.
    """

    def __init__(self, path: Path, most: int) -> None:
        self.path = path
        self.size = 0
        self._most = most
        self._hash = hashlib.sha256()
        self._file = path.open("wb")

    def write(self, data: bytes) -> int:
        """Append; returns how many bytes.

        Raises:
            TooLarge: the file would be larger than it may be; nothing of ``data`` is written.
            StoreError: the disk takes no more.
        """
        if self.size + len(data) > self._most:
            raise TooLarge(f"the file is larger than {self._most} bytes, the most that is taken")
        with _told():
            self._file.write(data)
        self.size += len(data)
        self._hash.update(data)
        return len(data)

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of what was written."""
        return f"sha256:{self._hash.hexdigest()}"

    def finish(self) -> None:
        """Whole: nothing is written any more. May be repeated.

        Raises:
            StoreError: the disk does not take what was still to be written.
        """
        with _told():
            self._file.close()


class Incoming:
    """A folder for files that are arriving. What was left there by receivers that were killed is removed.

    Raises:
        StoreError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = folder / "receiving.lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(BlockingIOError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                for path in folder.glob("tmp*"):  # nobody is receiving, in any process
                    path.unlink()
        except OSError as error:
            raise StoreError(
                f"uploads cannot be received in {folder} ({error.strerror});"
                " give a directory this user can write"
            ) from error

    @contextlib.contextmanager
    def receive(self, most: int) -> Iterator[Upload]:
        """A new file of at most so many bytes; gone when the block ends."""
        with self._locked(fcntl.LOCK_SH):
            handle, name = tempfile.mkstemp(dir=self._folder)
            os.close(handle)
            upload = Upload(Path(name), most)
            try:
                yield upload
            finally:
                upload.path.unlink(missing_ok=True)
                with contextlib.suppress(StoreError):  # what a full disk did not take is wanted no more
                    upload.finish()

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        """Hold the lock file while inside; the system lets go of it for the dead."""
        with self._lock.open("ab") as file:
            fcntl.flock(file, kind)
            yield


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"the upload cannot be written: {error.strerror}") from error
