"""What a subject hands back, and how it is written: tables, bars, charts. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Table:
    """Rows of cells under a title.

    Attributes:
        columns: the first one names what a row is of.
        note: a sentence or two below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""

    def lines(self) -> Iterator[str]:
        """As Markdown."""
        yield f"## {self.title}\n"
        yield f"| {' | '.join(self.columns)} |"
        yield "|---" * len(self.columns) + "|"
        for row in self.rows:
            yield f"| {' | '.join(map(str, row))} |"
        if self.note:
            yield f"\n{self.note}"


@dataclass(frozen=True)
class Bar:
    """A ratio, and what it is held to.

    Attributes:
        limit: None where the ratio is reported and held to nothing.
        at_most: whether ``limit`` is the largest that is good; otherwise the smallest.
    """

    name: str
    value: float
    limit: float | None = None
    at_most: bool = True

    @property
    def met(self) -> bool | None:
        """Whether it is; None where it is held to nothing."""
        if self.limit is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def cells(self) -> tuple[str, str, str, str]:
        """A row of the bars' table."""
        held = "" if self.limit is None else f"{'≤' if self.at_most else '≥'} {self.limit:.3g}"
        verdict = {True: "met", False: "**not met**", None: ""}[self.met]
        return self.name, f"{self.value:.3g}", held, verdict


@dataclass(frozen=True)
class Chart:
    """A picture of curves: the x and y values of each, by its name.

    Attributes:
        name: of the file, without suffix.
        kind: ``line`` joins points, ``step`` is a distribution function.
        from_zero: whether a y axis that is not logarithmic begins at 0.
    """

    name: str
    title: str
    x: str
    y: str
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    kind: Literal["line", "step"] = "line"
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = True


@dataclass
class Report:
    """All that one subject found.

    Attributes:
        title: a sentence on what was measured.
        conditions: what a reader has to know of how.
    """

    title: str
    conditions: str
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)

    def text(self, command: str, machine: str) -> str:
        """A whole page of Markdown, which names the command that wrote it."""
        parts = [
            f"# {self.title}\n",
            f"Written by `{command}`; do not edit.\n",
            f"{machine}\n",
            self.conditions,
        ]
        for table in [*self.tables, *self._bars()]:
            parts += ["", *table.lines()]
        for chart in self.charts:
            parts += ["", f"![{chart.title}]({chart.name}.svg)"]
        return "\n".join(parts) + "\n"

    def _bars(self) -> list[Table]:
        if not self.bars:
            return []
        rows = [bar.cells() for bar in self.bars]
        return [Table("Ratios", ("of medians over the rounds", "measured", "bar", ""), rows)]


def write(report: Report, subject: str, folder: Path, *, command: str, machine: str) -> None:
    """Write a subject's page and its pictures into ``folder``, over those of an earlier run."""
    from benchmarks.pictures import draw  # noqa: PLC0415 - matplotlib is an extra, and a smoke test draws nothing

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{subject}.md").write_text(report.text(command, machine), encoding="utf-8")
    for chart in report.charts:
        draw(chart, folder / f"{chart.name}.svg")
