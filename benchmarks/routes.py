"""What routing costs as switches become many: fits, updates, searches, memory, starts; and bare search at 1
M × 384.

The tasks are made (`benchmarks.made_tasks`): what is measured is time, memory and which neighbours are found,
not whether a route is right.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import faiss
import numpy as np

from benchmarks.made_tasks import Tasks, Vectors
from benchmarks.nearest import measure, times
from benchmarks.report import Bar, Report, Table
from benchmarks.setting import Setting
from bitswitch.core import RouteMode
from bitswitch.memory import give_back
from bitswitch.router.auto import AutoSwitch
from bitswitch.router.fit import Fit
from bitswitch.router.index import QueryIndex
from bitswitch.router.view import View
from bitswitch_store.codes import Codes
from bitswitch_store.switch import QuerySet

_Result = TypeVar("_Result")
RECIPE = "made"
QUERIES = 100
INPUTS = 400
_CONDITIONS = (
    f"Made tasks of {QUERIES} query vectors of {{dim}} values, drawn from the means and covariances of"
    " {real} real query sets; inputs are further draws of the same tasks. One core, one input at a time,"
    " processor time where it says CPU. The machine was shared with other work: medians."
)


def run(setting: Setting) -> Report:
    """All sizes, then the bare search."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        files = setting.real_switches()
        tasks = _made_up() if setting.quick and not files else Tasks.like(files)
        report = Report("Routing among many", _CONDITIONS.format(dim=tasks.dim, real=tasks.real))
        sizes = (11, 60) if setting.quick else (11, 300, 1000, 10_000)
        found = [_Size(tasks, count, setting.scratch / str(count)) for count in sizes]
        report.tables += [_fits(found), _searches(found), _starts(found)]
        largest = found[-1]
        name = f"{largest.count} switches, {largest.axes} axes"
        report.bars += [
            Bar(f"search as served, {name}: p50, ms", largest.search[0], 2),
            Bar(f"search as served, {name}: recall@10", largest.recall, 0.99, at_most=False),
        ]
        measure(tasks, sizes[-1] * QUERIES, report, quick=setting.quick)
        return report
    finally:
        faiss.omp_set_num_threads(before)


def _made_up() -> Tasks:
    chance = np.random.default_rng(0)
    return Tasks([chance.normal(chance.normal(size=16), 0.3, (20, 16)) for _ in range(4)])


class _Size:
    """All that is measured of one number of switches."""

    def __init__(self, tasks: Tasks, count: int, folder: Path) -> None:
        self.count = count
        sets: dict[str, Codes] = {}
        inputs = []
        for number, vectors in enumerate(tasks.draw(count + 1, QUERIES + 1)):
            sets[f"{number:05}"] = Codes.of(vectors[1:])
            inputs.append(vectors[0])
        more = dict([sets.popitem()])
        inputs = inputs[:: max(count // INPUTS, 1)][:INPUTS]
        self._measure(sets, more, inputs)
        self._start(sets, folder, inputs[0])

    def _measure(self, sets: Mapping[str, Codes], more: Mapping[str, Codes], inputs: list[Vectors]) -> None:
        """Of fits, updates and searches; what it makes is gone before the starts."""
        self.fit_seconds, fit = _cpu(lambda: Fit.of(sets, 0.9))
        self.sum_seconds, _ = _cpu(lambda: fit.moments.plus(one.vectors() for one in more.values()))
        self.refit_seconds, _ = _cpu(lambda: Fit.of({**sets, **more}, 0.9, fit))
        self.follow_seconds, after = _cpu(lambda: View(fit, {**sets, **more}))
        self.axes, self.probes = fit.vote_axes, fit.index.probes
        view = View(fit, sets)
        self.route = times(lambda row: view.route(row, 10, RouteMode.MIX), inputs)
        self.between = times(lambda row: after.route(row, 10, RouteMode.MIX), inputs)
        places = [fit.metric.place(row[np.newaxis])[0, : self.axes] for row in inputs]
        self.search = times(lambda place: fit.index.nearest(place, 10), places)
        flat = QueryIndex.of(
            {digest: fit.metric.place(codes.vectors(), self.axes) for digest, codes in sets.items()},
            flat=2**62,
        )
        self.flat = times(lambda place: flat.nearest(place, 10), places[:100])
        true = [flat.nearest(place, 10) for place in places]
        hits = [fit.index.nearest(place, 10) for place in places]
        self.recall = sum(len({*a} & {*b}) for a, b in zip(true, hits, strict=True)) / sum(map(len, true))

    def _start(self, sets: Mapping[str, Codes], folder: Path, row: Vectors) -> None:
        """A router that is told everything, and one that kept it; the first route is part of the start."""
        queries = {digest: QuerySet(codes, RECIPE) for digest, codes in sets.items()}

        def route(auto: AutoSwitch) -> AutoSwitch:
            auto.pick(row[np.newaxis], frozenset(queries), caller="bench")
            return auto

        def cold() -> AutoSwitch:
            auto = AutoSwitch(recipe=RECIPE, folder=folder)
            for digest, one in queries.items():
                auto.add(digest, one)
            return route(auto)

        def saved() -> AutoSwitch:
            auto = AutoSwitch(recipe=RECIPE, folder=folder)
            for digest, one in queries.items():
                if not auto.recall(digest):
                    auto.add(digest, one)
            auto.resume()
            return route(auto)

        self.starts = []
        for start in (cold, saved):
            before = _anonymous()
            began = time.perf_counter()
            auto = start()
            seconds = time.perf_counter() - began
            auto.settle()
            self.starts.append((seconds, _anonymous() - before))
            auto.close()
            del auto
        self.kept = sum(path.stat().st_size for path in folder.glob("*")) if folder.exists() else 0


def _fits(sizes: list[_Size]) -> Table:
    rows = [
        (
            one.count,
            f"{one.fit_seconds:.2f}",
            f"{1e3 * one.sum_seconds:.1f}",
            f"{1e3 * one.follow_seconds:.1f}",
            f"{one.refit_seconds:.2f}",
        )
        for one in sizes
    ]
    columns = ("switches", "fit, s CPU", "one more in the sums, ms", "one more in sight, ms", "refit, s CPU")
    note = (
        "In sight: a view with one switch more than was fitted, which is what a request waits for. The refit"
        " runs beside."
    )
    return Table("A switch comes", columns, rows, note)


def _searches(sizes: list[_Size]) -> Table:
    rows = [
        (
            one.count,
            one.axes,
            "–" if not one.probes else one.probes,
            *(f"{value:.2f}" for value in (one.flat[0], *one.search)),
            f"{one.recall:.4f}",
            *(f"{value:.2f}" for value in (one.route[0], one.between[0])),
        )
        for one in sizes
    ]
    columns = (
        "switches",
        "axes",
        "cells",
        "flat p50",
        "as served p50",
        "p95",
        "recall@10",
        "route p50",
        "standing in",
    )
    note = (
        "Milliseconds. Recall is of the ten nearest that comparing one by one finds. Standing in: a route"
        " with one switch more."
    )
    return Table("A search, a route", columns, rows, note)


def _starts(sizes: list[_Size]) -> Table:
    rows = [
        (
            one.count,
            *(f"{seconds:.2f}" for seconds, _ in one.starts),
            *(f"{size / 1e6:.0f}" for _, size in one.starts),
            f"{one.kept / 1e6:.0f}",
        )
        for one in sizes
    ]
    columns = ("switches", "told all, s", "kept, s", "told all, MB", "kept, MB", "on disk, MB")
    note = (
        "Until the first route is there, files of the store not counted (told all, each is opened besides)."
        " MB are anonymous memory: what is mapped can be dropped and read again."
    )
    return Table("A start", columns, rows, note)


def _cpu(work: Callable[[], _Result]) -> tuple[float, _Result]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def _anonymous() -> int:
    """Bytes of this process that lie in no file; 0 where the system does not say."""
    gc.collect()
    give_back()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
