from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch_store import codec, planes
from bitswitch_store.switch import SwitchError

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"


def pack(bits):
    return np.packbits(np.asarray(bits, bool).reshape(-1), bitorder="little")


def decode(code, stream, shape, active, *, vouched=False):
    return planes.packed(codec.decode(code, stream, shape, active, vouched=vouched), math.prod(shape))


def round_trip(bits):
    bits = np.asarray(bits, bool)
    active = int(bits.sum())
    code, stream = codec.encode(pack(bits), bits.shape, active)
    np.testing.assert_array_equal(decode(code, stream, bits.shape, active), pack(bits))
    return code, stream


@st.composite
def some_bits(draw):
    """Bits of any shape: sparse or dense, evenly spread or in a few rows only."""
    shape = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = rng.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.38, 0.5, 0.62, 0.8, 0.98, 1.0]))
    if draw(st.booleans()):
        bits[rng.random(shape[0]) < draw(st.sampled_from([0.3, 0.9]))] = False
    if not bits.any():
        bits.flat[draw(st.integers(0, bits.size - 1))] = True
    return bits


@given(some_bits())
@settings(max_examples=400, deadline=None)
def test_decode_gives_back_what_was_encoded_and_never_takes_more_than_the_bits(bits):
    _, stream = round_trip(bits)
    assert len(stream) <= pack(bits).size


@pytest.mark.parametrize(
    ("bits", "code", "size"),
    [
        (np.ones(1), codec.FULL, 0),
        (np.ones((5, 7)), codec.FULL, 0),
        ([1, 0], codec.RAW, 1),
        (np.arange(1000) == 999, codec.GAPS, 2),
        (np.arange(1000) != 0, codec.GAPS_OF_REST, 2),
        (np.random.default_rng(1).random(5000) < 0.38, codec.TRIPLES, None),
        (np.random.default_rng(1).random(5000) < 0.62, codec.TRIPLES_OF_REST, None),
        (np.arange(6400).reshape(100, 64) // 64 == 3, codec.FULL | codec.ROWS, 4),
    ],
)
def test_each_code_is_chosen_where_it_is_the_shortest(bits, code, size):
    chosen, stream = round_trip(bits)
    assert chosen == code
    if size is not None:
        assert len(stream) == size


@pytest.mark.parametrize("width", [1, 3, 8, 63, 64, 65, 384])
def test_rows_without_active_weights_are_left_out_at_any_width(width):
    rng = np.random.default_rng(width)
    bits = np.zeros((500, width), bool)
    bits[rng.choice(500, 20, replace=False)] = rng.random((20, width)) < 0.4
    bits[7, 0] = True
    code, stream = round_trip(bits)
    if width >= 63:
        assert code & codec.ROWS
        plain = codec.encode(pack(bits), (bits.size,), int(bits.sum()))[1]
        assert len(stream) < len(plain)


DENSITIES = [*np.geomspace(0.001, 0.3, 12), *np.arange(0.31, 0.7, 0.02), *(1 - np.geomspace(0.001, 0.3, 12))]


@pytest.mark.parametrize("density", DENSITIES, ids=lambda d: f"{d:.3f}")
def test_random_bits_take_at_most_1_5_percent_more_than_their_entropy_bound(density):
    bits = np.random.default_rng(0).random(1_000_000) < density
    _, stream = round_trip(bits)
    d = bits.mean()
    entropy = -d * math.log2(d) - (1 - d) * math.log2(1 - d)
    assert 8 * len(stream) + bits.sum() <= 1.015 * bits.size * (entropy + d)


def test_the_golomb_parameter_is_gallager_and_van_voorhis_to_first_order():
    for numel, count in itertools.product([384, 1000, 1_000_000], [1, 3, 10, 38, 100, 146]):
        d = count / numel
        optimum = math.ceil(math.log(2 - d) / -math.log1p(-d))
        assert abs(codec.golomb(numel, count) - optimum) <= 1 + optimum / 1e5


def test_the_decoder_printed_in_the_format_page_reads_every_code():
    source = re.search(r"```python\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL)
    assert source
    printed = {}
    exec(source[1], printed)
    seen = set()
    rng = np.random.default_rng(5)
    for shape in [(1,), (7,), (64,), (250,), (40, 9), (60, 64)]:
        for density, kept in itertools.product([0.01, 0.1, 0.25, 0.38, 0.5, 0.62, 0.9, 1.0], [0.1, 1.0]):
            bits = rng.random(shape) < density
            bits[rng.random(shape[0]) > kept] = False
            bits.flat[0] = True
            active = int(bits.sum())
            code, stream = codec.encode(pack(bits), shape, active)
            assert printed["decode"](code, stream, shape, active) == bits.reshape(-1).astype(int).tolist()
            seen.add(code)
    assert {0, 1, 2, 3, 4, 5} <= {code & ~codec.ROWS for code in seen}
    assert len([code for code in seen if code & codec.ROWS]) >= 4


@pytest.mark.parametrize("shape", [(1,), (5,), (9,), (3, 3)])
def test_exactly_the_encodings_are_accepted(shape):
    """Every stream of up to two bytes, in every code, with every count."""
    numel = math.prod(shape)
    valid = {}
    for bits in itertools.product([0, 1], repeat=numel):
        if any(bits):
            code, stream = codec.encode(pack(bits), shape, sum(bits))
            assert (sum(bits), code, stream) not in valid
            valid[sum(bits), code, stream] = pack(bits).tobytes()
    streams = [bytes(s) for n in range(2) for s in itertools.product(range(256), repeat=n)]
    streams += [bytes([low, high]) for low in range(256) for high in (0, 1, 2, 3, 128)]
    accepted = {}
    for active, code, stream in itertools.product(range(numel + 2), range(7), streams):
        try:
            accepted[active, code, stream] = decode(code, stream, shape, active).tobytes()
        except SwitchError:
            continue
    assert accepted == valid


@given(
    code=st.integers(0, 31),
    stream=st.binary(max_size=60),
    shape=st.lists(st.integers(1, 60), min_size=1, max_size=3).map(tuple),
    active=st.integers(-1, 300),
)
@settings(max_examples=1500, deadline=None)
def test_any_bytes_are_refused_or_are_an_encoding(code, stream, shape, active):
    try:
        vouched = decode(code, stream, shape, active, vouched=True)
    except SwitchError:
        vouched = None
    else:  # whoever vouched, and however wrongly: so many bits, none of them padding
        assert np.unpackbits(vouched, bitorder="little")[: math.prod(shape)].sum() == active
        assert np.bitwise_count(vouched).sum() == active
    try:
        plane = decode(code, stream, shape, active)
    except SwitchError:
        return
    assert codec.encode(plane, shape, active) == (code, stream)
    np.testing.assert_array_equal(plane, vouched)


@given(some_bits(), st.data())
@settings(max_examples=400, deadline=None)
def test_a_damaged_stream_is_refused_or_is_another_encoding(bits, data):
    active = int(bits.sum())
    code, stream = codec.encode(pack(bits), bits.shape, active)
    damaged = bytearray(stream)
    kind = data.draw(st.sampled_from(["flip", "cut", "grow", "count"]))
    if kind == "flip" and damaged:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    elif kind == "grow":
        damaged += data.draw(st.binary(min_size=1, max_size=9))
    else:
        active += data.draw(st.sampled_from([-1, 1]))
    try:
        plane = decode(code, bytes(damaged), bits.shape, active)
    except SwitchError:
        return
    assert codec.encode(plane, bits.shape, active) == (code, bytes(damaged))


# d3 0e, code 2, is the example of docs/format.md: weights 1, 6 and 19 of 32.


@pytest.mark.parametrize(
    ("code", "stream", "shape", "active", "says"),
    [
        (2, "d30e", (32,), 0, "0 of 32 weights cannot be active"),
        (2, "d30e", (32,), 33, "33 of 32 weights cannot be active"),
        (6, "d30e", (32,), 3, "unknown code 6"),
        (0, "", (32,), 3, "3 of 32 weights are active, which code 0 cannot say"),
        (1, "ff", (8,), 8, "8 of 8 weights are active, which code 1 cannot say"),
        (3, "", (8,), 8, "which code 3 cannot say"),
        (2, "d3", (32,), 3, "has 1 bytes; code 2 needs 2 to"),
        (2, "d30e00000000", (32,), 3, "has 6 bytes; code 2 needs 2 to"),
        (2, "2184104208210000", (320,), 10, "has 8 bytes, but its code ends in byte 7"),
        (2, "d32e", (32,), 3, "padding bits set after its last code"),
        (2, "d300", (32,), 3, "ends before its last active weight"),
        (2, "f0ff", (32,), 3, "sets a bit after the last of 32 weights"),
        (1, "42000800", (32,), 3, "its shortest encoding has code 2"),
        (1, "42000800", (32,), 4, "has 3 active weights, but 4 are counted"),
        (2, "13", (7,), 2, "its shortest encoding has code 1"),
        (1, "c2", (7,), 2, "sets a bit after the last of 7 weights"),
        (8, "", (4, 8), 8, "a number runs past the end"),
        (8, "018100" + "01" + "01", (4, 8), 8, "in more bytes than it needs"),
        (8, "010401", (4, 8), 8, "cannot lie in 4 of 4 rows"),
        (8, "010001", (4, 8), 8, "cannot lie in 0 of 4 rows"),
        (8, "010101", (4, 8), 9, "9 active weights cannot lie in 1 of 4 rows of 8"),
        (8, "010102" + "01", (4, 8), 8, "the list of rows runs past the end"),
        (8, "010101" + "03", (4, 8), 8, "has 2 active weights, but 1 are counted"),
        (8, "080101" + "01", (4, 8), 8, "unknown code 8"),
        (8, "030101" + "01", (4, 8), 8, "the stream"),
        (9, "01020d18" + "00" * 12 + "ff" * 8 + "00" * 8, (100, 64), 64, "is listed as having one"),
        (9, "010101" + "01" + "0f", (4, 8), 4, "its shortest encoding has code"),
    ],
)
def test_each_fault_of_a_stream_is_named(code, stream, shape, active, says):
    with pytest.raises(SwitchError, match=re.escape(says)):
        decode(code, bytes.fromhex(stream), shape, active)


@pytest.mark.parametrize("numel", [700, 5000])
@pytest.mark.parametrize("density", [0.15, 0.2, 0.25, 0.3])
def test_a_vouched_stream_with_any_bit_turned_is_refused_or_sets_as_many_bits(numel, density):
    """Long enough that gaps are looked up in windows, past which nothing may be read or set."""
    rng = np.random.default_rng(numel)
    bits = rng.random(numel) < density
    active = int(bits.sum())
    code, stream = codec.encode(pack(bits), (numel,), active)
    assert code == codec.GAPS
    for turned in rng.choice(8 * len(stream), 200):
        damaged = bytearray(stream)
        damaged[turned // 8] ^= 1 << (turned % 8)
        try:
            plane = decode(code, bytes(damaged), (numel,), active, vouched=True)
        except SwitchError:
            continue
        assert np.bitwise_count(plane).sum() == active


def test_a_few_bytes_cannot_claim_many_active_weights():
    with pytest.raises(SwitchError, match="code 2 needs"):
        decode(codec.GAPS, b"\xff\xff", (1 << 40,), 1 << 20)
