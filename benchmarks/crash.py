"""Is anything lost when a process that writes to the store is killed, at whatever instant? It counts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import killed
from benchmarks.report import Report, Table
from benchmarks.setting import Setting
from benchmarks.stored import small_switch
from bitswitch.base.load import load
from bitswitch_store import file

_KILLS = 300
_FILES = 12


def run(setting: Setting) -> Report:
    """Kill, look, count; on SQLite, and on PostgreSQL where a server can be had."""
    files = killed.put_files(_switches(setting), setting.scratch / "files")
    sizes = [path.stat().st_size for path in files.iterdir()]
    report = Report(
        "Kills while the store is written",
        f"Two processes write to one store: publish one of {_FILES} files, half of them of"
        f" {max(sizes):,} bytes and half of {min(sizes):,} (so that kills fall on commits as well as on"
        " writing), under one name of their own, point"
        " aliases, delete versions with force, and collect with no grace at all, so that each takes away"
        " the bytes that the other may be publishing. Both are killed with SIGKILL at random instants,"
        " opening the store included; then it is opened again, and what it holds is compared with what it"
        " had said was done. A SIGKILL is no power cut: that fsync keeps its word is not tried here.",
    )
    rows = []
    for database, tally in _tallies(setting, files):
        rows.append(_row(database, tally))
        during = ", ".join(f"{act} {count}" for act, count in tally.during.most_common())
        applied = ", ".join(f"{act} {count}" for act, count in tally.applied.most_common())
        report.conditions += (
            f"\n\n{database}: under way when killed: {during}. Had taken effect: {applied or 'none'}."
        )
        for fault in tally.faults:
            print(database, fault, flush=True)
    columns = ("database", "kills", "acknowledged writes", "of those lost", "half states", "other faults")
    note = "Held to: 300 kills and more, nothing lost, no half state."
    report.tables.append(Table("What was found", columns, rows, note))
    return report


def _row(database: str, tally: killed.Tally) -> tuple[object, ...]:
    counts = (tally.kills, tally.acknowledged, tally.lost_writes, tally.half_states, len(tally.faults))
    return database, *counts


def _tallies(setting: Setting, files: Path) -> Iterator[tuple[str, killed.Tally]]:
    kills = 4 if setting.quick else _KILLS
    with ExitStack() as stack:
        places = {"SQLite": None}
        if not setting.quick:
            places["PostgreSQL"] = _postgres(stack)
        for name, url in places.items():
            if name == "PostgreSQL" and url is None:
                continue
            folder = setting.scratch / name
            folder.mkdir()
            seed = random.randrange(1 << 32)
            print(f"{name}: seed {seed}", flush=True)
            where = killed.Where(folder / "store", files, url)
            *_, tally = killed.rounds(where, folder, kills=kills, seed=seed)
            yield name, tally


def _postgres(stack: ExitStack) -> str | None:
    """A server as the tests have it; None, and why, where there is none."""
    from tests import postgres  # noqa: PLC0415 - the tests are not needed for the rest

    try:
        return stack.enter_context(postgres.database()).render_as_string(hide_password=False)
    except postgres.NoPostgresError as error:
        print(f"PostgreSQL is left out: {error}", flush=True)
        return None


def _switches(setting: Setting) -> Iterator[bytes]:
    """Half of them real ones where there are any, each made different by its task's name."""
    small = small_switch(load(setting.base), 0)
    real = [file.read(path) for path in setting.real_switches()[:1]]
    for number in range(_FILES):
        switch = real[0] if real and number % 2 else small
        yield file.write(replace(switch, task=f"task-{number}"))
