"""Which step is chosen: the quickest way to serve tokens, the first one's claim, short steps for guests."""

import pytest

from bitswitch.core import Mix
from bitswitch.engine import schedule
from bitswitch.engine.costs import Costs, Line
from bitswitch.engine.schedule import Scheduler
from jobs import A, B, job, names

NOWHERE = Mix()


def scheduler(*, forward=(1.0, 0.1), transition=(0.0, 1.0), overlay=(0.0, 0.0), tokens=1000, rows=100):
    """A scheduler that believes these costs: fixed seconds, and seconds a token, weight or token·weight."""
    lines = (Line(fixed=fixed, slope=slope, size=1) for fixed, slope in (forward, transition, overlay))
    return Scheduler(Costs(*lines), batch_tokens=tokens, batch_rows=rows)


def choose(one, *lines, resident=NOWHERE, active=0, overlays=True):
    return one.choose(lines, resident, active, overlays=overlays)


def mixes(count, **more):
    return [job(str(i), Mix.of([(f"m{i}", 1.0)]), **more) for i in range(count)]


def test_equal_mixes_go_together_in_place():
    step = choose(scheduler(), [job("1", A), job("2", B), job("3", A), job("4", B)], overlays=False)
    assert names(step) == ["1", "3"]
    assert step.mix == A
    assert not step.overlaid


def test_many_mixes_share_a_pass_over_the_base_when_the_overlay_is_cheap():
    step = choose(scheduler(overlay=(0.0, 1e-6)), mixes(10))
    assert len(step.jobs) == 10
    assert step.overlaid
    assert step.mix == NOWHERE


def test_they_go_one_after_another_when_the_overlay_is_dear():
    step = choose(scheduler(overlay=(0.0, 1.0), transition=(0.0, 1e-6)), mixes(10))
    assert names(step) == ["0"]
    assert not step.overlaid


def test_one_mix_alone_is_never_overlaid():
    step = choose(scheduler(transition=(1e3, 0.0)), [job("1", A), job("2", A)])
    assert step.mix == A
    assert not step.overlaid


def test_a_straggler_between_mixed_steps_is_overlaid_and_the_next_one_is_not():
    # In place a lone request takes 1.4 seconds, and 1 for the way there and 1 back; overlaid 1.4 and 1.6.
    one = scheduler(overlay=(0.0, 4e-4), transition=(1.0, 0.0))
    assert not choose(one, [job("1", A)]).overlaid
    assert choose(one, [job("2", A), job("3", B)]).overlaid
    assert choose(one, [job("4", A)]).overlaid
    assert not choose(one, [job("5", A)]).overlaid


def test_a_long_queue_for_one_mix_pays_back_its_transition():
    costs = {"overlay": (0.0, 2e-4), "transition": (2.0, 0.0)}
    few = [job("a0", A), job("b", B)]
    many = [job(f"a{i}", A) for i in range(50)] + [job("b", B)]
    assert choose(scheduler(**costs), few).overlaid
    assert choose(scheduler(**costs), many).mix == A


def test_the_way_back_is_part_of_the_price_where_others_could_be_overlaid():
    # In place 48 tokens take 5.8 seconds and 1 for the way there, overlaid 52 take 6.2 and 1.7: slower by
    # themselves, quicker than with 1 more for the way back.
    costs = {"overlay": (0.0, 1.7 / 52_000), "transition": (1.0, 0.0)}
    waiting = [*(job(f"a{i}", A) for i in range(12)), job("b", B)]
    assert choose(scheduler(**costs), waiting).overlaid
    assert not choose(scheduler(**costs), waiting, overlays=False).overlaid


def test_the_first_is_passed_over_until_it_is_owed_its_transition():
    one = scheduler(forward=(1.0, 0.0), transition=(3.5, 0.0))
    waiting = [job("b", B), *(job(f"a{i}", A, rows=10) for i in range(3))]
    chosen = []
    for _ in range(5):
        step = choose(one, waiting, resident=A, active=1000, overlays=False)
        chosen.append(step.mix)
    # A second each while the weights stay: three of them fit into the 3.5 that B's transition takes.
    assert chosen == [A, A, A, B, A]


def test_everybody_gets_a_share_of_a_pass():
    backlog = mixes(50, tenant="big")
    step = choose(scheduler(rows=4), backlog, [job("x", A, tenant="x")], [job("y", B, tenant="y")])
    assert names(step) == ["0", "x", "y", "1"]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"rows": 5}, ["0", "1"]), ({"tokens": 17}, ["0", "1"]), ({}, ["0", "1", "2", "3"])],
)
def test_a_step_stays_within_rows_and_tokens(limits, expected):
    jobs = [job(str(i), A, rows=2) for i in range(4)]
    assert names(choose(scheduler(**limits), jobs)) == expected


def test_a_request_larger_than_a_step_goes_alone():
    assert names(choose(scheduler(rows=8), [job("large", A, rows=50), job("next", A)])) == ["large"]


def test_no_step_holds_more_than_half_a_second_of_passes():
    """Somebody else may come the moment it begins."""
    lone = [job(str(i), A, rows=50) for i in range(100)]  # of 200 tokens
    quick = scheduler(forward=(4e-3, 1e-4), tokens=1_000_000, rows=1_000_000)
    for resident in (NOWHERE, A):
        jobs = choose(quick, lone, resident=resident).jobs
        assert 0.45 < 4e-3 + 1e-4 * 200 * len(jobs) <= schedule.LONGEST
    # Where a pass takes as long whatever it holds, small ones would be a waste.
    slow = scheduler(forward=(2.0, 1e-3), tokens=1_000_000, rows=1_000_000)
    assert len(choose(slow, lone).jobs) == 100


def test_steps_are_short_while_one_tenant_asks_far_less_than_another(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(schedule, "LONGEST", 60.0)
    one = scheduler(forward=(1.0, 0.0999), transition=(0.0, 0.0))
    backlog = [job(str(i), A, tenant="big") for i in range(50)]
    guest = [job("s", A, tenant="small")]
    assert len(choose(one, backlog).jobs) == 50
    # Twice the 1.4 s of a lone request, whether the guest is here or may be back any moment; and less when
    # it is the guest who has waited.
    assert len(choose(one, backlog, guest).jobs) == 4
    assert len(choose(one, backlog).jobs) == 4
    assert names(choose(one, guest, backlog)) == ["s"]
    now[0] += 5 * schedule.MEMORY
    choose(one, backlog)
    assert len(choose(one, backlog).jobs) == 50


def test_steps_are_long_where_all_ask_alike():
    one = scheduler(forward=(1.0, 0.0999), transition=(0.0, 0.0))
    lines = [[job(f"{tenant}{i}", A, tenant=tenant) for i in range(20)] for tenant in "xy"]
    for _ in range(3):
        assert len(choose(one, *lines).jobs) == 40


def test_many_small_tenants_beside_a_large_one_share_long_steps(monkeypatch):
    monkeypatch.setattr(schedule, "LONGEST", 60.0)
    one = scheduler(forward=(1.0, 0.0999), transition=(0.0, 0.0))
    lines = [[job(f"t{i}", A, tenant=f"t{i}")] for i in range(40)]
    lines.append([job(f"big{i}", A, tenant="big") for i in range(20)])
    choose(one, *lines)
    # 41 tenants: 20.5 times a lone request, not twice.
    assert len(choose(one, *lines).jobs) == 60


def test_a_short_step_counts_the_transition_and_the_overlay():
    backlog = mixes(50, tenant="big")
    guest = [job("s", A, tenant="small")]
    for costs in ({"overlay": (0.0, 1e-4)}, {"overlay": (1.0, 0.0)}):
        one = scheduler(forward=(1.0, 0.0999), transition=(1e3, 0.0), **costs)
        choose(one, backlog, guest)
        assert choose(one, backlog).overlaid
        assert len(choose(one, backlog).jobs) == 2
