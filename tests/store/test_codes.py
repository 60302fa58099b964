"""Query vectors in 8 bits: within half a step of what they were, and told from what `of` cannot have made."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bitswitch_store.codes import Codes

VECTORS = arrays.arrays(np.float32, (3, 5), elements=st.floats(-1e3, 1e3, width=32))


@given(VECTORS)
def test_within_half_a_step_and_canonical(vectors):
    codes = Codes.of(vectors)
    assert len(codes) == 3
    assert (np.abs(codes.vectors() - vectors) <= 0.501 * codes.steps + 1e-30).all()
    assert codes.canonical or (np.abs(vectors).max(axis=1) < 1e-30).any()  # whose step may be no number


@pytest.mark.parametrize(
    ("codes", "step"),
    [([126, 0], 1.0), ([-128, 127], 1.0), ([127, 0], -1.0), ([127, 0], np.nan), ([1, 0], 0.0), ([0, 0], 1.0)],
)
def test_others_are_not_canonical(codes, step):
    assert not Codes(np.int8([codes]), np.float32([[step]])).canonical
    assert Codes(np.int8([[127, 0], [0, 0]]), np.float32([[0.5], [0]])).canonical
