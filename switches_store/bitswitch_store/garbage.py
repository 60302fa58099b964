"""Digests that no version has any more, and since when: what may be collected once nobody can be at it.

Knows rows, and no blob: whoever collects removes those. What is said inside a writer's turn holds until the
turn ends.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, insert, select

from bitswitch_store.tables import garbage, switches


def note(connection: Connection, digests: Collection[str]) -> None:
    """Write down those of the digests that no version has; one that was noted before keeps its time."""
    noted = connection.scalars(select(garbage.c.digest).where(garbage.c.digest.in_(digests)))
    if new := unnamed(connection, digests) - set(noted):
        now = datetime.now(UTC)
        connection.execute(insert(garbage), [{"digest": digest, "since": now} for digest in sorted(new)])


def take_out(connection: Connection, digest: str) -> None:
    """Forget that it was garbage: it has a version again, or is gone."""
    connection.execute(delete(garbage).where(garbage.c.digest == digest))


def unnamed(connection: Connection, digests: Collection[str]) -> set[str]:
    """Those of the digests that no version of any tenant has."""
    found = select(switches.c.digest).where(switches.c.digest.in_(digests))
    return set(digests) - set(connection.scalars(found))


def noted(connection: Connection) -> dict[str, datetime]:
    """All there is, each with the time it was noted at, UTC."""
    return {row.digest: row.since for row in connection.execute(select(garbage.c.digest, garbage.c.since))}


def noted_at(connection: Connection, digest: str) -> datetime | None:
    """When it was noted, UTC; None if it is not."""
    since: datetime | None = connection.scalar(select(garbage.c.since).where(garbage.c.digest == digest))
    return since
