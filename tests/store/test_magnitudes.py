"""Whole numbers as bytes: each array has one encoding, and what is not one is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch_store import magnitudes
from bitswitch_store.switch import SwitchError

SHAPES = st.one_of(st.tuples(st.integers(0, 200)), st.tuples(st.integers(1, 9), st.integers(1, 30)))


@st.composite
def some_numbers(draw):
    """Of any shape, near zero or up to 255 away, with rows that are all zero."""
    shape = draw(SHAPES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    numbers = rng.normal(0, draw(st.sampled_from([0, 0.5, 3, 90])), shape)
    numbers[rng.random(shape[0]) < draw(st.sampled_from([0, 0.8]))] = 0
    return np.clip(np.rint(numbers), -255, 255).astype(np.int16)


@given(some_numbers(), st.binary(max_size=9), st.binary(max_size=9))
@settings(max_examples=200, deadline=None)
def test_read_gives_back_what_was_written_from_wherever_it_lies(numbers, before, behind):
    data = magnitudes.write(numbers)
    for vouched in (False, True):
        found, end = magnitudes.read(before + data + behind, len(before), numbers.shape, 255, vouched=vouched)
        np.testing.assert_array_equal(found, numbers.reshape(-1))
        assert end == len(before) + len(data)


@given(some_numbers(), st.integers(1, 255), st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_are_refused_or_are_another_encoding(numbers, most, data):
    damaged = bytearray(magnitudes.write(numbers))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found, end = magnitudes.read(bytes(damaged), 0, numbers.shape, most)
    except SwitchError:
        return
    assert np.abs(found).max(initial=0) <= most
    assert magnitudes.write(found.reshape(numbers.shape)) == damaged[:end]


def test_a_bound_is_a_bound():
    data = magnitudes.write(np.int16([0, -7, 2]))
    assert magnitudes.read(data, 0, (3,), 7)[0].tolist() == [0, -7, 2]
    with pytest.raises(SwitchError, match="more than 6 planes"):
        magnitudes.read(data, 0, (3,), 6)
