"""Tables looked up at a mix: every answer to the bit as with the table written, and the table left alone."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch.base.load import load
from bitswitch.core import Mix, Request, Row, Want
from bitswitch.engine import tables
from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.cpu_lookups import CpuLookups
from bitswitch.engine.engine import Engine
from bitswitch.engine.mixes import Mixes, Part
from bitswitch.engine.planes import Planes
from bitswitch.engine.swap import Swap
from bitswitch.engine.tables import Tables, large_tables
from oracle import written
from switches import random_switch
from tiny import make_base

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
DENSITIES = (0.001, 0.1, 0.4, 0.9)
MIXES = ([(1, 1.0)], [(3, -0.7)], [(2, 0.5), (1, 0.5), (3, 0.2)], [], [(0, 1.0)])
WORDS = 60


@pytest.fixture(autouse=True)
def _every_table_is_large(monkeypatch):
    monkeypatch.setattr(tables, "ROWS", WORDS)


class House:
    """A base twice over: once with its table looked up, once with all weights written."""

    def __init__(self, folder):
        self.base, self.judge = load(folder), load(folder)
        self.arena = Arena(self.base.parameters, looked_up=large_tables(self.base))
        self.loaded = self.arena.weights.copy()
        self.tables = Tables(self.base, self.arena)
        self.swap = Swap(self.arena)
        theirs = Arena(self.judge.parameters)
        self.whole = Swap(theirs)
        shapes = {name: tuple(tensor.shape) for name, tensor in self.base.parameters.items()}
        switches = [random_switch(shapes, density, seed) for seed, density in enumerate(DENSITIES)]
        self.planes = [Planes(self.arena, switch) for switch in switches]
        self.judges = [Planes(theirs, switch) for switch in switches]
        names = self.base.encode(["a"], want=Want.EMBED)[0].fields
        ids = np.random.default_rng(0).integers(5, WORDS, (7, 40)).tolist()
        self.rows = [
            Row({name: own[: 5 * i + 1] if name == "input_ids" else [0] * (5 * i + 1) for name in names})
            for i, own in enumerate(ids)
        ]

    def both(self, mix):
        """The answers of both, padding included, and the weights meanwhile."""
        named = Mix.of((str(switch), weight) for switch, weight in mix)
        order = [int(digest) for digest in named.digests]
        with self.whole.at(named, [self.judges[i] for i in order]):
            right = self.judge.forward(self.rows)
        parts = [Part(self.planes[i], weight) for i, (_, weight) in zip(order, named, strict=True)]
        with self.swap.at(named, [self.planes[i] for i in order]):
            return self.tables.forward(self.rows, parts), right, self.arena.weights.copy()


def states(hidden):
    return torch.cat([state.flatten() for state in hidden.output["hidden_states"]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert", "albert"])
def test_every_answer_is_that_of_a_written_table_to_the_bit(family, dtype, tmp_path):
    house = House(make_base(tmp_path / family, family, dtype=dtype))
    assert house.tables.reason is None
    assert 0 < house.arena.written < house.arena.blocks
    looked_up = slice(house.arena.written * BLOCK, None)
    bits = np.uint32 if dtype == torch.float32 else np.uint16
    bare = states(house.base.forward(house.rows))
    for mix in MIXES:
        found, right, weights = house.both(mix)
        assert torch.equal(states(found), states(right)), mix
        assert torch.equal(states(found), bare) == (mix == [])
        assert (weights[looked_up].view(bits) == house.loaded[looked_up].view(bits)).all()
    house.swap.rest()
    assert (house.arena.weights.view(bits) == house.loaded.view(bits)).all()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.lists(st.tuples(st.floats(1e-2, 1.0), st.floats(-3, 3, width=32)), min_size=1, max_size=4),
    st.sampled_from([(301, 48), (7, 1000), (130, 64), (90, 33), (3, 5000)]),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_any_row_of_any_table_is_as_the_contract_says(dtype, mix, shape, per_row, seed):
    generator = torch.Generator().manual_seed(seed)
    base = {"a": torch.zeros(5, 7, dtype=dtype), "table": torch.randn(shape, generator=generator).to(dtype)}
    base["table"].view(-1)[::7] = -0.0  # to which nothing may be added where no weight is active
    arena = Arena({name: value.clone() for name, value in base.items()}, looked_up=["table"])
    shapes = {name: tuple(value.shape) for name, value in base.items()}
    switches = [
        random_switch(shapes, density, seed + i, per_row=per_row) for i, (density, _) in enumerate(mix)
    ]
    ids = torch.randint(shape[0], (3, 9), generator=generator)
    lengths = [9, 1, 4]
    parts = [Part(Planes(arena, s), weight) for s, (_, weight) in zip(switches, mix, strict=True)]
    rows = [parts, [], parts[:1]]
    lookups = CpuLookups(Mixes(lengths, rows))
    number, block = arena.names.index("table"), arena.first_block["table"]
    found = lookups.embedding(base["table"][ids], ids, tensor=number, block=block)
    whole = torch.int32 if dtype == torch.float32 else torch.int16
    for row, (own, length) in enumerate(zip(rows, lengths, strict=True)):
        weights = [(s, weight) for s, (_, weight) in zip(switches, mix, strict=True)][: len(own)]
        right = written(base, weights)["table"][ids[row]]
        right[length:] = base["table"][ids[row, length:]]  # padding
        assert torch.equal(found[row].view(whole), right.view(whole))


def test_a_transition_counts_and_saves_what_it_writes(tiny_base):
    house = House(tiny_base)
    named = Mix.of([("2", 1.0)])
    with house.swap.at(named, [house.planes[2]]), house.whole.at(named, [house.judges[2]]):
        blocks, looked_up = house.judges[2].blocks, 0
        for name in large_tables(house.base):
            first = house.whole.arena.first_block[name]
            own = (blocks >= first) & (blocks < first + -(-house.base.parameters[name].numel() // BLOCK))
            looked_up += house.judges[2].counts[own].sum()
        assert 0 < house.swap.active == house.whole.active - looked_up
        assert 0 < house.swap.journal_bytes < house.whole.journal_bytes


class ScaledEmbedding(torch.nn.Embedding):
    """Computes something of its own."""


def of_its_own_kind(model):
    model.embeddings.word_embeddings.__class__ = ScaledEmbedding


def used_twice(model):
    model.twice = torch.nn.Linear(1, 1)
    model.twice.weight = model.embeddings.word_embeddings.weight


def held_in_bounds(model):
    model.embeddings.word_embeddings.max_norm = 1.0


@pytest.mark.parametrize("change", [of_its_own_kind, used_twice, held_in_bounds])
def test_a_table_that_is_used_otherwise_is_written(change, tiny_base):
    base = load(tiny_base)
    words, positions = "embeddings.word_embeddings", "embeddings.position_embeddings"
    assert sorted(large_tables(base).values()) == [positions, words]
    change(base.model)
    assert list(large_tables(base).values()) == [positions]


def read_past_the_layer(model):
    table = model.embeddings.word_embeddings
    model.encoder.layer[0].register_forward_pre_hook(lambda _, given: (given[0] + table.weight[7],))
    return "answers differ"


def read_by_name(model):
    model.encoder.layer[0].register_forward_pre_hook(
        lambda module, given: (given[0] + module.table[0].weight[7],)
    )
    model.encoder.layer[0].table = [model.embeddings.word_embeddings]
    return "answers differ"


def never_asked(model):
    table = model.embeddings.word_embeddings
    model.embeddings.register_forward_pre_hook(lambda _, __: None)
    model.embeddings.forward = lambda input_ids, **_: torch.zeros(*input_ids.shape, table.embedding_dim)
    return "answers do not depend on them"


@pytest.mark.parametrize("change", [read_past_the_layer, read_by_name, never_asked])
def test_a_table_that_is_read_elsewhere_is_written_and_the_log_says_why(change, tiny_base):
    base = load(tiny_base)
    fault = change(base.model)
    arena = Arena(base.parameters, looked_up=large_tables(base))
    before = arena.weights.copy()
    found = Tables(base, arena)
    assert found.reason is not None
    assert re.search(fault, found.reason), found.reason
    assert arena.written == arena.blocks
    assert (arena.weights == before).all()


def test_triton_writes_every_table():
    with pytest.raises(ValueError, match=r"Triton's kernels look nothing up: a must be written"):
        Arena({"a": torch.zeros(3, 3)}, triton=True, looked_up=["a"])


def test_the_engine_serves_from_tables_that_it_never_writes(tiny_base):
    base, judge = load(tiny_base), load(tiny_base)
    shapes = {name: tuple(p.shape) for name, p in base.parameters.items()}
    switches = {f"s{i}": random_switch(shapes, 0.3, i, base=base.identity) for i in range(3)}
    engine = Engine(base, switches.__getitem__)
    engine.start()
    rows = base.encode(["who wrote hamlet", "free prize now"], want=Want.EMBED)  # of one length
    try:
        for mix in (Mix.of([("s0", 1.0)]), Mix.of([("s1", 0.5), ("s2", 0.5)]), Mix()):
            found = engine.submit(Request(mix, Want.EMBED, rows)).result(30).values
            assert all(torch.equal(base.parameters[n], judge.parameters[n]) for n in large_tables(base))
            weights = written(dict(judge.parameters), [(switches[digest], w) for digest, w in mix])
            static = load(tiny_base)
            with torch.no_grad():
                for own, parameter in static.parameters.items():
                    parameter.copy_(weights[own])
            right = static.embed(static.forward(rows)).numpy()
            np.testing.assert_array_equal(found, right)
        assert engine.verify().intact
    finally:
        engine.stop(10)
