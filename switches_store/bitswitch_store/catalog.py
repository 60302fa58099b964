"""Names, versions, aliases and owners of switches, in SQL.

Knows nothing of files and blobs: a digest is text to it. Reading needs no lock; all writing goes
through `Catalog.writing`, one transaction at a time.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, insert, select, update

from bitswitch_store import audit, garbage, queries
from bitswitch_store.audit import COMMAND_LINE, Actor
from bitswitch_store.database import Database
from bitswitch_store.entry import Entry, Sharing, check_name
from bitswitch_store.errors import Conflict, NotStored
from bitswitch_store.room import UNBOUNDED, Room
from bitswitch_store.room import check as check_room
from bitswitch_store.tables import aliases, names, shares, switches


class Catalog:
    """What the database knows of switches; may be used from many threads.

    Args:
        database: where the rows are; whoever opened it closes it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(
        self,
        tenant: str,
        name: str,
        selector: str | None = None,
        *,
        seen_by: str | None = None,
        base: str | None = None,
    ) -> Entry | None:
        """One version: by its number, by an alias, or (None) the latest there is.

        Args:
            tenant: whose it is.
            seen_by: who asks; None is the tenant. What they may not see is not there, by the same query.
            base: digest of the base it has to be of; None takes any.
        """
        with self._database.reading() as connection:
            return queries.find(
                connection, tenant, name, selector, *queries.seen_by(seen_by), *queries.of_base(base)
            )

    def list(self, tenant: str) -> list[Entry]:
        """All versions of the tenant's own, by name and version."""
        with self._database.reading() as connection:
            return queries.entries(connection, switches.c.tenant == tenant)

    def visible(self, tenant: str, *, base: str | None = None) -> builtins.list[Entry]:
        """The tenant's own, and those of others that are public or shared with it; by tenant, name, version.

        Args:
            base: digest of the base they have to be of; None takes any.
        """
        with self._database.reading() as connection:
            return queries.entries(connection, *queries.seen_by(tenant), *queries.of_base(base))

    def sharing(self, tenant: str, name: str) -> Sharing | None:
        """Who else sees a name of the tenant's; None where it has no version."""
        with self._database.reading() as connection:
            return queries.sharing(connection, tenant, name)

    def everything(self) -> builtins.list[Entry]:
        """All versions of all tenants; by tenant, name and version."""
        with self._database.reading() as connection:
            return queries.entries(connection)

    def digests(self) -> set[str]:
        """The digests of all versions of all tenants."""
        with self._database.reading() as connection:
            return set(connection.scalars(select(switches.c.digest)))

    def names(self, digest: str) -> bool:
        """Whether any version of any tenant has this digest."""
        with self._database.reading() as connection:
            return not garbage.unnamed(connection, {digest})

    @contextmanager
    def writing(self, by: Actor = COMMAND_LINE) -> Iterator[Writing]:
        """A transaction that is alone in writing from its beginning to its end; all of it, or nothing.

        What it changes is on record in the audit, as done ``by`` them, in the same transaction.
        """
        with self._database.writing() as connection:
            yield Writing(connection, by)


class Writing:
    """What can be changed in a catalog, inside `Catalog.writing`."""

    def __init__(self, connection: Connection, by: Actor) -> None:
        self._connection = connection
        self._by = by

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
        room: Room = UNBOUNDED,
    ) -> Entry:
        """The next version of a name; or the latest one as it is, if it has this digest.

        Publishing as public makes the name public; `share` alone makes it private again. The digest is no
        garbage from now on.

        Raises:
            InvalidName: of the name or the tenant.
            QuotaExceeded: there is no room for another version.
        """
        check_name(tenant, "tenant")
        check_name(name)
        latest = queries.find(self._connection, tenant, name, None)
        if latest is not None and latest.digest == digest:
            if public and not latest.public:
                self._set_public(tenant, name, True)
                self._record("made_public", latest)
            return replace(latest, public=latest.public or public)
        check_room(self._connection, tenant, room, size)
        entry = Entry(
            tenant=tenant,
            name=name,
            version=self._next_version(tenant, name),
            digest=digest,
            size=size,
            task=task,
            labels=labels,
            aliases=(),
            public=public or (latest is not None and latest.public),
            metric=dict(metric),
            base_digest=base_digest,
            created=datetime.now(UTC),
        )
        row = {column.name: getattr(entry, column.name) for column in switches.c}
        self._connection.execute(insert(switches).values(row))
        if public:
            self._set_public(tenant, name, True)
        garbage.take_out(self._connection, digest)
        self._record("published", entry)
        return entry

    def share(self, tenant: str, name: str, sharing: Sharing) -> Sharing:
        """Let exactly these see a name of the tenant's, besides itself. Returns what holds then.

        Raises:
            InvalidName: of one of the tenants.
            NotStored: there is nothing of that name.
        """
        self._stored(tenant, name, None)
        others = sorted({check_name(other, "tenant") for other in sharing.tenants} - {tenant})
        self._set_public(tenant, name, sharing.public)
        self._connection.execute(delete(shares).filter_by(tenant=tenant, name=name))
        if others:
            rows = [{"tenant": tenant, "name": name, "shared_with": other} for other in others]
            self._connection.execute(insert(shares), rows)
        seen = "all" if sharing.public else ", ".join(others) or "nobody"
        audit.record(self._connection, self._by, tenant, "shared", f"{name} with {seen}")
        return Sharing(sharing.public, tuple(others))

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
        self._record("aliased", entry, alias)
        return replace(entry, aliases=tuple(sorted({*entry.aliases, alias})))

    def delete_alias(self, tenant: str, name: str, alias: str) -> None:
        """Take an alias off. NotStored if there is none of that name."""
        entry = (
            None if queries.VERSION.fullmatch(alias) else queries.find(self._connection, tenant, name, alias)
        )
        if entry is None:
            raise NotStored(f"{name!r} has no alias {alias!r}")
        self._connection.execute(delete(aliases).filter_by(tenant=tenant, name=name, alias=alias))
        self._record("unaliased", entry, alias)

    def delete(self, tenant: str, name: str, version: int | None, *, force: bool) -> list[Entry]:
        """Remove one version, or (None) all there are; their numbers are not given again.

        Digests that no version has any more are garbage from now on.

        Raises:
            NotStored: there is nothing of that name, or no such version.
            Conflict: aliases point there, and ``force`` is not set, which removes them as well.
        """
        entries = [self._stored(tenant, name, None if version is None else str(version))]
        if version is None:
            entries = queries.entries(self._connection, switches.c.tenant == tenant, switches.c.name == name)
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
            self._connection.execute(delete(switches).where(queries.is_version(entry)))
            for alias in entry.aliases:
                self._record("unaliased", entry, alias)
            self._record("deleted", entry)
        if queries.find(self._connection, tenant, name, None) is None:
            # Whoever takes the name up again shares it anew, or does not.
            self._set_public(tenant, name, False)
            self._connection.execute(delete(shares).filter_by(tenant=tenant, name=name))
        garbage.note(self._connection, {entry.digest for entry in entries})
        return entries

    def _record(self, action: str, entry: Entry, alias: str | None = None) -> None:
        target = (
            f"{entry.name}@{entry.version}" if alias is None else f"{entry.name}@{alias} = {entry.version}"
        )
        audit.record(self._connection, self._by, entry.tenant, action, target, digest=entry.digest)

    def _stored(self, tenant: str, name: str, selector: str | None) -> Entry:
        entry = queries.find(self._connection, tenant, name, selector)
        if entry is None:
            raise _unknown(tenant, name, selector)
        return entry

    def _next_version(self, tenant: str, name: str) -> int:
        key = {"tenant": tenant, "name": name}
        last = self._connection.scalar(select(names.c.last_version).filter_by(**key))
        if last is None:
            self._connection.execute(insert(names).values(**key, last_version=1, public=False))
            return 1
        self._connection.execute(update(names).filter_by(**key).values(last_version=last + 1))
        return int(last) + 1

    def _set_public(self, tenant: str, name: str, public: bool) -> None:
        self._connection.execute(update(names).filter_by(tenant=tenant, name=name).values(public=public))


def _unknown(tenant: str, name: str, selector: str | None) -> NotStored:
    which = f"no version {selector} of {name!r}" if selector else f"no switch {name!r}"
    return NotStored(f"tenant {tenant!r} has {which}")
