"""The method beside its rivals, in one command: the paper's protocol and the honest one.

    python benchmarks/finetune.py --base MODEL_DIR --data DATA_DIR --out CHECKPOINTS TASK …
    python -m benchmarks.method   --base MODEL_DIR --data DATA_DIR --checkpoints CHECKPOINTS --cache DIR

Writes ``method.md`` and its picture below ``--out``. What was found for a method and a task is kept in the
cache, so an interrupted run goes on; methods that merge or route among all tasks are kept by the set of them.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bitswitch.cli.threads import let_threads_doze

let_threads_doze()  # before what follows loads torch

from benchmarks.method_page import page  # noqa: E402
from benchmarks.methods import BUDGETS, Ground, Method, methods  # noqa: E402
from benchmarks.report import write  # noqa: E402
from benchmarks.routed import Routes, routed  # noqa: E402
from benchmarks.setting import machine  # noqa: E402
from benchmarks.tasks import Result, Results, Task, spaced, tasks_of  # noqa: E402

ALONE = ("individual", "T-Switch", "ours at")
"""How the names of methods begin that look at one task alone."""
FULL = ("individual", "ours at", "T-Switch at")
"""Likewise of those that are measured on more rows: what the bars are about."""


def measure(
    ground: Ground,
    wanted: Mapping[str, Method],
    results: Results,
    *,
    rows: int | None,
    bar_rows: int | None,
) -> dict[str, dict[str, Result]]:
    """All results by method and task; those that are known are not found again."""
    together = hashlib.sha256("\n".join(task.name for task in ground.tasks).encode()).hexdigest()[:8]
    found: dict[str, dict[str, Result]] = {}
    for name, method in wanted.items():
        key = name if name.startswith(ALONE) else f"{name}.{together}"
        for task in ground.tasks:
            most = bar_rows if name.startswith(FULL) else rows
            places = sorted({*spaced(len(task.test), most), *spaced(len(task.test), rows)})
            result = results.get(key, task, places)
            if result is None:
                started = time.perf_counter()
                result = method(ground, task, places)
                results.put(key, task, result)
                spent = time.perf_counter() - started
                told = f"{result.accuracy(places):.4f} {result.note} ({spent:.0f} s)"
                print(f"{name}, {task.name}: {told}", flush=True)
            found.setdefault(name, {})[task.name] = result
    return found


def everything(ground: Ground, cache: Path, calibrated: Sequence[float]) -> dict[str, Method]:
    """All methods by name: first those without a route, whose switches the others take."""
    routes = Routes(ground, cache / "features")
    return {
        **methods(ground.base, budgets=BUDGETS, calibrated=calibrated),
        **routed(routes, alpha=0.9, budget=0.02),
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.method", description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="results, switches and feature vectors")
    parser.add_argument("--out", type=Path, default=Path("docs/bench"))
    parser.add_argument("--tasks", nargs="+", default=[], help="all that have a checkpoint if not given")
    parser.add_argument("--rows", type=int, help="test rows of each task, evenly spaced; all if not given")
    parser.add_argument("--bar-rows", type=int, help="those of what the bars are about; all if not given")
    parser.add_argument("--calibrated", type=float, nargs="*", default=[0.01, 0.005], help="budgets")
    parser.add_argument("--only", nargs="+", help="methods whose names begin so; then no page is written")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is not known yet, and write the page."""
    options = arguments(argv)
    tasks: list[Task] = tasks_of(options.data, options.checkpoints, options.tasks)
    ground = Ground(options.base, tasks, options.cache / "switches")
    wanted = everything(ground, options.cache, options.calibrated)
    if options.only:
        wanted = {name: one for name, one in wanted.items() if name.startswith(tuple(options.only))}
    results = Results(options.cache / "results")
    found = measure(ground, wanted, results, rows=options.rows, bar_rows=options.bar_rows)
    if not options.only:
        report = page(tasks, found, rows=options.rows, bar_rows=options.bar_rows, nbytes=ground.nbytes)
        print(report.text("python -m benchmarks.method", ""))
        write(report, "method", options.out, command="python -m benchmarks.method", machine=machine())


if __name__ == "__main__":
    main()
