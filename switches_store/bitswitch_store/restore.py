"""An archive into a store: all of it, or none. What is there already stays; what contradicts it is refused.

Knows the rows that names and versions are; what a switch file says of itself is taken from the file alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, insert, select, update

from bitswitch_store import archive, garbage
from bitswitch_store.archive import Manifest, StoredName
from bitswitch_store.entry import check_name
from bitswitch_store.errors import Conflict, StoreError
from bitswitch_store.tables import aliases, names, shares, switches

if TYPE_CHECKING:
    from bitswitch_store.store import Store

_MOST_TOLD = 10
_KEYED = select(switches.c.tenant, switches.c.name, switches.c.version, switches.c.digest)


@dataclass(frozen=True)
class Restored:
    """What came of it: how many versions are new here, and how many were here already."""

    new: int
    known: int


def restore(store: Store, path: Path) -> Restored:
    """Bring what an archive holds into a store, under the same tenants, names and version numbers.

    Versions and aliases that are here already, and the sharing of names that are, stay as they are. May be
    done again, after whatever stopped it.

    Raises:
        StoreError: it is no archive, or one of its files is missing or damaged; nothing has a name then.
        SwitchError: a file is no switch, or of another base than this store's.
        InvalidName: a name in it may not be.
        Conflict: a version or an alias means something else here; the message says which.
    """
    with archive.opened(path) as (manifest, blobs):
        _check_names(manifest)
        with store.database.reading() as connection:
            _known(connection, manifest)
        facts: dict[str, dict[str, Any]] = {}
        for digest, data in blobs:
            incoming = store.read(data)
            if incoming.digest != digest or digest not in manifest.digests:
                raise StoreError(f"{digest} of {path} has other bytes, or no version; export again")
            store.blobs.put(data)
            facts[digest] = incoming.facts()
        if missing := manifest.digests - facts.keys():
            raise StoreError(f"{path} lacks {len(missing)} files, such as {min(missing)}; export again")
    with store.database.writing() as connection:
        known = _known(connection, manifest)
        if gone := sorted(digest for digest in manifest.digests if not store.blobs.has(digest)):
            raise StoreError(f"{gone[0]} was collected meanwhile; import again")
        for name in manifest.names:
            _write(connection, name, facts, known)
    count = sum(len(name.versions) for name in manifest.names)
    return Restored(new=count - len(known), known=len(known))


def _check_names(manifest: Manifest) -> None:
    keys = [(name.tenant, name.name) for name in manifest.names]
    if len(set(keys)) < len(keys):
        raise StoreError("the archive says two things of one name; export again")
    for name in manifest.names:
        check_name(name.tenant, "tenant")
        check_name(name.name)
        for tenant in name.shared_with:
            check_name(tenant, "tenant")
        numbers = [version.version for version in name.versions]
        pointing = [alias for version in name.versions for alias in version.aliases]
        for alias in pointing:
            check_name(alias, "alias")
        if len(set(numbers)) < len(numbers) or len(set(pointing)) < len(pointing):
            raise StoreError(f"the archive says two things of {name.tenant}/{name.name}; export again")


def _known(connection: Connection, manifest: Manifest) -> set[tuple[str, str, int]]:
    """The archive's versions that are here already. Conflict if any, or an alias, means something else."""
    here = {row[:3]: row.digest for row in connection.execute(_KEYED)}
    pointing = {row[:3]: row.version for row in connection.execute(select(aliases))}
    known, faults = set(), []
    for name in manifest.names:
        called = f"{name.tenant}/{name.name}"
        for version in name.versions:
            key = (name.tenant, name.name, version.version)
            found = here.get(key, version.digest)
            if found != version.digest:
                faults.append(f"{called}@{version.version} is {found} here and {version.digest} there")
            elif key in here:
                known.add(key)
            for alias in version.aliases:
                to = pointing.get((name.tenant, name.name, alias), version.version)
                if to != version.version:
                    faults.append(f"{called}@{alias} is version {to} here and {version.version} there")
    if faults:
        more = f"; and {len(faults) - _MOST_TOLD} more" if len(faults) > _MOST_TOLD else ""
        raise Conflict(
            f"the archive contradicts this store: {'; '.join(faults[:_MOST_TOLD])}{more};"
            " delete or move these here first, or import into another store"
        )
    return known


def _write(
    connection: Connection,
    name: StoredName,
    facts: Mapping[str, Mapping[str, Any]],
    known: Collection[tuple[str, str, int]],
) -> None:
    owned = {"tenant": name.tenant, "name": name.name}
    last = max([name.last_version, *(version.version for version in name.versions)])
    before = connection.scalar(select(names.c.last_version).filter_by(**owned))
    if before is None:
        connection.execute(insert(names).values(**owned, last_version=last, public=name.public))
        for tenant in sorted(set(name.shared_with)):
            connection.execute(insert(shares).values(**owned, shared_with=tenant))
    else:
        connection.execute(update(names).filter_by(**owned).values(last_version=max(last, before)))
    for version in name.versions:
        if (name.tenant, name.name, version.version) not in known:
            row = {"version": version.version, "created": version.created}
            connection.execute(insert(switches).values(**owned, **row, **facts[version.digest]))
            garbage.take_out(connection, version.digest)
        for alias in version.aliases:
            connection.execute(delete(aliases).filter_by(**owned, alias=alias))
            connection.execute(insert(aliases).values(**owned, alias=alias, version=version.version))
