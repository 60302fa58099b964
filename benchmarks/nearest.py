"""Bare search among very many vectors as they are, without the router's metric: FAISS against comparing one
by one.

Candidates are found among short codes of the vectors in cells, and compared anew with the vectors. Knows
nothing of switches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import faiss
import numpy as np

from benchmarks.made_tasks import Tasks, Vectors
from benchmarks.report import Bar, Report, Table
from benchmarks.setting import percentile

_faiss: Any = faiss
QUERIES = 100
INPUTS = 400
RAW = "PCA256,IVF2048,PQ128x4fs"
PROBES, CANDIDATES = 256, 240


def measure(tasks: Tasks, count: int, report: Report, *, quick: bool) -> None:
    """Add what was found of ``count`` vectors to the report."""
    rows = np.empty((count, tasks.dim), np.float32)
    for number, vectors in enumerate(tasks.draw(count // QUERIES, QUERIES, seed=1)):
        rows[number * QUERIES : (number + 1) * QUERIES] = vectors
    chosen = np.random.default_rng(2).choice(len(rows), INPUTS, replace=False)
    inputs = rows[chosen].copy()
    rows = np.delete(rows, chosen, axis=0)
    _, true = _faiss.knn(inputs, rows, 10)
    flat = _faiss.IndexFlatL2(rows.shape[1])
    flat.add(rows)
    began = time.process_time()
    coarse = _faiss.index_factory(rows.shape[1], "IVF16,Flat" if quick else RAW)
    coarse.train(rows[:: max(len(rows) // 110_000, 1)])
    coarse.add(rows)
    built = time.process_time() - began
    refined = _faiss.IndexRefine(coarse, flat)
    cells = _faiss.SearchParametersIVF(nprobe=16 if quick else PROBES)
    base = cells if quick else _faiss.SearchParametersPreTransform(index_params=cells)
    how = _faiss.IndexRefineSearchParameters(k_factor=CANDIDATES, base_index_params=base)
    hits = [refined.search(row[np.newaxis], 10, params=how)[1][0] for row in inputs]
    recall = float(np.mean([len({*a} & {*b}) for a, b in zip(hits, true, strict=True)])) / 10
    taken = times(lambda row: refined.search(row[np.newaxis], 10, params=how), inputs)
    alone = times(lambda row: flat.search(row[np.newaxis], 10), inputs[:30])
    shown = [
        ("one by one", f"{alone[0]:.2f}", f"{alone[1]:.2f}", "1", "–"),
        (f"{RAW}, refined", f"{taken[0]:.2f}", f"{taken[1]:.2f}", f"{recall:.4f}", f"{built:.0f}"),
    ]
    columns = ("index", "p50, ms", "p95, ms", "recall@10", "built, s CPU")
    note = (
        f"Not what the router does: it searches in its metric. {PROBES} cells, {10 * CANDIDATES} candidates,"
        " compared anew with the float32 vectors."
    )
    report.tables.append(
        Table(f"{len(rows)} vectors as they are, {rows.shape[1]} values", columns, shown, note)
    )
    report.bars += [
        Bar(f"search, {rows.shape[1]} values: p50, ms", taken[0], 2),
        Bar(f"search, {rows.shape[1]} values: recall@10", recall, 0.99, at_most=False),
    ]


def times(work: Callable[[Vectors], object], inputs: Iterable[Vectors]) -> tuple[float, float]:
    """Median and 95th percentile, ms; the second time each input comes."""
    for one in inputs:
        work(one)
    taken = []
    for one in inputs:
        began = time.perf_counter()
        work(one)
        taken.append(1e3 * (time.perf_counter() - began))
    return percentile(taken, 0.5), percentile(taken, 0.95)
