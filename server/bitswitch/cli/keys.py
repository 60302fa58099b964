"""``bitswitch keys``: keys are made, listed, rotated and revoked in the store, while servers run.

A new key's text is all that is written to standard output, so that a script can take it; whatever else
there is to say goes to standard error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from bitswitch.tenants.caller import Role

if TYPE_CHECKING:  # `bitswitch --help` shall not wait for SQLAlchemy
    from bitswitch.tenants.key import Key
    from bitswitch.tenants.key_ring import KeyRing

app = typer.Typer(help="Make, list, rotate and revoke the keys that open a server.", no_args_is_help=True)
_said = Console(stderr=True, soft_wrap=True, highlight=False)

StoreFolder = Annotated[
    Path | None, typer.Option(file_okay=False, help="Folder of the switch store; or give --database-url.")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(envvar="BITSWITCH_DATABASE_URL", help="The servers' database, if not in the store."),
]
KeyId = Annotated[str, typer.Argument(help="The key's id, as 'keys list' shows it.")]
Grace = Annotated[str, typer.Option(help="How long the old one goes on opening, such as 12h or 7d.")]

_SPAN = re.compile(r"(\d{1,6})([smhd])")
_LEAST_SECRET = 32  # as in `settings`
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose key it is; a tenant is there with its first key.")],
    role: Annotated[
        Role, typer.Option(help="caller asks; publisher also changes the tenant's switches; admin operates.")
    ] = Role.CALLER,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 30d, 12h, or a date and time such as 2027-01-31.")
    ] = None,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    store: StoreFolder = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key and print it: this once, and never again."""
    with _ring(store, database_url, new=True) as ring:
        key, text = ring.create(tenant, role, expires=_moment(expires), note=note)
    _tell(key, text)


@app.command(name="list")
def show(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None,
    store: StoreFolder = None,
    database_url: DatabaseUrl = None,
) -> None:
    """List all keys; of none is the text known any more."""
    with _ring(store, database_url) as ring:
        keys = ring.list(tenant)
    table = Table("id", "tenant", "role", "created", "ends", "note")
    now = datetime.now(UTC)
    for key in keys:
        ends = min((end for end in (key.expires, key.revoked) if end is not None), default=None)
        shown = "never" if ends is None else ("ended " if key.ended(now) else "") + _shown(ends)
        table.add_row(key.id, key.tenant, key.role, _shown(key.created), shown, key.note)
    Console(soft_wrap=True).print(table)


@app.command()
def rotate(
    key: KeyId, grace: Grace = "0s", store: StoreFolder = None, database_url: DatabaseUrl = None
) -> None:
    """Make a key like this one and print it; this one ends."""
    with _ring(store, database_url) as ring:
        made, text = ring.rotate(key, grace=_span(grace))
    _tell(made, text)


@app.command()
def revoke(key: KeyId, store: StoreFolder = None, database_url: DatabaseUrl = None) -> None:
    """Let a key end now; servers that run know within a second."""
    with _ring(store, database_url) as ring:
        ended = ring.revoke(key)
    _said.print(f"{ended.id} of {ended.tenant} has ended")


@contextmanager
def _ring(store: Path | None, database_url: str | None, *, new: bool = False) -> Iterator[KeyRing]:
    """The keys, with the servers' secret. Only a ``new`` key may make the store it is for."""
    from bitswitch.tenants.key import read_secret
    from bitswitch.tenants.key_ring import KeyRing
    from bitswitch_store.database import Database, catalog_url

    url = catalog_url(store) if database_url is None and store is not None else database_url
    if url is None:
        raise typer.BadParameter("whose keys? give --store, or --database-url")
    if store is not None and not store.exists():
        if not new:
            raise typer.BadParameter(f"there is no store at {store}")
        store.mkdir(parents=True)
        _said.print(f"a new store at {store}", style="dim")
    if given := os.environ.get("BITSWITCH_KEY_SECRET"):
        if len(given) < _LEAST_SECRET:
            raise typer.BadParameter(f"BITSWITCH_KEY_SECRET has less than {_LEAST_SECRET} characters")
        secret = given.encode()
    elif store is not None:
        secret = read_secret(store)
    else:
        raise typer.BadParameter(
            "keys are hashed with the servers' secret: set BITSWITCH_KEY_SECRET to it, or give the --store"
            " whose key.secret they read"
        )
    database = Database(url)
    try:
        yield KeyRing(database, secret)
    finally:
        database.close()


def _tell(key: Key, text: str) -> None:
    _said.print(
        f"key {key.id} of {key.tenant}, {key.role}; keep what follows, it is not shown again", style="dim"
    )
    typer.echo(text)


def _moment(text: str | None) -> datetime | None:
    """A moment in UTC: so long from now, or a date and time in ISO 8601 (UTC if it names no zone)."""
    if text is None:
        return None
    if _SPAN.fullmatch(text):
        return datetime.now(UTC) + _span(text)
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is neither a time from now, such as 30d or 12h, nor a date"
        ) from None


def _span(text: str) -> timedelta:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no span of time, such as 90s, 12h or 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
