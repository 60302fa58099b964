"""Marks say which weights of a block are active and where each goes, in either form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitswitch.engine import marks
from bitswitch.engine.arena import BLOCK


def written(signs):
    """The marks of blocks of −1, 0 and +1, and where each block's begin."""
    lines = np.packbits(signs != 0, axis=1, bitorder="little").view("<u8")
    counts = (signs != 0).sum(axis=1)
    polarity = np.packbits(signs[signs != 0] > 0, bitorder="little")
    words = marks.sizes(counts)
    starts = np.cumsum(words) - words
    out = np.zeros(int(words.sum()), np.uint64)
    marks.write(lines, np.cumsum(counts) - counts, counts, polarity, starts, out)
    return out, starts, counts


def signs_of(out, start, count):
    """What the marks of a block say, read as plainly as the module states it."""
    signs = np.zeros(BLOCK, np.int8)
    if count <= marks.FEW:
        entries = out[start:].view(np.uint16)[:count]
        signs[entries & (BLOCK - 1)] = np.where(entries & marks.MINUS, -1, 1)
        assert (np.diff(entries & (BLOCK - 1)).astype(int) > 0).all()
    else:
        planes = out[start : start + 2 * marks.WORDS].reshape(2, -1)
        active, minus = (np.unpackbits(plane.view(np.uint8), bitorder="little") for plane in planes)
        assert not (minus & ~active).any()
        signs[active == 1] = np.where(minus[active == 1], -1, 1)
    return signs


@settings(deadline=None)  # the first call compiles
@given(
    st.lists(
        st.sampled_from([1, 3, 4, 5, marks.FEW - 1, marks.FEW, marks.FEW + 1, 2000, BLOCK]),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 2**16),
)
def test_marks_read_back(counts, seed):
    generator = np.random.default_rng(seed)
    signs = np.zeros((len(counts), BLOCK), np.int8)
    for line, count in zip(signs, counts, strict=True):
        line[generator.choice(BLOCK, count, replace=False)] = generator.choice([-1, 1], count)
    out, starts, found = written(signs)
    assert found.tolist() == counts
    for line, start, count in zip(signs, starts, counts, strict=True):
        assert np.array_equal(signs_of(out, start, count), line)


@pytest.mark.parametrize(("count", "words"), [(1, 1), (4, 1), (5, 2), (512, 128), (513, 128), (4096, 128)])
def test_a_block_takes_the_smaller_form(count, words):
    assert marks.sizes(np.array([count])).tolist() == [words]
