"""The grammar of ``model``: what it reads, and that it reads or refuses whatever it is given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitswitch.errors import InvalidModelError
from bitswitch.model_ref import MAX_TERMS, ModelRef, Term, parse

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True).filter(
    lambda n: n not in ("base", "auto")
)
TERMS = st.builds(
    Term,
    NAMES,
    st.none() | NAMES,
    st.none() | NAMES,
    st.floats(-10, 10, allow_subnormal=False).map(lambda weight: round(weight, 12)),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base", ModelRef()),
        (" auto ", ModelRef(auto=True)),
        ("trec6", ModelRef((Term("trec6"),))),
        ("trec6@3", ModelRef((Term("trec6", None, "3"),))),
        ("trec6@prod", ModelRef((Term("trec6", None, "prod"),))),
        ("acme/trec6@prod", ModelRef((Term("trec6", "acme", "prod"),))),
        ("a*0.6+b@prod*0.4", ModelRef((Term("a", weight=0.6), Term("b", None, "prod", 0.4)))),
        ("a\n", ModelRef((Term("a"),))),
        ("a + b", ModelRef((Term("a"), Term("b")))),
        ("a * -1.5", ModelRef((Term("a", weight=-1.5),))),
        ("a*.5+b*2.", ModelRef((Term("a", weight=0.5), Term("b", weight=2.0)))),
        ("a*1e-05", ModelRef((Term("a", weight=1e-05),))),
        ("x/base", ModelRef((Term("base", "x"),))),
    ],
)
def test_it_reads(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("a+", "nothing on one side"),
        ("+a", "nothing on one side"),
        ("a++b", "nothing on one side"),
        ("a*", "weight ''"),
        ("a*b", "weight 'b'"),
        ("a*nan", "weight 'nan'"),
        ("a*inf", "weight 'inf'"),
        ("a*1_0", "weight '1_0'"),
        ("a*0.5*2", "weight '0.5*2'"),
        ("a*٣", "no number"),
        ("a*10.5", "between -10 and 10"),
        ("a*-99999999999999999999999", "between -10 and 10"),
        ("a@", "version or alias ''"),
        ("a@b@c", "version or alias 'b@c'"),
        ("/a", "tenant ''"),
        ("x/y/a", "tenant 'x/y'"),
        ("Trec6", "name 'Trec6'"),
        ("a b", "name 'a b'"),
        (".a", "name '.a'"),
        ("a" * 65, "1 to 64"),
        ("a\x00", "name 'a\\x00'"),
        ("\ud800", "name '\\ud800'"),
        ("base@1", "'base' in the model"),
        ("base*0.5", "stands alone"),
        ("base+a", "every mix is added to the base"),
        ("a+auto", "'auto' in the model"),
        ("+".join(["a"] * (MAX_TERMS + 1)), "33 switches; a mix has at most 32"),
    ],
)
def test_it_refuses_with_the_fault_named(text, told):
    with pytest.raises(InvalidModelError) as caught:
        parse(text)
    assert told in caught.value.message
    assert caught.value.param == "model"
    assert len(caught.value.message) < 400


@given(st.text() | st.text(alphabet="ab1/@*+.-e _ \x00é", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        ref = parse(text)
    except InvalidModelError:
        return
    assert parse(str(ref)) == ref
    assert len(ref.terms) <= MAX_TERMS
    assert all(abs(term.weight) <= 10 for term in ref.terms)


@given(st.lists(TERMS, min_size=1, max_size=MAX_TERMS))
def test_what_is_written_is_read_back(terms):
    ref = ModelRef(tuple(terms))
    assert parse(str(ref)) == ref
