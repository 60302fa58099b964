"""Who did what: one row for each thing that changed, written in the very transaction that changes it.

So there is no change without its row, and no row without its change. Knows nothing of what the actions mean,
and never holds an input or a key: `Actor.key` is the part of a key that may be shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, insert, select

from bitswitch_store.database import Database
from bitswitch_store.tables import audit

MAX_ROWS = 1000
"""Of one `listed`."""
_TARGET = 256


@dataclass(frozen=True)
class Actor:
    """By whose hand something changes.

    Attributes:
        key: the id of the key that was shown; None where none is needed, or at the command line.
        request_id: of the HTTP request; empty at the command line.
    """

    key: str | None = None
    request_id: str = ""


COMMAND_LINE = Actor()


@dataclass(frozen=True)
class Action:
    """One row of the audit.

    Attributes:
        at: when, UTC.
        tenant: whose things were changed.
        action: ``published``, ``aliased``, …
        target: what was changed, such as ``trec6@3``.
        digest: of the switch's file, where there is one.
    """

    id: int
    at: datetime
    tenant: str
    key: str | None
    action: str
    target: str
    digest: str | None
    request_id: str


def record(
    connection: Connection, by: Actor, tenant: str, action: str, target: str, *, digest: str | None = None
) -> None:
    """Write a row in the transaction of ``connection``."""
    values = {"at": datetime.now(UTC), "tenant": tenant, "key": by.key, "request_id": by.request_id}
    values |= {"action": action, "target": target[:_TARGET], "digest": digest}
    connection.execute(insert(audit).values(values))


def listed(database: Database, tenant: str | None, *, after: int = 0, limit: int = MAX_ROWS) -> list[Action]:
    """Rows by ascending id.

    Args:
        tenant: whose; None is everybody's.
        after: the last id that was seen already.
        limit: rows at most.
    """
    rows = select(audit).where(audit.c.id > after).order_by(audit.c.id).limit(min(limit, MAX_ROWS))
    if tenant is not None:
        rows = rows.where(audit.c.tenant == tenant)
    with database.reading() as connection:
        return [Action(**row) for row in connection.execute(rows).mappings()]
