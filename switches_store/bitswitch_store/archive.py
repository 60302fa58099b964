"""A whole store as one tar file: a manifest of its names, then every switch file once.

The tar holds ``manifest.json`` first and then ``sha256/<hex>`` for each digest, so that a stranger can read
it. Knows no keys, limits, audit or usage: those belong to a server, not to its switches.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select

from bitswitch_store.blobs import ALGORITHM
from bitswitch_store.catalog import Catalog
from bitswitch_store.errors import StoreError
from bitswitch_store.tables import names, shares

if TYPE_CHECKING:
    from bitswitch_store.store import Store

MANIFEST = "manifest.json"
_MANIFEST_BYTES = 2**30


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredVersion(_Record):
    """One version; what its file says of itself is not said again."""

    version: int = Field(ge=1, le=999_999_999)
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    created: AwareDatetime
    aliases: tuple[str, ...] = ()


class StoredName(_Record):
    """A name, whether or not it has a version now; ``last_version`` is the largest number it ever gave."""

    tenant: str
    name: str
    last_version: int = Field(ge=0, le=999_999_999)
    public: bool = False
    shared_with: tuple[str, ...] = ()
    versions: tuple[StoredVersion, ...] = ()


class Manifest(_Record):
    """What ``manifest.json`` says."""

    format: Literal["bitswitch-store/1"] = "bitswitch-store/1"
    created: AwareDatetime
    names: tuple[StoredName, ...]

    @property
    def digests(self) -> set[str]:
        """Of all versions."""
        return {version.digest for name in self.names for version in name.versions}


def export(store: Store, path: Path) -> Manifest:
    """Write all there is at this moment to ``path``; others may write to the store meanwhile.

    Raises:
        StoreError: there is something at ``path`` already.
        NotStored: a blob is gone; `check` says which.
        CorruptBlob: a blob is damaged.
    """
    if path.exists():
        raise StoreError(f"{path} is there already; give the path of a new file")
    manifest = _manifest(store)
    handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                _add(tar, MANIFEST, manifest.model_dump_json(indent=1).encode())
                for digest in sorted(manifest.digests):
                    _add(tar, digest.replace(":", "/"), store.blobs.read(digest))
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # which would not replace a file that came meanwhile
    except FileExistsError as error:
        raise StoreError(f"{path} is there already; give the path of a new file") from error
    finally:
        os.unlink(temporary)
    return manifest


def _manifest(store: Store) -> Manifest:
    versions, shared = defaultdict(list), defaultdict(list)
    # In a writer's turn, for nothing but a moment that all rows are of.
    with store.database.writing() as connection:
        for entry in Catalog(store.database).everything():
            versions[entry.tenant, entry.name].append(entry)
        for row in connection.execute(select(shares)):
            shared[row.tenant, row.name].append(row.shared_with)
        rows = connection.execute(select(names)).all()
    return Manifest(
        created=datetime.now(UTC),
        names=tuple(
            StoredName(
                tenant=row.tenant,
                name=row.name,
                last_version=row.last_version,
                public=row.public,
                shared_with=tuple(shared[row.tenant, row.name]),
                versions=tuple(
                    StoredVersion.model_validate(entry, from_attributes=True)
                    for entry in versions[row.tenant, row.name]
                ),
            )
            for row in sorted(rows)
        ),
    )


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(data)
    about.mode = 0o644
    tar.addfile(about, io.BytesIO(data))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Manifest, Iterator[tuple[str, bytes]]]]:
    """An archive's manifest, and its blobs as digest and bytes, unchecked, to be read one after the other.

    Raises:
        StoreError: it is no such archive, or cut off.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            first = tar.next()
            if first is None or first.name != MANIFEST or first.size > _MANIFEST_BYTES:
                raise StoreError(f"{path} is no archive of a store: it does not begin with {MANIFEST}")
            yield Manifest.model_validate_json(_bytes(tar, first)), _blobs(tar)
    except (tarfile.TarError, EOFError) as error:
        raise StoreError(f"{path} is no archive of a store, or only a part of one ({error})") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise StoreError(f"{path} is no archive that this version reads: {where}: {fault['msg']}") from error


def _blobs(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    while (member := tar.next()) is not None:
        if member.isreg() and member.name.startswith(f"{ALGORITHM}/"):
            yield member.name.replace("/", ":"), _bytes(tar, member)


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    data = b"" if file is None else file.read()
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name} is cut off")
    return data
