"""Kill −9 at random instants; `benchmarks/crash.py` does the same for longer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.killed import State, Tally, Where, Writer
from small import small_switch
from sqlalchemy import URL

from benchmarks import killed
from bitswitch_store import file


@pytest.fixture
def where(tmp_path: Path, database_url: URL) -> Where:
    files = killed.put_files((file.write(small_switch(seed)) for seed in range(8)), tmp_path / "files")
    return Where(tmp_path / "store", files, database_url.render_as_string(hide_password=False))


def test_a_kill_at_any_instant_leaves_the_old_state_or_the_new(where: Where, tmp_path: Path):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    *_, tally = killed.rounds(where, tmp_path, kills=10, seed=seed)
    assert tally.faults == []
    assert (tally.lost_writes, tally.half_states) == (0, 0)
    assert tally.kills == 10
    assert tally.acknowledged > 0


def put(where: Where, number: int, tenant: str = "a") -> str:
    path = sorted(where.files.iterdir())[number]
    with where.opened() as store:
        return store.put(path, tenant=tenant, name=killed.NAME).digest


def settled(where: Where, journal: Path, *lines: str) -> Tally:
    """What is found after a journal that says so."""
    journal.write_text("".join(f"{line}\n" for line in lines))
    tally = Tally()
    with where.opened() as store:
        Writer(where, "a", journal).settle(store, tally)
        killed.check(store, tally)
    return tally


def test_the_count_itself_can_fail(where: Where, tmp_path: Path):
    journal, first = tmp_path / "a", put(where, 0)
    assert settled(where, journal, f'["done", "put", "{first}"]').faults == []
    assert settled(where, journal, f'["begin", "put", "{first}"]').applied == {"put": 1}
    lost = settled(where, journal, f'["done", "put", "{first}"]', '["done", "alias", "prod", 1]')
    assert (lost.lost_writes, lost.half_states) == (1, 0)
    undone = settled(where, journal, f'["done", "put", "{first}"]', '["done", "delete", 1]')
    assert (undone.lost_writes, undone.half_states) == (1, 0)
    with where.opened() as store:
        store.blobs.delete(first)
    assert settled(where, journal, f'["done", "put", "{first}"]').half_states == 1


def test_the_model_is_what_the_store_does(where: Where):
    state = State()
    first, second = (f"sha256:{path.name}" for path in sorted(where.files.iterdir())[:2])
    acts = [
        ("put", first), ("put", first), ("put", second), ("alias", "prod", 1), ("alias", "beta", 2),
        ("alias", "prod", 2), ("delete", 2), ("collect",), ("put", second), ("delete", 1), ("delete", 3),
    ]  # fmt: skip
    with where.opened() as store:
        for act, *values in acts:
            killed._do(store, "a", sorted(where.files.iterdir()), act, *values)
            state = state.after(act, *values)
            assert killed.seen(store, "a") == (state.versions, state.aliases)
