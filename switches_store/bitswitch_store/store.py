"""Where switches live: put, get, list, delete. The catalog says what there is, the blobs hold it.

Knows nothing of HTTP, of the engine or of who may ask. Whenever the process is killed, the store
opens again with every put and delete that had returned: a blob is durable before a row names it, and
goes only some time after the last row that named it. What a kill can leave is a blob that no row names.
"""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from bitswitch_store import collect, file
from bitswitch_store.catalog import Catalog, Entry, check_name
from bitswitch_store.coded import MAX_WEIGHTS, CodedSwitch
from bitswitch_store.database import Database
from bitswitch_store.errors import (
    Conflict,
    CorruptBlob,
    InvalidName,
    NotStored,
    StoreError,
    StoreUnavailable,
)
from bitswitch_store.place import CACHE_BYTES, open_blobs
from bitswitch_store.switch import BaseIdentity, QuerySet, Switch, SwitchError

__all__ = [
    "Conflict",
    "CorruptBlob",
    "Entry",
    "Incoming",
    "InvalidName",
    "NotStored",
    "Store",
    "StoreError",
    "StoreUnavailable",
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

    def facts(self) -> dict[str, Any]:
        """What the catalog keeps of it, whatever its name: columns of `tables.switches`."""
        return {
            "digest": self.digest,
            "size": len(self.data),
            "task": self.switch.task,
            "labels": self.switch.head.labels if self.switch.head else (),
            "metric": self.switch.metric,
            "base_digest": self.switch.base.digest,
        }


class Store:
    """Switches by digest, and by tenant, name and version. Many threads and processes may share one.

    Args:
        root: the store's directory; made if missing.
        base: the one base whose switches are taken and given; None takes any.
        max_weights: how many weights that base has; a file that claims more is refused undecoded.
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
        max_weights: int = MAX_WEIGHTS,
        database_url: str | URL | None = None,
        blobs_url: str | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if root.exists() and not root.is_dir():
            raise StoreError(f"the store's root {root} is a file; give a directory, it is made if missing")
        self._base = base
        self._max_weights = max_weights
        self.blobs = open_blobs(root, blobs_url, cache_bytes=cache_bytes)
        if database_url is None:
            root.mkdir(parents=True, exist_ok=True)
            database_url = URL.create("sqlite", database=str(root / "catalog.sqlite3"))
        self.database = Database(database_url)
        self._catalog = Catalog(self.database)
        if orphans := self.orphans():
            _log.warning(
                "%s: %d blobs belong to no switch, such as %s; they are collected when they are old enough",
                root,
                len(orphans),
                min(orphans),
            )

    def close(self) -> None:
        """Close the database's connections; the store is not used after that."""
        self.database.close()

    def put(
        self, source: Path | bytes | Incoming, *, tenant: str, name: str | None = None, public: bool = False
    ) -> Entry:
        """Publish a switch as the next version of its name.

        The bytes of the name's latest version give that version again; ``public=True`` then makes it
        public if it was not.

        Args:
            source: a switch file or its bytes, all of it checked here; or what `read` made of them.
            name: the switch's task if None.
            public: whether other tenants see it.

        Raises:
            SwitchError: it is no switch file, or one of another base.
            InvalidName: of the name or the tenant.
        """
        if not isinstance(source, Incoming):
            source = self.read(source.read_bytes() if isinstance(source, Path) else source)
        check_name(tenant, "tenant")
        name = check_name(source.switch.task if name is None else name)
        digest = self.blobs.put(source.data)
        with self._catalog.writing() as rows:
            if not self.blobs.has(digest):  # collected in between
                self.blobs.put(source.data)
            return rows.publish(tenant=tenant, name=name, public=public, **source.facts())

    def get(self, digest: str) -> Switch:
        """The switch of a digest.

        Every check was made when it was put; the digest says that these are the same bytes. So the ones
        that only `put` needs are not paid for again, see `CodedSwitch.decode`.

        Raises:
            NotStored: there is none.
            CorruptBlob: its file was damaged.
            SwitchError: it is of another base, or of a format this version does not read.
        """
        coded = self._opened(self.blobs.read(digest))
        return coded.decode(max_weights=self._max_weights, vouched=True)

    def queries(self, digest: str) -> QuerySet | None:
        """The query set of a switch, if it has one. Cheap: nothing but that and the header is read.

        For which reason the digest is not checked; the vectors are, as those of any query set.

        Raises:
            NotStored: there is no such switch.
            SwitchError: it is of another base, or the header or the query set was damaged.
        """
        return self._opened(self.blobs.path(digest)).queries()

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
        return self.blobs.path(digest)

    def find(self, tenant: str, name: str, selector: str | None = None) -> Entry | None:
        """One version of the tenant's own: by its number, by an alias, or (None) the latest there is."""
        return self._catalog.find(tenant, name, selector)

    def list(self, tenant: str) -> list[Entry]:
        """All versions of the tenant's own, by name and version."""
        return self._catalog.list(tenant)

    def visible(self, tenant: str) -> builtins.list[Entry]:
        """The tenant's own, and the public ones of others; by tenant, name and version."""
        return self._catalog.visible(tenant)

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
        """Remove one version, or (None) all of them. Their blobs stay until they are collected.

        So a request that resolved a version a moment ago still gets it.

        Returns:
            What was removed. Its version numbers are never given again.

        Raises:
            NotStored: there is nothing of that name, or no such version.
            Conflict: aliases point there, and ``force`` is not set, which removes them as well.
        """
        with self._catalog.writing() as rows:
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
