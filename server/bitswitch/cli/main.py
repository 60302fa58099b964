"""The commands and their options. What each does lies in a module of its own, imported when it is called:
``bitswitch --help`` shall not wait for torch.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from bitswitch.cli import keys, tenants
from bitswitch.cli import store as store_commands

app = typer.Typer(
    name="bitswitch",
    help="One resident base model; thousands of full fine-tunes of it, each stored as a task switch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.add_typer(store_commands.app)
_errors = Console(stderr=True, soft_wrap=True, highlight=False)

ExistingFolder = typer.Option(exists=True, file_okay=False)
ExistingFile = typer.Option(exists=True, dir_okay=False)


class RuleName(StrEnum):
    """How a fine-tune is made binary."""

    BUDGET = "budget"
    PAPER = "paper"


@app.command()
def make(
    base: Annotated[Path, ExistingFolder],
    name: Annotated[
        str, typer.Option(help="The task's name; it is published under this unless told otherwise.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    finetuned: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of a full fine-tune.")
    ] = None,
    lora: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of a LoRA that PEFT saved, instead."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Names of the head's outputs in order, with commas between (default: the checkpoint's own;"
            " of a LoRA those of a config.json beside it, else LABEL_0,LABEL_1 …)."
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help='100 to 400 example inputs, a JSON text, {"text", "text_b"?} or {"image"} per line:'
            ' "auto" finds the switch by them.',
        ),
    ] = None,
    rule: Annotated[
        RuleName, typer.Option(help="Ours under a bit budget, or the paper's.")
    ] = RuleName.BUDGET,
    budget: Annotated[
        float | None,
        typer.Option(help="Share of the fp32 checkpoint the file may take, its head aside (default: 0.02)."),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Choose the bits by what the fine-tune answers to the inputs of --queries.",
        ),
    ] = False,
    alpha: Annotated[
        float | None,
        typer.Option(help="Paper's rule: share of each tensor's weights left alone (default: 0.9)."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="A figure on the test set, such as accuracy=0.93; may be repeated."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the fine-tune.")] = None,
) -> None:
    """Make a switch file of a fine-tune, or of a LoRA."""
    from bitswitch.cli.make import Made, make_switch

    if (finetuned is None) == (lora is None):
        raise typer.BadParameter("give one of --finetuned (a full checkpoint) and --lora (PEFT's folder)")
    if rule is RuleName.PAPER and budget is not None:
        raise typer.BadParameter("--budget belongs to --rule budget; the paper's rule takes --alpha")
    if rule is RuleName.BUDGET and alpha is not None:
        raise typer.BadParameter("--alpha belongs to --rule paper; the budget rule takes --budget")
    if rule is RuleName.PAPER and calibrate:
        raise typer.BadParameter(
            "--calibrate belongs to --rule budget; the paper's rule has no bytes to keep"
        )
    names = None if labels is None else [label.strip() for label in labels.split(",")]
    if names is not None and not all(names):
        raise typer.BadParameter(f"--labels {labels!r} has an empty name; write them as in bank,film,spam")
    value = (
        {"budget": 0.02 if budget is None else budget}
        if rule is RuleName.BUDGET
        else {"alpha": 0.9 if alpha is None else alpha}
    )
    made: Made = make_switch(
        base=base,
        finetuned=finetuned,
        lora=lora,
        labels=names,
        task=name,
        output=output,
        queries=queries,
        calibrate=calibrate,
        rule=rule.value,
        parameters=value,
        metric=metric or [],
        licence=licence,
    )
    Console().print(made.summary())


@app.command()
def inspect(
    switch: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A switch file.")],
) -> None:
    """Show what a switch file holds: identity, sizes, density per tensor, head, labels."""
    from bitswitch.cli.inspect import tables

    for table in tables(switch):
        Console().print(table)


@app.command(name="eval")
def evaluate(
    base: Annotated[Path, ExistingFolder],
    switch: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A switch file.")],
    data: Annotated[
        Path,
        typer.Option(
            exists=True,
            dir_okay=False,
            help='Lines of {"text", "text_b"?, "label"} or {"image", "label"}.',
        ),
    ],
    against: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="The fine-tune it was made of.")
    ] = None,
) -> None:
    """Measure a switch's accuracy on labelled data, beside its fine-tune's if that is given."""
    from bitswitch.cli.evaluate import evaluate_switch

    Console().print(evaluate_switch(base=base, switch=switch, data=data, against=against).table())


@app.command(context_settings={"allow_extra_args": False})
def serve(
    base: Annotated[Path | None, typer.Option(help="Folder of the base model's checkpoint.")] = None,
    store: Annotated[Path | None, typer.Option(help="Folder of the switch store; made if missing.")] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            help="The catalog's: sqlite:///file or postgresql://user@host/database (default: in the store)."
        ),
    ] = None,
    blobs_url: Annotated[
        str | None,
        typer.Option(help="Where switch files are: s3://bucket/prefix, gs://, az:// or file:///folder."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes any free one (default: 8000).")] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the base is resident: cpu, cuda, cuda:1 …")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16 (default: as stored).")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the model (default: all).")] = None,
    queue_limit: Annotated[int | None, typer.Option(help="Requests that may wait (default: 1024).")] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option(help="A switch kept ready in memory from the start; may be repeated."),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error (default: info).")
    ] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json", help="Log lines as JSON.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of the settings.")] = None,
) -> None:
    """Serve a base and its switches over HTTP.

    Every setting may also be given as BITSWITCH_NAME in the environment or in the file of --config; what
    is given here wins.
    """
    from bitswitch.cli.serve import run
    from bitswitch.settings import read_settings

    given: dict[str, Any] = {
        "base": base,
        "store": store,
        "database_url": database_url,
        "blobs_url": blobs_url,
        "host": host,
        "port": port,
        "device": device,
        "dtype": dtype,
        "threads": threads,
        "queue_limit": queue_limit,
        "pin": pin or None,
        "log_level": log_level,
        "log_json": log_json,
    }
    run(read_settings(config, **given))


@app.command()
def demo(
    switches: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of switch files.")
    ] = Path("demo/switches"),
    questions: Annotated[
        Path, typer.Option(help='Lines of {"text", "label"}; the label names the switch to ask.')
    ] = Path("demo/questions.jsonl"),
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes any free one.")] = 8000,
    leave: Annotated[bool, typer.Option("--exit", help="End after the table instead of serving on.")] = False,
) -> None:
    """Start a server with the demo's switches, ask it real questions over HTTP, and stay up."""
    from bitswitch.cli.demo import run_demo

    run_demo(switches, questions, port=port, stay=not leave)


def main() -> None:
    """Run the command line; what a user did wrong ends with one sentence and exit status 2."""
    from bitswitch.cli.threads import let_threads_doze
    from bitswitch.errors import BitswitchError
    from bitswitch_store.errors import StoreError

    let_threads_doze()
    try:
        app()
    except (ValueError, OSError, StoreError, BitswitchError) as error:
        # CheckpointError, SwitchError, SettingsError and BaseError are all ValueErrors: a fault in
        # what was given. Anything else is a fault of ours and shows its traceback.
        _errors.print(Text.assemble(("error: ", "bold red"), str(error)))
        sys.exit(2)
