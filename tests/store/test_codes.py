"""Query vectors in whole steps: within half a step of what they were; what `of` cannot have made is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bitswitch_store.codes import LARGEST, Codes

VECTORS = arrays.arrays(np.float32, (3, 5), elements=st.floats(-1e3, 1e3, width=32))


@given(VECTORS)
def test_within_half_a_step_and_valid(vectors):
    codes = Codes.of(vectors)
    assert len(codes) == 3
    assert codes.fault() is None
    tiny = LARGEST * float(np.finfo(np.float32).smallest_normal)  # vectors up to here become nothing
    assert (np.abs(codes.vectors() - vectors) <= np.maximum(0.501 * codes.steps, tiny)).all()
    assert codes.largest == pytest.approx(np.abs(codes.vectors()).max())


@pytest.mark.parametrize(
    ("codes", "step", "fault"),
    [
        ([LARGEST - 1, 0], 1.0, f"not {LARGEST}"),
        ([-LARGEST - 1, LARGEST], 1.0, f"a code is beyond {LARGEST}"),
        ([LARGEST + 1, 0], 1.0, f"a code is beyond {LARGEST}"),
        ([-128, LARGEST], 1.0, f"a code is beyond {LARGEST}"),
        ([LARGEST, 0], -1.0, "negative"),
        ([0, 0], -0.0, "negative"),
        ([LARGEST, 0], np.nan, "not finite"),
        ([LARGEST, 0], np.inf, "not finite"),
        ([LARGEST, 0], 1e38, f"{LARGEST} times it is not"),
        ([LARGEST, 0], 1e-40, "below"),
        ([1, 0], 0.0, "a code is not 0"),
        ([0, 0], 1.0, f"not {LARGEST}"),
    ],
)
def test_what_cannot_have_been_made_is_told(codes, step, fault):
    assert fault in Codes(np.int8([codes]), np.float32([[step]])).fault()
    assert Codes(np.int8([[LARGEST, 0], [0, 0]]), np.float32([[0.5], [0]])).fault() is None
