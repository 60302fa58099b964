"""The half-precision conversions against torch's, over every half and over random floats."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from bitswitch.engine.bits import (
    from_bfloat16,
    from_float16,
    to_bfloat16,
    to_float16,
    trailing_zeros,
)

HALVES = {torch.float16: (from_float16, to_float16), torch.bfloat16: (from_bfloat16, to_bfloat16)}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_half_widens_as_in_torch(dtype):
    widen = HALVES[dtype][0]

    @njit
    def run(halves):
        return np.array([widen(half) for half in halves], np.float32)

    every = np.arange(65536, dtype=np.uint16)
    expected = torch.from_numpy(every).view(dtype).float().numpy()
    found = run(every)
    numbers = ~np.isnan(expected)
    assert (np.isnan(found) == ~numbers).all()
    assert (found.view(np.uint32)[numbers] == expected.view(np.uint32)[numbers]).all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_floats_round_as_in_torch(dtype):
    narrow = HALVES[dtype][1]

    @njit
    def run(values):
        result = np.empty(len(values), np.uint16)
        for i in range(len(values)):
            result[i] = narrow(values[i])
        return result

    generator = np.random.default_rng(0)
    anything = generator.integers(0, 2**32, 1_000_000, dtype=np.uint32).view(np.float32)
    usual = generator.normal(0, 0.05, 1_000_000).astype(np.float32)
    halves = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype).float().numpy()
    halves = halves[np.isfinite(halves)]
    between = ((halves[:-1].astype(np.float64) + halves[1:]) / 2).astype(np.float32)  # ties
    values = np.concatenate([anything, usual, between, np.array([0.0, -0.0, np.inf, -np.inf], np.float32)])
    values = values[~np.isnan(values)]
    expected = torch.from_numpy(values).to(dtype).view(torch.uint16).numpy()
    assert (run(values) == expected).all()


@njit
def lowest(word):
    return trailing_zeros(word)


@given(st.integers(1, 2**64 - 1))
def test_trailing_zeros(word):
    assert lowest(np.uint64(word)) == (word & -word).bit_length() - 1
