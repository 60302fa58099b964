"""Requests in pieces: all of their inputs, in order, none too large, and the time that they took together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitswitch.core import Mix, Result, Row, Timing
from bitswitch.pieces import MOST, TOKENS, cut, together


@given(st.lists(st.integers(1, 600), min_size=1, max_size=300), st.integers(1, 70))
def test_pieces_are_all_there_is_and_none_is_too_large(lengths, most_rows):
    rows = [Row({"input_ids": [1] * length}) for length in lengths]
    pieces = list(cut(range(len(rows)), rows, most_rows=most_rows))
    assert [index for piece in pieces for index in piece] == list(range(len(rows)))
    largest = max(TOKENS, sum(lengths) // MOST)
    for piece in pieces:
        assert len(piece) <= most_rows
        assert len(piece) == 1 or sum(lengths[index] for index in piece) <= largest
    assert len(pieces) <= 2 * MOST + len(rows) // most_rows + 2


def result(step, queue, swap, forward):
    return Result(np.empty(0, np.float32), Mix(), Timing(queue, swap, forward), step)


def test_what_a_step_took_counts_once_and_what_lay_between_steps_is_waiting():
    pieces = [result(4, 1.0, 0.5, 0.25), result(4, 1.0, 0.5, 0.75), result(7, 4.0, 0.0, 0.5)]
    times = together(pieces)
    assert times == Timing(queue=2.75, swap=0.5, forward=1.25)
    assert times.total == pytest.approx(4.5)  # until the last one was there
    assert together(pieces[:1]) == pieces[0].timing
