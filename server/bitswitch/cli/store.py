"""``bitswitch store``: what an operator does to a store that no request does: look, mend, collect, carry.

Knows no base and starts no engine; it may run beside a server on the same store.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from bitswitch_store.checkup import Finding
    from bitswitch_store.store import Store

app = typer.Typer(
    name="store", help="Look after a store: check, repair, gc, export, import.", no_args_is_help=True
)

Folder = Annotated[
    Path, typer.Option("--store", envvar="BITSWITCH_STORE", exists=True, file_okay=False, help="The store.")
]
NewFolder = Annotated[
    Path,
    typer.Option("--store", envvar="BITSWITCH_STORE", file_okay=False, help="The store; made if missing."),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="BITSWITCH_DATABASE_URL", help="The catalog's, if it is not in the store.", show_envvar=True
    ),
]
BlobsUrl = Annotated[
    str | None,
    typer.Option(envvar="BITSWITCH_BLOBS_URL", help="Where the files are, if not in the store."),
]


@app.command()
def check(store: Folder, database_url: DatabaseUrl = None, blobs_url: BlobsUrl = None) -> None:
    """Read every file of every version; exit status 1 if a version could not be served."""
    one = _opened(store, database_url, blobs_url)
    findings = _look(one)
    one.close()
    if any(finding.broken for finding in findings):
        raise typer.Exit(1)


@app.command()
def repair(
    store: Folder,
    database_url: DatabaseUrl = None,
    blobs_url: BlobsUrl = None,
    drop_broken: Annotated[
        bool, typer.Option("--drop-broken", help="Delete versions whose file is lost or damaged, for good.")
    ] = False,
) -> None:
    """Mend what can be; exit status 1 if a version still could not be served."""
    from bitswitch_store import checkup

    one = _opened(store, database_url, blobs_url)
    findings = _look(one)
    for done in checkup.repair(one.database, one.blobs, findings, drop_broken=drop_broken):
        _say(done)
    one.close()
    if any(finding.broken for finding in findings) and not drop_broken:
        _say("publish the broken ones again, from the same files; or drop them with --drop-broken")
        raise typer.Exit(1)


@app.command()
def gc(
    store: Folder,
    database_url: DatabaseUrl = None,
    blobs_url: BlobsUrl = None,
    older_than: Annotated[
        float,
        typer.Option(min=0, help="Seconds for which nothing has named them. A running request may need one."),
    ] = 3600.0,
) -> None:
    """Collect the files of deleted versions now, rather than when a server does."""
    from bitswitch_store import collect

    one = _opened(store, database_url, blobs_url)
    gone = one.collect(older_than=timedelta(seconds=older_than))
    _say(f"{len(gone)} files collected, {collect.waiting(one.database)} wait until they are old enough")
    one.close()


@app.command()
def export(
    store: Folder,
    to: Annotated[Path, typer.Argument(help="The tar file to write.")],
    database_url: DatabaseUrl = None,
    blobs_url: BlobsUrl = None,
) -> None:
    """Write all names, versions, aliases, shares and files to one tar file. No keys, limits or audit."""
    from bitswitch_store.archive import export as write

    one = _opened(store, database_url, blobs_url)
    manifest = write(one, to)
    versions = sum(len(name.versions) for name in manifest.names)
    _say(f"{to}: {len(manifest.names)} names, {versions} versions, {len(manifest.digests)} files")
    one.close()


@app.command(name="import")
def bring(
    store: NewFolder,
    archive: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What export wrote.")],
    database_url: DatabaseUrl = None,
    blobs_url: BlobsUrl = None,
) -> None:
    """Bring an archive into a store, all of it or nothing; what contradicts the store is refused."""
    from bitswitch_store.restore import restore

    one = _opened(store, database_url, blobs_url)
    restored = restore(one, archive)
    _say(f"{restored.new} versions are new here, {restored.known} were here already")
    one.close()


def _opened(root: Path, database_url: str | None, blobs_url: str | None) -> Store:
    from bitswitch_store.store import Store

    return Store(root, base=None, database_url=database_url, blobs_url=blobs_url)


def _look(store: Store) -> list[Finding]:
    from bitswitch_store import checkup, collect

    findings = list(checkup.check(store.database, store.blobs))
    table = Table("what", "file", "versions", "why")
    for found in findings:
        versions = ", ".join(f"{one.tenant}/{one.name}@{one.version}" for one in found.entries)
        table.add_row(found.what, Text(found.digest), Text(versions), Text(found.told))
    if findings:
        Console().print(table)
    broken = sum(found.broken for found in findings)
    _say(
        f"{broken} files of versions are broken, {len(findings) - broken} have no version,"
        f" {collect.waiting(store.database)} wait to be collected"
    )
    return findings


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(Text(text))
