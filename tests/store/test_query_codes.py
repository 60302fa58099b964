"""Codes of a query set as bytes: each set has one encoding, near its entropy, and all else is refused."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch_store import query_codes
from bitswitch_store.codes import LARGEST, Codes
from bitswitch_store.switch import MAX_QUERIES, SwitchError

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"


def round_trip(codes):
    data = query_codes.write(codes)
    found = query_codes.read(data)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, codes, strict=True)
    return data


@st.composite
def some_codes(draw):
    """Of any shape: around one centre or many, dense or sparse, with columns that nobody uses."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0, 0.5, 2, 9]))
    codes = rng.normal(draw(st.sampled_from([0, 5])) * rng.normal(size=shape[1]), spread, shape)
    codes[rng.random(shape) < draw(st.sampled_from([0, 0.5, 0.95]))] = 0
    codes[:, rng.random(shape[1]) < draw(st.sampled_from([0, 0.8]))] = 0
    return np.clip(np.rint(codes), -LARGEST, LARGEST).astype(np.int8)


@given(some_codes())
@settings(max_examples=400, deadline=None)
def test_read_gives_back_what_was_written(codes):
    round_trip(codes)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (MAX_QUERIES, 1), (1, query_codes.MAX_QUERY_DIM)])
@pytest.mark.parametrize("code", [0, 1, -1, LARGEST, -LARGEST])
def test_vectors_that_are_all_alike_take_next_to_nothing(shape, code):
    codes = np.full(shape, code, np.int8)
    assert len(round_trip(codes)) < 200 + shape[1] / 2
    codes.flat[-1] = -LARGEST
    codes.flat[0] = LARGEST  # as far apart as there is
    round_trip(codes)


def realistic(seed, vectors=100):
    """Hidden states, each dimension around a mean of its own, and style: mostly nothing."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(rng.normal(size=384), 1, (vectors, 384))
    style = np.where(
        rng.random((vectors, 100)) < 0.5 * (rng.random(100) < 0.3), rng.gamma(2, 2, (vectors, 100)), 0
    )
    return Codes.of(np.hstack([hidden, style])).codes


@pytest.mark.parametrize("seed", range(4))
def test_realistic_vectors_take_at_most_3_percent_more_than_their_entropy(seed):
    """That of what is written where anything is: the medians and the differences from them."""
    codes = realistic(seed)
    data = round_trip(codes)
    median = np.sort(codes, axis=0)[(len(codes) - 1) // 2]
    written = np.vstack([median, codes - median])
    assert len(data) <= 1.03 * entropy(written[:, written.any(axis=0)]) / 8 + 100 // 8
    assert len(data) <= 0.97 * entropy(codes[:, codes.any(axis=0)]) / 8


def entropy(values):
    """Bits of values each drawn by itself, by how often each of them is there."""
    _, counts = np.unique(values, return_counts=True)
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def test_the_reader_printed_in_the_format_page_reads_query_sets():
    printed = {}
    for source in re.findall(r"```python\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL):
        exec(source, printed)
    for codes in (
        realistic(0, 5),
        np.zeros((2, 3), np.int8),
        np.int8([[-1]]),
        np.int8([[7, -8], [7, 3], [7, 9]]),
    ):
        assert printed["query_codes"](query_codes.write(codes)) == codes.tolist()


# What follows is refused.


def refused_or_canonical(data):
    try:
        codes = query_codes.read(data)
    except SwitchError:
        return None
    assert np.abs(codes).max() <= LARGEST
    assert query_codes.write(codes) == data
    return codes


@given(some_codes(), st.data())
@settings(max_examples=600, deadline=None)
def test_damaged_bytes_are_refused_or_are_another_encoding(codes, data):
    damaged = bytearray(query_codes.write(codes))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    refused_or_canonical(bytes(damaged))


@given(st.integers(1, 4), st.integers(1, 4), st.binary(max_size=40))
@settings(max_examples=1000, deadline=None)
def test_any_bytes_are_refused_or_are_an_encoding(dim, vectors, rest):
    refused_or_canonical(bytes([dim, vectors]) + rest)


def test_every_truncation_and_every_byte_more_is_refused():
    data = query_codes.write(realistic(0, 3))
    for size in range(len(data)):
        with pytest.raises(SwitchError):
            query_codes.read(data[:size])
    with pytest.raises(SwitchError, match="ends in byte"):
        query_codes.read(data + b"\0")


def test_exactly_the_encodings_of_two_small_vectors_are_accepted():
    """Every set of two vectors of one feature up to 2, and all bytes of up to so many."""
    valid = {
        query_codes.write(np.int8([[a], [b]])): (a, b) for a, b in itertools.product(range(-2, 3), repeat=2)
    }
    assert len(valid) == 25
    streams = (bytes([1, 2, *rest]) for n in range(3) for rest in itertools.product(range(256), repeat=n))
    short = {data for data in streams if refused_or_canonical(data) is not None}
    assert short == {data for data in valid if len(data) <= 4}


# The plane of one feature of two vectors has three entries: the median, and two differences.


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "a number runs past the end"),
        ("01", "a number runs past the end"),
        ("8100" + "02" + "00", "in more bytes than it needs"),
        ("00" + "02" + "00", "the query set is (2, 0)"),
        ("01" + "00" + "00", "the query set is (0, 1)"),
        ("01" + "e907" + "00", "the query set is (1001, 1)"),
        ("818004" + "02" + "00", "the query set is (2, 65537)"),
        ("818001" + "e807" + "00", "(1000, 16385); at most 8388608 values"),
        ("01" + "02", "a number runs past the end"),
        ("01" + "02" + "01", "too few for 1 signs"),
        ("01" + "02" + "0101", "a number runs past the end"),
        ("01" + "02" + "0101" + "02" + "01", "a plane of magnitudes runs past the end"),
        ("01" + "02" + "0106" + "01" + "01" + "00" + "00", "unknown code 6"),
        ("01" + "02" + "0400" + "00" + "00" + "00", "4 of 3 weights cannot be active"),
        ("01" + "02" + "0101" + "01" + "03" + "00" + "00", "2 active weights, but 1 are counted"),
        ("01" + "02" + "0102" + "01" + "01" + "00" + "00", "its shortest encoding has code 1"),
        ("01" + "02" + "0101" + "01" + "01" + "00", "0 bytes of signs for 1 numbers"),
        ("01" + "02" + "0101" + "01" + "01" + "00" + "0000", "has 9 bytes, but ends in byte 8"),
        ("01" + "02" + "0101" + "01" + "01" + "00" + "02", "padding bits are set after the last sign"),
        ("01" + "02" + "0101" + "01" + "02" + "00" + "01", "whose median is not the one that is written"),
        ("01" + "02" + "0300" + "00" + "00" + "00", "whose median is not the one that is written"),
        ("01" + "01" + "0101" + "01" + "02" + "00" + "00", "whose median is not the one that is written"),
        (
            "01" + "02" + "0101" + "01" + "01" + "010000" * (2 * LARGEST) + "00" + "00",
            f"more than {2 * LARGEST} planes",
        ),
    ],
)
def test_each_fault_is_named(data, says):
    with pytest.raises(SwitchError, match=re.escape(says)):
        query_codes.read(bytes.fromhex(data))


def test_a_code_beyond_the_largest_is_refused():
    """A median of 62 and differences of 0 are codes of 62; as many planes as there can be are too many."""
    for planes, largest in (
        (LARGEST - 1, LARGEST - 1),
        (LARGEST, LARGEST),
        (LARGEST + 1, None),
        (2 * LARGEST, None),
    ):
        data = bytes.fromhex("01" + "02" + "0101" + "01" + "01" + "010000" * (planes - 1) + "00" + "00")
        if largest is None:
            with pytest.raises(SwitchError, match=f"a code beyond {LARGEST}"):
                query_codes.read(data)
        else:
            assert query_codes.read(data).tolist() == [[largest], [largest]]
