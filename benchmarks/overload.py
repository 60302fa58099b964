"""Four times what the server can do: what those who are let in wait, how soon the others hear.

Capacity is what closed-loop clients get; then requests arrive four times as often, whatever becomes of them,
and then at half of capacity.
"""

from __future__ import annotations

import json
import math

from benchmarks import arrivals, load
from benchmarks.report import Bar, Report, Table
from benchmarks.servers import Server, bitswitch
from benchmarks.setting import Setting, percentile
from benchmarks.switches import publish_random
from benchmarks.texts import texts
from bitswitch.base.load import load as load_base
from bitswitch_store.store import Store

CLIENTS = 64
TIMES = 4.0
DENSITY = 0.015
_SWITCHES = 8
_AT_CAPACITY, _OVER, _AFTER = 10.0, 15.0, 15.0
_WINDOW = 1.0
_PATH = "/v1/embeddings"
_CONDITIONS = (
    f"One `bitswitch serve` with default settings, {_SWITCHES} random switches of density {DENSITY}, one text"
    f" of 16 tokens per request. Capacity: {CLIENTS} closed-loop clients for {_AT_CAPACITY:g} s. Overload:"
    f" Poisson arrivals at {TIMES:g} times that rate for {_OVER:g} s, then at half of it for {_AFTER:g} s, on"
    " keep-alive connections from a process that shares the cores with the server."
)


def run(setting: Setting) -> Report:
    """All of it, at one server."""
    report = Report("Four times more than it can do", _CONDITIONS)
    base = load_base(setting.base)
    folder = setting.scratch / "store"
    store = Store(folder, base=base.identity)
    names = publish_random(store, base, DENSITY, _SWITCHES)
    store.close()
    del base
    asked = zip(names * 32, texts(32 * len(names), 14, seed=1), strict=True)
    bodies = [json.dumps({"model": name, "input": text}) for name, text in asked]
    with bitswitch(setting.base, folder) as server:
        for name in names:
            server.ask(_PATH, {"model": name, "input": "once"})
        _measure(setting, server, bodies, report)
        intact = server.get("/v1/admin/verify")["intact"]
    report.bars.append(Bar("weights that are not the base's afterwards", float(not intact), 0))
    return report


def _measure(setting: Setting, server: Server, bodies: list[str], report: Report) -> None:
    clients = [bodies[start:] + bodies[:start] for start in range(4 if setting.quick else CLIENTS)]
    plan = load.Plan(server.port, _PATH, clients, setting.seconds(_AT_CAPACITY))
    capacity = load.run(plan)
    rate, usual = capacity.rate, percentile(capacity.all_latencies, 0.95)
    over, after = setting.seconds(_OVER), setting.seconds(_AFTER)
    phases = [(TIMES * rate, over), (rate / 2, after)]
    outcome = arrivals.run(arrivals.Plan(server.port, _PATH, bodies, phases))
    taken, refused = outcome.of(200, 0, over), outcome.of(429, 0, over)
    others = [one for one in outcome.answers if one[2] not in {200, 429}]
    rows = [
        ("at capacity", len(capacity.all_latencies), f"{rate:.0f}", *_percentiles(capacity.all_latencies)),
        (f"{TIMES:g} times that, let in", len(taken), f"{len(taken) / over:.0f}", *_percentiles(taken)),
        (
            f"{TIMES:g} times that, refused",
            len(refused),
            f"{len(refused) / over:.0f}",
            *_percentiles(refused),
        ),
    ]
    columns = ("", "requests", "per second", "p50, ms", "p95, ms", "p99, ms")
    report.tables.append(Table("Before, and under it", columns, rows))
    report.tables.append(_afterwards(outcome, over, after))
    report.bars += [
        Bar("let in, p95 to p95 at capacity", _p95(taken) / usual, 3),
        Bar("refused, p95 in ms", 1e3 * _p95(refused), 50),
        Bar("let in per second, to capacity", len(taken) / over / rate, at_most=False),
        Bar("neither answered nor refused", float(len(others)), 0),
        Bar("seconds until all is as usual", _recovered(outcome, over, after, usual), 5),
        Bar("the generator's delay at most, ms", 1e3 * outcome.late),
    ]


def _afterwards(outcome: arrivals.Outcome, over: float, after: float) -> Table:
    rows = []
    for step in range(math.ceil(after / _WINDOW)):
        start = over + step * _WINDOW
        waits, refused = (outcome.of(status, start, start + _WINDOW) for status in (200, 429))
        rows.append((f"{(step + 1) * _WINDOW:g}", len(waits), len(refused), *_percentiles(waits)[:2]))
    return Table("Afterwards", ("second", "answered", "refused", "p50, ms", "p95, ms"), rows)


def _recovered(outcome: arrivals.Outcome, over: float, after: float, usual: float) -> float:
    """Seconds after the overload from which on nobody is refused, and p95 is no more than at capacity."""
    since = 0.0
    for step in range(math.ceil(after / _WINDOW)):
        start = over + step * _WINDOW
        waits = outcome.of(200, start, start + _WINDOW)
        sent = [one for one in outcome.answers if start <= one[0] < start + _WINDOW]
        if len(waits) < len(sent) or (waits and percentile(waits, 0.95) > usual):
            since = (step + 1) * _WINDOW
    return since


def _p95(waits: list[float]) -> float:
    return percentile(waits, 0.95) if waits else 0.0


def _percentiles(waits: list[float]) -> tuple[str, ...]:
    return tuple(f"{1e3 * percentile(waits, share):.0f}" if waits else "" for share in (0.5, 0.95, 0.99))
