"""A look at all that a store holds: is every version's file there and whole; and what can be mended.

Knows no switch beyond its header, and not whether a base is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from bitswitch_store import collect, garbage
from bitswitch_store.blobs import Blobs, digest_of
from bitswitch_store.catalog import Catalog
from bitswitch_store.coded import CodedSwitch
from bitswitch_store.database import Database
from bitswitch_store.entry import Entry
from bitswitch_store.errors import NotStored
from bitswitch_store.switch import SwitchError


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        what: ``lost``, ``corrupt`` or ``unreadable``, of a blob that versions need; or ``orphan``.
        entries: the versions that need it.
        told: a sentence.
    """

    what: str
    digest: str
    entries: tuple[Entry, ...]
    told: str

    @property
    def broken(self) -> bool:
        """Whether versions cannot be served; the rest is space that is used for nothing."""
        return bool(self.entries)


def check(database: Database, blobs: Blobs) -> Iterator[Finding]:
    """Read every blob that a version needs, past all copies, and look for those that none needs.

    The versions are those of the moment at which it starts: others may write meanwhile.

    Raises:
        StoreUnavailable: the database or the place of the blobs does not answer.
    """
    entries = sorted(Catalog(database).everything(), key=lambda entry: entry.digest)
    for digest, versions in groupby(entries, key=lambda entry: entry.digest):
        found = _look(blobs, digest, tuple(versions))
        if found is not None:
            yield found
    for digest in sorted(collect.orphans(database, blobs)):
        yield Finding("orphan", digest, (), "no version ever had it; collected when it is old enough")


def repair(database: Database, blobs: Blobs, findings: Iterable[Finding], *, drop_broken: bool) -> list[str]:
    """Mend what can be mended without anybody's file.

    Orphans are noted as garbage, so that their time counts from now. Versions whose blob is lost, corrupt or
    unreadable go only if ``drop_broken``, with the aliases that point to them; publishing the same file again
    mends the first two for good.

    Returns:
        What was done, a sentence each.
    """
    findings = list(findings)
    done = []
    if orphans := {found.digest for found in findings if not found.broken}:
        with database.writing() as connection:
            garbage.note(connection, orphans)
        done.append(f"{len(orphans)} blobs that no version has are noted, and collected in due time")
    for found in findings:
        if found.broken and drop_broken:
            done += _drop(database, blobs, found)
    return done


def _drop(database: Database, blobs: Blobs, found: Finding) -> list[str]:
    done = []
    with Catalog(database).writing() as rows:
        if _look(blobs, found.digest, found.entries) is None:  # mended since
            return []
        for entry in found.entries:
            try:
                rows.delete(entry.tenant, entry.name, entry.version, force=True)
            except NotStored:
                continue
            aliases = f" and its aliases {', '.join(entry.aliases)}" if entry.aliases else ""
            done.append(f"{entry.tenant}/{entry.name}@{entry.version}{aliases} dropped: {found.told}")
    return done


def _look(blobs: Blobs, digest: str, entries: tuple[Entry, ...]) -> Finding | None:
    try:
        data = blobs.raw(digest)
    except NotStored:
        return Finding("lost", digest, entries, "its file is gone")
    if digest_of(data) != digest:
        return Finding("corrupt", digest, entries, f"its file has other bytes, {len(data)} of them")
    try:
        about = CodedSwitch(data).about
    except SwitchError as error:
        return Finding("unreadable", digest, entries, str(error))
    for entry in entries:
        if (entry.size, entry.base_digest) != (len(data), about.base.digest):
            return Finding(
                "unreadable", digest, entries, "the catalog says another size or base than the file"
            )
    return None
