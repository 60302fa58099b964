"""Everything at once by eight tenants: every answer is checked, and memory and weights are watched."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from benchmarks.report import Bar, Report, Table
from benchmarks.servers import Server, bitswitch
from benchmarks.setting import Setting
from benchmarks.static import probabilities
from benchmarks.switches import random_switch
from benchmarks.tenant import Made, Own, Tenant
from benchmarks.texts import texts
from bitswitch.base.features import features, recipe
from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch.core import Want
from bitswitch_client import Client
from bitswitch_store import file
from bitswitch_store.switch import Head, QuerySet, Switch

TENANTS, QUICK_TENANTS = 8, 3
QUICK_SECONDS = 6.0
WARM_UP = 0.2
"""Share of the time after which memory has to stay where it is."""
_DENSITY = 0.015
_STRONGER = 30.0
"""Random switches are made to cost what real ones do, not to change answers; these shall."""
_TEXTS = 12
_CONDITIONS = (
    "One `bitswitch serve` with keys, else default settings; {tenants} tenants with two switches each,"
    " a thread each, for {minutes:.3g} minutes: calls by name, version, alias, mix and `auto`, publishing,"
    " deleting, bad input, others' names, and callers who hang up. Every answer is compared with that of a"
    " model whose weights were written once and for all (`auto`: with that of the same mix by name); the"
    " weights are verified every minute."
)


def run(setting: Setting) -> Report:
    """All of it, over one store and one server."""
    seconds = QUICK_SECONDS if setting.quick else 60 * setting.minutes
    count = QUICK_TENANTS if setting.quick else TENANTS
    report = Report("A soak", _CONDITIONS.format(tenants=count, minutes=seconds / 60))
    asked = texts(_TEXTS, 12, seed=3)
    folder = setting.scratch / "store"
    base = load(setting.base)
    owned = [_own(base, asked, number, make_key(folder, f"tenant{number}")) for number in range(count)]
    admin = make_key(folder, "operator", "admin")
    del base
    with bitswitch(setting.base, folder) as server:
        soak = _Soak(server, admin, seconds)
        tenants = _tenants(owned, server.port, asked)
        with ThreadPoolExecutor(len(tenants) + 1) as pool:
            running = [pool.submit(tenant.run, soak.over) for tenant in tenants]
            soak.watch()
            for one in running:
                one.result()
    _tell(report, tenants, soak)
    return report


def make_key(store: Path, tenant: str, role: str = "publisher") -> str:
    """A key of a tenant, made with the command that an operator uses."""
    command = [sys.executable, "-m", "bitswitch.cli", "keys", "create", "--store", str(store)]
    command += ["--tenant", tenant, "--role", role]
    return subprocess.run(command, check=True, text=True, capture_output=True).stdout.strip()


def _own(base: Base, asked: Sequence[str], number: int, key: str) -> Own:
    """A tenant's two switches, and what they must answer."""
    name = f"tenant{number}"
    switches = {
        one: _switch(base, asked, f"{name}-{one}", 2 * number + i)
        for i, one in enumerate(("first", "second"))
    }
    made = {
        one: Made(
            file.write(switch), _labels(switch), probabilities(base.folder, [(switch, 1.0)], switch, asked)
        )
        for one, switch in switches.items()
    }
    first, second = switches["first"], switches["second"]
    mixed = probabilities(base.folder, [(first, 0.6), (second, 0.4)], first, asked)
    return Own(name, key, made, mixed)


def _switch(base: Base, asked: Sequence[str], name: str, seed: int) -> Switch:
    """Random, with a head of labels that no other has, and some of the texts as its query set."""
    plain = random_switch(base, _DENSITY, seed)
    tensors = tuple(replace(one, knobs=(one.knobs * _STRONGER).astype(np.float32)) for one in plain.tensors)
    chance = np.random.default_rng(seed)
    width = base.model.config.hidden_size
    labels = tuple(f"{name}-{kind}" for kind in ("low", "middle", "high"))
    weights = {
        "classifier.weight": chance.normal(0, 0.5, (len(labels), width)).astype(np.float32),
        "classifier.bias": chance.normal(0, 0.5, len(labels)).astype(np.float32),
    }
    answering = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(base.model.config)].__name__
    config = {**base.model.config.to_diff_dict(), "architectures": [answering]}
    head = Head(weights, config, labels)
    queries = [asked[(seed + step) % len(asked)] for step in range(4)]
    rows = base.encode(queries, want=Want.FEATURES)
    found = QuerySet.of(features(base, base.forward(rows), rows).numpy(), recipe(base))
    return replace(plain, tensors=tensors, head=head, queries=found, task=name)


def _labels(switch: Switch) -> tuple[str, ...]:
    assert switch.head is not None
    return switch.head.labels


def _tenants(owned: Sequence[Own], port: int, asked: Sequence[str]) -> list[Tenant]:
    whose = {label: own.name for own in owned for made in own.switches.values() for label in made.labels}
    return [
        Tenant(own, port, asked, foreign=f"{owned[i - 1].name}/first", labels=whose, seed=i)
        for i, own in enumerate(owned)
    ]


class _Soak:
    """The clock, the server's memory, and looks at the weights."""

    def __init__(self, server: Server, admin: str, seconds: float) -> None:
        self._server = server
        self._client = Client(f"http://127.0.0.1:{server.port}", api_key=admin, timeout=60)
        self._seconds = seconds
        self._ends = time.monotonic() + seconds
        self._over = threading.Event()
        self.memory: list[float] = []
        self.verified = 0
        self.differing = 0

    def over(self) -> bool:
        return time.monotonic() >= self._ends

    def watch(self) -> None:
        """Until it is over: memory a hundred times, the weights once a minute, or four times in all."""
        pause = self._seconds / 100
        look = max(round(min(60.0, self._seconds / 4) / pause), 1)
        step = 0
        while not self.over():
            time.sleep(pause)
            self.memory.append(self._server.resident())
            step += 1
            if step % look == 0:
                self.verified += 1
                self.differing += not self._client.verify().intact
        self.verified += 1
        self.differing += not self._client.verify().intact
        self._client.close()

    def drift(self) -> float:
        """How far memory goes from its median after the warm-up, at most, as a share of it."""
        settled = self.memory[math.ceil(WARM_UP * len(self.memory)) :]
        middle = statistics.median(settled)
        return max(abs(one - middle) for one in settled) / middle


def _tell(report: Report, tenants: Sequence[Tenant], soak: _Soak) -> None:
    counts: Counter[str] = sum((tenant.counts for tenant in tenants), Counter())
    faults = [fault for tenant in tenants for fault in tenant.faults]
    rows = [(name, counts[name]) for name in sorted(counts)]
    report.tables.append(Table("What was done", ("", "times"), rows))
    memory = [
        f"{one / 2**20:.0f}" for one in (soak.memory[0], soak.memory[len(soak.memory) // 2], soak.memory[-1])
    ]
    report.tables.append(
        Table("Memory, MiB", ("at first", "halfway", "at last"), [memory], note="Resident set size.")
    )
    if faults:
        report.tables.append(Table("Faults", ("",), [(fault,) for fault in faults[:20]]))
    report.bars += [
        Bar("wrong answers", counts["wrong"], 0),
        Bar("leaks across tenants", counts["leaks"], 0),
        Bar("other faults", float(len(faults)), 0),
        Bar("answers checked", counts["checked"], 1, at_most=False),
        Bar("memory, farthest from its median", soak.drift(), 0.05),
        Bar("weights verified, times", soak.verified, 1, at_most=False),
        Bar("of which they differed", soak.differing, 0),
    ]
