"""The bare base over HTTP, beside infinity-emb: what serving costs before a switch comes in.

Both serve the same folder on all cores and get the same bytes from the same load generator, in turns; while
one is asked, the other one waits. That both answer the same is checked first.
"""

from __future__ import annotations

import json
import statistics
from contextlib import ExitStack

import numpy as np

from benchmarks.load import Outcome, Plan
from benchmarks.load import run as load
from benchmarks.report import Bar, Report, Table
from benchmarks.rivals.environment import RivalUnavailableError, environment
from benchmarks.servers import PATIENT, Server, bitswitch, infinity
from benchmarks.setting import Setting, percentile
from benchmarks.texts import texts

CLIENTS = 32
_ROUNDS = 5
_SECONDS = 4.0
_LENGTHS: dict[str, int | tuple[int, int]] = {"16 tokens": 14, "6 to 62 tokens": (4, 60)}
_OURS, _RIVAL = "/v1/embeddings", "/embeddings"
_CONDITIONS = (
    f"{CLIENTS} closed-loop clients on keep-alive connections, one text per request, embeddings as JSON"
    f" floats. {_ROUNDS} rounds of {_SECONDS:g} s a side, in turns. The generator is a process of its own;"
    " what it took of a core stands beside."
)


def run(setting: Setting) -> Report:
    """Throughput and latency of both."""
    report = Report("The bare base over HTTP", _CONDITIONS)
    with ExitStack() as stack:
        note = ""
        ours = stack.enter_context(bitswitch(setting.base, setting.scratch / "store", **PATIENT))
        sides = {"ours": (ours, _OURS)}
        try:
            binaries = environment("infinity", setting.rivals)
        except RivalUnavailableError as error:
            note = f"Left out: {error}."
        else:
            sides["infinity-emb"] = (stack.enter_context(infinity(binaries, setting.base)), _RIVAL)
            note = f"Embeddings differ by {_difference(*sides.values()):.1e} at most."
        rows = []
        for title, words in _LENGTHS.items():
            found: dict[str, list[Outcome]] = {name: [] for name in sides}
            for number in range(setting.rounds(_ROUNDS)):
                for name, (server, path) in sides.items():
                    found[name].append(load(_plan(setting, server, path, words, number)))
            rows += [(title, name, *_cells(outcomes)) for name, outcomes in found.items()]
            if len(found) > 1:
                ours, theirs = (statistics.median(o.rate for o in outcomes) for outcomes in found.values())
                bar = Bar(
                    f"ours to infinity-emb, requests per second, {title}", ours / theirs, 1.0, at_most=False
                )
                report.bars.append(bar)
    columns = ("texts of", "", "requests/s", "p50, ms", "p95, ms", "generator, of a core")
    report.tables.append(Table("Throughput and latency", columns, rows, note))
    return report


def _plan(setting: Setting, server: Server, path: str, words: int | tuple[int, int], number: int) -> Plan:
    every = texts(CLIENTS * 20, words, seed=number)
    bodies = [json.dumps({"model": "base", "input": text}) for text in every]
    return Plan(server.port, path, [bodies[i::CLIENTS] for i in range(CLIENTS)], setting.seconds(_SECONDS))


def _cells(outcomes: list[Outcome]) -> tuple[str, ...]:
    rate = statistics.median(outcome.rate for outcome in outcomes)
    cpu = max(outcome.cpu for outcome in outcomes)
    waits = [percentile(outcome.all_latencies, share) for share in (0.5, 0.95) for outcome in outcomes]
    p50, p95 = (statistics.median(waits[i : i + len(outcomes)]) for i in (0, len(outcomes)))
    return f"{rate:.1f}", f"{1e3 * p50:.0f}", f"{1e3 * p95:.0f}", f"{cpu:.1%}"


def _difference(*sides: tuple[Server, str]) -> float:
    asked = {"model": "base", "input": texts(8, (4, 60), seed=0)}
    vectors = [
        np.array([datum["embedding"] for datum in server.ask(path, asked)["data"]]) for server, path in sides
    ]
    difference = float(np.abs(vectors[0] - vectors[1]).max())
    if difference > 1e-4:
        raise AssertionError(f"the two do not serve the same model: embeddings differ by {difference}")
    return difference
