"""Embeddings are those of sentence-transformers itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from finetunes import TEXTS, rewrite

from bitswitch.base.load import load
from bitswitch.base.pooling import Pooling
from bitswitch.core import Want
from tiny import add_sentence_transformers_layout, make_base

SINGLES = [text for text in TEXTS if isinstance(text, str)]
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def theirs(folder, texts):
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu").encode(texts, show_progress_bar=False)


def ours(folder, texts):
    base = load(folder)
    return base.embed(base.forward(base.encode(texts, want=Want.EMBED))).numpy()


def agree(folder, texts=SINGLES):
    mine, reference = ours(folder, texts), theirs(folder, texts)
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "mean_sqrt_len"])
@pytest.mark.parametrize("normalize", [True, False])
def test_older_folders(copied, pooling, normalize):
    agree(add_sentence_transformers_layout(copied, pooling=pooling, normalize=normalize))


@pytest.mark.parametrize("pooling", [*MODES, ["max", "cls"], ["mean"]], ids=str)
def test_newer_folders(copied, pooling):
    config = {"embedding_dimension": 32, "pooling_mode": pooling, "include_prompt": True}
    (copied / "1_Pooling" / "config.json").write_text(json.dumps(config))
    agree(copied)


def test_several_of_the_older_keys_are_joined_in_the_library_s_order(copied):
    keys = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
    rewrite(copied / "1_Pooling", "config.json", **keys)
    assert Pooling.read(copied).modes == ("cls", "max", "mean")
    agree(copied)


def test_a_folder_written_by_the_library_itself(copied, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    library.SentenceTransformer(str(copied), device="cpu").save(
        str(tmp_path / "saved"), create_model_card=False
    )
    agree(tmp_path / "saved")
    np.testing.assert_allclose(ours(tmp_path / "saved", SINGLES), ours(copied, SINGLES), rtol=0, atol=1e-6)


def test_lowercasing_folders(copied):
    path = copied / "tokenizer.json"
    path.write_text(path.read_text().replace('"lowercase": true', '"lowercase": false'))
    rewrite(copied, "sentence_bert_config.json", do_lower_case=True)
    agree(copied, ["WHO Wrote hamlet", "who wrote Hamlet"])


def test_a_folder_that_states_nothing_is_pooled_by_the_mean(folder):
    agree(folder)
    assert Pooling.read(folder) == Pooling(modes=("mean",), normalize=False)


def test_the_real_one(minilm):
    agree(minilm, [*SINGLES, "Ça marche? 👩‍🚀 日本語", "A sentence of words. " * 200])


def test_half_precision_is_pooled_in_float32(tmp_path):
    folder = add_sentence_transformers_layout(make_base(tmp_path / "half", dtype=torch.bfloat16))
    vectors = ours(folder, SINGLES)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)
