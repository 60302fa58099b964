"""What the subjects share: reports, pictures, texts, random switches, the rivals' environments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.pictures import draw
from benchmarks.report import Bar, Chart, Report, Table, write
from benchmarks.rivals.environment import PINS, RivalUnavailableError, environment
from benchmarks.setting import interleave, medians, percentile
from benchmarks.switches import random_switch
from benchmarks.texts import texts
from hypothesis import given
from hypothesis import strategies as st

CHART = Chart("one", "a title", "x", "y", {"a curve": ([1, 2], [3.0, 4.0])})


@pytest.mark.parametrize(
    ("bar", "met"),
    [
        (Bar("a", 0.8, 0.85), True),
        (Bar("a", 0.9, 0.85), False),
        (Bar("a", 4.1, 4, at_most=False), True),
        (Bar("a", 3.9, 4, at_most=False), False),
        (Bar("a", 3.9), None),
    ],
)
def test_a_bar_knows_whether_it_is_met(bar: Bar, met: bool | None) -> None:
    assert bar.met is met
    assert ("not met" in bar.cells()[-1]) is (met is False)


def test_a_report_is_written_with_its_pictures_and_names_its_command(tmp_path: Path) -> None:
    table = Table("rows", ("a", "b"), [(1, 2)], "a note")
    write(
        Report("all", "so", [table], [Bar("r", 1.0, 2.0)], [CHART]), "s", tmp_path, command="c", machine="m"
    )
    page = (tmp_path / "s.md").read_text()
    for part in ("# all", "`c`", "| 1 | 2 |", "a note", "| r | 1 | ≤ 2 | met |", "](one.svg)"):
        assert part in page
    assert (tmp_path / "one.svg").is_file()


@pytest.mark.parametrize("kind", ["line", "step"])
@pytest.mark.parametrize("log", [False, True])
def test_a_picture_is_the_same_bytes_each_time(tmp_path: Path, kind: str, log: bool) -> None:
    chart = Chart("one", "a title", "x", "y", CHART.curves, kind=kind, log_x=log, log_y=log)  # type: ignore[arg-type]
    for name in ("a", "b"):
        draw(chart, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert "a title" in (tmp_path / "a").read_text()


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values_and_enough_lie_below(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_sides_take_turns_and_may_bring_a_clock_of_their_own() -> None:
    order: list[str] = []

    def own_clock() -> float:
        order.append("b")
        return float(len(order))

    assert interleave({"a": lambda: order.append("a"), "b": own_clock}, 2)["b"] == [4.0, 6.0]
    assert order == ["a", "b"] * 3
    assert medians({"b": own_clock}, 1) == {"b": 8.0}


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 5))
def test_texts_have_the_words_asked_for_and_repeat(shortest: int, more: int, seed: int) -> None:
    made = texts(5, (shortest, shortest + more), seed=seed)
    assert made == texts(5, (shortest, shortest + more), seed=seed)
    assert all(shortest <= len(text.split()) <= shortest + more for text in made)


@pytest.mark.parametrize("density", [0.4, 0.1, 0.015])
def test_a_random_switch_has_its_density(tiny_base: Path, density: float) -> None:
    from bitswitch.base.load import load

    base = load(tiny_base)
    switch = random_switch(base, density, 1)
    weights = sum(tensor.numel for tensor in switch.tensors)
    spread = 5 * np.sqrt(density * (1 - density) / weights)
    assert abs((switch.active - len(switch.tensors)) / weights - density) < spread + 0.01
    assert {tensor.name for tensor in switch.tensors} == set(base.parameters)


def test_a_rival_is_not_installed_where_none_is_wanted() -> None:
    with pytest.raises(RivalUnavailableError, match="peft: left out"):
        environment("peft", None)


def test_an_environment_with_the_same_pins_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft/installed.txt").write_text((PINS / "peft.txt").read_text())
    assert environment("peft", tmp_path) == tmp_path / "peft/bin"


@pytest.mark.parametrize("name", ["infinity", "peft"])
def test_every_rival_is_pinned(name: str) -> None:
    lines = [line for line in (PINS / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all("==" in line for line in lines)
