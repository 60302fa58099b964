"""A text's style: which kinds of characters follow each other, and nothing of which characters they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitswitch.base.style import DIM, PAIR, style

KINDS = ["lower", "foreign", "upper", "digit", "space", "stop", "quote", "question", "other", "end"]


def neighbours(*texts):
    """The kinds that follow each other and their shares, by name."""
    *vector, pair = style(texts)
    assert pair == (PAIR if len(texts) == 2 else 0)
    return {(KINDS[i // 10], KINDS[i % 10]): pytest.approx(root**2) for i, root in enumerate(vector) if root}


def test_a_text_by_hand():
    found = {("end", "upper"): 0.2, ("upper", "lower"): 0.2, ("lower", "lower"): 0.2}
    assert neighbours("Abc!") == found | {("lower", "question"): 0.2, ("question", "end"): 0.2}


def test_every_kind_of_character():
    inner = [first for first, _ in neighbours("aéA1 .'?#")]
    assert sorted(inner) == sorted(KINDS)


def test_two_texts_each_have_their_ends():
    both = neighbours("a", "7")
    assert both == dict.fromkeys(
        [("end", "lower"), ("lower", "end"), ("end", "digit"), ("digit", "end")], 0.25
    )


def test_a_pair_is_told_from_the_text_that_both_make():
    one, two = style(["a b"]), style(["a", "b"])
    assert (one[-1], two[-1]) == (0, PAIR)
    assert style(["a", ""])[-1] == PAIR  # its second text is empty, and it stays a pair


def test_no_text_at_all_is_a_style_too():
    assert neighbours("") == {("end", "end"): 1.0}


def test_what_comes_late_in_a_long_text_counts_no_more():
    assert np.array_equal(style(["a" * 2000 + "B" * 50_000]), style(["a" * 2000]))


@given(st.lists(st.text(), min_size=1, max_size=2))
def test_any_input_has_one_of_length_one(texts):
    vector = style(texts)
    assert vector.shape == (DIM,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector[:-1]) == pytest.approx(1, abs=1e-6)


@given(st.text(alphabet=st.characters(categories=["Ll"], max_codepoint=127)), st.randoms())
def test_which_letters_they_are_is_not_seen(text, chance):
    other = "".join(chance.choice("qxyz") for _ in text)
    assert np.array_equal(style([text]), style([other]))
