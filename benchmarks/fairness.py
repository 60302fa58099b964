"""A tenant with one client beside a tenant with 31, on another switch: what the small one waits.

In process, through the engine's own door: over HTTP there is one tenant so far.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from benchmarks.report import Bar, Report, Table
from benchmarks.setting import Setting, percentile
from benchmarks.switches import random_switch
from benchmarks.texts import texts
from bitswitch.base.load import load
from bitswitch.cli.threads import let_threads_go
from bitswitch.core import Mix, Request, Row, Want
from bitswitch.engine.engine import Engine

DENSITY = 0.1
_CROWD = 31
_ROUNDS = 3
_SECONDS = 4.0
_CONDITIONS = (
    "Closed-loop clients of two tenants at one engine, 16 tokens per request, two random switches of density"
    f" {DENSITY}. {_ROUNDS} rounds of {_SECONDS:g} s, alone and beside the crowd in turns."
)


def run(setting: Setting) -> Report:
    """The small tenant's latency, alone and in company."""
    report = Report("Fair shares between tenants", _CONDITIONS)
    base = load(setting.base)
    switches = {name: random_switch(base, DENSITY, seed) for seed, name in enumerate(("small", "crowd"))}
    rows = base.encode(texts(64, 14, seed=1), want=Want.EMBED)
    engine = Engine(base, switches.__getitem__)
    let_threads_go()  # as a server does
    engine.start()
    try:
        alone: list[float] = []
        beside: list[float] = []
        for _ in range(setting.rounds(_ROUNDS)):
            alone += asyncio.run(_latencies(engine, rows, 0, setting.seconds(_SECONDS)))
            beside += asyncio.run(_latencies(engine, rows, _CROWD, setting.seconds(_SECONDS)))
    finally:
        engine.stop()
    cells = [
        (name, len(waits), *(f"{1e3 * percentile(waits, share):.1f}" for share in (0.5, 0.95)))
        for name, waits in (("alone", alone), (f"beside {_CROWD} clients of another", beside))
    ]
    report.tables.append(Table("The tenant with one client", ("", "requests", "p50, ms", "p95, ms"), cells))
    ratio = percentile(beside, 0.95) / percentile(alone, 0.95)
    report.bars.append(Bar("its p95 beside the crowd to alone", ratio, 4))
    return report


async def _latencies(engine: Engine, rows: Sequence[Row], crowd: int, seconds: float) -> list[float]:
    """The small tenant's, in seconds."""
    ends = time.perf_counter() + seconds

    async def client(tenant: str, start: int) -> list[float]:
        waits = []
        while (sent := time.perf_counter()) < ends:
            row = rows[(start + len(waits)) % len(rows)]
            request = Request(Mix.of([(tenant, 1.0)]), Want.EMBED, (row,), tenant=tenant)
            await asyncio.wrap_future(engine.submit(request))
            waits.append(time.perf_counter() - sent)
        return waits

    small, *_ = await asyncio.gather(client("small", 0), *(client("crowd", i) for i in range(1, crowd + 1)))
    return small[1:]  # the first one may find its switch not laid out yet
