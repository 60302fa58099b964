"""Knobs in half the memory where that loses nothing, and read as the very same numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.knobs import address_of, knob, knobs_at, write_knobs
from bitswitch.engine.planes import Planes
from bitswitch_store.knobs import narrowest
from switches import random_switch

HALVES = st_np.arrays(np.float16, st.integers(1, 20), elements=st.floats(0, 10_000, width=16))
WIDE = np.array([0.5, 1e-4], np.float32)


def read(kept, first, last):
    knobs = knobs_at(address_of(kept), first, last)
    found = np.array([knob(knobs, i) for i in range(last - first)], np.float32)
    for start in range(last - first):
        written = np.empty(last - first - start, np.float32)
        write_knobs(written, knobs, start)
        assert written.tobytes() == found[start:].tobytes()
    return found


@given(HALVES)
def test_what_fp16_holds_is_kept_so_and_read_exactly(halves):
    values = halves.astype(np.float32)
    kept = narrowest(values)
    assert kept.nbytes == values.nbytes / 2
    for first in range(len(values)):
        assert read(kept, first, len(values)).tobytes() == values[first:].tobytes()


@pytest.mark.parametrize("values", [WIDE, np.array([70_000], np.float32), np.array([1e-9], np.float32)])
def test_one_that_fp16_rounds_keeps_all_as_they_are(values):
    kept = narrowest(values)
    assert kept.dtype == np.float32
    assert read(kept, 0, len(values)).tobytes() == values.tobytes()
    assert read(kept, len(values) - 1, len(values)).tobytes() == values[-1:].tobytes()


def test_a_kernel_that_goes_to_the_end_of_a_block_stays_among_the_knobs():
    """Kernels read on behind a vector's last weight, whose knobs may be the last of all."""
    shapes = {"a": (700, 3), "z": (600,)}
    arena = Arena({name: torch.zeros(shape) for name, shape in shapes.items()})
    planes = Planes(arena, random_switch(shapes, 0.97, 0, per_row=True))
    for number, (name, shape) in enumerate(shapes.items()):
        ends = -(-int(np.prod(shape)) // BLOCK) * BLOCK
        assert arena.names[number] == name
        assert planes.knob_start[number] + (ends - 1) // planes.width[number] < planes.knobs.size
