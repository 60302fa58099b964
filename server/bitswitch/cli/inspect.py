"""``bitswitch inspect``: what a switch file holds, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from bitswitch_store import file
from bitswitch_store.coded import CodedSwitch, Sizes
from bitswitch_store.switch import Switch


def tables(path: Path) -> Iterator[Table]:
    """Identity, sizes, and one line per tensor.

    Raises:
        SwitchError: it is no switch file.
    """
    coded = CodedSwitch(path)
    switch = coded.decode()
    yield _identity(path, switch)
    yield _sizes(coded.sizes, switch)
    yield _tensors(switch)


def _identity(path: Path, switch: Switch) -> Table:
    table = Table("", "", show_header=False, title=escape(str(path)), title_justify="left")
    parameters = ", ".join(f"{name} {value:g}" for name, value in switch.rule.parameters.items())
    table.add_row("task", escape(switch.task))
    table.add_row("digest", file.digest(path.read_bytes()))
    table.add_row("base", f"{switch.base.architecture}, {switch.base.digest}")
    table.add_row("rule", f"{switch.rule.name} ({parameters})")
    if switch.head:
        table.add_row("labels", escape(f"{len(switch.head.labels)}: {_some(switch.head.labels)}"))
        table.add_row(
            "head", ", ".join(f"{name} {array.shape}" for name, array in switch.head.tensors.items())
        )
    else:
        table.add_row("head", "none: for embeddings")
    if switch.queries:
        table.add_row("query set", f"{switch.queries.codes.codes.shape} of {switch.queries.recipe}")
    for name, value in switch.metric.items():
        table.add_row(escape(name), f"{value:g}")
    table.add_row("licence", escape(switch.licence or "not stated"))
    table.add_row("created", switch.created)
    return table


def _some(labels: tuple[str, ...], most: int = 8) -> str:
    return ", ".join(labels[:most]) + (", …" if len(labels) > most else "")


def _sizes(sizes: Sizes, switch: Switch) -> Table:
    """Bytes by part, against the tensors it touches in fp32 and against the entropy bound."""
    dense = 4 * sum(tensor.numel for tensor in switch.tensors)
    bound = switch.entropy_bits / 8
    coded = sizes.activation + sizes.polarity + sizes.other
    table = Table("part", "bytes", "of fp32", title="Size", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for part in ("activation", "polarity", "knobs", "head", "queries", "other", "total"):
        size = getattr(sizes, part)
        table.add_row(part, f"{size:,}", f"{size / dense:.3%}" if dense else "")
    if bound:
        table.add_row("entropy bound", f"{bound:,.0f}", f"{bound / dense:.3%}")
        table.caption = f"activation + polarity + other = {coded / bound:.3f} × the entropy bound"
    return table


def _tensors(switch: Switch) -> Table:
    table = Table("tensor", "shape", "active", "density", "knobs", title="Tensors", title_justify="left")
    for column in table.columns[2:]:
        column.justify = "right"
    for tensor in switch.tensors:
        shape = "×".join(map(str, tensor.shape))
        table.add_row(
            escape(tensor.name),
            shape,
            f"{tensor.active:,}",
            f"{tensor.density:.3%}",
            f"{tensor.knobs.size:,}",
        )
    return table
