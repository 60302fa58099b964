"""The rows are the library's own, to the token, from any number of threads."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from finetunes import rewrite
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from bitswitch.base.load import load
from bitswitch.core import Want
from bitswitch.errors import InvalidRequestError
from tiny import WORDS

pieces = [*WORDS, "👩\u200d🚀", "naïve", "[SEP]", "[PAD]", "\x00"]
words = st.lists(st.sampled_from(pieces), max_size=20).map(" ".join)
texts = st.text(max_size=200) | words | words.map(lambda text: text * 30)


def library(tokenizer, inputs, limit):
    """What the library gives for each, as it does in a batch."""
    names = [name for name in tokenizer.model_input_names if name != "attention_mask"]
    rows = []
    for item in inputs:
        single, pair = ([item], None) if isinstance(item, str) else ([item[0]], [item[1]])
        encoded = tokenizer(single, pair, truncation=True, max_length=limit)
        rows.append({name: encoded[name][0] for name in names})
    return rows


@pytest.fixture(scope="module")
def tokenizing(tiny_base, bert, minilm):
    return {
        "tiny": (bert, AutoTokenizer.from_pretrained(tiny_base)),
        "real": (load(minilm), AutoTokenizer.from_pretrained(minilm)),
    }


@settings(max_examples=40, deadline=None)
@given(inputs=st.lists(texts | st.tuples(texts, texts), max_size=4), want=st.sampled_from(Want))
@pytest.mark.parametrize("which", ["tiny", "real"])
def test_rows_are_the_librarys(tokenizing, which, inputs, want):
    base, tokenizer = tokenizing[which]
    limit = base.encoder.embed_limit if want is Want.EMBED else base.encoder.limit
    rows = base.encode(inputs, want=want)
    assert [dict(row.fields) for row in rows] == library(tokenizer, inputs, limit)
    whole = library(tokenizer, inputs, 10**9)
    assert [row.truncated for row in rows] == [len(each["input_ids"]) > limit for each in whole]


def test_every_family_gets_the_inputs_its_model_takes(folder, family):
    base = load(folder)
    (row,) = base.encode([("who is it", "a city")], want=Want.CLASSIFY)
    assert ("token_type_ids" in row.fields) == (family in ("bert", "deberta-v2"))


def test_segments_that_the_model_does_not_take_are_left_out(folders, tmp_path):
    folder = shutil.copytree(folders["distilbert"], tmp_path / "a")
    rewrite(
        folder, "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"]
    )
    base = load(folder)
    rows = base.encode([("who is it", "a city")], want=Want.CLASSIFY)
    assert set(rows[0].fields) == {"input_ids"}
    base.forward(rows)


def test_embedding_may_be_lowercase_where_classifying_is_not(copied):
    path = copied / "tokenizer.json"
    path.write_text(path.read_text().replace('"lowercase": true', '"lowercase": false'))
    rewrite(copied, "sentence_bert_config.json", do_lower_case=True)
    base = load(copied)
    (lower,) = base.encode(["bank"], want=Want.EMBED)
    (embedded,) = base.encode(["BANK"], want=Want.EMBED)
    (classified,) = base.encode(["BANK"], want=Want.CLASSIFY)
    assert embedded.fields == lower.fields
    assert classified.fields["input_ids"][1] == 1  # unknown


def test_threads_with_different_limits_do_not_cut_each_other(bert):
    jobs = [([f"{word} " * 100, (word * 3, f"{word} " * 90)], want) for word in WORDS for want in Want]
    alone = [bert.encode(inputs, want=want) for inputs, want in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: bert.encode(job[0], want=job[1]), jobs * 3))
    assert together == alone * 3
    assert {rows[0].length for rows in alone} == {32, 64}


def test_half_a_character_is_refused(bert):
    with pytest.raises(InvalidRequestError, match="input 1 holds half of a surrogate pair") as caught:
        bert.encode(["fine", ("also fine", "not \ud83d")], want=Want.EMBED)
    assert caught.value.param == "input"


def test_nothing_is_nothing(bert):
    assert bert.encode([], want=Want.EMBED) == ()
