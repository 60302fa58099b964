"""How long it takes to get a task's weights in and the base's back, beside what others do for that.

In one process, all sides in every round. Rivals: copying all the base's weights (memcpy); the paper's
released way, which keeps a dense fp32 task vector per task and writes θ + Σ wτ back; ``load_state_dict`` of a
full checkpoint that is held in memory or lies on disk; PEFT's LoRA, merged or only selected.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.report import Bar, Report, Table
from benchmarks.resident import TOKENS, Resident
from benchmarks.rivals.environment import RivalUnavailableError
from benchmarks.rivals.peer import lora
from benchmarks.setting import Run, Setting, medians
from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch.engine.planes import Planes
from bitswitch_store import file

DENSITIES = (0.4, 0.1, 0.015)
_WHOLE = "table written as well"
MIXED = 8
_ROUNDS = 15
_CONDITIONS = (
    "Every side runs once per round, medians over the rounds. Milliseconds, and the ratio to the first line."
    " Random switches at the density named, a knob per row. LoRA: random weights, rank 16, all Linear layers."
    f" Ours: a transition, and looking up the rows of {TOKENS} tokens in the table of words, which it leaves"
    " alone; where said, that table is written as well."
)


def run(setting: Setting) -> Report:
    """All of it; afterwards the base is compared with what was loaded, bit for bit."""
    report = Report("Switching", _CONDITIONS)
    resident = Resident(load(setting.base))
    untouched = resident.weights.copy()
    planes = {density: resident.random(density, MIXED) for density in DENSITIES}
    _one_task(setting, report, resident, planes)
    _from_one_to_another(setting, report, resident, planes)
    _from_file(setting, report, resident)
    if not (resident.weights.view(np.uint8) == untouched.view(np.uint8)).all():
        raise AssertionError("the base did not come back")
    return report


def _one_task(
    setting: Setting, report: Report, resident: Resident, planes: dict[float, list[Planes]]
) -> None:
    ours = {f"ours, density {density}": resident.round_trip(some[:1]) for density, some in planes.items()}
    for path in setting.real_switches():
        one = [Planes(resident.arena, file.read(path))]
        density = one[0].counts.sum() / resident.weights.size
        name = path.name.split(".")[0]
        ours[f"ours, {name} (density {density:.3f})"] = resident.round_trip(one)
    ours[f"ours, a mix of {MIXED}, density 0.1"] = resident.round_trip(planes[0.1])
    ours[f"ours, density 0.1, {_WHOLE}"] = resident.round_trip(planes[0.1][:1], whole=True)
    runs = {**_rivals(resident, setting.scratch), **ours}
    with ExitStack() as stack:
        note = ""
        try:
            peer = stack.enter_context(lora(setting.rivals, setting.base, 2))
        except RivalUnavailableError as error:
            note = f"Left out: {error}."
        else:
            runs["PEFT: merge one LoRA, unmerge it"] = lambda: peer.seconds("merge")
            runs["PEFT: set_adapter to another and back, unmerged"] = lambda: peer.seconds("set_adapter")
        spent = medians(runs, setting.rounds(_ROUNDS))
    report.tables.append(_table("One task in, the base back", spent, note))
    _bars(report, spent)


def _bars(report: Report, spent: dict[str, float]) -> None:
    copies = spent["two memcpys of all weights"]
    tenth = spent["ours, density 0.1"]
    dense, dense_mix = spent["paper's way: θ + τ, then θ"], spent[f"paper's way, a mix of {MIXED}, then θ"]
    memory, disk = (
        spent["load_state_dict from memory, twice"],
        spent["load_state_dict from disk (warm), twice"],
    )
    anew = spent["from_pretrained (warm), twice"]
    mix = spent[f"ours, a mix of {MIXED}, density 0.1"]
    for density, limit in zip(DENSITIES, (1.5, 0.85, 0.5), strict=True):
        mine = spent[f"ours, density {density}"]
        report.bars.append(Bar(f"apply + revert, density {density}, to two memcpys", mine / copies, limit))
    mine = spent[f"ours, density 0.1, {_WHOLE}"]
    report.bars.append(Bar(f"apply + revert, density 0.1, {_WHOLE}, to two memcpys", mine / copies, 0.85))
    for name, mine in spent.items():
        if name.startswith("ours, ") and name.endswith(")"):
            report.bars.append(Bar(f"{name.removeprefix('ours, ')}, to two memcpys", mine / copies))
            report.bars.append(
                Bar(f"{name.removeprefix('ours, ')}, to load_state_dict, memory", mine / memory)
            )
    report.bars += [
        Bar("the paper's way to ours, one task, density 0.1: times faster", dense / tenth, 4, at_most=False),
        Bar(f"the same, a mix of {MIXED}", dense_mix / mix, 6, at_most=False),
        Bar("apply + revert, density 0.1, to load_state_dict from memory", tenth / memory, 1.3),
        Bar("load_state_dict from disk to apply + revert, density 0.1: times faster", disk / tenth),
        Bar("from_pretrained to ours, density 0.1: times faster", anew / tenth),
    ]


def _from_one_to_another(
    setting: Setting, report: Report, resident: Resident, planes: dict[float, list[Planes]]
) -> None:
    rows = []
    loads = _two_loads(resident.base, setting.scratch)
    for density, (one, other, *_) in planes.items():

        def directly(one: Planes = one, other: Planes = other) -> None:
            resident.go([one], "a")
            resident.go([other], "b")

        def over_the_base(one: Planes = one, other: Planes = other) -> None:
            resident.round_trip([one])()
            resident.round_trip([other])()

        def whole(one: Planes = one, other: Planes = other) -> None:
            resident.go([one], "a", whole=True)
            resident.go([other], "b", whole=True)

        spent = medians(
            {"over": over_the_base, "directly": directly, "loads": loads}, setting.rounds(_ROUNDS)
        )
        resident.rest()
        spent |= medians({"whole": whole}, setting.rounds(_ROUNDS))
        resident.rest()
        ratio = spent["directly"] / spent["over"]
        rows.append((density, *(f"{1e3 * s:.2f}" for s in spent.values()), f"{ratio:.2f}"))
        report.bars.append(Bar(f"A → B directly to revert + apply, density {density}", ratio, 0.75))
        faster, written = spent["loads"] / spent["directly"], spent["loads"] / spent["whole"]
        report.bars.append(
            Bar(
                f"A and B loaded from a warm disk to A → B → A, density {density}: times faster",
                faster,
                4 if density == 0.1 else None,
                at_most=False,
            )
        )
        report.bars.append(Bar(f"the same, density {density}, {_WHOLE}", written))
    columns = (
        "density",
        "revert + apply, twice: ms",
        "A → B → A: ms",
        "A, B loaded: ms",
        f"A → B → A, {_WHOLE}: ms",
        "A → B to revert + apply",
    )
    report.tables.append(Table("From one to another", columns, rows))


def _two_loads(base: Base, scratch: Path) -> Run:
    """Load two full fine-tunes from disk, one after the other, into a model of their own."""
    model, paths = load(base.folder).model, [scratch / "a.safetensors", scratch / "b.safetensors"]
    for path in paths:
        save_file({n: p + 1e-3 * torch.randn_like(p) for n, p in base.parameters.items()}, path)

    def run() -> None:
        for path in paths:
            model.load_state_dict(load_file(path), strict=False)

    return run


def _from_file(setting: Setting, report: Report, resident: Resident) -> None:
    runs: dict[str, Run] = {}
    for path in setting.real_switches():

        def ready(path: Path = path) -> None:
            Planes(resident.arena, file.read(path))

        runs[path.name] = ready
    if runs:
        spent = medians(runs, setting.rounds(5))
        report.tables.append(_table("A switch file read, checked and made ready", spent, ""))


def _rivals(resident: Resident, scratch: Path) -> dict[str, Run]:
    """What others do to get one task's weights in and the base's back."""
    base, weights = resident.base, resident.weights
    copy = weights.copy()
    full = {name: parameter.clone() for name, parameter in base.parameters.items()}
    path = scratch / "full.safetensors"
    save_file(full, path)
    taus = [{name: torch.randn_like(value) * 1e-3 for name, value in full.items()} for _ in range(MIXED)]

    def copy_twice() -> None:
        np.copyto(copy, weights)
        np.copyto(weights, copy)

    @torch.no_grad()
    def dense(count: int) -> None:
        for name, parameter in base.parameters.items():
            parameter.copy_(full[name] + sum(tau[name] / count for tau in taus[:count]))
        for name, parameter in base.parameters.items():
            parameter.copy_(full[name])

    def from_memory() -> None:
        base.model.load_state_dict(full, strict=False)
        base.model.load_state_dict(full, strict=False)

    def from_disk() -> None:
        base.model.load_state_dict(load_file(path), strict=False)
        base.model.load_state_dict(load_file(path), strict=False)

    def anew() -> None:
        type(base.model).from_pretrained(base.folder)
        type(base.model).from_pretrained(base.folder)

    return {
        "two memcpys of all weights": copy_twice,
        "paper's way: θ + τ, then θ": lambda: dense(1),
        f"paper's way, a mix of {MIXED}, then θ": lambda: dense(MIXED),
        "load_state_dict from memory, twice": from_memory,
        "load_state_dict from disk (warm), twice": from_disk,
        "from_pretrained (warm), twice": anew,
    }


def _table(title: str, spent: dict[str, float], note: str) -> Table:
    first = next(iter(spent.values()))
    rows = [(name, f"{1e3 * one:.2f}", f"{one / first:.2f}") for name, one in spent.items()]
    return Table(title, ("", "ms", "ratio"), rows, note)
