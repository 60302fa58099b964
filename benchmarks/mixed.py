"""Many switches at once, without HTTP: rounds of one request per client, each for a switch drawn at random.

All sides get the same tokens, the same draws and batches of the same rows: a round is handed over whole.
Rivals: PEFT's mixed batch (``adapter_names``), PEFT with ``set_adapter`` per group, and a resident full model
per variant.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.rivals.environment import RivalUnavailableError
from benchmarks.rivals.peer import Peer, lora
from benchmarks.setting import Run, Setting, medians
from benchmarks.switches import random_switch
from benchmarks.texts import texts
from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch.core import Mix, Request, Row, Want
from bitswitch.engine.engine import Engine

CLIENTS = 64
DENSITIES = (0.1, 0.015)
_COUNTS = (1, 4, 16, 64)
_WORDS = 14  # 16 tokens, with the two special ones
_ROUNDS = 7
_RESIDENT_FREE = 12e9
"""Bytes of free memory without which the resident models are left out."""
_Side = Callable[["_Round"], Run]
"""Gives what answers a round."""
_CONDITIONS = (
    f"No HTTP. A round is {CLIENTS} requests of 16 tokens, one per client, each for a switch drawn uniformly;"
    " it ends when all are answered. Every side once per round, medians over the rounds. Random switches and"
    " random LoRA weights (rank 16, all Linear layers): the time does not depend on what they say."
)


@dataclass(frozen=True)
class _Round:
    rows: Sequence[Row]
    draws: Sequence[int]

    @property
    def tokens(self) -> list[list[int]]:
        return [list(row.fields["input_ids"]) for row in self.rows]


def run(setting: Setting) -> Report:
    """Throughput over the number of switches, all sides."""
    report = Report("Many switches at once, in process", _CONDITIONS)
    base = load(setting.base)
    clients, counts = (4, (1, 2)) if setting.quick else (CLIENTS, _COUNTS)
    rows = base.encode(texts(clients, _WORDS, seed=1), want=Want.EMBED)
    rates: dict[str, dict[int, float]] = {}
    notes = []
    with ExitStack() as stack:
        sides: dict[str, _Side] = {}
        for density in DENSITIES:
            sides[f"ours, density {density}"] = stack.enter_context(
                _engine(setting.base, density, max(counts))
            )
        try:
            peer = stack.enter_context(lora(setting.rivals, setting.base, max(counts)))
        except RivalUnavailableError as error:
            notes.append(f"Left out: {error}.")
        else:
            sides["PEFT, mixed batch"] = _peer(peer, "mixed")
            sides["PEFT, set_adapter per group"] = _peer(peer, "grouped")
        needed = base.nbytes * max(counts)
        if _available() - needed > _RESIDENT_FREE or setting.quick:
            sides["a resident model each"] = _resident_models(base, max(counts))
        else:
            notes.append(f"Left out: {max(counts)} resident models, which need {needed / 1e9:.1f} GB.")
        for count in counts:
            draws = random.Random(count).choices(range(count), k=clients)
            one = _Round(rows, draws)
            spent = medians({name: side(one) for name, side in sides.items()}, setting.rounds(_ROUNDS))
            for name, seconds in spent.items():
                rates.setdefault(name, {})[count] = clients / seconds
    _tell(report, rates, counts, notes)
    return report


def _tell(
    report: Report, rates: dict[str, dict[int, float]], counts: Sequence[int], notes: Sequence[str]
) -> None:
    rows = [(name, *(f"{of[count]:.0f}" for count in counts)) for name, of in rates.items()]
    columns = ("requests per second, switches:", *map(str, counts))
    report.tables.append(Table("Throughput", columns, rows, " ".join(notes)))
    most = counts[-1]
    for density, limit in zip(DENSITIES, (0.5, 0.75), strict=True):
        mine = rates[f"ours, density {density}"]
        report.bars.append(
            Bar(f"{most} switches to one, density {density}", mine[most] / mine[1], limit, at_most=False)
        )
        for rival, least in (("PEFT, mixed batch", 1.5), ("a resident model each", None)):
            if rival in rates:
                name = f"{most} switches, density {density}, to {rival}"
                report.bars.append(Bar(name, mine[most] / rates[rival][most], least, at_most=False))
    curves = {name: (counts, [of[count] for count in counts]) for name, of in rates.items()}
    chart = Chart("in-process", report.title, "switches", "requests per second", curves, log_x=True)
    report.charts.append(chart)


@contextmanager
def _engine(folder: Path, density: float, count: int) -> Iterator[_Side]:
    """Our engine with ``count`` random switches, all ready."""
    base = load(folder)
    switches = {str(number): random_switch(base, density, number) for number in range(count)}
    engine = Engine(base, switches.__getitem__, resident_bytes=2**31)
    engine.start()

    def side(one: _Round) -> Run:
        def run() -> None:
            mixes = [Mix.of([(str(draw), 1.0)]) for draw in one.draws]
            asked = [Request(mix, Want.EMBED, (row,)) for mix, row in zip(mixes, one.rows, strict=True)]
            for future in [engine.submit(request) for request in asked]:
                future.result()

        return run

    try:
        yield side
    finally:
        engine.stop()


def _peer(peer: Peer, do: str) -> _Side:
    return lambda one: lambda: peer.seconds(do, rows=one.tokens, names=[str(draw) for draw in one.draws])


def _resident_models(base: Base, count: int) -> _Side:
    """``count`` whole models in memory; the rows of each one run together."""
    models = [copy.deepcopy(base.model) for _ in range(count)]

    @torch.inference_mode()
    def forward(number: int, rows: list[Row]) -> None:
        fields = base.encoder.pad(rows)
        base.pooling(models[number](**fields).last_hidden_state, fields["attention_mask"])

    def side(one: _Round) -> Run:
        def run() -> None:
            groups: dict[int, list[Row]] = {}
            for draw, row in zip(one.draws, one.rows, strict=True):
                groups.setdefault(draw, []).append(row)
            for number, rows in groups.items():
                forward(number, rows)

        return run

    return side


def _available() -> float:
    """Bytes of memory that may be had (Linux); none elsewhere."""
    try:
        told = Path("/proc/meminfo").read_text()
    except OSError:
        return 0.0
    line = next(line for line in told.splitlines() if line.startswith("MemAvailable:"))
    return 1024 * float(line.split()[1])
