"""What is asked of the catalog's tables: one version, all that somebody may see, who a name is shared with.

Each is one query, so that what it returns belongs together on every database. Writes nothing.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select

from bitswitch_store.database import Database
from bitswitch_store.entry import NAME, Entry, Sharing
from bitswitch_store.tables import aliases, audit, names, shares, switches

VERSION = re.compile(r"[1-9][0-9]{0,8}")
"""A selector that is a version's number; any other is an alias."""


def is_version(entry: Entry) -> ColumnElement[bool]:
    """The row of one version."""
    return and_(
        switches.c.tenant == entry.tenant,
        switches.c.name == entry.name,
        switches.c.version == entry.version,
    )


def seen_by(tenant: str | None) -> tuple[ColumnElement[bool], ...]:
    """What this tenant may see; everything if None."""
    if tenant is None:
        return ()
    shared = exists().where(
        shares.c.tenant == switches.c.tenant, shares.c.name == switches.c.name, shares.c.shared_with == tenant
    )
    return (or_(switches.c.tenant == tenant, names.c.public, shared),)


def of_base(digest: str | None) -> tuple[ColumnElement[bool], ...]:
    """What is of the base with this digest; everything if None."""
    return () if digest is None else (switches.c.base_digest == digest,)


def revision(database: Database) -> tuple[int, int]:
    """Other numbers after every change of what anybody sees: the audit's last row, the number of versions.

    The second for what is restored from an archive, of which the audit knows nothing. Cheap.
    """
    last_row = select(func.max(audit.c.id)).scalar_subquery()
    rows = select(last_row, select(func.count()).select_from(switches).scalar_subquery())
    with database.reading() as connection:
        last, versions = connection.execute(rows).one()
    return last or 0, versions


def sharing(connection: Connection, tenant: str, name: str) -> Sharing | None:
    """Who else sees a name; None where it has no version."""
    entry = find(connection, tenant, name, None)
    if entry is None:
        return None
    others = select(shares.c.shared_with).filter_by(tenant=tenant, name=name).order_by(shares.c.shared_with)
    return Sharing(entry.public, tuple(connection.scalars(others)))


def find(
    connection: Connection, tenant: str, name: str, selector: str | None, *where: ColumnElement[bool]
) -> Entry | None:
    """One version by number, alias or (None) the latest, among those that ``where`` holds of."""
    # What no rule allows is not asked for: a database may choke on it (a lone surrogate, a zero byte).
    if not all(NAME.fullmatch(text) for text in (tenant, name, selector or name)):
        return None
    here = (switches.c.tenant == tenant, switches.c.name == name, *where)
    if selector is None:
        latest = select(switches.c.version).join(names).where(*here)
        latest = latest.order_by(switches.c.version.desc()).limit(1)
        found = entries(connection, *here, switches.c.version == latest.correlate(None).scalar_subquery())
    elif VERSION.fullmatch(selector):
        found = entries(connection, *here, switches.c.version == int(selector))
    else:
        target = select(aliases.c.version).filter_by(tenant=tenant, name=name, alias=selector)
        found = entries(connection, *here, switches.c.version == target.scalar_subquery())
    return found[0] if found else None


def entries(connection: Connection, *where: ColumnElement[bool]) -> list[Entry]:
    """All versions that ``where`` holds of; by tenant, name and version."""
    key = ("tenant", "name", "version")
    same = and_(*(switches.c[part] == aliases.c[part] for part in key))
    wanted = select(switches, names.c.public, aliases.c.alias).join(names).outerjoin(aliases, same)
    # Sorted here: databases sort text as their locale does.
    found = connection.execute(wanted.where(*where)).mappings()
    rows = sorted(found, key=lambda row: (*(row[part] for part in key), row["alias"] or ""))
    made = []
    for _, versions in groupby(rows, key=lambda row: tuple(row[part] for part in key)):
        group = list(versions)
        fields: dict[str, Any] = {column.name: group[0][column.name] for column in switches.c}
        fields["labels"] = tuple(fields["labels"])
        pointing = tuple(row["alias"] for row in group if row["alias"] is not None)
        made.append(Entry(**fields, public=group[0]["public"], aliases=pointing))
    return made
