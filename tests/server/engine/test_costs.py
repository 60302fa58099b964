"""A cost line follows what is measured, and is sensible before and beside that."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitswitch.engine.costs import Costs, Line


def test_the_first_guess_holds_until_something_is_measured():
    line = Line(fixed=2.0, slope=0.5, size=10)
    assert line(0) == 2.0
    assert line(10) == 7.0


def test_it_learns_a_line_however_wrong_the_guess():
    line = Line(fixed=0.1, slope=1e-3, size=100)
    chance = random.Random(0)
    for _ in range(300):
        size = chance.uniform(0, 500)
        line.observe(size, (0.01 + 2e-4 * size) * chance.uniform(0.9, 1.1))
    assert line(0) == pytest.approx(0.01, rel=0.3)
    assert line(500) == pytest.approx(0.11, rel=0.1)


def test_it_follows_a_machine_that_gets_slower():
    line = Line(fixed=0.0, slope=1.0, size=10)
    for factor in (1, 3):
        for _ in range(200):
            for size in (5, 10, 20):
                line.observe(size, factor * size)
        assert line(10) == pytest.approx(10 * factor, rel=0.05)


def test_sizes_all_alike_give_that_size_right():
    line = Line(fixed=1.0, slope=1.0, size=10)
    for _ in range(200):
        line.observe(40, 3.0)
    assert line(40) == pytest.approx(3.0, rel=0.1)


def test_sizes_all_alike_leave_the_two_parts_as_they_were_guessed():
    line = Line(fixed=1.0, slope=1.0, size=10)
    for _ in range(200):
        line.observe(4, 15.0)
    assert line.fixed == pytest.approx(3.0, rel=0.05)
    assert line.slope == pytest.approx(3.0, rel=0.05)


def test_passes_that_were_held_up_do_not_make_all_passes_small():
    costs = Costs(forward=Line(fixed=10.0, slope=0.2, size=256))
    right = costs.enough(0.1)
    chance = random.Random(0)
    for number in range(300):
        size = 16 if number % 3 else 512
        held_up = 10 if size == 512 and number % 30 == 0 else 1
        costs.forward.observe(size, (10 + 0.2 * size) * held_up * chance.uniform(1, 1.3))
        assert right / 2 < costs.enough(0.1) < right * 2


@given(st.sampled_from([0.0, 1e-3]), st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e3)), max_size=30))
def test_no_part_of_a_cost_is_below_nothing(fixed, observed):
    line = Line(fixed=fixed, slope=1e-6, size=1e3)
    for size, seconds in observed:
        line.observe(size, seconds, within=2 * seconds)
        assert line.fixed >= 0
        assert line.slope >= 0


def test_a_difference_that_is_lost_in_noise_now_and_then_is_not_forgotten():
    """A pass varies by as much as what is laid over it takes, so every fourth seems to take nothing."""
    chance = random.Random(0)
    line = Line(fixed=1e-3, slope=5e-8, size=1e5)
    for _ in range(40):
        line.observe(1e5, 0.0, within=20e-3)
    found = []
    for _ in range(300):
        taken = 25e-3 * chance.uniform(0.7, 1.3)
        line.observe(1e5, max(taken - 20e-3, 0.0), within=taken)
        found.append(line(1e5))
    assert found[-1] == pytest.approx(5e-3, rel=0.5)
    assert min(found[100:]) > 2e-3


def test_a_pass_is_large_enough_when_its_fixed_part_is_the_stated_share():
    costs = Costs()
    tokens = costs.enough(0.1)
    assert costs.forward.fixed / costs.forward(tokens) == pytest.approx(0.1)
    assert costs.forward(costs.waste()) == pytest.approx(2 * costs.forward.fixed)


def test_where_rows_bring_their_switches_a_pass_is_as_large_as_both_costs_say():
    costs = Costs()
    tokens = costs.enough(0.1, active=1e5)
    fixed = costs.forward.fixed + costs.overlay.fixed
    whole = costs.forward(tokens) + costs.overlay(tokens * 1e5)
    assert fixed / whole == pytest.approx(0.1)
