"""Switches over HTTP: one server of ours against itself, with all requests on one switch.

What it costs that requests want different weights: a single request after another mix, few and many switches
under load, ``auto`` against the same inputs by name.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.load import Outcome, Plan
from benchmarks.load import run as load
from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.servers import PATIENT, Server, bitswitch
from benchmarks.setting import Setting, percentile
from benchmarks.switches import publish_random
from benchmarks.texts import texts
from bitswitch.base.load import load as load_base
from bitswitch.cli.rows import read_examples
from bitswitch_store.store import Store

DENSITIES = (0.1, 0.015)
COUNTS = (1, 4, 16, 64)
CLIENTS = 64
_BARS = {0.1: 0.5, 0.015: 0.75}
_ROUNDS = 7
_ROUNDS_OF_TWO = 31
"""Where two rates are compared that lie close together: with 11 their ratios' medians scattered by .1, as
a round's rate depends on how the clients happen to fall into step.
"""
_ROUNDS_AUTO = 3
_SECONDS = 2.5
_SECONDS_AUTO = 12.0
_EMBED, _CLASSIFY = "/v1/embeddings", "/v1/classify"
_CONDITIONS = (
    "One `bitswitch serve` with room for all switches in memory, that refuses nobody; closed-loop"
    " clients on keep-alive connections, one text of 16 tokens per request (`auto`: the demo's questions),"
    " embeddings at the switch's weights. Sides in turns, every other round in reverse; medians over the"
    " rounds, of rates as of their ratios within a round."
)
_Bodies = list[list[str]]
"""Per client, what it sends in turn."""


def run(setting: Setting) -> Report:
    """All of it, over one store and one server."""
    report = Report("Serving switches over HTTP", _CONDITIONS)
    counts = (1, 2) if setting.quick else COUNTS
    base = load_base(setting.base)
    folder = setting.scratch / "store"
    store = Store(folder, base=base.identity)
    names = {density: publish_random(store, base, density, counts[-1]) for density in DENSITIES}
    for path in setting.real_switches():
        store.put(path, tenant="default", name=path.name.split(".")[0])
    store.close()
    del base  # the server has its own
    # All of them fit: what a switch costs that has to be read first is another question.
    with bitswitch(setting.base, folder, BITSWITCH_RESIDENT_BYTES="1GiB", **PATIENT) as server:
        for own in names.values():
            for name in own:
                server.ask(_EMBED, {"model": name, "input": "once"})
        bench = _Bench(setting, server, report)
        bench.single(names)
        bench.zipf(names)
        bench.uniform(names, counts)
        if setting.real_switches() and not setting.quick:
            bench.auto()
    return report


class _Bench:
    """One server, and what is found of it."""

    def __init__(self, setting: Setting, server: Server, report: Report) -> None:
        self._setting = setting
        self._server = server
        self._report = report

    def single(self, names: Mapping[float, Sequence[str]]) -> None:
        """One client: each request at another switch than the last one, or all at one."""
        rows = []
        for density, own in names.items():
            sides = {
                "one": [_asking(own[:1], 50, seed=1)],
                "other": [_asking(own[:2], 50, seed=1, turns=True)],
            }
            found = self._in_turns(sides, rounds=5)
            stay, go = (_p50(outcomes) for outcomes in found.values())
            rows.append((density, f"{1e3 * stay:.1f}", f"{1e3 * go:.1f}", f"{go / stay:.2f}"))
            bar = Bar(
                f"a single request after another mix to one without, p50, density {density}", go / stay, 2.5
            )
            self._report.bars.append(bar)
        columns = ("density", "same switch, p50 ms", "after another switch, p50 ms", "ratio")
        self._report.tables.append(Table("A single request", columns, rows))

    def zipf(self, names: Mapping[float, Sequence[str]]) -> None:
        """8 switches, the n-th asked for n^-1.1 times as often as the first, 32 clients."""
        rows, curves = [], {}
        for density, own in names.items():
            some = own[:8]
            shares = [1 / (rank + 1) ** 1.1 for rank in range(len(some))]
            clients = range(4 if self._setting.quick else 32)
            sides: dict[str, _Bodies] = {
                "one": [_asking(own[:1], 50, seed=client) for client in clients],
                "zipf": [_asking(some, 50, seed=client, shares=shares) for client in clients],
            }
            found = self._in_turns(sides, rounds=_ROUNDS_OF_TWO)
            one, many = (_rate(outcomes) for outcomes in found.values())
            ratio = _ratio(found["zipf"], found["one"])
            rows.append((density, f"{one:.1f}", f"{many:.1f}", f"{ratio:.2f}"))
            self._report.bars.append(
                Bar(
                    f"8 switches, Zipf 1.1, to one, 32 clients, density {density}",
                    ratio,
                    0.85,
                    at_most=False,
                )
            )
            curves[f"8 switches, Zipf, density {density}"] = _distribution(found["zipf"])
        curves[f"one switch, density {density}"] = _distribution(found["one"])
        columns = ("density", "one switch, requests/s", "8 switches, requests/s", "ratio")
        self._report.tables.append(Table("8 switches, Zipf 1.1, 32 clients", columns, rows))
        self._report.charts.append(
            Chart("latency", "Latency, 32 clients", "ms", "share of requests answered", curves, kind="step")
        )

    def uniform(self, names: Mapping[float, Sequence[str]], counts: Sequence[int]) -> None:
        """Ever more switches, each as likely, 64 clients."""
        rows, curves = [], {}
        clients = range(4 if self._setting.quick else CLIENTS)
        for density, own in names.items():
            sides = {
                str(count): [_asking(own[:count], 50, seed=client) for client in clients] for count in counts
            }
            found = self._in_turns(sides, rounds=_ROUNDS)
            rates = [_rate(outcomes) for outcomes in found.values()]
            rows.append((f"requests/s, density {density}", *(f"{rate:.1f}" for rate in rates)))
            p95 = [statistics.median(percentile(o.all_latencies, 0.95) for o in of) for of in found.values()]
            rows.append((f"p95 ms, density {density}", *(f"{1e3 * one:.0f}" for one in p95)))
            curves[f"density {density}"] = (counts, rates)
            name = f"{counts[-1]} switches, uniform, to one, 64 clients, density {density}"
            ratio = _ratio(found[str(counts[-1])], found["1"])
            self._report.bars.append(Bar(name, ratio, _BARS[density], at_most=False))
        columns = ("switches", *map(str, counts))
        self._report.tables.append(Table("Uniform traffic, 64 clients", columns, rows))
        chart = Chart(
            "throughput",
            "Throughput over HTTP, 64 clients",
            "switches",
            "requests per second",
            curves,
            log_x=True,
        )
        self._report.charts.append(chart)

    def auto(self) -> None:
        """The demo's questions, classified by the switch that is meant and by ``auto``."""
        asked = read_examples(self._setting.switches.parent / "questions.jsonl", labelled=True)

        def bodies(auto: bool) -> _Bodies:
            all_ = [
                json.dumps({"model": "auto" if auto else str(one.label), "input": one.text}) for one in asked
            ]
            return [all_[start:] + all_[:start] for start in (client % len(all_) for client in range(32))]

        sides = {"named": bodies(False), "auto": bodies(True)}
        found = self._in_turns(sides, rounds=_ROUNDS_AUTO, path=_CLASSIFY, full=_SECONDS_AUTO)
        named, auto = (_rate(outcomes) for outcomes in found.values())
        ratio = _ratio(found["auto"], found["named"])
        columns = ("named, requests/s", "auto, requests/s", "ratio")
        rows = [(f"{named:.1f}", f"{auto:.1f}", f"{ratio:.2f}")]
        self._report.tables.append(Table("`auto` over the demo's questions, 32 clients", columns, rows))
        self._report.bars.append(Bar("all by auto to all by name", ratio, 0.5, at_most=False))

    def _in_turns(
        self, sides: Mapping[str, _Bodies], *, rounds: int, path: str = _EMBED, full: float = _SECONDS
    ) -> dict[str, list[Outcome]]:
        found: dict[str, list[Outcome]] = {name: [] for name in sides}
        seconds = self._setting.seconds(full)
        for n in range(self._setting.rounds(rounds)):
            for name, bodies in list(sides.items())[:: -1 if n % 2 else 1]:
                plan = Plan(self._server.port, path, bodies, seconds, warm_up=seconds / 4)
                found[name].append(load(plan))
        return found


def _asking(
    names: Sequence[str], count: int, *, seed: int, shares: Sequence[float] | None = None, turns: bool = False
) -> list[str]:
    """Bodies for one client: switches drawn at random, or in turns."""
    chance = random.Random(seed)
    drawn = [names[i % len(names)] for i in range(count)] if turns else chance.choices(names, shares, k=count)
    asked = zip(drawn, texts(count, 14, seed=seed), strict=True)
    return [json.dumps({"model": name, "input": text}) for name, text in asked]


def _rate(outcomes: Sequence[Outcome]) -> float:
    return statistics.median(outcome.rate for outcome in outcomes)


def _ratio(ones: Sequence[Outcome], others: Sequence[Outcome]) -> float:
    """Of rates, each round's own: what slows the machine for a while slows both sides."""
    return statistics.median(one.rate / other.rate for one, other in zip(ones, others, strict=True))


def _p50(outcomes: Sequence[Outcome]) -> float:
    return statistics.median(percentile(outcome.all_latencies, 0.5) for outcome in outcomes)


def _distribution(outcomes: Sequence[Outcome]) -> tuple[list[float], list[float]]:
    """A distribution function in 100 steps; milliseconds."""
    waits = [wait for outcome in outcomes for wait in outcome.all_latencies]
    shares = [step / 100 for step in range(101)]
    return [1e3 * percentile(waits, share) for share in shares], shares
