"""Each subject runs through at tiny size, without rivals, so that none of them can rot."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest
from benchmarks.__main__ import SUBJECTS
from benchmarks.setting import Setting
from benchmarks.stored import fill

from benchmarks import fuzz

ELSEWHERE = ("stored", "overload", "isolation", "fuzz")
"""Servers that are started to be timed: others start some as well. The fuzz has a test of its own."""


EXACT = ("soak", "contract")
"""What they find does not depend on how fast the machine is."""


@pytest.mark.parametrize("subject", [name for name in SUBJECTS if name not in ELSEWHERE])
def test_a_subject_runs_through_and_fills_its_tables(subject: str, tiny_base: Path, tmp_path: Path) -> None:
    setting = Setting(tiny_base, switches=tmp_path / "none", scratch=tmp_path, quick=True)
    report = importlib.import_module(f"benchmarks.{subject}").run(setting)
    assert report.tables
    if subject in EXACT:
        assert [bar for bar in report.bars if bar.limit is not None and not bar.met] == []
    for table in report.tables:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert all(math.isfinite(bar.value) for bar in report.bars)
    for chart in report.charts:
        assert all(len(xs) == len(ys) > 0 for xs, ys in chart.curves.values())


def test_the_fuzz_finds_no_crash_and_reaches_what_is_valid(tmp_path: Path) -> None:
    counts = {"file": 3000, "codec": 2000, "model": 2000}
    found = fuzz.in_own_process(counts, cache=str(tmp_path), seed=None)
    for reader, outcome in found.items():
        assert outcome["inputs"] == counts[reader]
        assert outcome.get("crashed", 0) == 0, "its inputs are on standard error, under the seed named there"
        assert min(outcome["refused"], outcome["valid"]) > counts[reader] // 100


@pytest.mark.parametrize("queries", [False, True])
def test_a_store_is_filled_with_switches_that_differ(tiny_base: Path, tmp_path: Path, queries: bool) -> None:
    from bitswitch.base.load import load
    from bitswitch_store.store import Store

    base = load(tiny_base)
    fill(tmp_path, base, 3, queries=queries)
    store = Store(tmp_path, base=base.identity)
    digests = {entry.digest for entry in store.list("default")}
    assert len(digests) == 3
    assert all((store.get(digest).queries is not None) is queries for digest in digests)
    store.close()
