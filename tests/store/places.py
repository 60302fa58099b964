"""Where a test's store is, and what may befall it there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from small import BASE
from sqlalchemy import URL, update

from bitswitch_store.blobs import Blobs, DirectoryBlobs
from bitswitch_store.store import Store
from bitswitch_store.switch import BaseIdentity
from bitswitch_store.tables import garbage


@contextmanager
def needing(package: str, missing: type[Exception]) -> Iterator[None]:
    """Skip the test without a package, or where a server's start says that it is ``missing``."""
    pytest.importorskip(package, reason=f"{package} is not installed")
    try:
        yield
    except missing as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class Place:
    """A store's, so that it can be opened as often as a test likes; None is what a store does by itself."""

    root: Path
    database_url: URL | None = None
    blobs_url: str | None = None

    def opened(self, base: BaseIdentity | None = BASE) -> closing[Store]:
        urls = {"database_url": self.database_url, "blobs_url": self.blobs_url}
        return closing(Store(self.root, base=base, **urls))


def damage(blobs: Blobs, digest: str, data: bytes) -> None:
    """Change the bytes under a digest where they are kept; copies of them are gone."""
    if isinstance(blobs, DirectoryBlobs):
        blobs.path(digest).write_bytes(data)
    else:
        import obstore

        drop_copy(blobs, digest)
        obstore.put(blobs._objects, f"sha256/{digest[7:9]}/{digest[7:]}", data)


def drop_copy(blobs: Blobs, digest: str) -> None:
    if not isinstance(blobs, DirectoryBlobs):
        blobs._cache.drop(digest)


def age(store: Store, digest: str, **by: float) -> None:
    """Let time pass for a blob that is garbage, or that nothing ever named: ``hours=…`` or the like."""
    at = datetime.now(UTC) - timedelta(**by)
    with store.database.writing() as connection:
        connection.execute(update(garbage).where(garbage.c.digest == digest).values(since=at))
    if isinstance(store.blobs, DirectoryBlobs):
        os.utime(store.blobs.path(digest), (at.timestamp(),) * 2)
