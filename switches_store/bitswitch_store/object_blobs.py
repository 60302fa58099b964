"""Blobs in an object store: S3 and what speaks like it, Google Cloud Storage, Azure. Needs `obstore`.

Knows nothing of switches or names. Credentials and endpoints come from the environment, under the names that
the clouds' own tools read (``AWS_ENDPOINT_URL`` and the like).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from bitswitch_store.blobs import ALGORITHM, damaged, digest_of, missing
from bitswitch_store.cache import Cache
from bitswitch_store.errors import StoreError, StoreUnavailable
from bitswitch_store.switch import DIGEST

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_PATIENCE = timedelta(seconds=10)
"""How long a silent or failing object store is asked again, before that is an error."""
_SILENCE = timedelta(seconds=5)
"""How long it may be silent to one question."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Objects:
    """The objects below one URL, opened twice, as a client has one patience for all its requests.

    Attributes:
        asked: gives up a store that is silent for `_SILENCE`, counted from when a request begins.
        written: has no such limit, or it would cut off every object that takes longer to send.
    """

    asked: ObjectStore
    written: ObjectStore


def open_objects(url: str) -> Objects:
    """The objects below a URL, ``s3://bucket/prefix`` or another scheme that obstore knows.

    Raises:
        StoreError: it is no such URL, or the environment has settings that it cannot be opened with.
    """
    # A plain http endpoint is one that the operator wrote down; nothing falls back to it.
    patient: ClientConfig = {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=3),
        "timeout": timedelta(minutes=10),
    }
    brisk: ClientConfig = {**patient, "read_timeout": _SILENCE}
    retries: RetryConfig = {"max_retries": 2, "retry_timeout": _PATIENCE}
    try:
        return Objects(
            asked=from_url(url, client_options=brisk, retry_config=retries),
            written=from_url(url, client_options=patient, retry_config=retries),
        )
    except (BaseError, ValueError, OSError) as error:
        raise StoreError(
            f"blobs cannot be kept in {url} ({_short(error)});"
            " give s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder"
        ) from error


class ObjectBlobs:
    """Blobs as the objects ``sha256/<first two hex digits>/<hex>``. An object is there whole or not at all.

    Args:
        objects: below which they lie.
        cache: copies on this machine; `read` and `path` ask it first.
        shown: what messages call the place.

    Raises:
        StoreError: the objects cannot be listed; the message says why.
    """

    def __init__(self, objects: Objects, *, cache: Cache, shown: str) -> None:
        self._objects = objects.asked
        self._written = objects.written
        self._cache = cache
        self._shown = shown
        try:
            next(iter(obstore.list(self._objects, chunk_size=1)), None)
        except (BaseError, OSError) as error:
            raise StoreError(
                f"blobs cannot be kept in {shown} ({_short(error)}); give a place that is there and that the"
                " credentials in the environment may use"
            ) from error

    def put(self, data: bytes) -> str:
        """See `Blobs.put`. Written whether or not it is there: that mends it, and makes it new again."""
        digest = digest_of(data)
        self._write(digest, data)
        self._copy(data)
        return digest

    def adopt(self, path: Path, digest: str) -> None:
        """See `Blobs.adopt`."""
        self._write(digest, path)
        try:
            self._cache.adopt(path, digest)
        except OSError as error:  # the blob is had without it
            _log.warning("the blobs' cache cannot be written: %s", error)

    def read(self, digest: str) -> bytes:
        """See `Blobs.read`."""
        data = self._cache.read(digest)
        if data is None:
            data = self._checked(digest)
            self._copy(data)
        return data

    def path(self, digest: str) -> Path:
        """See `Blobs.path`: the copy's, which is fetched and checked if there is none.

        Raises:
            CorruptBlob: the object has another digest.
            StoreUnavailable: no copy can be written.
        """
        path = self._cache.path(digest)
        if path is None:
            data = self._checked(digest)
            try:
                path = self._cache.keep(data)
            except OSError as error:
                raise StoreUnavailable(f"the blobs' cache cannot be written ({error.strerror})") from error
            if path is None:  # dropped by whoever deleted the blob in this moment
                raise missing(digest)
        return path

    def raw(self, digest: str) -> bytes:
        """See `Blobs.raw`."""
        if not DIGEST.fullmatch(digest):
            raise missing(digest)
        with self._asking(digest):
            return bytes(obstore.get(self._objects, _key(digest)).bytes())

    def has(self, digest: str) -> bool:
        """See `Blobs.has`; it asks the objects, not the copies."""
        if not DIGEST.fullmatch(digest):
            return False
        with self._asking(digest):
            try:
                obstore.head(self._objects, _key(digest))
            except FileNotFoundError:
                return False
            return True

    def modified(self, digest: str) -> datetime:
        """See `Blobs.modified`."""
        if not DIGEST.fullmatch(digest):
            raise missing(digest)
        with self._asking(digest):
            return obstore.head(self._objects, _key(digest))["last_modified"]

    def delete(self, digest: str) -> None:
        """See `Blobs.delete`."""
        if not DIGEST.fullmatch(digest):
            return
        self._cache.drop(digest)
        with self._asking(digest):
            try:
                obstore.delete(self._objects, _key(digest))
            except FileNotFoundError:
                return

    def digests(self) -> Iterator[str]:
        """See `Blobs.digests`."""
        with self._asking(""):
            for found in obstore.list(self._objects, prefix=ALGORITHM):
                for one in found:
                    digest = f"{ALGORITHM}:{one['path'].rpartition('/')[2]}"
                    if DIGEST.fullmatch(digest) and one["path"] == _key(digest):
                        yield digest

    def _write(self, digest: str, source: bytes | Path) -> None:
        self.has(digest)  # asked first, as a store that is silent would hold up the writing for long
        with self._asking(digest):
            # In one piece: parts that a kill leaves behind would be paid for and never seen.
            obstore.put(self._written, _key(digest), source, use_multipart=False)

    def _checked(self, digest: str) -> bytes:
        data = self.raw(digest)
        if digest_of(data) != digest:
            raise damaged(digest)
        return data

    def _copy(self, data: bytes) -> None:
        try:
            self._cache.keep(data)
        except OSError as error:  # the blob is had without it
            _log.warning("the blobs' cache cannot be written: %s", error)

    @contextmanager
    def _asking(self, digest: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise missing(digest) from None
        except (BaseError, OSError) as error:
            raise StoreUnavailable(f"{self._shown} does not answer ({_short(error)}); try again") from error


def _key(digest: str) -> str:
    name = digest.removeprefix(f"{ALGORITHM}:")
    return f"{ALGORITHM}/{name[:2]}/{name}"


def _short(error: Exception) -> str:
    """In one line, without a cloud's markup and the dump of a library's insides that follows."""
    said = re.sub(r"<[^>]*>", " ", str(error).partition("Debug source:")[0])
    return " ".join(said.split())[:500]
