"""``bitswitch tenants``: what each tenant may have and use. A server that runs sees a change in a second."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="What each tenant may have and use.", no_args_is_help=True)

_WORDS = {"default": None, "unlimited": -1}


def _limit(text: str) -> int | None:
    if text in _WORDS:
        return _WORDS[text]
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is no number of at least 1, nor 'unlimited', nor 'default'")
    return int(text)


_OF = "; a number, unlimited or default."


def _option(what: str) -> object:
    return typer.Option(parser=str, metavar="N", help=what + _OF)


@app.command()
def limits(
    store: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of the switch store.")],
    tenant: Annotated[str, typer.Option(help="Whose limits.")],
    *,
    show: Annotated[bool, typer.Option("--show", help="Only show them.")] = False,
    requests_per_minute: Annotated[str | None, _option("Requests per minute")] = None,
    tokens_per_minute: Annotated[str | None, _option("Tokens per minute")] = None,
    concurrent_requests: Annotated[str | None, _option("Requests answered at once")] = None,
    stored_bytes: Annotated[str | None, _option("Bytes of all its switch files")] = None,
    stored_switches: Annotated[str | None, _option("Versions of all its names")] = None,
    batch_inputs: Annotated[str | None, _option("Inputs in one request")] = None,
    input_tokens: Annotated[str | None, _option("Tokens in one input")] = None,
) -> None:
    """Set a tenant's limits; those that are not named stay as they are."""
    from bitswitch.tenants import limit_table
    from bitswitch_store.store import Store

    given = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent_requests": concurrent_requests,
        "stored_bytes": stored_bytes,
        "stored_switches": stored_switches,
        "batch_inputs": batch_inputs,
        "input_tokens": input_tokens,
    }
    values = {name: _limit(text) for name, text in given.items() if text is not None}
    if show == bool(values):
        raise typer.BadParameter("give --show, or at least one limit to set, and not both")
    with closing(Store(store, base=None)) as opened:
        if show:
            stated = limit_table.stated(opened.database, tenant)
        else:
            stated = limit_table.change(opened.database, tenant, values)
    table = Table("limit", "value", title=f"Limits of {tenant}")
    words = {number: word for word, number in _WORDS.items()}
    for name, value in stated.items():
        table.add_row(name.replace("_", " "), words.get(value, str(value)))
    Console().print(table)
