"""Where switches live: put, get, list, delete. The catalog says what there is, the blobs hold it.

Knows nothing of HTTP, of the engine or of who may ask. Whenever the process is killed, the store
opens again with every put and delete that had returned: a blob is durable before a row names it, and
goes only some time after the last row that named it. What a kill can leave is a blob that no row names.
"""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

from sqlalchemy import URL

from bitswitch_store import collect, file, queries
from bitswitch_store.audit import COMMAND_LINE, Actor
from bitswitch_store.catalog import Catalog
from bitswitch_store.checked import Checked
from bitswitch_store.coded import CodedSwitch
from bitswitch_store.database import Database, catalog_url
from bitswitch_store.entry import Entry, Sharing, check_name
from bitswitch_store.errors import (
    Conflict,
    CorruptBlob,
    InvalidName,
    NotStored,
    QuotaExceeded,
    StoreError,
    StoreUnavailable,
    TooLarge,
)
from bitswitch_store.place import CACHE_BYTES, open_blobs
from bitswitch_store.room import UNBOUNDED, Room
from bitswitch_store.room import check as check_room
from bitswitch_store.switch import BaseIdentity, QuerySet, Switch, SwitchError
from bitswitch_store.upload import Incoming, Upload

__all__ = [
    "Checked",
    "Conflict",
    "CorruptBlob",
    "Entry",
    "InvalidName",
    "NotStored",
    "QuotaExceeded",
    "Sharing",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "TooLarge",
    "Upload",
]

_log = logging.getLogger(__name__)


class Store:
    """Switches by digest, and by tenant, name and version. Many threads and processes may share one.

    Args:
        root: the store's directory; made if missing.
        base: the one base whose switches are taken and given; None takes any.
        shapes: that base's parameters; a file with any other is refused undecoded. None takes any.
        database_url: where the catalog is; None is a SQLite file in ``root``.
        blobs_url: where the blobs are, see `open_blobs`; None is a folder in ``root``.
        cache_bytes: of the copies in ``root`` of blobs that are elsewhere.

    Attributes:
        database: the catalog's; who may call and what they did is kept in it as well.
        blobs: the switch files.

    Raises:
        StoreError: the directory or the database cannot be used; the message says why.
    """

    def __init__(
        self,
        root: Path,
        *,
        base: BaseIdentity | None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        database_url: str | URL | None = None,
        blobs_url: str | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if root.exists() and not root.is_dir():
            raise StoreError(f"the store's root {root} is a file; give a directory, it is made if missing")
        self._base = base
        self._shapes = shapes
        self.blobs = open_blobs(root, blobs_url, cache_bytes=cache_bytes)
        self._incoming = Incoming(root / "incoming")
        self.database = Database(database_url or catalog_url(root))
        self._catalog = Catalog(self.database)
        if orphans := self.orphans():
            told = "%s: %d blobs belong to no switch, such as %s; they are collected when old enough"
            _log.warning(told, root, len(orphans), min(orphans))

    def close(self) -> None:
        """Close the database's connections; the store is not used after that."""
        self.database.close()

    def receive(self, most: int) -> AbstractContextManager[Upload]:
        """A file to write an upload of at most so many bytes into; gone when the block ends."""
        return self._incoming.receive(most)

    def put(
        self,
        source: Path | bytes | Checked,
        *,
        tenant: str,
        name: str | None = None,
        public: bool = False,
        room: Room = UNBOUNDED,
        by: Actor = COMMAND_LINE,
    ) -> Entry:
        """Publish a switch as the next version of its name; the bytes of its latest give that one again.

        Args:
            source: a switch file or its bytes, all of it checked here; or what `read` made of them.
            name: the switch's task if None.
            public: makes the name public if it is not, see `share`.
            room: how much the tenant may have.

        Raises:
            SwitchError: it is no switch file, or one of another base.
            InvalidName: of the name or the tenant.
            QuotaExceeded: the tenant has no room for it.
        """
        if not isinstance(source, Checked):
            source = self.read(source.read_bytes() if isinstance(source, Path) else source)
        check_name(tenant, "tenant")
        name = check_name(source.switch.task if name is None else name)
        with self.database.reading() as connection:  # before anything is kept; `publish` has the last word
            latest = queries.find(connection, tenant, name, None)
            if latest is None or latest.digest != source.digest:
                check_room(connection, tenant, room, source.size)
        self._keep(source)
        with self._catalog.writing(by) as rows:
            if not self.blobs.has(source.digest):  # collected in between
                self._keep(source)
            return rows.publish(tenant=tenant, name=name, public=public, room=room, **source.facts())

    def _keep(self, checked: Checked) -> None:
        if isinstance(checked.source, Upload):
            self.blobs.adopt(checked.source.path, checked.digest)
        else:
            self.blobs.put(checked.source)

    def get(self, digest: str) -> Switch:
        """The switch of a digest.

        Every check was made when it was put; the digest says that these are the same bytes. So the ones
        that only `put` needs are not paid for again, see `CodedSwitch.decode`.

        Raises:
            NotStored: there is none.
            CorruptBlob: its file was damaged.
            SwitchError: it is of another base, or of a format this version does not read.
        """
        return self._decoded(self.blobs.read(digest), vouched=True)

    def queries(self, digest: str) -> QuerySet | None:
        """The query set of a switch, if it has one. Cheap: nothing but that and the header is read.

        For which reason the digest is not checked; the vectors are, as those of any query set.

        Raises:
            NotStored: there is no such switch.
            SwitchError: it is of another base, or the header or the query set was damaged.
        """
        return self._opened(self.blobs.path(digest)).queries()

    def read(self, source: bytes | Upload) -> Checked:
        """A switch file, if it may be stored here; base, parameters and shapes are compared before a bit is
        decoded, and an upload is not loaded: memory goes to what the switch decodes to.

        Raises:
            SwitchError: it is no switch file, or one of another base.
        """
        if isinstance(source, Upload):
            source.finish()
            return Checked(source, source.digest, source.size, self._decoded(source.path))
        return Checked(source, file.digest(source), len(source), self._decoded(source))

    def _decoded(self, source: bytes | Path, *, vouched: bool = False) -> Switch:
        coded = self._opened(source)
        if self._shapes is not None:
            coded.check_shapes(self._shapes)
        return coded.decode(vouched=vouched)

    def _opened(self, source: bytes | Path) -> CodedSwitch:
        coded = CodedSwitch(source)
        stated = coded.about.base
        if self._base is not None and stated != self._base:
            raise SwitchError(
                f"the switch belongs to the base {stated.architecture} {stated.digest};"
                f" this store serves {self._base.architecture} {self._base.digest}"
            )
        return coded

    def path(self, digest: str) -> Path:
        """The file of a digest, to be read only. NotStored if there is none."""
        return self.blobs.path(digest)

    def find(
        self,
        tenant: str,
        name: str,
        selector: str | None = None,
        *,
        seen_by: str | None = None,
        base: str | None = None,
    ) -> Entry | None:
        """One version, if who asks may see it; see `Catalog.find`."""
        return self._catalog.find(tenant, name, selector, seen_by=seen_by, base=base)

    def list(self, tenant: str) -> list[Entry]:
        """All versions of the tenant's own, by name and version."""
        return self._catalog.list(tenant)

    def visible(self, tenant: str, *, base: str | None = None) -> builtins.list[Entry]:
        """The tenant's own, and what others share with it; see `Catalog.visible`."""
        return self._catalog.visible(tenant, base=base)

    def everything(self) -> builtins.list[Entry]:
        """All versions of all tenants; by tenant, name and version."""
        return self._catalog.everything()

    def sharing(self, tenant: str, name: str) -> Sharing | None:
        """Who else sees a name of the tenant's; None where it has no version."""
        return self._catalog.sharing(tenant, name)

    def share(self, tenant: str, name: str, sharing: Sharing, *, by: Actor = COMMAND_LINE) -> Sharing:
        """Let exactly these see a name, besides its owner; it counts from the next request on.

        Raises:
            InvalidName: of one of the tenants.
            NotStored: the tenant has nothing of that name.
        """
        with self._catalog.writing(by) as rows:
            return rows.share(tenant, name, sharing)

    def set_alias(
        self, tenant: str, name: str, alias: str, version: int, *, by: Actor = COMMAND_LINE
    ) -> Entry:
        """Point an alias of a name to one of its versions, wherever it pointed before.

        Raises:
            InvalidName: of the alias.
            NotStored: there is no such version.
        """
        with self._catalog.writing(by) as rows:
            return rows.set_alias(tenant, name, alias, version)

    def delete_alias(self, tenant: str, name: str, alias: str, *, by: Actor = COMMAND_LINE) -> None:
        """Take an alias off a name. NotStored if it has none so called."""
        with self._catalog.writing(by) as rows:
            rows.delete_alias(tenant, name, alias)

    def delete(
        self,
        tenant: str,
        name: str,
        version: int | None = None,
        *,
        force: bool = False,
        by: Actor = COMMAND_LINE,
    ) -> builtins.list[Entry]:
        """Remove one version, or (None) all of them. Their blobs stay until they are collected.

        So a request that resolved a version a moment ago still gets it.

        Returns:
            What was removed. Its version numbers are never given again.

        Raises:
            NotStored: there is nothing of that name, or no such version.
            Conflict: aliases point there, and ``force`` is not set, which removes them as well.
        """
        with self._catalog.writing(by) as rows:
            return rows.delete(tenant, name, version, force=force)

    def names(self, digest: str) -> bool:
        """Whether any version of any tenant has this digest."""
        return self._catalog.names(digest)

    def collect(
        self, *, older_than: timedelta = collect.GRACE, stopping: Callable[[], bool] = lambda: False
    ) -> builtins.list[str]:
        """Remove the blobs that nothing has named for that long, see `collect.collect`."""
        return collect.collect(self.database, self.blobs, older_than=older_than, stopping=stopping)

    def orphans(self) -> set[str]:
        """Digests of blobs that no version ever had: what a kill, or a put under way, leaves."""
        return collect.orphans(self.database, self.blobs)
