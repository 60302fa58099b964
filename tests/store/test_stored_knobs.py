"""Knobs in 8 bits: every one of them comes back, others go to the nearest, and the fewest bits are taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitswitch_store import knobs
from bitswitch_store.switch import SwitchError

ALL = np.array([(1 + code % 8 / 8) * 2.0 ** (code // 8 - 21) for code in range(256)], np.float32)
"""As docs/format.md has it."""


def test_all_of_eight_bits_come_back():
    held = knobs.stored(ALL)
    assert held.dtype == np.uint8
    assert held.tolist() == list(range(256))
    np.testing.assert_array_equal(knobs.read(held), ALL)
    np.testing.assert_array_equal(knobs.rounded(ALL), ALL)


@given(st.floats(float(ALL[0]), float(ALL[-1]), width=32))
def test_the_nearest_is_taken(value):
    found = knobs.rounded(np.float32([value]))[0]
    assert abs(found - np.float32(value)) == np.abs(ALL - np.float32(value)).min()
    assert knobs.stored(np.float32([found])).dtype == np.uint8


def test_what_is_too_small_is_none_and_what_is_large_stays():
    np.testing.assert_array_equal(knobs.rounded(np.float32([0, 1e-7, 1e-40])), 0)
    large = knobs.rounded(np.float32([2_100, 5_000, 9_000]))
    np.testing.assert_allclose(large, [2_100, 5_000, 9_000], rtol=1 / 16)
    assert knobs.stored(large).dtype == np.float16


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
    held = knobs.stored(values)
    assert held.dtype == dtype
    np.testing.assert_array_equal(knobs.read(held), values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_more_bits_than_needed_are_refused(dtype):
    with pytest.raises(SwitchError, match=f"knobs are {np.dtype(dtype)}, but uint8 holds each"):
        knobs.read(np.array([0.5, 0.25], dtype))


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e5, "above 10000")]
)
def test_what_is_no_knob_is_refused(value, words):
    with pytest.raises(SwitchError, match=words):
        knobs.stored(np.float32([0.5, value]))
