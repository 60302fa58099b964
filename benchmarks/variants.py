"""What one more variant of the base costs in bytes, on disk and in memory: arithmetic and files, no clock.

Rivals: another full checkpoint, the paper's dense task vector, PEFT's LoRA of rank 16 on all Linear layers.
"""

from __future__ import annotations

import numpy as np

from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.rivals.environment import RivalUnavailableError
from benchmarks.rivals.peer import lora
from benchmarks.setting import Setting
from benchmarks.switches import random_switch
from bitswitch.base.load import load
from bitswitch.engine.arena import Arena
from bitswitch.engine.planes import Planes
from bitswitch_store import file
from bitswitch_store.switch import Switch

DENSITIES = (0.005, 0.015, 0.05, 0.1, 0.2, 0.4)
_CONDITIONS = (
    "Everything counted: bit planes, knobs, head, query set, header. In memory: what a resident switch holds,"
    " its head apart. Random switches touch every row; real ones leave out the words that their task never"
    " used."
)


def run(setting: Setting) -> Report:
    """Write and lay out a switch per density, and every real one."""
    report = Report("Bytes per variant", _CONDITIONS)
    base = load(setting.base)
    full = sum(parameter.nbytes for parameter in base.parameters.values())
    weights = sum(parameter.numel() for parameter in base.parameters.values())
    arena = Arena(base.parameters)
    rows = [_row("a full checkpoint, fp32", full, full, full, weights)]
    rows.append(_row("the paper's way: a dense task vector, fp32", full, full, full, weights))
    note = ""
    try:
        with lora(setting.rivals, setting.base, 2) as peer:
            size = int(peer.about["bytes"])
            rows.append(_row("PEFT: a LoRA, rank 16, fp32", size, size, full, weights))
    except RivalUnavailableError as error:
        note = f"Left out: {error}."
    on_disk, in_memory = [], []

    def add(name: str, switch: Switch, size: int) -> int:
        resident = Planes(arena, switch).nbytes
        rows.append(_row(name, size, resident, full, weights))
        report.bars.append(Bar(f"{name}: bits per weight, resident", 8 * resident / weights, 2.1))
        return resident

    for density in DENSITIES:
        switch = random_switch(base, density, seed=0)
        size = len(file.write(switch))
        resident = add(f"a random switch, density {density}", switch, size)
        on_disk.append(size / 1e6)
        in_memory.append(resident / 1e6)
        if density == 0.1:
            report.bars.append(Bar("density 0.1: resident bytes to a checkpoint's", resident / full, 1 / 16))
    for path in setting.real_switches():
        add(path.name.split(".")[0], file.read(path), path.stat().st_size)
    report.tables.append(
        Table("One more variant", ("", "disk, MB", "of fp32", "memory, MB", "bits per weight"), rows, note)
    )
    report.charts.append(
        Chart(
            "bytes",
            "Bytes per switch",
            "density (share of weights touched)",
            "MB",
            {
                "a full checkpoint": (DENSITIES, np.full(len(DENSITIES), full / 1e6).tolist()),
                "a switch in memory": (DENSITIES, in_memory),
                "a switch on disk": (DENSITIES, on_disk),
            },
            log_x=True,
            log_y=True,
        )
    )
    return report


def _row(name: str, disk: int, memory: int, full: int, weights: int) -> tuple[str, ...]:
    return (
        name,
        f"{disk / 1e6:.2f}",
        f"{disk / full:.2%}",
        f"{memory / 1e6:.2f}",
        f"{8 * memory / weights:.2f}",
    )
