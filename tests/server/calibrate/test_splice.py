"""Cut rows and their splices: of the texts' own halves, within the bounds."""

from hypothesis import given
from hypothesis import strategies as st

from bitswitch.calibrate.splice import MAX_TOKENS, SPLICES, cut, spliced
from bitswitch.core import Row

ids = st.lists(st.integers(0, 999), min_size=2, max_size=400)


@given(st.lists(ids, min_size=1, max_size=40))
def test_rows_stay_and_splices_are_halves_of_two(inputs):
    rows = cut([Row({"input_ids": one, "types": [7] * len(one)}, truncated=False) for one in inputs])
    found = spliced(rows)
    assert found[: len(rows)] == rows
    assert len(found) <= len(rows) * (1 + SPLICES)
    assert sum(row.length for row in found) <= max(MAX_TOKENS, sum(row.length for row in rows))
    lists = [list(row.fields["input_ids"]) for row in rows]
    heads = {tuple(one[: len(one) // 2]) for one in lists}
    tails = {tuple(one[len(one) // 2 :]) for one in lists}
    for row in found[len(rows) :]:
        one = tuple(row.fields["input_ids"])
        assert any(one[:i] in heads and one[i:] in tails for i in range(len(one) + 1))
        assert list(row.fields["types"]) == [7] * len(one)


@given(st.lists(ids, min_size=2, max_size=40))
def test_nobody_is_spliced_with_itself(inputs):
    # Each row a token of its own.
    rows = [Row({"input_ids": [place] * len(one)}, truncated=False) for place, one in enumerate(inputs)]
    for row in spliced(rows)[len(rows) :]:
        assert len(set(row.fields["input_ids"])) == 2


@given(st.lists(ids, min_size=1, max_size=40))
def test_a_cut_row_keeps_its_start_and_its_last_token(inputs):
    for row, one in zip(
        cut([Row({"input_ids": one}, truncated=False) for one in inputs]), inputs, strict=True
    ):
        found = list(row.fields["input_ids"])
        assert found == [*one[: len(found) - 1], one[-1]]
        assert row.truncated == (len(found) < len(one))
