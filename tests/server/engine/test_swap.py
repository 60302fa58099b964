"""The weight contract, to the bit: every transition against the plain oracle, and the base always back."""

import random
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bitswitch.engine
from bitswitch.core import Mix
from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.planes import Planes
from bitswitch.engine.swap import Swap
from oracle import written
from switches import random_switch

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Several blocks, a part of one, one weight, odd widths, three dimensions.
SHAPES = {
    "a.embedding": (301, 48),
    "b.weight": (64, 65),
    "c.bias": (129,),
    "d.one": (1,),
    "e.conv": (5, 3, 7),
    "f.block": (2, BLOCK // 2),
}


class House:
    """Weights, some switches of them, and the oracle's word on any mix."""

    def __init__(self, dtype, densities=(0.4, 0.1, 0.02, 0.9, 0.125, 0.003), seed=0):
        torch.manual_seed(seed)
        self.base = {name: (torch.randn(shape) * 0.05).to(dtype) for name, shape in SHAPES.items()}
        for tensor in self.base.values():
            tensor.view(-1)[::7] = -0.0  # to which nothing may be added where no weight is active
        self.resident = {name: tensor.clone() for name, tensor in self.base.items()}
        self.arena = Arena(self.resident)
        self.swap = Swap(self.arena)
        self.switches = {
            f"s{i}": random_switch(SHAPES, density, seed + i, per_row=i % 2 == 0)
            for i, density in enumerate(densities)
        }
        self.planes = {digest: Planes(self.arena, switch) for digest, switch in self.switches.items()}

    def go(self, mix):
        with self.swap.at(mix, [self.planes[digest] for digest in mix.digests]):
            pass

    def differing(self, mix):
        expected = written(self.base, [(self.switches[digest], weight) for digest, weight in mix])
        return [name for name in SHAPES if not same_bits(self.resident[name], expected[name])]


def same_bits(one, other):
    whole = torch.int32 if one.dtype == torch.float32 else torch.int16
    return torch.equal(one.view(whole), other.view(whole))


MIXES = [
    Mix(),
    Mix.of([("s0", 1.0)]),
    Mix.of([("s1", 1.0)]),
    Mix.of([("s5", 1.0)]),
    Mix.of([("s3", -0.7)]),
    Mix.of([("s0", 0.6), ("s1", 0.4)]),
    Mix.of([("s2", 0.3), ("s4", 0.3), ("s0", 0.4)]),
    Mix.of([(f"s{i}", 0.1 + i / 7) for i in range(6)]),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_moving_into_the_arena_changes_no_bit(dtype):
    house = House(dtype)
    assert house.differing(Mix()) == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_mix_after_every_other_is_as_the_contract_says(dtype):
    house = House(dtype)
    for before in MIXES:
        for after in MIXES:
            house.go(before)
            house.go(after)
            assert house.differing(after) == [], (before, after)
    house.swap.rest()
    assert house.differing(Mix()) == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_thousand_random_transitions_lose_no_bit(dtype):
    house = House(dtype)
    chance = random.Random(1)
    digests = list(house.switches)
    for step in range(2_000):
        some = chance.sample(digests, chance.choice((0, 1, 1, 1, 2, 3)))
        mix = Mix.of((digest, chance.choice((1.0, 0.5, -0.25, 1.3))) for digest in some)
        house.go(mix)
        if step % 250 == 0:
            assert house.differing(mix) == []
    house.swap.rest()
    assert house.swap.transitions >= 1_500
    assert house.differing(Mix()) == []


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=4),
    st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
    st.integers(0, 2**16),
)
def test_any_density_and_weight(dtype, densities, weights, seed):
    house = House(dtype, densities, seed)
    mix = Mix.of(zip(house.switches, weights, strict=False))
    house.go(mix)
    assert house.differing(mix) == []
    house.swap.rest()
    assert house.differing(Mix()) == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_that_are_no_ordinary_numbers_come_back(dtype):
    house = House(dtype)
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-41, 65504.0, 3e38]).to(dtype)
    for name in ("a.embedding", "f.block"):
        house.resident[name].view(-1)[: len(odd)] = odd
        house.base[name].view(-1)[: len(odd)] = odd
    house.go(MIXES[1])
    assert house.differing(Mix())
    house.go(MIXES[7])
    house.swap.rest()
    assert house.differing(Mix()) == []


def test_an_error_in_the_body_restores_the_base_and_goes_on():
    house = House(torch.float32)
    mix = MIXES[5]
    planes = [house.planes[digest] for digest in mix.digests]
    seen = []

    def fail():
        with house.swap.at(mix, planes):
            seen.append(house.differing(mix))
            raise KeyError("boom")

    with pytest.raises(KeyError, match="boom"):
        fail()
    assert seen == [[]]
    assert house.swap.mix == Mix()
    assert house.differing(Mix()) == []


@pytest.mark.parametrize("before", [MIXES[0], MIXES[1], MIXES[7]], ids=["base", "one", "many"])
def test_an_error_in_the_transition_restores_the_base(before, monkeypatch):
    house = House(torch.float32)
    house.go(before)

    def no_memory(*_):
        raise MemoryError("no room for a journal")

    monkeypatch.setattr(house.swap._kernel, "_room", no_memory)
    with pytest.raises(MemoryError):
        house.go(MIXES[6])
    assert house.swap.mix == Mix()
    assert house.differing(Mix()) == []
    assert house.swap.journal_bytes == 0


def test_the_same_mix_again_costs_no_transition():
    house = House(torch.float32)
    house.go(MIXES[5])
    house.go(Mix.of([("s1", 0.4), ("s0", 0.6)]))
    assert house.swap.transitions == 1


def test_a_switch_that_does_not_fit_is_named():
    house = House(torch.float32)
    with pytest.raises(ValueError, match="no tensor z"):
        Planes(house.arena, random_switch({"z": (3,)}, 1.0, 0))
    with pytest.raises(ValueError, match=r"c.bias is \(130,\) in the switch and \(129,\) in the base"):
        Planes(house.arena, random_switch({"c.bias": (130,)}, 1.0, 0))


def test_planes_take_at_most_two_bits_a_weight():
    shapes = {"matrix": (512, 1024)}
    arena = Arena({"matrix": torch.zeros(shapes["matrix"])})
    for density in (0.9, 0.126, 0.124, 0.001):
        planes = Planes(arena, random_switch(shapes, density, 0, per_row=False))
        assert planes.nbytes * 8 <= min(2.1, 16 * density + 0.1) * 512 * 1024


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"a": torch.zeros(3), "b": torch.zeros(3, dtype=torch.float16)}, "float16, torch.float32"),
        ({"a": torch.zeros(3, dtype=torch.float64)}, "float64"),
        ({"a": torch.zeros(3, device="meta")}, "on meta; all must be on the CPU or on one CUDA device"),
    ],
)
def test_weights_it_cannot_hold_are_refused(parameters, fault):
    with pytest.raises(ValueError, match=fault):
        Arena(parameters)


def test_without_triton_a_device_is_refused_with_what_to_install(monkeypatch):
    for name in ("cuda", "cuda_kernel"):
        monkeypatch.delitem(sys.modules, f"bitswitch.engine.{name}", raising=False)
        monkeypatch.delattr(bitswitch.engine, name, raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ValueError, match=r"needs Triton .* pip install 'bitswitch\[cuda\]'"):
        Swap(Arena({"a": torch.zeros(3)}, triton=True))


def test_the_kernel_is_not_fused_or_reordered():
    """A case where a fused multiply-add, or another order of the sum, gives other bits."""
    house = House(torch.float32)
    weights = np.float32([0.1, 0.3, 0.7])
    mix = Mix.of(zip(("s0", "s1", "s3"), weights.tolist(), strict=True))
    house.go(mix)
    assert house.differing(mix) == []
    switch = house.switches["s0"].tensors[0]
    knob = switch.knobs[switch.knobs > 0].astype(np.float64)
    fused = house.base["a.embedding"].double().numpy().ravel()[: len(knob)] + np.float64(weights[0]) * knob
    plain = house.base["a.embedding"].numpy().ravel()[: len(knob)] + weights[0] * knob.astype(np.float32)
    assert (fused.astype(np.float32) != plain).any()
