"""Names, versions, aliases and owners of switches, in SQL.

Knows nothing of files and blobs: a digest is text to it. Reading needs no lock; all writing goes
through `Catalog.writing`, one transaction at a time.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select, update

from bitswitch_store import garbage
from bitswitch_store.database import Database
from bitswitch_store.errors import Conflict, InvalidName, NotStored
from bitswitch_store.tables import aliases, names, switches

RESERVED = ("auto", "base")
"""No switch's name, in any tenant: what ``model`` may say besides one."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Entry:
    """One version of a switch, as the catalog knows it.

    Attributes:
        version: 1, 2, …; a number is never given twice under one name.
        digest: ``sha256:<hex>`` of its file.
        size: of its file, in bytes.
        labels: of its head, in the order of the outputs; () without a head.
        aliases: those that point to this version, sorted.
        public: whether other tenants see it.
        created: when it was published, UTC.
    """

    tenant: str
    name: str
    version: int
    digest: str
    size: int
    task: str
    labels: tuple[str, ...]
    aliases: tuple[str, ...]
    public: bool
    metric: Mapping[str, float]
    base_digest: str
    created: datetime


def check_name(name: str, what: str = "name") -> str:
    """The name itself, if it may be a switch's name, an alias (``what="alias"``) or a tenant's.

    Raises:
        InvalidName: it may not; the message gives the rule.
    """
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"the {what} {name!r} is not allowed; it is 1 to 64 of a-z, 0-9, '.', '_' and '-',"
            " the first one a letter or a digit"
        )
    if what != "tenant" and name in RESERVED:
        raise InvalidName(f"the {what} {name!r} is reserved, as are {' and '.join(RESERVED)}; take another")
    if what == "alias" and name.isdigit():
        raise InvalidName(f"the alias {name!r} reads as a version number; give it at least one letter")
    return name


class Catalog:
    """What the database knows of switches; may be used from many threads.

    Args:
        database: where the rows are; whoever opened it closes it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, tenant: str, name: str, selector: str | None = None) -> Entry | None:
        """One version of the tenant's own: by its number, by an alias, or (None) the latest there is."""
        with self._database.reading() as connection:
            return _find(connection, tenant, name, selector)

    def list(self, tenant: str) -> list[Entry]:
        """All versions of the tenant's own, by name and version."""
        with self._database.reading() as connection:
            return _entries(connection, switches.c.tenant == tenant)

    def visible(self, tenant: str) -> builtins.list[Entry]:
        """The tenant's own, and the public ones of others; by tenant, name and version."""
        with self._database.reading() as connection:
            return _entries(connection, or_(switches.c.tenant == tenant, switches.c.public))

    def entries(self) -> builtins.list[Entry]:
        """All versions of all tenants, by tenant, name and version."""
        with self._database.reading() as connection:
            return _entries(connection)

    def digests(self) -> set[str]:
        """The digests of all versions of all tenants."""
        with self._database.reading() as connection:
            return set(connection.scalars(select(switches.c.digest)))

    def names(self, digest: str) -> bool:
        """Whether any version of any tenant has this digest."""
        with self._database.reading() as connection:
            return not garbage.unnamed(connection, {digest})

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """A transaction that is alone in writing from its beginning to its end; all of it, or nothing."""
        with self._database.writing() as connection:
            yield Writing(connection)


class Writing:
    """What can be changed in a catalog, inside `Catalog.writing`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def publish(
        self,
        *,
        tenant: str,
        name: str,
        digest: str,
        size: int,
        task: str,
        labels: tuple[str, ...],
        metric: Mapping[str, float],
        base_digest: str,
        public: bool,
    ) -> Entry:
        """The next version of a name; or the latest one as it is, if it has this digest.

        Publishing the latest again as public makes it public; nothing makes it private again. The digest is
        no garbage from now on.

        Raises:
            InvalidName: of the name or the tenant.
        """
        check_name(tenant, "tenant")
        check_name(name)
        latest = _find(self._connection, tenant, name, None)
        if latest is not None and latest.digest == digest:
            if not public or latest.public:
                return latest
            self._connection.execute(update(switches).where(_is(latest)).values(public=True))
            return replace(latest, public=True)
        entry = Entry(
            tenant=tenant,
            name=name,
            version=self._next_version(tenant, name),
            digest=digest,
            size=size,
            task=task,
            labels=labels,
            aliases=(),
            public=public,
            metric=dict(metric),
            base_digest=base_digest,
            created=datetime.now(UTC),
        )
        row = {column.name: getattr(entry, column.name) for column in switches.c}
        self._connection.execute(insert(switches).values(row))
        garbage.take_out(self._connection, digest)
        return entry

    def set_alias(self, tenant: str, name: str, alias: str, version: int) -> Entry:
        """Point an alias of a name to one of its versions, wherever it pointed before.

        Raises:
            InvalidName: of the alias.
            NotStored: there is no such version.
        """
        check_name(alias, "alias")
        entry = self._stored(tenant, name, str(version))
        key = {"tenant": tenant, "name": name, "alias": alias}
        self._connection.execute(delete(aliases).filter_by(**key))
        self._connection.execute(insert(aliases).values(**key, version=version))
        return replace(entry, aliases=tuple(sorted({*entry.aliases, alias})))

    def delete_alias(self, tenant: str, name: str, alias: str) -> None:
        """Take an alias off. NotStored if there is none of that name."""
        entry = None if _VERSION.fullmatch(alias) else _find(self._connection, tenant, name, alias)
        if entry is None:
            raise NotStored(f"{name!r} has no alias {alias!r}")
        self._connection.execute(delete(aliases).filter_by(tenant=tenant, name=name, alias=alias))

    def delete(self, tenant: str, name: str, version: int | None, *, force: bool) -> list[Entry]:
        """Remove one version, or (None) all there are; their numbers are not given again.

        Digests that no version has any more are garbage from now on.

        Raises:
            NotStored: there is nothing of that name, or no such version.
            Conflict: aliases point there, and ``force`` is not set, which removes them as well.
        """
        entries = [self._stored(tenant, name, None if version is None else str(version))]
        if version is None:
            entries = _entries(self._connection, switches.c.tenant == tenant, switches.c.name == name)
        pointing = [f"{alias} → {entry.version}" for entry in entries for alias in entry.aliases]
        if pointing and not force:
            raise Conflict(
                f"aliases of {name!r} point there ({', '.join(pointing)});"
                " move or delete them first, or force it"
            )
        for entry in entries:
            self._connection.execute(
                delete(aliases).filter_by(tenant=tenant, name=name, version=entry.version)
            )
            self._connection.execute(delete(switches).where(_is(entry)))
        garbage.note(self._connection, {entry.digest for entry in entries})
        return entries

    def _stored(self, tenant: str, name: str, selector: str | None) -> Entry:
        entry = _find(self._connection, tenant, name, selector)
        if entry is None:
            raise _unknown(tenant, name, selector)
        return entry

    def _next_version(self, tenant: str, name: str) -> int:
        key = {"tenant": tenant, "name": name}
        last = self._connection.scalar(select(names.c.last_version).filter_by(**key))
        if last is None:
            self._connection.execute(insert(names).values(**key, last_version=1))
            return 1
        self._connection.execute(update(names).filter_by(**key).values(last_version=last + 1))
        return int(last) + 1


def _unknown(tenant: str, name: str, selector: str | None) -> NotStored:
    which = f"no version {selector} of {name!r}" if selector else f"no switch {name!r}"
    return NotStored(f"tenant {tenant!r} has {which}")


def _is(entry: Entry) -> ColumnElement[bool]:
    return and_(
        switches.c.tenant == entry.tenant,
        switches.c.name == entry.name,
        switches.c.version == entry.version,
    )


def _find(connection: Connection, tenant: str, name: str, selector: str | None) -> Entry | None:
    # What no rule allows is not asked for: a database may choke on it (a lone surrogate, a zero byte).
    if not (_NAME.fullmatch(name) and (selector is None or _NAME.fullmatch(selector))):
        return None
    here = and_(switches.c.tenant == tenant, switches.c.name == name)
    if selector is None:
        latest = select(switches.c.version).where(here).order_by(switches.c.version.desc()).limit(1)
        found = _entries(connection, here, switches.c.version == latest.scalar_subquery())
    elif _VERSION.fullmatch(selector):
        found = _entries(connection, here, switches.c.version == int(selector))
    else:
        target = select(aliases.c.version).filter_by(tenant=tenant, name=name, alias=selector)
        found = _entries(connection, here, switches.c.version == target.scalar_subquery())
    return found[0] if found else None


def _entries(connection: Connection, *where: ColumnElement[bool]) -> list[Entry]:
    """One query, so that what it returns belongs together on every database."""
    key = ("tenant", "name", "version")
    same = and_(*(switches.c[part] == aliases.c[part] for part in key))
    found = connection.execute(select(switches, aliases.c.alias).outerjoin(aliases, same).where(*where))
    # Sorted here: databases sort text as their locale does.
    rows = sorted(found.mappings(), key=lambda row: (*(row[part] for part in key), row["alias"] or ""))
    entries = []
    for _, versions in groupby(rows, key=lambda row: tuple(row[part] for part in key)):
        group = list(versions)
        fields: dict[str, Any] = {column.name: group[0][column.name] for column in switches.c}
        fields["labels"] = tuple(fields["labels"])
        pointing = tuple(row["alias"] for row in group if row["alias"] is not None)
        entries.append(Entry(**fields, aliases=pointing))
    return entries
