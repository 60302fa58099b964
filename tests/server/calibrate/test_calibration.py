"""Calibrated switches of tiny models: nearer to the fine-tune, no byte more, never worse."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from bitswitch.calibrate.calibration import LEAST, RIDGES, Calibration, _Work
from bitswitch.calibrate.layer import Layer
from bitswitch.calibrate.pair import Distance, Pair
from bitswitch.calibrate.splice import REWORDINGS, SPLICES
from bitswitch.calibrate.tuning import STEPS
from bitswitch_store import file
from bitswitch_store.binarize import binarize
from bitswitch_store.checkpoint import Checkpoint
from bitswitch_store.switch import Rule, Switch, SwitchError
from oracle import knob_per_weight, signs
from tiny import WORDS, make_base, make_finetune


def texts(seed: int, count: int = 60) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(3, 12))) for _ in range(count)]


def make(base: Path, finetuned: Path, budget: float, calibration: Calibration | None) -> Switch:
    return binarize(
        Checkpoint.open(base),
        Checkpoint.open(finetuned),
        Rule("budget", {"budget": budget}),
        task="topic",
        refinement=calibration,
    )


def limit(base: Path, budget: float) -> int:
    checkpoint = Checkpoint.open(base)
    return int(4 * budget * sum(checkpoint.numel(name) for name in checkpoint.names))


def counted(switch: Switch) -> int:
    """Bytes of its file, the head aside."""
    return len(file.write(switch)) - (switch.head.nbytes if switch.head else 0)


def at(switch: Switch, base: Path, finetuned: Path) -> torch.nn.Module:
    """The fine-tune's model with the base's weights and the switch written statically."""
    model = AutoModelForSequenceClassification.from_pretrained(finetuned).eval()
    backbone = getattr(model, model.base_model_prefix)
    own, bare = dict(backbone.named_parameters()), dict(AutoModel.from_pretrained(base).named_parameters())
    found = {tensor.name: tensor for tensor in switch.tensors}
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(bare[name])
            if name in found:
                parameter.add_(torch.from_numpy(signs(found[name]) * knob_per_weight(found[name])))
    return model


def assert_equal(first: Switch, second: Switch) -> None:
    for one, other in zip(first.tensors, second.tensors, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.activation, other.activation)
        np.testing.assert_array_equal(one.polarity, other.polarity)
        np.testing.assert_array_equal(one.knobs, other.knobs)


def write(switch: Switch, pair: Pair) -> None:
    """Set a pair's switched model to a switch; what that leaves alone is the base's."""
    for tensor in switch.tensors:
        moved = torch.from_numpy(signs(tensor) * knob_per_weight(tensor))
        pair.set(tensor.name, pair.base[tensor.name] + moved)


@torch.no_grad()
def divergence(model: torch.nn.Module, finetuned: Path, inputs: list[str]) -> float:
    tokenizer = AutoTokenizer.from_pretrained(finetuned)
    target = AutoModelForSequenceClassification.from_pretrained(finetuned).eval()
    fields = tokenizer(inputs, padding=True, return_tensors="pt")
    mine, theirs = (one(**fields).logits.log_softmax(-1) for one in (model, target))
    return float(torch.nn.functional.kl_div(mine, theirs, log_target=True, reduction="batchmean"))


# A family, and a budget at which some of its matrices' weights must go.
@pytest.fixture(scope="module", params=[("bert", 0.06), ("distilbert", 0.04)], ids=lambda param: param[0])
def case(request, tmp_path_factory):
    family, budget = request.param
    folder = tmp_path_factory.mktemp(family)
    base = make_base(folder / "base", family)
    return base, make_finetune(folder / "topic", base, ("bank", "film", "spam"), noise=0.1), budget


def test_the_same_bytes_say_more(case):
    base, finetuned, budget = case
    plain = make(base, finetuned, budget, None)
    better = make(base, finetuned, budget, Calibration(base, finetuned, texts(0)))
    assert counted(better) <= limit(base, budget)
    for inputs in (texts(0), texts(1)):  # those it was given, and others
        before, after = (divergence(at(one, base, finetuned), finetuned, inputs) for one in (plain, better))
        assert after < 0.5 * before
    told = file.read(file.write(better)).rule.parameters
    passes = int(told["passes"])
    settings = {"calibrated": 48, "held_out": 12, "passes": passes, "ridge": RIDGES[passes - 1], "seed": 0}
    tuned = {"tuned": STEPS} if "tuned" in told else {}  # not always better
    assert told == {"budget": budget, **settings, **tuned}


def test_a_fit_that_fails_the_texts_held_out_is_not_taken(tmp_path):
    base = make_base(tmp_path / "base", "distilbert")
    finetuned = make_finetune(tmp_path / "topic", base, ("bank", "film", "spam"), noise=0.1)
    # All that is fitted to is one text, and the data-free switch has room for nearly all of τ.
    narrow = [text if place % 5 == 4 else "bank" for place, text in enumerate(texts(1, 50))]
    plain = make(base, finetuned, 0.3, None)
    found = make(base, finetuned, 0.3, Calibration(base, finetuned, narrow))
    assert "passes" not in found.rule.parameters
    assert "tuned" in found.rule.parameters
    for ours, given in zip(found.tensors, plain.tensors, strict=True):
        if len(given.shape) == 1:
            continue
        assert np.array_equal(ours.activation, given.activation)
        assert np.array_equal(ours.polarity, given.polarity)
    assert any(
        not np.array_equal(a.knobs, b.knobs) for a, b in zip(found.tensors, plain.tensors, strict=True)
    )


def test_what_nothing_betters_stays_as_it_was(tmp_path):
    base = make_base(tmp_path / "base", "distilbert")
    finetuned = make_finetune(tmp_path / "topic", base, ("bank", "film", "spam"), touched=0.0)  # a head alone
    plain = make(base, finetuned, 0.3, None)
    found = make(base, finetuned, 0.3, Calibration(base, finetuned, texts(1, 50)))
    assert found.rule == plain.rule
    assert_equal(found, plain)


def distance(relabelled: list[int], divergence: list[float]) -> Distance:
    return Distance(torch.tensor(relabelled).double(), torch.tensor(divergence).double())


@pytest.mark.parametrize(
    ("found", "below"),
    [
        (distance([0, 0, 1], [0.1, 0.2, 0.3]), True),
        (distance([0, 0, 0], [0.9, 1.9, 2.9]), True),
        (distance([1, 0, 1], [0.1, 0.2, 0.3]), False),  # nearer, but another label more
        (distance([0, 0, 0], [1.5, 0.1, 3.0]), False),  # nearer in the mean, by one text alone
        (distance([0, 0, 1], [1.0, 2.0, 3.0]), False),  # the same
    ],
)
def test_chance_does_not_make_a_fit_better(found, below):
    assert found.surely_below(distance([0, 0, 1], [1.0, 2.0, 3.0])) is below


@pytest.mark.parametrize(("lost", "won", "below"), [(6, 4, True), (4, 6, True), (7, 3, False), (3, 0, False)])
def test_chance_does_not_make_a_fit_worse(lost, won, below):
    before = distance([0] * lost + [1] * won + [0, 1], [1.0] * (lost + won + 2))
    after = distance([1] * lost + [0] * won + [0, 1], [0.5] * (lost + won + 2))
    assert after.surely_below(before) is below


def test_the_distance_told_is_that_of_the_switch(case):
    base, finetuned, budget = case
    told = []
    inputs = [text for text in texts(0, 200) if len(text.split()) == 8]  # none is cut
    told_to = Calibration(base, finetuned, inputs, progress=lambda *state: told.append(state))
    switch = make(base, finetuned, budget, told_to)
    passes = len(RIDGES) + 1  # and the tuning
    assert [(number, of) for number, of, _ in told] == [(i, passes) for i in range(1, passes + 1)]
    pair = Pair(base, finetuned, inputs[:1], inputs[4::5], head=True)
    write(switch, pair)
    each = pair.distance().divergence
    assert told[-1][2] == pytest.approx(float(each.mean()), rel=1e-2, abs=1e-6)
    whole = each[: len(inputs[4::5])]  # after them come their splices
    found = divergence(at(switch, base, finetuned), finetuned, inputs[4::5])
    assert float(whole.mean()) == pytest.approx(found, rel=1e-2, abs=1e-6)


def test_equal_inputs_give_equal_bits(case):
    base, finetuned, budget = case
    assert_equal(*(make(base, finetuned, budget, Calibration(base, finetuned, texts(0))) for _ in "ab"))


def test_a_fine_tune_without_a_head_is_calibrated_by_its_embeddings(tiny_base, tmp_path):
    model = AutoModel.from_pretrained(tiny_base)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("encoder.") and parameter.ndim == 2:
                parameter.add_(0.1 * torch.randn_like(parameter) * (torch.rand_like(parameter) < 0.3))
    model.save_pretrained(tmp_path)
    told = []
    calibration = Calibration(tiny_base, tmp_path, texts(0), progress=lambda *state: told.append(state))
    switch = make(tiny_base, tmp_path, 0.05, calibration)
    assert counted(switch) <= limit(tiny_base, 0.05)
    assert switch.rule.parameters["calibrated"] == 48
    pair = Pair(tiny_base, tmp_path, texts(0), texts(0)[4::5], head=False)
    write(make(tiny_base, tmp_path, 0.05, None), pair)
    assert told[-1][2] < 0.7 * float(pair.distance().divergence.mean())


def test_a_long_text_is_cut_and_closed(case):
    base, finetuned, _ = case
    long = " ".join(WORDS[:50])
    pair = Pair(base, finetuned, texts(0, 30), [*texts(1, 30), long], head=True)
    found = pair.distance()
    assert found.divergence.shape == found.relabelled.shape == (31 * (1 + SPLICES + REWORDINGS),)


def test_what_cannot_be_calibrated_is_named(case):
    base, finetuned, _ = case
    with pytest.raises(ValueError, match=r"has 9 example inputs and needs 10 or more.* about 100 texts"):
        Calibration(base, finetuned, texts(0, LEAST - 1))
    with pytest.raises(SwitchError, match="calibrate with 'budget'"):
        binarize(
            Checkpoint.open(base),
            Checkpoint.open(finetuned),
            Rule("paper", {"alpha": 0.9}),
            task="topic",
            refinement=Calibration(base, finetuned, texts(0)),
        )
    with pytest.raises(SwitchError, match="the budget allows"):
        make(base, finetuned, 0.001, Calibration(base, finetuned, texts(0)))


def test_what_is_worth_least_is_left_out():
    rng = np.random.default_rng(0)
    base, tau = torch.zeros(6, 8), torch.from_numpy(rng.standard_normal((6, 8)).astype(np.float32))
    layer = Layer("w", base, tau, np.ones(6), None)
    inputs = torch.from_numpy(rng.standard_normal((200, 8)).astype(np.float32))
    layer.fit(inputs, inputs @ tau.T, price=1e-3, ridge=0.01, centre=False)
    (whole,) = layer.tensors()
    assert len(layer.worths) == whole.active > 8
    least = float(np.median(layer.worths))
    (part,) = layer.tensors(least)
    kept = signs(whole)[signs(whole) != 0] * (layer.worths >= least)
    np.testing.assert_array_equal(signs(part)[signs(whole) != 0], kept)
    assert part.active == np.count_nonzero(layer.worths >= least) < whole.active
    # No other choice of one weight would have lost less than that of least worth.
    target = inputs @ tau.T
    errors = []
    for place in zip(*np.nonzero(signs(whole)), strict=True):
        without = layer.weight().clone()
        without[place] = 0
        errors.append(float((target - inputs @ without.T).square().sum()))
    cheapest = sorted(range(len(errors)), key=errors.__getitem__)[:5]
    assert int(np.argmin(layer.worths)) in cheapest


def test_a_pass_above_the_budget_is_brought_within_it(tmp_path, monkeypatch):
    base = make_base(tmp_path / "base")
    finetuned = make_finetune(tmp_path / "topic", base, ("bank", "film", "spam"), noise=0.1)
    budget = 0.2  # of which the matrices get a good part
    told = []
    within = _Work.within

    def narrowed(self, limit, found, taken, size):
        limit = min(limit, taken * 99 // 100)  # so that every pass is above it
        tensors, now, least = within(self, limit, found, taken, size)
        assert now == size(tensors)
        told.append((taken, now, limit))
        return tensors, now, least

    monkeypatch.setattr(_Work, "within", narrowed)
    switch = make(base, finetuned, budget, Calibration(base, finetuned, texts(0)))
    assert len(told) == len(RIDGES)
    # The first prices leave hardly a weight that could be left out.
    assert all(0.9 * limit < now <= limit < taken for taken, now, limit in told[2:])
    assert "calibrated" in switch.rule.parameters
    # What was measured is what is written, and it is one of these but for the word that it was tuned.
    taken = told[int(switch.rule.parameters["passes"]) - 1][1]
    assert taken - 8 <= counted(switch) <= taken + 24
