"""Tuning: the bits stay, and the model says more nearly what the fine-tune does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_calibration import texts, write

from bitswitch.calibrate.pair import Pair
from bitswitch.calibrate.tuning import tuned
from bitswitch_store.binarize import Rule, binarize
from bitswitch_store.checkpoint import Checkpoint
from oracle import knob_per_weight, signs
from tiny import make_base, make_finetune


@pytest.fixture(scope="module", params=["bert", "distilbert"])
def case(request, tmp_path_factory):
    """A pair at a switch, and the switch."""
    folder = tmp_path_factory.mktemp(request.param)
    base = make_base(folder / "base", request.param)
    finetuned = make_finetune(folder / "topic", base, ("bank", "film", "spam"), noise=0.1)
    rule = Rule("budget", {"budget": 0.04})
    switch = binarize(Checkpoint.open(base), Checkpoint.open(finetuned), rule, task="topic")
    pair = Pair(base, finetuned, texts(0), texts(1), head=True)
    return pair, switch


def test_the_divergence_falls_on_other_texts_and_no_bit_moves(case):
    pair, switch = case
    write(switch, pair)
    before = pair.distance()
    found = tuned(pair, switch.tensors, seed=0)
    assert float((pair.distance().divergence - before.divergence).abs().max()) == 0  # it stays as it was set
    write(replace(switch, tensors=found), pair)
    assert float(pair.distance().divergence.mean()) < 0.8 * float(before.divergence.mean())
    for one, other in zip(switch.tensors, found, strict=True):
        assert one.name == other.name
        if len(one.shape) > 1:
            np.testing.assert_array_equal(one.activation, other.activation)
            np.testing.assert_array_equal(one.polarity, other.polarity)
            np.testing.assert_array_equal(one.knobs > 0, other.knobs > 0)
        if one.name not in pair.layers and len(one.shape) > 1:
            np.testing.assert_array_equal(one.knobs, other.knobs)


def test_the_same_seed_tunes_alike(case):
    pair, switch = case
    write(switch, pair)
    once, again = (tuned(pair, switch.tensors, seed=3) for _ in "ab")
    for one, other in zip(once, again, strict=True):
        np.testing.assert_array_equal(
            signs(one) * knob_per_weight(one), signs(other) * knob_per_weight(other)
        )


def test_the_divergence_at_given_values_is_that_of_the_model_at_them(case):
    pair, switch = case
    write(switch, pair)
    name = pair.layers[0]
    places = torch.arange(len(pair.lengths))[:7]
    before = pair.divergence({}, places)
    changed = pair.base[name] + 0.1
    at = pair.divergence({name: changed}, places)
    pair.set(name, changed)
    np.testing.assert_array_equal(pair.divergence({}, places), at)
    assert not np.array_equal(before, at)
