"""What stored switches cost a server that nobody asks for them: memory and time to start.

The switches are small (one weight of every parameter); only those with a query set tell the router anything.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.report import Bar, Report, Table
from benchmarks.servers import bitswitch
from benchmarks.setting import Setting
from bitswitch.base.features import dim, recipe
from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch_store import file
from bitswitch_store.store import Store
from bitswitch_store.switch import QuerySet, Rule, Switch, TensorSwitch

FEW, MANY = 10, 1000
QUERIES = 100
_CONDITIONS = (
    "Proportional set size (PSS) of `bitswitch serve` once it is ready, and how long that took. Unused"
    f" switches, each in a file of its own; with a query set means {QUERIES} vectors that `auto` chooses by."
)


def run(setting: Setting) -> Report:
    """Servers over stores of few and of many."""
    report = Report("Stored, unused switches", _CONDITIONS)
    base = load(setting.base)
    many = 20 if setting.quick else MANY
    rows = []
    for queries in (False, True):
        sizes = {}
        for count in (FEW, many):
            folder = setting.scratch / f"store-{queries}-{count}"
            fill(folder, base, count, queries=queries)
            with bitswitch(setting.base, folder) as server:
                sizes[count] = server.memory()
                kind = "with a query set" if queries else "without"
                rows.append((count, kind, f"{sizes[count] / 1e6:.0f}", f"{server.started:.1f}"))
        more = (sizes[many] - sizes[FEW]) / 1e6
        kind = "with query sets" if queries else "without query sets"
        report.bars.append(Bar(f"{many} stored against {FEW}, {kind}: MB more", more, 50))
    columns = ("stored", "", "PSS, MB", "ready after, s")
    report.tables.append(Table("A server nobody asks", columns, rows))
    return report


def fill(folder: Path, base: Base, count: int, *, queries: bool) -> None:
    """Publish ``count`` small switches, all different, in a new store."""
    store = Store(folder, base=base.identity)
    chance = np.random.default_rng(0)
    for number in range(count):
        switch = small_switch(base, number)
        if queries:
            vectors = chance.normal(size=(QUERIES, dim(base))).astype(np.float16)
            switch = replace(switch, queries=QuerySet.of(vectors, recipe(base)))
        store.put(file.write(switch), tenant="default", name=f"stored-{number}")
    store.close()


def small_switch(base: Base, number: int) -> Switch:
    """The first weight of every parameter, by a knob of its own: as many tensors as a real one."""
    tensors = []
    for name in sorted(base.parameters):
        shape = tuple(base.parameters[name].shape)
        activation = np.zeros((int(np.prod(shape)) + 7) // 8, np.uint8)
        activation[0] = 1
        knobs = np.full(1, 1e-3 * (number + 1), np.float32)
        tensors.append(TensorSwitch(name, shape, activation, np.ones(1, np.uint8), knobs))
    return Switch(base.identity, Rule("random"), tuple(tensors), f"stored-{number}")
