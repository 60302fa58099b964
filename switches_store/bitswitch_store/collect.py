"""Collecting: blobs that nothing has named for a while are removed.

Knows the rules by which a blob is nobody's, not what a blob holds. For every blob there is a writer's turn
of its own, so that publishing waits for the removal of one blob at most, and reading for none.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from bitswitch_store import garbage
from bitswitch_store.blobs import Blobs
from bitswitch_store.catalog import Catalog
from bitswitch_store.database import Database
from bitswitch_store.errors import NotStored

GRACE = timedelta(hours=1)
"""How long a blob outlives its last name: longer than a request that resolved it, or a put of it, takes."""


def waiting(database: Database) -> int:
    """How many blobs wait to be collected."""
    with database.reading() as connection:
        return len(garbage.noted(connection))


def orphans(database: Database, blobs: Blobs) -> set[str]:
    """Digests of blobs that no version has, nor had: what a kill, or a put under way, leaves."""
    # Blobs first: one that is put and named while this looks is then no orphan.
    there = set(blobs.digests())
    with database.reading() as connection:
        known = set(garbage.noted(connection))
    return there - known - Catalog(database).digests()


def collect(
    database: Database,
    blobs: Blobs,
    *,
    older_than: timedelta = GRACE,
    stopping: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Remove blobs that have been nobody's for that long; any number of processes may do so at once.

    A blob is nobody's since its last version was deleted, or, if it never had one, since it was put.

    Args:
        stopping: asked before each; if it says so, the rest is left for another time.

    Returns:
        The digests of the blobs that are gone.

    Raises:
        StoreUnavailable: the database or the place of the blobs does not answer; the rest goes next time.
    """
    before = datetime.now(UTC) - older_than
    with database.reading() as connection:
        due = [digest for digest, since in garbage.noted(connection).items() if since <= before]
    gone = []
    for digest in (*due, *sorted(orphans(database, blobs))):
        if stopping():
            break
        # Whoever publishes these bytes again looks for the blob in a turn of its own, before this one or
        # after it: then the row is seen here, or the blob is missed there and put anew.
        with database.writing() as connection:
            since = garbage.noted_at(connection, digest) or _put_at(blobs, digest)
            if since is None or since > before or not garbage.unnamed(connection, {digest}):
                continue
            blobs.delete(digest)
            garbage.take_out(connection, digest)
            gone.append(digest)
    return gone


def _put_at(blobs: Blobs, digest: str) -> datetime | None:
    try:
        return blobs.modified(digest)
    except NotStored:  # another process was faster
        return None
