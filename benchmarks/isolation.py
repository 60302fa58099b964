"""Whether the time of a refusal tells another tenant's switch from one that is not there.

A real server, asked over one connection; what a caller could measure at best, from the same machine.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import numpy as np

from benchmarks.report import Bar, Report, Table
from benchmarks.servers import bitswitch
from benchmarks.setting import Setting, percentile
from benchmarks.switches import random_switch
from bitswitch.base.load import load
from bitswitch.tenants.caller import Role
from bitswitch.tenants.key import read_secret
from bitswitch.tenants.key_ring import KeyRing
from bitswitch_store import file
from bitswitch_store.store import Store

_EACH = 4000
_OTHERS = 50
_NAMES = ("foreign", "missing", "nothing")
_CONDITIONS = (
    f"{_EACH} requests for each name, in an order drawn by chance, over one connection of a caller who may"
    f" see neither; {_OTHERS + 1} switches of another tenant, `foreign` among them, which its owner has just"
    " called. `missing` and `nothing` are names that nobody has: what tells those apart is noise."
)


def run(setting: Setting) -> Report:
    """Times of both refusals, at two routes."""
    report = Report("Foreign and missing, by the clock", _CONDITIONS)
    store = setting.scratch / "store"
    owner, caller = _furnish(setting, store)
    each = 20 if setting.quick else _EACH
    with (
        bitswitch(setting.base, store) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as http,
    ):
        _ask(http, owner, "/v1/classify", "foreign")  # resident from now on
        for path in ("/v1/models", "/v1/classify"):
            times = _times(http, caller, path, each)
            _report(report, path, times)
    return report


def _furnish(setting: Setting, root: Path) -> tuple[str, str]:
    """A store with the switches, and the keys of their owner and of the one who asks."""
    base = load(setting.base)
    data = file.write(random_switch(base, 0.001, 1))
    store = Store(root, base=base.identity)
    try:
        for name in ("foreign", *(f"other-{number}" for number in range(_OTHERS))):
            store.put(data, tenant="zeta", name=name)
        store.put(data, tenant="acme", name="own")
        ring = KeyRing(store.database, read_secret(root))
        return ring.create("zeta", Role.CALLER)[1], ring.create("acme", Role.CALLER)[1]
    finally:
        store.close()


def _ask(http: httpx.Client, key: str, path: str, model: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    if path == "/v1/models":
        return http.get(f"{path}/{model}", headers=headers).status_code
    return http.post(path, headers=headers, json={"model": model, "input": "a"}).status_code


def _times(http: httpx.Client, key: str, path: str, each: int) -> dict[str, list[float]]:
    """Seconds of each refusal, by name."""
    order = [name for name in _NAMES for _ in range(each)]
    random.Random(1).shuffle(order)
    for name in order[:200]:
        _ask(http, key, path, f"zeta/{name}")
    taken: dict[str, list[float]] = {name: [] for name in _NAMES}
    for name in order:
        started = time.perf_counter()
        status = _ask(http, key, path, f"zeta/{name}")
        taken[name].append(time.perf_counter() - started)
        if status != httpx.codes.NOT_FOUND:
            raise RuntimeError(f"{path} of {name} answered {status}")
    return taken


def _report(report: Report, path: str, times: Mapping[str, Sequence[float]]) -> None:
    rows = [
        (
            name,
            *(f"{1e6 * percentile(taken, share):.0f}" for share in (0.1, 0.5, 0.9)),
            f"{1e6 * statistics.fmean(taken):.0f}",
        )
        for name, taken in times.items()
    ]
    columns = ("", "p10, µs", "p50, µs", "p90, µs", "mean, µs")
    told, noise = (longer(times[name], times["missing"]) for name in ("foreign", "nothing"))
    error = (6 * len(times["missing"])) ** -0.5
    note = (
        f"Of one request for `foreign` and one for `missing`, the former took longer in {100 * told:.1f} % of"
        f" the pairs; of `nothing` and `missing`, in {100 * noise:.1f} %. 50 % tells nothing; the standard"
        f" error is {100 * error:.1f} %."
    )
    report.tables.append(Table(f"404 at {path}", columns, rows, note))
    report.bars.append(Bar(f"{path}: how far that share is from a half", abs(told - 0.5), 0.02))


def longer(some: Sequence[float], others: Sequence[float]) -> float:
    """The share of pairs in which the one of ``some`` is larger; the area under the ROC curve."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, some, "left") + np.searchsorted(ordered, some, "right")
    return float(below.mean() / 2 / len(others))
