"""Knobs in 8 bits: every one of them comes back, others go to the nearest, and the fewest bits are taken."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch_store import knobs
from bitswitch_store.switch import SwitchError

ALL = np.array([(1 + code % 8 / 8) * 2.0 ** (code // 8 - 21) for code in range(256)], np.float32)
"""As docs/format.md has it."""
FORMAT = Path(__file__).parents[2] / "docs" / "format.md"


def round_trip(groups, dimensions):
    held = knobs.write(groups, dimensions)
    counts = [group.size for group in groups]
    for vouched in (False, True):
        found = knobs.read(held, counts, dimensions, vouched=vouched)
        np.testing.assert_array_equal(found, np.concatenate([np.zeros(0, np.float32), *groups]), strict=True)
    return held


@st.composite
def tensors(draw):
    """Knobs of some vectors and matrices, wide or narrow, in 8 bits."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = draw(st.lists(st.integers(1, 60), max_size=6))
    spread = draw(st.sampled_from([0, 1, 20, 300]))
    codes = [np.clip(rng.integers(0, 256) + rng.normal(0, spread, size), 0, 255) for size in sizes]
    return [ALL[one.astype(int)] for one in codes], [draw(st.integers(1, 3)) for _ in sizes]


@given(tensors())
@settings(max_examples=200, deadline=None)
def test_tensors_knobs_come_back(given):
    assert round_trip(*given).dtype == np.uint8


@pytest.mark.parametrize("dimensions", [1, 2])
def test_all_of_eight_bits_come_back(dimensions):
    assert round_trip([ALL], [dimensions]).dtype == np.uint8
    assert round_trip([ALL[::-1], ALL[:1]], [dimensions, 1]).dtype == np.uint8
    np.testing.assert_array_equal(knobs.rounded(ALL), ALL)


@pytest.mark.parametrize(("spread", "dimensions"), [(1, 2), (12, 1), (3, 2)])
def test_they_take_at_most_3_percent_more_than_their_entropy(spread, dimensions):
    codes = np.rint(np.random.default_rng(0).normal(60, spread, 10_000)).astype(int)
    _, counts = np.unique(codes, return_counts=True)
    entropy = -(counts * np.log2(counts / codes.size)).sum()
    assert 8 * round_trip([ALL[codes]], [dimensions]).size <= 1.03 * entropy


@given(tensors(), st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_bytes_are_refused_or_are_other_knobs(given, data):
    groups, dimensions = given
    counts = [group.size for group in groups]
    damaged = bytearray(knobs.write(groups, dimensions))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    held = np.frombuffer(bytes(damaged), np.uint8)
    try:
        found = knobs.read(held, counts, dimensions)
    except SwitchError:
        return
    parts = np.split(found, np.cumsum(counts)[:-1]) if counts else []
    assert knobs.write(parts, dimensions).tobytes() == damaged


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "too few for 2 weights"),
        ("0500", "too few for 2 weights"),
        ("0504" + "10" + "00" + "00", "padding bits are set after the lowest bits"),
        ("0504" + "00" + "00", "a number runs past the end"),
        ("0504" + "00" + "00" + "00" + "00", "6 bytes, but end in byte 5"),
        ("4004" + "00" + "00" + "00", "beyond what 8 bits hold"),
        ("3f04" + "00" + "01010102" + "00" + "00" + "00", "beyond what 8 bits hold"),
        ("0504" + "00" + "020000" + "00" + "03" + "00", "another median than the one that is written"),
        ("0504" + "00" + "00" + "010000" + "00" + "00", "another median than the one that is written"),
    ],
)
def test_each_fault_is_named(data, says):
    """A vector of two weights, then a matrix of one row."""
    with pytest.raises(SwitchError, match=re.escape(says)):
        knobs.read(np.frombuffer(bytes.fromhex(data), np.uint8), [2, 1], [1, 2])


def test_the_reader_printed_in_the_format_page_reads_knobs():
    printed = {}
    for source in re.findall(r"```python\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL):
        exec(source, printed)
    rng = np.random.default_rng(1)
    groups = [ALL[rng.integers(0, 256, size)] for size in (1, 9, 40, 3)]
    for dimensions in ([1, 2, 1, 3], [2, 2, 2, 2], [1, 1, 1, 1]):
        data = knobs.write(groups, dimensions).tobytes()
        found = printed["knobs"](data, [1, 9, 40, 3], dimensions)
        assert [ALL[code] for code in found] == np.concatenate(groups).tolist()


@given(st.floats(float(ALL[0]), float(ALL[-1]), width=32))
def test_the_nearest_is_taken(value):
    found = knobs.rounded(np.float32([value]))[0]
    assert abs(found - np.float32(value)) == np.abs(ALL - np.float32(value)).min()
    assert knobs.write([np.float32([found])], [1]).dtype == np.uint8


def test_what_is_too_small_is_none_and_what_is_large_stays():
    np.testing.assert_array_equal(knobs.rounded(np.float32([0, 1e-7, 1e-40])), 0)
    large = knobs.rounded(np.float32([2_100, 5_000, 9_000]))
    np.testing.assert_allclose(large, [2_100, 5_000, 9_000], rtol=1 / 16)
    assert knobs.write([large], [1]).dtype == np.float16


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([], np.uint8),
        ([0.5, 0.0009765625], np.uint8),
        ([0.5, 0.7001953125], np.float16),  # more bits of mantissa
        ([0.5, 2048.0], np.float16),  # too large for 8 bits
        ([0.5, 2.0**-24], np.float16),  # too small for 8 bits
        ([0.5, 2.0**-30], np.float32),  # too small for either
        ([0.5, 0.1], np.float32),
    ],
)
def test_the_fewest_bits_that_hold_all(values, dtype):
    values = np.array(values, np.float32)
    groups = [values] if values.size else []
    assert round_trip(groups, [2] * len(groups)).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_more_bits_than_needed_are_refused(dtype):
    with pytest.raises(SwitchError, match=f"knobs are {np.dtype(dtype)}, but uint8 holds each"):
        knobs.read(np.array([0.5, 0.25], dtype), [2], [1])


def test_more_or_fewer_than_the_tensors_use_are_refused():
    with pytest.raises(SwitchError, match="3 knobs, but its tensors use 2"):
        knobs.read(np.float16([0.1, 0.2, 0.3]), [2], [1])


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e5, "above 10000")]
)
def test_what_is_no_knob_is_refused(value, words):
    with pytest.raises(SwitchError, match=words):
        knobs.write([np.float32([0.5, value])], [1])
