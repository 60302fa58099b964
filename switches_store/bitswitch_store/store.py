"""Where switches live: put, get, list, delete. The catalog says what there is, the blobs hold it.

Knows nothing of HTTP, of the engine or of who may ask. Whenever the process is killed, the store
opens again with every put and delete that had returned: a blob is durable before a row names it, and
goes only after the last row that named it. What a kill can leave is a blob that no row names.
"""

from __future__ import annotations

import builtins
import logging
from dataclasses import dataclass
from pathlib import Path

from bitswitch_store import file
from bitswitch_store.blobs import Blobs, DirectoryBlobs
from bitswitch_store.catalog import Catalog
from bitswitch_store.coded import MAX_WEIGHTS, CodedSwitch
from bitswitch_store.database import Database, catalog_url
from bitswitch_store.entry import Entry, Sharing, check_name
from bitswitch_store.errors import Conflict, CorruptBlob, InvalidName, NotStored, StoreError
from bitswitch_store.switch import BaseIdentity, QuerySet, Switch, SwitchError

__all__ = [
    "Conflict",
    "CorruptBlob",
    "Entry",
    "Incoming",
    "InvalidName",
    "NotStored",
    "Sharing",
    "Store",
    "StoreError",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Incoming:
    """A switch file that may be put, wholly checked; `Store.read` makes it.

    Attributes:
        data: the file's bytes.
        digest: theirs.
    """

    data: bytes
    digest: str
    switch: Switch


class Store:
    """Switches by digest, and by tenant, name and version. Many threads and processes may share one.

    Args:
        root: the store's directory; made if missing.
        base: the one base whose switches are taken and given; None takes any.
        max_weights: how many weights that base has; a file that claims more is refused undecoded.
        database_url: where the catalog is; None is a SQLite file in ``root``.

    Attributes:
        database: the catalog's; who may call and what they did is kept in it as well.

    Raises:
        StoreError: the directory or the database cannot be used; the message says why.
    """

    def __init__(
        self,
        root: Path,
        *,
        base: BaseIdentity | None,
        max_weights: int = MAX_WEIGHTS,
        database_url: str | None = None,
    ) -> None:
        if root.exists() and not root.is_dir():
            raise StoreError(f"the store's root {root} is a file; give a directory, it is made if missing")
        self._base = base
        self._max_weights = max_weights
        self._blobs: Blobs = DirectoryBlobs(root / "blobs")
        self.database = Database(database_url or catalog_url(root))
        self._catalog = Catalog(self.database)
        if orphans := self.orphans():
            _log.warning("%s: %d blobs belong to no switch, such as %s", root, len(orphans), min(orphans))

    def close(self) -> None:
        """Close the database's connections; the store is not used after that."""
        self.database.close()

    def put(
        self, source: Path | bytes | Incoming, *, tenant: str, name: str | None = None, public: bool = False
    ) -> Entry:
        """Publish a switch as the next version of its name.

        The bytes of the name's latest version give that version again.

        Args:
            source: a switch file or its bytes, all of it checked here; or what `read` made of them.
            name: the switch's task if None.
            public: makes the name public if it is not, see `share`.

        Raises:
            SwitchError: it is no switch file, or one of another base.
            InvalidName: of the name or the tenant.
        """
        if not isinstance(source, Incoming):
            source = self.read(source.read_bytes() if isinstance(source, Path) else source)
        data, switch = source.data, source.switch
        check_name(tenant, "tenant")
        name = check_name(switch.task if name is None else name)
        digest = self._blobs.put(data)
        with self._catalog.writing() as rows:
            if not self._blobs.has(digest):  # a delete of the same bytes came between
                self._blobs.put(data)
            return rows.publish(
                tenant=tenant,
                name=name,
                digest=digest,
                size=len(data),
                task=switch.task,
                labels=switch.head.labels if switch.head else (),
                metric=switch.metric,
                base_digest=switch.base.digest,
                public=public,
            )

    def get(self, digest: str) -> Switch:
        """The switch of a digest.

        Every check was made when it was put; the digest says that these are the same bytes. So the ones
        that only `put` needs are not paid for again, see `CodedSwitch.decode`.

        Raises:
            NotStored: there is none.
            CorruptBlob: its file was damaged.
            SwitchError: it is of another base, or of a format this version does not read.
        """
        coded = self._opened(self._blobs.read(digest))
        return coded.decode(max_weights=self._max_weights, vouched=True)

    def queries(self, digest: str) -> QuerySet | None:
        """The query set of a switch, if it has one. Cheap: nothing but that and the header is read.

        For which reason the digest is not checked; the vectors are, as those of any query set.

        Raises:
            NotStored: there is no such switch.
            SwitchError: it is of another base, or the header or the query set was damaged.
        """
        return self._opened(self._blobs.path(digest)).queries()

    def read(self, data: bytes) -> Incoming:
        """A switch file's bytes, if they may be stored here; the base is compared before a bit is decoded.

        Raises:
            SwitchError: it is no switch file, one of another base, or it claims more weights than that has.
        """
        switch = self._opened(data).decode(max_weights=self._max_weights)
        return Incoming(data, file.digest(data), switch)

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
        return self._blobs.path(digest)

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

    def share(self, tenant: str, name: str, sharing: Sharing) -> Sharing:
        """Let exactly these see a name, besides its owner; it counts from the next request on.

        Raises:
            InvalidName: of one of the tenants.
            NotStored: the tenant has nothing of that name.
        """
        with self._catalog.writing() as rows:
            return rows.share(tenant, name, sharing)

    def set_alias(self, tenant: str, name: str, alias: str, version: int) -> Entry:
        """Point an alias of a name to one of its versions, wherever it pointed before.

        Raises:
            InvalidName: of the alias.
            NotStored: there is no such version.
        """
        with self._catalog.writing() as rows:
            return rows.set_alias(tenant, name, alias, version)

    def delete_alias(self, tenant: str, name: str, alias: str) -> None:
        """Take an alias off a name. NotStored if it has none so called."""
        with self._catalog.writing() as rows:
            rows.delete_alias(tenant, name, alias)

    def delete(
        self, tenant: str, name: str, version: int | None = None, *, force: bool = False
    ) -> builtins.list[Entry]:
        """Remove one version, or (None) all of them, and the blobs that nothing else needs.

        Returns:
            What was removed. Its version numbers are never given again.

        Raises:
            NotStored: there is nothing of that name, or no such version.
            Conflict: aliases point there, and ``force`` is not set, which removes them as well.
        """
        with self._catalog.writing() as rows:
            gone = rows.delete(tenant, name, version, force=force)
        # A turn of its own: the rows are gone for good before a blob goes, and no put of the same
        # bytes can come between the look and the removal.
        with self._catalog.writing() as rows:
            for digest in rows.unreferenced({entry.digest for entry in gone}):
                self._blobs.delete(digest)
        return gone

    def orphans(self) -> set[str]:
        """Digests of blobs that no version has: what a kill, or a put under way, leaves."""
        # Blobs first: one that is put and named while this looks is then no orphan.
        blobs = set(self._blobs.digests())
        return blobs - self._catalog.digests()
