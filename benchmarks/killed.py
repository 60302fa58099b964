"""Processes that change a store until they are killed, and what the store must hold afterwards.

Each process writes to a journal what it is about to do and, when the store has said so, that it is done.
So after a kill there are two states at most that are right: with what was under way, or without it. Knows
nothing of how often it is done, nor of what is reported.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from bitswitch_store import checkup, collect, garbage
from bitswitch_store.file import digest
from bitswitch_store.store import Store

NAME = "a"
_ALIASES = ("prod", "beta")
_NOW = timedelta(0)
_PATIENCE = 60.0

# A child of a server that has imported everything starts in milliseconds, and dies alone. Each child wants
# the main module too.
_main = getattr(sys.modules["__main__"], "__spec__", None)
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["benchmarks.killed", *([_main.name] if _main else [])])


@dataclass(frozen=True)
class State:
    """What one tenant has under `NAME`, and the largest number ever given."""

    versions: dict[int, str] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    last: int = 0

    @property
    def facts(self) -> set[tuple[object, object]]:
        """Versions with their digests, aliases with their versions."""
        return {*self.versions.items(), *self.aliases.items()}

    def after(self, act: str, *values: int | str) -> State:
        """The state once that is done."""
        match act, values:
            case "put", (str(what),):
                if self.versions and self.versions[max(self.versions)] == what:
                    return self
                return State({**self.versions, self.last + 1: what}, self.aliases, self.last + 1)
            case "alias", (str(alias), int(version)):
                return State(self.versions, {**self.aliases, alias: version}, self.last)
            case "delete", (int(version),):
                left = {number: what for number, what in self.versions.items() if number != version}
                pointing = {alias: to for alias, to in self.aliases.items() if to != version}
                return State(left, pointing, self.last)
        return self  # collecting changes nothing that has a name


@dataclass(frozen=True)
class Where:
    """A store, and what is put into it."""

    root: Path
    files: Path
    database_url: str | None = None

    def opened(self) -> closing[Store]:
        """The store."""
        return closing(Store(self.root, base=None, database_url=self.database_url))


@dataclass
class Tally:
    """What a number of kills showed. All but the first three have to be zero or empty.

    Attributes:
        during: kills by what was under way.
        applied: of those, how many had taken effect.
    """

    kills: int = 0
    acknowledged: int = 0
    during: Counter[str] = field(default_factory=Counter)
    applied: Counter[str] = field(default_factory=Counter)
    lost_writes: int = 0
    half_states: int = 0
    faults: list[str] = field(default_factory=list)


class Writer:
    """One tenant's process, started again after each kill."""

    def __init__(self, where: Where, tenant: str, journal: Path) -> None:
        self._where = where
        self.tenant = tenant
        self._journal = journal
        self.state = State()

    def start(self, seed: int) -> None:
        """Start it; it works at once."""
        self._journal.unlink(missing_ok=True)
        self._process = _processes.Process(
            target=work, args=(self._where, self.tenant, self._journal, self.state, seed)
        )
        self._process.start()

    def wait(self, acts: int) -> None:
        """Until so many things are written in its journal, or it is gone."""
        deadline = time.monotonic() + _PATIENCE
        while self._process.is_alive() and len(self._said()) < acts and time.monotonic() < deadline:
            time.sleep(0.001)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.join()

    def settle(self, store: Store, tally: Tally) -> None:
        """Hold what the store has now against what was said to be done."""
        tally.kills += 1
        said, under_way = self._said(), None
        for kind, act, *values in said:
            if kind == "begin":
                under_way = (act, *values)
            elif kind == "done":
                self.state, under_way = self.state.after(act, *values), None
                tally.acknowledged += 1
            else:
                tally.faults.append(f"{self.tenant}: {act}")
        tally.during[under_way[0] if under_way else "between"] += 1
        old = self.state
        new = old.after(*under_way) if under_way else old
        found = seen(store, self.tenant)
        if found == (new.versions, new.aliases):
            if under_way and new != old:
                tally.applied[under_way[0]] += 1
            self.state = new
        elif found != (old.versions, old.aliases):
            there = State(*found, new.last)
            kept = old.facts & new.facts <= there.facts <= old.facts | new.facts
            tally.lost_writes += not kept
            tally.half_states += kept
            tally.faults.append(f"{self.tenant}: {there} is neither {old} nor {new}")
            self.state = there

    def _said(self) -> list[list[str | int]]:
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in self._journal.read_text().splitlines()]
        return []


def work(where: Where, tenant: str, journal: Path, state: State, seed: int) -> None:
    """Put, alias, delete and collect at random, for ever. What the store refuses is written down too."""
    chance = random.Random(seed)
    files = sorted(where.files.iterdir())
    handle = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(*words: str | int) -> None:
        os.write(handle, (json.dumps(words) + "\n").encode())  # in one write: a kill leaves no half a line

    try:
        with where.opened() as store:
            while True:
                act, *values = _chosen(chance, state, files)
                say("begin", act, *values)
                _do(store, tenant, files, act, *values)
                say("done", act, *values)
                state = state.after(act, *values)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
        say("fault", f"{type(error).__name__}: {error}")


def _chosen(chance: random.Random, state: State, files: list[Path]) -> tuple[str | int, ...]:
    numbers = sorted(state.versions)
    acts = ["put", "put", "collect"]
    if numbers:
        acts += ["alias", "delete", *["delete"] * (len(numbers) > 4)]  # so that there are never many
    match chance.choice(acts):
        case "put":
            return "put", f"sha256:{chance.choice(files).name}"
        case "alias":
            return "alias", chance.choice(_ALIASES), chance.choice(numbers)
        case "delete":
            return "delete", chance.choice(numbers)
    return ("collect",)


def _do(store: Store, tenant: str, files: list[Path], act: str | int, *values: str | int) -> None:
    match act, values:
        case "put", (str(what),):
            path = files[0].with_name(what.removeprefix("sha256:"))
            entry = store.put(path, tenant=tenant, name=NAME)
            store.blobs.raw(entry.digest)  # or the other one has collected what this one just named
        case "alias", (str(alias), int(version)):
            store.set_alias(tenant, NAME, alias, version)
        case "delete", (int(version),):
            store.delete(tenant, NAME, version, force=True)
        case _:
            store.collect(older_than=_NOW)


def seen(store: Store, tenant: str) -> tuple[dict[int, str], dict[str, int]]:
    """Versions and aliases, as the store lists them."""
    entries = store.list(tenant)
    pointing = {alias: entry.version for entry in entries for alias in entry.aliases}
    return {entry.version: entry.digest for entry in entries}, pointing


def check(store: Store, tally: Tally) -> None:
    """Whether every version has its file, whole, and nothing that has a name is garbage."""
    broken = [found for found in checkup.check(store.database, store.blobs) if found.broken]
    tally.half_states += len(broken)
    tally.faults += [f"{found.what}: {found.digest}" for found in broken]
    with store.database.reading() as connection:
        noted = set(garbage.noted(connection))
        named = noted - garbage.unnamed(connection, noted)
    if named:
        tally.half_states += 1
        tally.faults.append(f"garbage that has a name: {named}")


def sweep(store: Store, tally: Tally) -> None:
    """Collect all there is: what is left is what has a name."""
    store.collect(older_than=-timedelta(seconds=2))
    named = {entry.digest for tenant in ("a", "b") for entry in store.list(tenant)}
    if set(store.blobs.digests()) != named or collect.waiting(store.database):
        tally.half_states += 1
        tally.faults.append("collecting leaves files that have no name, or takes some that have")


def rounds(where: Where, journals: Path, *, kills: int, seed: int) -> Iterator[Tally]:
    """Two tenants' processes on one store, both killed in each round; the tally so far after each."""
    chance = random.Random(seed)
    writers = [Writer(where, tenant, journals / tenant) for tenant in ("a", "b")]
    tally = Tally()
    with where.opened():
        pass
    while tally.kills < kills:
        for writer in writers:
            writer.start(chance.randrange(1 << 32))
        for writer in writers:
            writer.wait(chance.choice((0, 1, chance.randrange(2, 40))))
        for writer in chance.sample(writers, 2):
            time.sleep(chance.random() * 0.02)
            writer.kill()
        with where.opened() as store:
            with store.database.writing():
                pass  # a database server may still be at the last thing that the dead told it
            for writer in writers:
                writer.settle(store, tally)
            check(store, tally)
            if chance.random() < 0.2:
                sweep(store, tally)
        yield tally


def put_files(switches: Iterator[bytes], folder: Path) -> Path:
    """Switch files in a folder, each named by its digest's hexadecimal."""
    folder.mkdir()
    for data in switches:
        (folder / digest(data).removeprefix("sha256:")).write_bytes(data)
    return folder
