from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch_store import container, file, planes, query_codes
from bitswitch_store.coded import CodedSwitch
from bitswitch_store.codes import LARGEST
from bitswitch_store.switch import BaseIdentity, Head, QuerySet, Rule, Switch, SwitchError, TensorSwitch
from bitswitch_store.varint import varint

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"
BASE = BaseIdentity("bert", "sha256:" + "ab" * 32)


def tensor(name, ternary, *, per_row=False, knob=0.5):
    """A tensor of this ternary array, its knobs ``knob`` or, per row, multiples of it."""
    ternary = np.asarray(ternary, np.int8)
    knobs = np.array([knob], np.float32)
    if per_row:
        used = (ternary != 0).reshape(ternary.shape[0], -1).any(axis=1)
        knobs = np.where(used, knob * np.arange(1, used.size + 1), 0).astype(np.float32)
    return TensorSwitch(name, ternary.shape, *planes.pack(ternary), knobs)


def random_ternary(shape, density, seed=0):
    rng = np.random.default_rng(seed)
    ternary = np.where(rng.random(shape) < density, rng.choice([-1, 1], shape), 0).astype(np.int8)
    if not ternary.any():
        ternary.flat[0] = 1
    return ternary


def full_switch():
    """One of everything: every code, both kinds of knob, a head, a query set."""
    rows = np.zeros((60, 12), np.int8)
    rows[[3, 40]] = random_ternary((2, 12), 0.5)
    tensors = [
        tensor("emb.weight", rows, per_row=True),
        tensor("layer.0.bias", np.full(5, -1), per_row=True, knob=0.25),
        tensor("layer.0.gaps", random_ternary((20, 30), 0.05)),
        tensor("layer.0.rest", random_ternary((20, 30), 0.95)),
        tensor("layer.1.triples", random_ternary((8, 90), 0.38, seed=1), per_row=True),
        tensor("layer.1.weight", random_ternary((7, 9), 0.5)),
    ]
    head = Head(
        {"classifier.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "scale": np.float16([0.5])},
        {"hidden_size": 3, "nested": {"x": [1, 2.5, None, "é"]}},
        ("schlecht", "gut"),
    )
    queries = QuerySet.of(np.linspace(-1, 1, 6).reshape(2, 3), "hidden:3|mean|l2")
    return Switch(
        base=BASE,
        rule=Rule("budget", {"bits": 0.01}),
        tensors=tuple(tensors),
        task="sentiment",
        head=head,
        queries=queries,
        metric={"accuracy": 0.91},
        licence="apache-2.0",
        created="2026-01-31T12:00:00Z",
    )


def assert_equal(one, other):
    for field in ("base", "rule", "task", "metric", "licence", "created"):
        assert getattr(one, field) == getattr(other, field)
    assert len(one.tensors) == len(other.tensors)
    for a, b in zip(one.tensors, other.tensors, strict=True):
        assert (a.name, a.shape, a.active) == (b.name, b.shape, b.active)
        for field in ("activation", "polarity", "knobs"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field), strict=True)
    assert (one.head is None, one.queries is None) == (other.head is None, other.queries is None)
    if one.head:
        assert (one.head.labels, one.head.config) == (other.head.labels, other.head.config)
        assert one.head.tensors.keys() == other.head.tensors.keys()
        for name, array in one.head.tensors.items():
            np.testing.assert_array_equal(array, other.head.tensors[name], strict=True)
    if one.queries:
        assert one.queries.recipe == other.queries.recipe
        np.testing.assert_array_equal(one.queries.codes.codes, other.queries.codes.codes, strict=True)
        np.testing.assert_array_equal(one.queries.codes.steps, other.queries.codes.steps, strict=True)


@st.composite
def tensors(draw, name):
    shape = draw(st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple))
    density = draw(st.sampled_from([0.001, 0.05, 0.38, 0.5, 0.62, 0.95, 1.0]))
    ternary = random_ternary(shape, density, draw(st.integers(0, 99)))
    knob = draw(st.floats(2**-20, 100, width=16) | st.floats(2**-100, 100, width=32))
    return tensor(name, ternary, per_row=draw(st.booleans()), knob=knob)


@st.composite
def query_sets(draw):
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    vectors = rng.normal(size=(draw(st.integers(1, 9)), draw(st.integers(1, 9))))
    return QuerySet.of(vectors * draw(st.sampled_from([0, 1, 1e-3])), "hidden:1|mean|l2")


@st.composite
def switches(draw):
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
    numbers = st.dictionaries(text, st.floats(allow_nan=False, allow_infinity=False), max_size=3)
    names = sorted(draw(st.sets(text, max_size=4)))
    head = None
    if not names or draw(st.booleans()):
        config = draw(st.dictionaries(text, st.none() | st.integers() | st.floats(-1, 1) | text, max_size=3))
        shape = draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
        dtype = draw(st.sampled_from([np.float16, np.float32]))
        labels = tuple(draw(st.lists(text, min_size=1, max_size=3, unique=True)))
        head = Head({draw(text): np.ones(shape, dtype)}, config, labels)
    return Switch(
        base=BASE,
        rule=Rule(draw(text), draw(numbers)),
        tensors=tuple(draw(tensors(name)) for name in names),
        task=draw(text),
        head=head,
        queries=draw(st.none() | query_sets()),
        metric=draw(numbers),
        licence=draw(st.none() | text),
        created=draw(st.sampled_from(["", "2026-01-31T12:00:00+00:00"])),
    )


@given(switches())
@settings(max_examples=200, deadline=None)
def test_read_gives_back_what_was_written_and_write_the_same_bytes(switch):
    data = file.write(switch)
    again = file.read(data)
    assert_equal(switch, again)
    assert file.write(again) == data


def test_a_switch_of_everything_is_read_from_bytes_and_from_a_path(tmp_path):
    switch = full_switch()
    data = file.write(switch)
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert_equal(switch, file.read(data))
    assert_equal(switch, file.read(path))
    assert CodedSwitch(path).records == CodedSwitch(data).records
    codes = {record.code for record in CodedSwitch(data).records}
    assert codes >= {0, 1, 2, 3, 4}
    assert max(codes) > 8


def test_what_was_read_stays_when_the_file_is_replaced(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(file.write(full_switch()))
    switch = file.read(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert_equal(switch, full_switch())


def test_the_safetensors_library_reads_the_same_arrays():
    data = file.write(full_switch())
    arrays = safetensors.numpy.load(data)
    found = container.read(memoryview(data))
    assert arrays.keys() == found.entries.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, found.array(name), strict=True)
    safetensors.numpy.load(file.write(replace(full_switch(), tensors=())))


def test_order_of_keys_makes_no_difference():
    switch = full_switch()
    turned = replace(
        switch,
        head=replace(
            switch.head,
            tensors=dict(reversed(switch.head.tensors.items())),
            config=dict(reversed(switch.head.config.items())),
        ),
    )
    assert file.write(turned) == file.write(switch)
    assert file.digest(file.write(turned)) == file.digest(file.write(switch))


def test_knobs_take_the_fewest_bits_that_hold_them_all():
    def dtype(*knobs):
        ones = [tensor(f"w{i}", [1], knob=knob) for i, knob in enumerate(knobs)]
        return container.read(memoryview(file.write(Switch(BASE, Rule("paper"), tuple(ones), "t")))).entries[
            "knobs"
        ]

    assert dtype(0.5, 2**-21).dtype == "U8"
    assert dtype(0.5, 2**-24).dtype == "F16"
    assert dtype(0.5, 0.53125).dtype == "F16"
    assert dtype(0.5, 0.1).dtype == "F32"
    assert dtype(2**-28).dtype == "F32"


def test_sizes_add_up_to_the_file():
    data = file.write(full_switch())
    found = CodedSwitch(data).sizes
    assert found.total == len(data)
    assert found.queries == len(query_codes.write(full_switch().queries.codes.codes)) + 2 * 4
    assert found.head == 6 * 4 + 2
    assert found.polarity == sum(t.polarity.size for t in full_switch().tensors)
    assert found.knobs == 2 * (2 + 5 + 1 + 1 + 8 + 1)


def test_the_header_says_what_the_switch_is():
    found = CodedSwitch(file.write(full_switch()))
    assert found.about.base == BASE
    assert found.about.labels == ("schlecht", "gut")
    assert [(r.name, r.shape, r.active) for r in found.records] == [
        (t.name, t.shape, t.active) for t in full_switch().tensors
    ]


def minilm_shapes():
    """all-MiniLM-L6-v2: 103 tensors, 22.7 million weights."""
    dense = {"attention.self.query": (384, 384), "attention.self.key": (384, 384)}
    dense |= {"attention.self.value": (384, 384), "attention.output.dense": (384, 384)}
    dense |= {"intermediate.dense": (1536, 384), "output.dense": (384, 1536)}
    shapes = {"embeddings.word_embeddings.weight": (30522, 384)}
    shapes |= {"embeddings.position_embeddings.weight": (512, 384)}
    shapes |= {"embeddings.token_type_embeddings.weight": (2, 384), "pooler.dense.weight": (384, 384)}
    shapes |= {"pooler.dense.bias": (384,)}
    norms = ["embeddings.LayerNorm"]
    for i in range(6):
        for name, shape in dense.items():
            shapes[f"encoder.layer.{i}.{name}.weight"] = shape
            shapes[f"encoder.layer.{i}.{name}.bias"] = shape[:1]
        norms += [f"encoder.layer.{i}.{part}.LayerNorm" for part in ("attention.output", "output")]
    shapes |= {f"{norm}.{part}": (384,) for norm in norms for part in ("weight", "bias")}
    return dict(sorted(shapes.items()))


@pytest.mark.parametrize("density", [0.6, 0.2, 0.1, 0.03, 0.01])
def test_a_minilm_takes_at_most_2_percent_more_than_its_entropy_bound_all_counted(density):
    rng = np.random.default_rng(0)
    made = []
    for name, shape in minilm_shapes().items():
        active = rng.random(math.prod(shape), dtype=np.float32) < density
        active[0] = True
        polarity = rng.integers(0, 2, int(active.sum()), np.uint8)
        bits = np.packbits(active, bitorder="little"), np.packbits(polarity, bitorder="little")
        made.append(TensorSwitch(name, shape, *bits, np.array([0.001], np.float32)))
    assert len(made) == 103
    about = {"metric": {"accuracy": 0.9}, "licence": "apache-2.0", "created": "2026-01-31T12:00:00Z"}
    switch = Switch(BASE, Rule("paper", {"alpha": 0.9}), tuple(made), "trec6", **about)
    data = file.write(switch)
    assert 8 * (len(data) - CodedSwitch(data).sizes.knobs) <= 1.02 * switch.entropy_bits
    again = file.read(data)
    assert all((a.activation == b.activation).all() for a, b in zip(again.tensors, made, strict=True))


def test_an_embedding_touched_in_few_rows_takes_less_than_its_entropy_bound():
    ternary = np.zeros((5000, 64), np.int8)
    rows = np.random.default_rng(0).choice(5000, 300, replace=False)
    ternary[rows] = random_ternary((300, 64), 0.3)
    switch = Switch(BASE, Rule("budget"), (tensor("emb", ternary, per_row=True, knob=2**-10),), "t")
    found = CodedSwitch(file.write(switch)).sizes
    assert 8 * (found.activation + found.polarity) < 0.7 * switch.entropy_bits
    assert found.knobs == 300 * 4  # multiples up to 5000, which F16 does not hold


def test_the_example_of_the_format_page_is_this_file_byte_by_byte():
    text = FORMAT.read_text("utf-8")
    header = re.search(r"```json\n(.*?)\n```", text)
    body = re.search(r"```hex\n(.*?)```", text, re.DOTALL)
    assert header
    assert body
    spaced = header[1].encode() + b" "
    values = [re.match(r"((?:[0-9a-f]{2} {0,2})+)", line)[1] for line in body[1].splitlines()]
    printed = len(spaced).to_bytes(8, "little") + spaced + bytes.fromhex("".join(values))
    sparse = np.zeros((4, 8), np.int8)
    sparse.flat[[1, 6, 19]] = 1, -1, 1
    bias = tensor("a.bias", [0, 1, 0, 0, 0, 0, -1, 0])
    bias = replace(bias, knobs=np.array([0, 0.5, 0, 0, 0, 0, 0.25, 0], np.float32))
    switch = Switch(BASE, Rule("paper", {"alpha": 0.5}), (bias, tensor("a.weight", sparse)), "tiny")
    assert file.write(switch) == printed
    assert_equal(file.read(printed), switch)


# What follows is refused.


def rebuilt(change):
    """`full_switch`'s file, its metadata and arrays changed by ``change(metadata, arrays)``."""
    found = container.read(memoryview(file.write(full_switch())))
    metadata = dict(found.metadata)
    arrays = {name: found.array(name).copy() for name in found.entries}
    change(metadata, arrays)
    return container.write(metadata, arrays)


def with_header(change):
    """`full_switch`'s file, its header's text changed."""
    data = file.write(full_switch())
    length = int.from_bytes(data[:8], "little")
    text = change(data[8 : 8 + length])
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def entries(change):
    """The header's JSON value changed."""

    def changed(text):
        value = json.loads(text)
        change(value)
        return container.to_json(value).encode()

    return lambda: with_header(changed)


def text(old, new):
    return lambda: with_header(lambda header: header.replace(old, new, 1))


def meta(**values):
    """Metadata set, or taken out where None."""

    def change(metadata, _):
        for key, value in values.items():
            metadata.pop(key, None)
            if value is not None:
                metadata[key] = value

    return lambda: rebuilt(change)


def array(name, value):
    def change(_, arrays):
        arrays.pop(name, None)
        if value is not None:
            arrays[name] = value(arrays) if callable(value) else value

    return lambda: rebuilt(change)


def index(*parts):
    return array("index", np.frombuffer(b"".join(parts), np.uint8))


def coded(*rows):
    """Codes as `queries` holds them."""
    return np.frombuffer(query_codes.write(np.int8(rows)), np.uint8)


def edited(name, at, value):
    def change(_, arrays):
        arrays[name].flat[at] = value

    return lambda: rebuilt(change)


def raw(data):
    return lambda: data


def cut(size):
    return lambda: file.write(full_switch())[:size]


def two(**values):
    """Several arrays set."""
    return lambda: rebuilt(lambda _, arrays: arrays.update(values))


def without_tensors():
    def change(_, arrays):
        arrays["index"] = np.zeros(1, np.uint8)
        for name in ("activation", "polarity"):
            arrays[name] = np.zeros(0, np.uint8)
        arrays["knobs"] = np.zeros(2, np.uint8)  # two lists of nothing
        del arrays["head.classifier.weight"], arrays["head.scale"]

    return rebuilt(change)


def two_names(one, other):
    record = varint(1) + varint(8) + varint(2) + b"\x01" + varint(1)
    return index(b"\x02", b"\x00", varint(len(one)), one, record, other, record)


def index_of(_):
    return container.read(memoryview(file.write(full_switch()))).array("index")


def one_row(code=0x11, stream=(1,)):
    """A file of one tensor, shape (1, 4), one weight active."""

    def change(_, arrays):
        listed = b"\1\0\1a\2\1\4\1" + bytes([code]) + varint(len(stream))
        arrays["index"] = np.frombuffer(listed, np.uint8)
        arrays["activation"] = np.array(stream, np.uint8)
        arrays["polarity"] = np.ones(1, np.uint8)
        arrays["knobs"] = np.uint8([1, 0, 0])

    return rebuilt(change)


F16 = np.float16
NONE = np.zeros(0, np.float32)
REFUSED = {
    "empty": (raw(b""), "0 bytes"),
    "short": (raw(b"\x01\0\0\0"), "starts with a length of 8"),
    "pickle": (raw(b"\x80\x04\x95" + b"x" * 200), "not a safetensors file"),
    "no header": (cut(20), "ends inside its header"),
    "not utf-8": (text(b"sentiment", b"sentimen\xff"), "not UTF-8"),
    "not JSON": (text(b"{", b"["), "the header is not JSON"),
    "deep JSON": (raw((60000).to_bytes(8, "little") + b"[" * 60000), "the header is not JSON"),
    "not an object": (raw((2).to_bytes(8, "little") + b"[]"), "the header is not a JSON object"),
    "huge number": (text(b'"shape":[2,3]', b'"shape":[' + b"9" * 5000 + b"]"), "is not JSON"),
    "key twice": (text(b'"knobs":', b'"index":'), "the header has a key twice"),
    "NaN": (text(b"[2,3]", b"NaN"), "the value NaN"),
    "no metadata": (entries(lambda h: h.pop("__metadata__")), "not an object of strings"),
    "number in metadata": (entries(lambda h: h["__metadata__"].update(task=1)), "not an object of strings"),
    "entry": (entries(lambda h: h["knobs"].pop("shape")), "is not an object of dtype, shape"),
    "entry key": (entries(lambda h: h["knobs"].update(x=1)), "is not an object of dtype, shape"),
    "dtype": (entries(lambda h: h["knobs"].update(dtype="BF16")), "has dtype 'BF16'"),
    "dtype list": (entries(lambda h: h["knobs"].update(dtype=["F16"])), "has dtype ['F16']"),
    "shape": (entries(lambda h: h["knobs"].update(shape=[-1])), "whole numbers"),
    "shape bool": (entries(lambda h: h["knobs"].update(shape=[True])), "whole numbers"),
    "shape deep": (entries(lambda h: h["knobs"].update(shape=[1] * 9)), "up to 8 whole numbers"),
    "shape size": (entries(lambda h: h["knobs"].update(shape=[3])), "its shape needs 6"),
    "offsets": (entries(lambda h: h["knobs"].update(data_offsets=[9, 3])), "a beginning and an end"),
    "overlap": (
        entries(lambda h: h["index"].update(data_offsets=[n - 1 for n in h["index"]["data_offsets"]])),
        "overlaps the entry before it",
    ),
    "hole": (
        entries(lambda h: h["index"].update(data_offsets=[n + 1 for n in h["index"]["data_offsets"]])),
        "leaves a hole",
    ),
    "bytes after": (lambda: file.write(full_switch()) + b"\0", "follow the header"),
    "bytes lacking": (cut(-1), "follow the header"),
    "spaces": (text(b":", b": "), "not in canonical form"),
    "lone surrogate": (text(b"sentiment", b"\\ud800"), "cannot be written as JSON"),
    "format": (meta(format="gguf"), "not a switch"),
    "no format": (meta(format=None), "not a switch"),
    "version": (meta(format_version="2"), "format version '2' is unknown; 1 is read"),
    "no base": (meta(base_digest=None), "lack ['base_digest']"),
    "unknown metadata": (meta(author="x"), "the unknown ['author']"),
    "base digest": (meta(base_digest="sha256:12"), "64 hex digits"),
    "architecture": (meta(base_architecture=""), "architecture is empty"),
    "no task": (meta(task=""), "no task name"),
    "rule": (meta(rule="paper"), "the rule is not JSON"),
    "rule keys": (meta(rule='{"name":"paper"}'), "a name and parameters"),
    "rule number": (meta(rule='{"name":"x","parameters":{"a":1}}'), "decimal numbers such as 1.0"),
    "rule spaces": (meta(rule='{"name": "x","parameters":{}}'), "rule is not in canonical form"),
    "metric": (meta(metric="[]"), "the metric is not an object"),
    "metric infinite": (meta(metric='{"a":1e999}'), "finite"),
    "metric NaN": (meta(metric='{"a":NaN}'), "the metric has the value NaN"),
    "metric twice": (meta(metric='{"a":1.0,"a":2.0}'), "the metric has a key twice"),
    "created": (meta(created="yesterday"), "a UTC time such as"),
    "created empty": (meta(created=""), "a UTC time such as"),
    "created elsewhere": (meta(created="2026-01-31T12:00:00+02:00"), "a UTC time such as"),
    "labels only": (meta(head_config=None), "but not both"),
    "labels object": (meta(labels="{}"), "labels are not a list of strings"),
    "labels numbers": (meta(labels="[1,2]"), "labels are not a list of strings"),
    "labels equal": (meta(labels='["a","a"]'), "two labels"),
    "labels none": (meta(labels="[]"), "no labels"),
    "config": (meta(head_config="3"), "head_config is not a JSON object"),
    "no labels": (meta(labels=None, head_config=None), "the unknown entry 'head.classifier.weight'"),
    "no recipe": (meta(query_recipe=None), "the unknown entry 'queries'"),
    "no queries": (array("queries", None), "no entry 'queries'"),
    "recipe empty": (meta(query_recipe=""), "which features"),
    "queries dtype": (array("queries", np.ones((2, 3), np.float32)), "'queries' is F32"),
    "queries shape": (array("queries", np.ones((2, 3), np.uint8)), "'queries' is U8 (2, 3)"),
    "queries signed": (entries(lambda h: h["queries"].update(dtype="I8")), "has dtype 'I8'"),
    "queries none": (
        two(queries=np.uint8([3, 0, 0]), query_steps=NONE),
        "the query set is (0, 3); (1, 1) to",
    ),
    "queries without features": (array("queries", np.uint8([0, 2, 0])), "the query set is (2, 0); (1, 1) to"),
    "queries many": (array("queries", np.uint8([3, 0xE9, 7, 0])), "the query set is (1001, 3); (1, 1) to"),
    "queries wide": (array("queries", np.uint8([0x81, 0x80, 4, 2, 0])), "the query set is (2, 65537)"),
    "queries empty": (array("queries", np.zeros(0, np.uint8)), "a number runs past the end"),
    "queries small": (
        array("queries", coded([1] * 3, [1] * 3)),
        f"largest code of a vector is not {LARGEST}",
    ),
    "queries low": (array("queries", coded([-LARGEST - 1, 0, 0], [-LARGEST, 0, 0])), f"beyond {LARGEST}"),
    "steps few": (array("query_steps", np.ones(1, np.float32)), "has 2 vectors, but 1 steps"),
    "steps wide": (array("query_steps", np.ones(2, F16)), "'query_steps' is F16"),
    "steps shape": (array("query_steps", np.ones((2, 1), np.float32)), "'query_steps' is F32 (2, 1)"),
    "no steps": (array("query_steps", None), "no entry 'query_steps'"),
    "step infinite": (edited("query_steps", 0, np.inf), "a step is not finite"),
    "step negative": (edited("query_steps", 0, -1), "a step is negative"),
    "step zero": (edited("query_steps", 0, 0), "a code is not 0 though its step is"),
    "step minus zero": (
        two(queries=coded([0] * 3, [0] * 3), query_steps=-np.zeros(2, np.float32)),
        "a step is negative",
    ),
    "step huge": (edited("query_steps", 0, 1e38), f"{LARGEST} times it is not"),
    "step tiny": (edited("query_steps", 0, 1e-40), "a step is below"),
    "no activation": (array("activation", None), "no entry 'activation'"),
    "no knobs": (array("knobs", None), "no entry 'knobs'"),
    "activation dtype": (array("activation", np.ones(4, F16)), "'activation' is F16"),
    "knobs shape": (array("knobs", lambda a: np.ones((2, 9), F16)), "'knobs' is F16 (2, 9)"),
    "unknown entry": (array("extra", np.ones(4, F16)), "the unknown entry 'extra'"),
    "head bytes": (array("head.x", np.ones(4, np.uint8)), "'head.x' is U8"),
    "head infinite": (edited("head.classifier.weight", 0, np.nan), "has a value that is not finite"),
    "polarity lacking": (array("polarity", np.ones(4, np.uint8)), "'polarity' has 4 bytes; the index counts"),
    "activation lacking": (array("activation", np.ones(4, np.uint8)), "'activation' has 4 bytes"),
    "polarity padding": (edited("polarity", -1, 0xFF), "polarity has padding bits set"),
    "knob NaN": (edited("knobs", 0, np.nan), "a knob is not finite"),
    "knob zero": (edited("knobs", 0, 0), "not positive"),
    "knob negative": (edited("knobs", 0, -1), "not positive"),
    "knob huge": (edited("knobs", 0, 20000), "above 10000"),
    "knobs lacking": (array("knobs", np.ones(17, F16)), "17 knobs, but its tensors use 18"),
    "knobs over": (array("knobs", np.ones(19, F16)), "19 knobs, but its tensors use 18"),
    "knobs many": (array("knobs", np.ones(99, F16)), "99 knobs, but its tensors have room for"),
    "knobs cut": (array("knobs", np.ones(5, np.uint8)), "the knobs have 5 bytes"),
    "knobs wide": (array("knobs", np.ones(18, np.float32)), "uint8 holds each of them exactly"),
    "knobs too wide": (array("knobs", np.full(18, 0.53125, np.float32)), "float16 holds each of them"),
    "changes nothing": (without_tensors, "the head has no tensors"),
    "index empty": (index(), "runs past the end"),
    "index many": (index(varint(100_001)), "100000 are allowed"),
    "index huge": (index(b"\xff" * 9), "more than nine bytes"),
    "index cut": (array("index", lambda a: index_of(a)[:-1]), "runs past the end"),
    "index long": (
        array("index", lambda a: np.append(index_of(a), 0).astype(np.uint8)),
        "last tensor ends at",
    ),
    "name bytes": (two_names(b"\xff", b"\0\1b"), "not UTF-8"),
    "name order": (two_names(b"b", b"\0\1a"), "'a' out of order"),
    "name twice": (two_names(b"b", b"\1\0"), "'b' out of order"),
    "name not shared": (two_names(b"ab", b"\0\2ac"), "not in its shortest form"),
    "name shared": (two_names(b"ab", b"\3\1c"), "runs past its bytes"),
    "name long": (two_names(b"a" * 2000, b"\0\1b"), "or past 1024"),
    "name cut": (index(b"\1\0\x09abc"), "runs past its bytes"),
    "no dimension": (index(b"\1\0\1a\0"), "0 dimensions"),
    "dimensions": (index(b"\1\0\1a\x09" + b"\1" * 9), "9 dimensions"),
    "no weight": (index(b"\1\0\1a\2\4\0\1\1\0"), "a: 0 weights"),
    "weights": (index(b"\1\0\1a\1", varint(2**41), b"\1\2\3"), "weights; 1 to"),
    "weights product": (index(b"\1\0\1a\2", varint(2**40) * 2, b"\1\2\3"), "weights; 1 to"),
    "weights in all": (index(b"\1\0\1a\1", varint(2**39), b"\1\2\3"), "weights in all"),
    "rows": (index(b"\1\0\1a\1", varint(2**27), b"\1\x12\3"), "rows with a knob each"),
    "none active": (index(b"\1\0\1a\1\4\0\1\1"), "a: 0 of 4"),
    "too many active": (index(b"\1\0\1a\1\4\5\1\1"), "a: 5 of 4"),
    "index without code": (index(b"\1\0\1a\1\4\4"), "ends inside its last tensor"),
    "one row": (one_row, "one row has one knob"),
    "unknown code": (lambda: one_row(code=7), "a: the activation has the unknown code 7"),
    "high code": (lambda: one_row(code=0x40), "a: the activation has the unknown code 64"),
    "other code": (lambda: one_row(code=2, stream=[1]), "a: the activation has code 2"),
    "activation padding": (lambda: one_row(code=1, stream=[0x11]), "sets a bit after the last of 4 weights"),
    "activation count": (lambda: one_row(code=1, stream=[3]), "2 active weights, but 1 are counted"),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_each_fault_of_a_file_is_refused_in_one_sentence(make, says, tmp_path):
    data = make()
    with pytest.raises(SwitchError, match=re.escape(says)) as refused:
        file.read(data)
    assert "\n" not in str(refused.value)
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(SwitchError, match=re.escape(says)):
        file.read(path)


def test_the_same_edits_unchanged_are_read():
    """The table's own machinery makes valid files, so that its faults are the ones named."""
    assert rebuilt(lambda metadata, arrays: None) == file.write(full_switch())
    assert_equal(file.read(rebuilt(lambda metadata, arrays: None)), full_switch())
    file.read(one_row(code=1))


def refused_or_canonical(data):
    try:
        switch = file.read(data)
    except SwitchError:
        return
    assert file.write(switch) == data


def test_every_flipped_byte_is_refused_or_gives_another_valid_file():
    data = file.write(full_switch())
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            refused_or_canonical(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])


def test_every_truncation_is_refused():
    data = file.write(full_switch())
    for size in range(len(data)):
        with pytest.raises(SwitchError):
            file.read(data[:size])


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_index_is_refused_or_gives_another_valid_file(data):
    found = bytearray(index_of(None).tobytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(found) - 1))
        found[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    refused_or_canonical(rebuilt(lambda _, arrays: arrays.update(index=np.frombuffer(found, np.uint8))))


def test_a_caller_can_lower_the_number_of_weights():
    data = file.write(full_switch())
    weights = sum(t.numel for t in full_switch().tensors)
    file.read(data, max_weights=weights)
    with pytest.raises(SwitchError, match=f"{weights} weights in all; {weights - 1} are allowed"):
        file.read(data, max_weights=weights - 1)


def one(**values):
    return replace(full_switch(), **values)


@pytest.mark.parametrize(
    ("switch", "says"),
    [
        (lambda: one(tensors=(tensor("a", [1], knob=20000),)), "above 10000"),
        (lambda: one(tensors=(tensor("a" * 1025, [1]),)), "past 1024"),
        (lambda: one(tensors=(tensor("\ud800", [1]),)), "no UTF-8 text"),
        (lambda: one(tensors=(tensor("a", np.ones((1,) * 9)),)), "9 dimensions"),
        (lambda: one(task="\ud800"), "cannot be written as JSON"),
        (lambda: one(metric={"loss": math.nan}), "cannot be written as JSON"),
        (lambda: one(created="now"), "a UTC time such as"),
        (lambda: one(licence="x" * 2**20), "the header would take"),
        (lambda: one(head=replace(full_switch().head, config={"x": {1, 2}})), "cannot be written as JSON"),
    ],
)
def test_what_could_not_be_read_is_not_written(switch, says):
    with pytest.raises(SwitchError, match=re.escape(says)):
        file.write(switch())


def test_a_path_that_is_not_there_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        file.read(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(SwitchError, match="0 bytes"):
        file.read(tmp_path / "empty")
