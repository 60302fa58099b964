"""How many marks a row has in a block: as counting weight by weight says."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.switches import random_switch

from bitswitch.engine import sizes
from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.planes import Planes


def counted(tensor):
    """Active weights of each row in each block, in the order in which sizes are numbered."""
    active = np.unpackbits(tensor.activation, bitorder="little", count=tensor.numel).astype(bool)
    rows, inputs = tensor.shape
    found = np.zeros(sizes.count(rows, -(-tensor.numel // BLOCK)), np.uint16)
    for place in np.flatnonzero(active):
        found[place // inputs + place // BLOCK] += 1
    return found


@given(
    st.integers(1, 40),
    st.sampled_from([1, 3, 100, 384, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK]),
    st.sampled_from([0.001, 0.05, 0.1]),
    st.integers(0, 3),
)
def test_sizes_are_what_counting_gives(rows, inputs, density, seed):
    shapes = {"a": (50, 70), "matrix": (rows, inputs), "vector": (9000,)}
    arena = Arena({name: torch.zeros(shape) for name, shape in shapes.items()})
    switch = random_switch(shapes, density, seed)
    planes = Planes(arena, switch)
    for tensor in switch.tensors:
        start = planes.size_start[arena.names.index(tensor.name)]
        if tensor.name == "vector":
            assert start == -1
        else:
            expected = counted(tensor)
            np.testing.assert_array_equal(planes.sizes[start : start + expected.size], expected)


def test_only_matrices_of_lists_that_are_written_have_sizes():
    shapes = {"dense": (64, 256), "sparse": (64, 256), "table": (64, 256)}
    arena = Arena({name: torch.zeros(shape) for name, shape in shapes.items()}, looked_up={"table"})
    planes = Planes(arena, random_switch(shapes, 0.05, 0))
    measured = planes.size_start >= 0
    assert measured.tolist() == [True, True, False]
    assert planes.sizes.size == 2 * sizes.count(64, 4)
    dense = Planes(arena, random_switch(shapes, 0.4, 0))
    assert not dense.sizes.size
