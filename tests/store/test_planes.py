from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bitswitch_store import planes
from bitswitch_store.switch import TensorSwitch

TERNARY = arrays(np.int8, array_shapes(max_dims=3, max_side=20), elements=st.integers(-1, 1))


@settings(deadline=None)
@given(TERNARY)
def test_unpack_gives_back_what_was_packed(ternary):
    if not ternary.any():
        ternary.flat[0] = -1
    activation, polarity = planes.pack(ternary)
    tensor = TensorSwitch("w", ternary.shape, activation, polarity, np.ones(1, np.float32))
    assert tensor.active == np.count_nonzero(ternary)
    unpacked = planes.unpack(tensor)
    assert unpacked.dtype == np.int8
    np.testing.assert_array_equal(unpacked, ternary)


def test_bits_lie_least_significant_first_in_row_major_order():
    activation, polarity = planes.pack(np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.int8))
    assert activation.tolist() == [0b00001010, 0b1]
    assert polarity.tolist() == [0b101]


def test_an_array_in_another_order_is_packed_row_major():
    ternary = np.asfortranarray(np.array([[0, 1, 1], [-1, 0, 0]], np.int8))
    assert planes.pack(ternary)[0].tolist() == planes.pack(ternary.copy("C"))[0].tolist() == [0b001110]


@pytest.mark.parametrize("bits", [1, 7, 63, 64, 65, 127, 128, 1000])
def test_inverted_turns_every_bit_and_leaves_zeros_after_them(bits):
    some = np.random.default_rng(bits).random(bits) < 0.3
    turned = planes.inverted(planes.words(np.packbits(some, bitorder="little")), bits)
    assert planes.count(turned) == bits - some.sum()
    np.testing.assert_array_equal(planes.packed(turned, bits), np.packbits(~some, bitorder="little"))


@settings(deadline=None)  # the first call compiles
@given(rows=st.integers(1, 40), width=st.integers(1, 200), share=st.floats(0, 0.05), seed=st.integers(0, 99))
def test_touched_rows_are_those_with_a_set_bit(rows, width, share, seed):
    bits = np.random.default_rng(seed).random((rows, width)) < share
    found = planes.touched_rows(
        planes.words(np.packbits(bits, bitorder="little")), rows, width, int(bits.sum())
    )
    assert found.tolist() == np.flatnonzero(bits.any(axis=1)).tolist()


def test_of_places_sets_just_those():
    plane = planes.of_places(np.array([0, 63, 64, 130]), 131)
    assert planes.touched_rows(plane, 131, 1, 4).tolist() == [0, 63, 64, 130]
