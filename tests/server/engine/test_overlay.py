"""Rows of many mixes in one pass: each answered as in place, the weights never touched."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch.base.load import load
from bitswitch.core import Mix, Row
from bitswitch.engine.arena import Arena
from bitswitch.engine.mixes import Part
from bitswitch.engine.overlay import Overlay
from bitswitch.engine.planes import Planes
from bitswitch.engine.swap import Swap
from switches import random_switch
from tiny import data_url, make_base, make_image_base, picture

DENSITIES = (0.001, 0.015, 0.1, 0.4, 0.9)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WORDS = 60


class House:
    """A base, switches of it, and both ways to answer."""

    def __init__(self, folder, dtype=None, *, without=()):
        base = load(folder, dtype=dtype)
        fixed = {name: value for name, value in base.parameters.items() if name.endswith(without)}
        for value in fixed.values():
            value.add_(0.5)  # to neither 0 nor 1
        kept = {name: value for name, value in base.parameters.items() if name not in fixed}
        self.base = dataclasses.replace(base, parameters=kept)
        self.arena = Arena(self.base.parameters)
        self.loaded = self.arena.weights.copy()
        self.swap = Swap(self.arena)
        self.overlay = Overlay(self.base, self.arena)
        shapes = {name: tuple(tensor.shape) for name, tensor in self.base.parameters.items()}
        self.planes = [
            Planes(self.arena, random_switch(shapes, density, seed, per_row=seed % 2 == 0))
            for seed, density in enumerate(DENSITIES)
        ]

    def row(self, length, seed=0):
        ids = np.random.default_rng(seed + length).integers(5, WORDS, length).tolist()
        return Row(
            {name: ids if name == "input_ids" else [i % 2 for i in range(length)] for name in self.names}
        )

    @property
    def names(self):
        return self.base.encode(["a"], want="classify")[0].fields

    def overlaid(self, rows, mixes):
        parts = [tuple(Part(self.planes[i], weight) for i, weight in mix) for mix in mixes]
        return answers(self.overlay.forward(rows, parts), rows)

    def in_place(self, rows, mixes):
        found = []
        for i, mix in enumerate(mixes):
            named = Mix.of((str(switch), weight) for switch, weight in mix)
            with self.swap.at(named, [self.planes[int(digest)] for digest in named.digests]):
                found.append(answers(self.base.forward(rows), rows)[i])
        self.swap.rest()
        return found

    def intact(self):
        bits = np.uint32 if self.loaded.dtype == np.float32 else np.uint16
        return bool((self.arena.weights.view(bits) == self.loaded.view(bits)).all())


def answers(hidden, rows):
    """What each row's own tokens came to in every layer, and what was pooled."""
    found = []
    for i, row in enumerate(rows):
        states = [state[i, : row.length] for state in hidden.output["hidden_states"]]
        pooled = hidden.output.get("pooler_output")
        found.append(torch.cat(states if pooled is None else [*states, pooled[i : i + 1]]).float())
    return found


def distance(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def house(tiny_base):
    return House(tiny_base)


ROWS = (3, 20, 1, 11, 64, 5, 7)
MIXES = (
    [(0, 1.0)],
    [(3, 0.5), (1, -0.7)],
    [],
    [(4, 0.25), (3, -1.0), (2, 0.5)],
    [(1, 1.0)],
    [(2, -0.3)],
    [(3, 0.5), (1, 0.7)],
)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert", "albert"])
def test_every_row_is_answered_as_in_place(family, tmp_path):
    house = House(make_base(tmp_path / family, family))
    assert house.overlay.reason is None
    rows = [house.row(length) for length in ROWS]
    assert distance(house.overlaid(rows, MIXES), house.in_place(rows, MIXES)) < 1e-4
    assert distance(house.overlaid(rows, MIXES), house.in_place(rows, [()] * len(rows))) > 0.1
    assert house.intact()


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2"])
def test_every_image_is_answered_as_in_place(family, tmp_path):
    """A convolution, a class token and positions are switched too, in `Whole`."""
    house = House(make_image_base(tmp_path, family))
    assert house.overlay.reason is None
    rows = house.base.encode([data_url(picture(seed)) for seed in range(len(MIXES))], want="classify")
    found = house.overlaid(rows, MIXES)
    assert distance(found, house.in_place(rows, MIXES)) < 1e-4
    assert distance(found, house.in_place(rows, [()] * len(rows))) > 0.1
    assert house.intact()


def test_what_no_switch_can_touch_of_a_norm_stays_as_it_is(tiny_base):
    """As where the checkpoint's files lack it."""
    house = House(tiny_base, without=("layer.0.output.LayerNorm.bias", "layer.1.output.LayerNorm.weight"))
    assert house.overlay.reason is None
    rows = [house.row(length) for length in ROWS]
    assert distance(house.overlaid(rows, MIXES), house.in_place(rows, MIXES)) < 1e-4
    assert house.intact()


def test_an_image_in_halves_is_rounded_as_in_place(tmp_path):
    house = House(make_image_base(tmp_path), "bfloat16")
    assert house.overlay.reason is None
    rows = house.base.encode([data_url(picture(seed)) for seed in range(len(MIXES))], want="classify")
    found, expected = house.overlaid(rows, MIXES), house.in_place(rows, MIXES)
    # The first state comes of parameters set as in place, but for sums in another order.
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one[:5], other[:5], atol=2**-8, rtol=2**-7)
    assert house.intact()


def test_a_parameter_beside_a_known_layer_gives_a_reason(tmp_path):
    base = load(make_image_base(tmp_path, "beit", layer_scale_init_value=0.1))
    assert_reason(Overlay(base, Arena(base.parameters)).reason, "lambda_1.* is a BeitLayer")


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_halves_are_no_further_from_fp32_than_in_place(family, dtype, tmp_path):
    folder = make_base(tmp_path / family, family, dtype=dtype)
    house, exact = House(folder), House(folder, "float32")
    assert house.overlay.reason is None
    rows = [house.row(length) for length in ROWS]
    right = torch.cat(exact.in_place(rows, MIXES))
    overlaid = (torch.cat(house.overlaid(rows, MIXES)) - right).norm()
    in_place = (torch.cat(house.in_place(rows, MIXES)) - right).norm()
    assert overlaid < 1.1 * in_place
    assert house.intact()


mixes = st.lists(
    st.tuples(st.integers(0, len(DENSITIES) - 1), st.floats(-1, 1, width=32)),
    max_size=4,
    unique_by=lambda part: part[0],
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 64), mixes), min_size=1, max_size=9))
def test_any_composition(house, composition):
    rows = [house.row(length) for length, _ in composition]
    wanted = [mix for _, mix in composition]
    assert distance(house.overlaid(rows, wanted), house.in_place(rows, wanted)) < 1e-4
    assert house.intact()


def test_more_rows_of_one_switch_than_a_tile_is_wide(house):
    rows = [house.row(length, seed) for seed, length in enumerate([9, 17, 30, 2, 41, 22, 9, 64])]
    wanted = [[(3, (-1) ** i * 0.1 * i)] for i in range(len(rows))]
    assert distance(house.overlaid(rows, wanted), house.in_place(rows, wanted)) < 1e-4


def test_a_row_depends_on_none_beside_it(house):
    rows = [house.row(length) for length in (7, 30, 4)]
    wanted = [[(3, 1.0)], [(4, -1.0)], []]
    together = house.overlaid(rows, wanted)
    alone = [house.overlaid([row], [mix])[0] for row, mix in zip(rows, wanted, strict=True)]
    assert distance(together, alone) < 1e-5


def test_without_any_part_it_is_the_bare_base(house):
    rows = [house.row(length) for length in (7, 30, 4)]
    bare = answers(house.base.forward(rows), rows)
    assert distance(house.overlaid(rows, [(), (), ()]), bare) == 0
    assert distance(house.overlaid(rows, [[(2, 0.0)], (), ()]), bare) < 1e-5


def test_an_error_in_the_middle_leaves_nothing_behind(house):
    rows = [house.row(length) for length in (7, 30)]
    wanted = [[(3, 1.0)], []]
    before, bare = house.overlaid(rows, wanted), answers(house.base.forward(rows), rows)
    foreign = dataclasses.replace(rows[0], fields={name: [10**6] * 7 for name in house.names})
    with pytest.raises(IndexError):
        house.overlaid([foreign, rows[1]], wanted)
    assert distance(house.overlaid(rows, wanted), before) == 0
    assert distance(answers(house.base.forward(rows), rows), bare) == 0
    assert {type(module).__module__.partition(".")[0] for module in house.base.model.modules()} <= {
        "torch",
        "transformers",
    }
    assert house.intact()


def test_an_architecture_that_reads_weights_past_their_layer_gives_a_reason(tmp_path):
    house = House(make_base(tmp_path / "deberta", "deberta-v2"))
    assert house.overlay.reason is not None
    assert house.intact()
    with pytest.raises(RuntimeError, match="cannot be overlaid"):
        house.overlaid([house.row(3)], [[(0, 1.0)]])


class OddLinear(torch.nn.Linear):
    """Computes something of its own."""

    def forward(self, x):
        return super().forward(x * 2)


def odd_layer(model):
    model.encoder.layer[0].output.dense.__class__ = OddLinear
    return "encoder.layer.0.output.dense.* is a OddLinear"


def second_use(model):
    model.twice = model.encoder.layer[0].output
    return "uses encoder.layer.0.output.* beside another module"


def hidden_change(model):
    """The trial alone can notice this one: the norm's parameters are used twice over."""
    norm = model.encoder.layer[1].output.LayerNorm
    weight = norm.weight
    model.encoder.layer[1].output.dense.register_forward_hook(lambda _, __, y: y * weight)
    return "answers differ"


@pytest.mark.parametrize("change", [odd_layer, second_use, hidden_change])
def test_an_architecture_of_another_kind_gives_a_reason(change, tiny_base):
    base = load(tiny_base)
    fault = change(base.model)
    assert_reason(Overlay(base, Arena(base.parameters)).reason, fault)


def assert_reason(reason, fault):
    assert reason is not None
    assert re.search(fault, reason), reason


def test_much_beside_the_known_layers_gives_a_reason(tmp_path, monkeypatch):
    base = load(make_image_base(tmp_path))
    monkeypatch.setattr("bitswitch.engine.overlay._MOST", 6000)
    assert_reason(Overlay(base, Arena(base.parameters)).reason, "embeddings.* weights of other modules; 6000")
