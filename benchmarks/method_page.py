"""The page of the method: tables and a picture of results. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from benchmarks.report import Chart, Report, Table
from benchmarks.tasks import Result, Task, spaced

Found = Mapping[str, Mapping[str, Result]]
BARS = (
    ("ours at 1.0%, calibrated", 0.005),
    ("ours at 0.5%, calibrated", 0.015),
    ("ours at 2.0%, data-free", 0.010),
    ("T-Switch at 1.0%", None),
)
"""Methods, and how far their mean accuracy may be below the individual fine-tunes'."""
SECONDS = {"data-free": 20.0, "calibrated": 360.0}
"""CPU seconds that making one switch may take."""
_CONDITIONS = """Accuracy on test rows ({rows} of each task, evenly spaced{bars}). Storage is what serving all
the tasks takes: the base in float32 where it is kept, and of each task its head and what tells it from
others; a switch is its whole file, with head, query set (100 vectors) and metadata. Seconds are of CPU
time and in the mean of the tasks: making a switch, or the task's share of making a merge; 0 where nothing is
made. Weights are written once into transformers' own model, save *per request*: there the engine answers each
request at a mix and with a head of its own. λ is chosen on {validation} training rows of each task."""


def page(
    tasks: Sequence[Task], found: Found, *, rows: int | None, bar_rows: int | None, nbytes: int
) -> Report:
    """The report of these results.

    Args:
        rows: as measured, of each task; None for all.
        bar_rows: likewise, of the methods that the bars are about.
        nbytes: of the base in float32.
    """
    from benchmarks.methods import VALIDATION  # noqa: PLC0415 - which loads torch

    bars = "" if bar_rows == rows else f"; in the bars' table {bar_rows or 'all'}"
    conditions = _CONDITIONS.format(rows=rows or "all", bars=bars, validation=VALIDATION)
    report = Report(f"The method beside its rivals, {len(tasks)} tasks", conditions)
    places = {task.name: spaced(len(task.test), rows) for task in tasks}
    lines = {name: _line(results, places) for name, results in found.items()}
    report.tables.append(
        Table(
            "Accuracy and storage",
            ("method", *(task.name for task in tasks), "mean", "MB in all", "CPU s"),
            [
                (
                    name,
                    *(f"{value:.3f}" for value in each),
                    f"{mean:.4f}",
                    f"{size / 1e6:.1f}",
                    f"{spent:.1f}",
                )
                for name, (each, mean, size, spent) in lines.items()
            ],
        )
    )
    report.tables += [_bars(tasks, found, bar_rows, nbytes), _times(found)]
    if notes := _notes(found):
        report.tables.append(notes)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for name, (_, mean, size, _) in lines.items():
        sizes, means = curves.setdefault(_family(name), ([], []))
        sizes.append(size / 1e6)
        means.append(mean)
    title = "Mean accuracy against storage for all tasks"
    ordered = {name: _sorted(*curve) for name, curve in curves.items()}
    report.charts.append(
        Chart("accuracy-storage", title, "MB in all", "mean accuracy", ordered, log_x=True, from_zero=False)
    )
    return report


def _line(
    results: Mapping[str, Result], places: Mapping[str, Sequence[int]]
) -> tuple[list[float], float, float, float]:
    """Accuracies by task, their mean, bytes in all, seconds in the mean."""
    each = [results[task].accuracy(places[task]) for task in results]
    size = max(one.shared for one in results.values()) + sum(one.size for one in results.values())
    return each, fmean(each), size, fmean(one.seconds for one in results.values())


def _bars(tasks: Sequence[Task], found: Found, most: int | None, nbytes: int) -> Table:
    """Points lost against the individual fine-tunes, on the rows the bars are about."""
    places = {task.name: spaced(len(task.test), most) for task in tasks}
    best = _line(found["individual"], places)[1]
    rows = []
    for name, limit in BARS:
        if name not in found:
            continue
        each, mean, _, _ = _line(found[name], places)
        share = max(one.size - one.head for one in found[name].values()) / nbytes
        held = "" if limit is None else f"≤ {100 * limit:.1f}"
        verdict = "" if limit is None else ("met" if best - mean <= limit else "**not met**")
        lost = f"{100 * (best - mean):.2f}"
        rows.append(
            (name, *(f"{value:.4f}" for value in each), f"{mean:.4f}", f"{share:.3%}", lost, held, verdict)
        )
    first = (
        "individual",
        *(f"{value:.4f}" for value in _line(found["individual"], places)[0]),
        f"{best:.4f}",
    )
    columns = (
        "method",
        *(task.name for task in tasks),
        "mean",
        "largest file, head aside",
        "points lost",
        "bar",
        "",
    )
    note = f"Rows: {most or 'all'} of each task's test file."
    return Table("The bars", columns, [(*first, "", "", "", ""), *rows], note)


def _times(found: Found) -> Table:
    rows = []
    for kind, limit in SECONDS.items():
        spent = [
            one.seconds
            for name, results in found.items()
            if name.startswith("ours at") and name.endswith(kind)
            for one in results.values()
        ]
        if spent:
            verdict = "met" if max(spent) <= limit else "**not met**"
            rows.append((kind, f"{fmean(spent):.0f}", f"{max(spent):.0f}", f"≤ {limit:.0f}", verdict))
    note = (
        "The bar is for two cores; one thread's CPU time is an upper bound of it where the machine is idle."
    )
    return Table("Making one switch", ("rule", "mean CPU s", "longest", "bar", ""), rows, note)


def _notes(found: Found) -> Table | None:
    rows = [
        (name, *(one.note for one in results.values()))
        for name, results in found.items()
        if any(one.note for one in results.values())
    ]
    if not rows:
        return None
    return Table("What was chosen", ("method", *next(iter(found.values()))), rows)


def _family(name: str) -> str:
    if name.startswith("ours at"):
        return f"ours, {name.rpartition(', ')[2]}"
    return "T-Switch" if name.startswith("T-Switch") else name


def _sorted(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    pairs = sorted(zip(xs, ys, strict=True))
    return [x for x, _ in pairs], [y for _, y in pairs]
