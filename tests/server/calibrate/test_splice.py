"""Cut rows, their splices and their copies with other words: of the texts' own parts, within the bounds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitswitch.calibrate.splice import MAX_TOKENS, REWORDINGS, SPLICES, cut, enriched
from bitswitch.core import Row

VOCABULARY = 1000
FIRST, LAST = 0, 1
SPECIAL = (FIRST, LAST)
ids = st.lists(st.integers(2, 899), min_size=0, max_size=400).map(lambda one: [FIRST, *one, LAST])
WORDS = np.where(np.arange(VOCABULARY) >= 900, 1.0, 0.0)
"""What comes for others is nowhere in the texts."""


def rows_of(inputs):
    return cut([Row({"input_ids": one, "types": [7] * len(one)}, truncated=False) for one in inputs])


def is_copy(row, rows):
    """Whether it has a row's length and, where no other word came, its tokens."""
    one = list(row.fields["input_ids"])
    return any(
        len(one) == other.length
        and all(a in (b, *range(900, VOCABULARY)) for a, b in zip(one, ids, strict=True))
        for other in rows
        for ids in [other.fields["input_ids"]]
    )


@given(st.lists(ids, min_size=1, max_size=40))
def test_rows_stay_and_more_is_made_of_them_within_the_bounds(inputs):
    rows = rows_of(inputs)
    found = enriched(rows, WORDS, SPECIAL, seed=0)
    assert found[: len(rows)] == rows
    assert len(found) <= len(rows) * (1 + SPLICES + REWORDINGS)
    assert sum(row.length for row in found) <= max(MAX_TOKENS, sum(row.length for row in rows))
    lists = [list(row.fields["input_ids"]) for row in rows]
    heads = {tuple(one[: len(one) // 2]) for one in lists}
    tails = {tuple(one[len(one) // 2 :]) for one in lists}
    for row in found[len(rows) :]:
        one = tuple(row.fields["input_ids"])
        spliced = any(one[:i] in heads and one[i:] in tails for i in range(len(one) + 1))
        assert spliced or is_copy(row, rows)
        assert list(row.fields["types"]) == [7] * len(one)


@given(st.lists(ids, min_size=2, max_size=40))
def test_nobody_is_spliced_with_itself(inputs):
    # Each row a token of its own, and none comes for another.
    rows = [Row({"input_ids": [place] * len(one)}, truncated=False) for place, one in enumerate(inputs)]
    every = range(VOCABULARY - 1)
    for row in enriched(rows, WORDS, every, seed=0)[
        len(rows) : len(rows) * (1 + min(SPLICES, len(rows) - 1))
    ]:
        assert len(set(row.fields["input_ids"])) == 2


def test_words_come_as_often_as_said_and_special_ones_stay():
    rows = rows_of([[FIRST, *range(100, 120), LAST] for _ in range(100)])
    words = np.zeros(VOCABULARY)
    words[[FIRST, 900, 901]] = 5.0, 3.0, 1.0
    copies = enriched(rows, words, SPECIAL, seed=0)[(1 + SPLICES) * len(rows) :]
    assert len(copies) == min(REWORDINGS, MAX_TOKENS // (22 * len(rows)) - 1 - SPLICES) * len(rows)
    tokens = np.concatenate([row.fields["input_ids"] for row in copies])
    counts = np.bincount(tokens, minlength=VOCABULARY)
    assert counts[FIRST] == counts[LAST] == len(copies)
    new = counts[900] + counts[901]
    assert 0.38 < new / (20 * len(copies)) < 0.42
    assert 0.7 < counts[900] / new < 0.8


def test_the_same_seed_makes_the_same():
    rows = rows_of([[FIRST, *range(100, 110), LAST] for _ in range(10)])
    once, again, other = (enriched(rows, WORDS, SPECIAL, seed=seed) for seed in (0, 0, 1))
    assert once == again != other


@given(st.lists(ids, min_size=1, max_size=40))
def test_a_cut_row_keeps_its_start_and_its_last_token(inputs):
    for row, one in zip(
        cut([Row({"input_ids": one}, truncated=False) for one in inputs]), inputs, strict=True
    ):
        found = list(row.fields["input_ids"])
        assert found == [*one[: len(found) - 1], one[-1]]
        assert row.truncated == (len(found) < len(one))
