"""The Triton kernels in Triton's interpreter, against the CPU's kernel, bit for bit.

Run by `test_cuda.py` in a process of its own: ``TRITON_INTERPRET=1`` must be set before Triton is
imported, and no other test shall run so. The interpreter is slow, so the weights are few.
"""

import random
from functools import partial

import numpy as np
import pytest
import torch

from bitswitch.base.load import load
from bitswitch.core import Mix, Request, Want
from bitswitch.engine import engine as engine_module
from bitswitch.engine import rehearsal
from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.cuda_kernel import CudaKernel
from bitswitch.engine.engine import Engine
from bitswitch.engine.planes import Planes
from bitswitch.engine.swap import Swap
from oracle import written
from switches import random_switch

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Many rows in a block and more, a weight a row, and a row longer than a block.
SHAPES = {"a.rows": (70, 65), "b.bias": (129,), "c.long": (1, 3, 1500)}
DENSITIES = (0.03, 0.1, 0.4, 0.004)


class Pair:
    """The same weights twice, one set written by the CPU's kernel and one by Triton's."""

    def __init__(self, dtype, densities=DENSITIES, seed=0):
        torch.manual_seed(seed)
        self.base = {name: (torch.randn(shape) * 0.05).to(dtype) for name, shape in SHAPES.items()}
        self.switches = {
            f"s{i}": random_switch(SHAPES, density, seed + i, per_row=i % 2 == 0)
            for i, density in enumerate(densities)
        }
        self.sides = [self._side(triton) for triton in (False, True)]

    def _side(self, triton):
        arena = Arena({name: tensor.clone() for name, tensor in self.base.items()}, triton=triton)
        return Swap(arena), {digest: Planes(arena, switch) for digest, switch in self.switches.items()}

    @property
    def bits(self):
        return [swap.arena.flat.view(torch.uint8) for swap, _ in self.sides]

    def go(self, *mix):
        mix = Mix.of(mix)
        for swap, planes in self.sides:
            with swap.at(mix, [planes[digest] for digest in mix.digests]):
                pass
        assert torch.equal(*self.bits), mix
        return mix


# Kinds of mixes: a list of offsets, bit planes, few weights of several, many of several, none.
KINDS = [
    (("s0", 1.0),),
    (("s2", -0.7),),
    (("s0", 0.6), ("s3", 0.4)),
    (("s1", 1.1), ("s2", 0.2)),
    (),
]
# Each after each other, and after itself with another weight.
EVERY = (0, 0, 1, 1, 2, 2, 3, 3, 4, 3, 2, 1, 0, 4, 2, 0, 2, 4, 1, 3, 0, 3, 1, 4, 0)
SOME = (3, 0, 2, 3, 1, 2, 0)


@pytest.mark.parametrize(
    ("dtype", "path"), [(torch.float32, EVERY), (torch.float16, SOME), (torch.bfloat16, SOME)]
)
def test_every_kind_of_mix_after_every_other_is_the_same_to_the_bit(dtype, path):
    pair = Pair(dtype)
    start = pair.bits[1].clone()
    for step, kind in enumerate(path):
        pair.go(*((digest, weight * (1 + step / 8)) for digest, weight in KINDS[kind]))
    pair.go()
    assert torch.equal(pair.bits[1], start)
    assert pair.sides[1][0].journal_bytes == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_is_as_the_contract_says(dtype):
    pair = Pair(dtype, seed=7)
    mix = pair.go(*KINDS[3])
    expected = written(pair.base, [(pair.switches[digest], weight) for digest, weight in mix])
    arena = pair.sides[1][0].arena
    for name, tensor in expected.items():
        start = arena.first_block[name] * BLOCK
        held = arena.flat[start : start + tensor.numel()].view(tensor.shape)
        assert torch.equal(held.contiguous().view(torch.uint8), tensor.view(torch.uint8)), name


def test_random_transitions_lose_no_bit():
    pair = Pair(torch.bfloat16, (0.03, 0.01, 0.2), seed=3)
    start = pair.bits[1].clone()
    chance = random.Random(1)
    for _ in range(8):
        some = chance.sample(list(pair.switches), chance.choice((0, 1, 1, 1, 2)))
        pair.go(*((digest, chance.choice((1.0, 0.5, -0.25, 1.3))) for digest in some))
    pair.go()
    assert torch.equal(pair.bits[1], start)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_that_are_no_ordinary_numbers_come_back(dtype):
    pair = Pair(dtype, (0.9, 0.1))
    odd = [float("nan"), float("inf"), -float("inf"), -0.0, 1e-41, 6e-8, -6.1e-5, 65504.0, 3e38]
    for swap, _ in pair.sides:
        swap.arena.flat[: len(odd)] = torch.tensor(odd).to(dtype)
        swap.arena.flat.view(torch.uint8)[64:68] = torch.tensor([1, 0x7F, 0x81, 0xFF], dtype=torch.uint8)
    before = pair.bits[1].clone()
    with np.errstate(all="ignore"):
        pair.go(("s0", 1.0))
        assert not torch.equal(pair.bits[1], before)
        pair.go(("s0", 0.5), ("s1", 0.5))
    pair.go()
    assert torch.equal(pair.bits[1], before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rounding_is_to_nearest_and_ties_to_even(dtype):
    """All magnitudes of the dtype, moved by steps from far below to far above their last place."""
    torch.manual_seed(5)
    scale = torch.exp2(torch.randint(-30, 12, (70, 65)).float())
    pair = Pair(dtype, (0.9,), seed=1)
    weights = (torch.randn(scale.shape) * scale).to(dtype).view(-1)
    for swap, _ in pair.sides:
        swap.arena.flat[: len(weights)] = weights
    for exponent in (-14, -4, 8):
        pair.go(("s0", 2.0**exponent))


def test_no_memory_for_a_journal_leaves_the_base(monkeypatch):
    pair = Pair(torch.float32, (0.4, 0.02))
    start = pair.bits[1].clone()
    swap, planes = pair.sides[1]
    pair.go(("s1", 1.0))

    def no_memory(*_):
        raise torch.OutOfMemoryError("no room for a journal")

    monkeypatch.setattr(CudaKernel, "_room", no_memory)
    with pytest.raises(torch.OutOfMemoryError), swap.at(Mix.of([("s0", 1.0)]), [planes["s0"]]):
        pass
    assert swap.mix == Mix()
    assert torch.equal(pair.bits[1], start)


def test_the_rehearsal_finds_a_kernel_that_is_wrong(monkeypatch):
    device = torch.device("cpu")
    rehearsal.rehearse(CudaKernel, device, torch.float16)

    class Careless(CudaKernel):
        def transition(self, planes, weights):
            super().transition(planes, [weight * (1 + 2**-20) for weight in weights])

    with pytest.raises(RuntimeError, match=r"device cpu do not write .* serve with device cpu"):
        rehearsal.rehearse(Careless, device, torch.float32)


def test_an_engine_answers_the_same_with_it(tiny_base, monkeypatch):
    answers = []
    for triton in (False, True):
        monkeypatch.setattr(engine_module, "Arena", partial(Arena, triton=triton))
        base = load(tiny_base)
        shapes = {name: tuple(p.shape) for name, p in base.parameters.items()}
        switches = {f"s{i}": random_switch(shapes, 0.2, i, base=base.identity) for i in range(2)}
        engine = Engine(base, switches.__getitem__)
        engine.start()
        rows = base.encode(["who wrote hamlet"], want=Want.EMBED)
        mixes = [Mix.of([("s0", 1.0)]), Mix.of([("s1", 0.5)]), Mix()]
        requests = [Request(mix, Want.EMBED, rows) for mix in mixes]
        answers.append([engine.submit(request).result(60).values for request in requests])
        assert engine.verify().intact
        engine.stop(10)
    assert np.array_equal(*np.array(answers))
    assert len({values.tobytes() for values in answers[0]}) == 3
