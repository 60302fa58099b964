"""A head over the resident base answers as the fine-tune itself would; a hostile one does nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from finetunes import TEXTS, become, drop_tensors, head_of, plain_logits

from bitswitch.base.heads import Heads
from bitswitch.base.load import load
from bitswitch.core import Want
from bitswitch.errors import InvalidSwitchError
from tiny import make_base, make_finetune


def answers(base_folder, finetune, **config):
    """Ours, with the base set to the fine-tune's weights: a batch, and one text at a time."""
    base = load(base_folder)
    head = Heads(base).build(head_of(base_folder, finetune, **config))
    become(base, finetune)
    rows = base.encode(TEXTS, want=Want.CLASSIFY)
    batch = head(base.forward(rows))
    singles = torch.cat([head(base.forward([row])) for row in rows])
    assert batch.dtype == torch.float32
    return batch, singles


def agree(base_folder, finetune, expected, **config):
    batch, singles = answers(base_folder, finetune, **config)
    torch.testing.assert_close(singles, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(batch, expected, rtol=0, atol=1e-6)


def test_every_family_answers_as_the_library_does(folder, tmp_path):
    finetune = make_finetune(tmp_path / "a", folder, ("bank", "film", "spam"))
    logits = plain_logits(finetune, TEXTS, 64)
    assert logits.std(dim=0).min() > 1e-4  # the texts differ, so a wrong row would show
    agree(folder, finetune, logits.softmax(dim=-1))


def test_modernbert_pools_as_its_fine_tune_does(folders, tmp_path):
    finetune = make_finetune(tmp_path / "a", folders["modernbert"], classifier_pooling="mean")
    agree(folders["modernbert"], finetune, plain_logits(finetune, TEXTS, 64).softmax(dim=-1))


def test_deberta_takes_its_pooler_s_activation_from_the_fine_tune(folders, tmp_path):
    finetune = make_finetune(tmp_path / "a", folders["deberta-v2"], pooler_hidden_act="tanh")
    agree(folders["deberta-v2"], finetune, plain_logits(finetune, TEXTS, 64).softmax(dim=-1))


def test_several_labels_at_once(tiny_base, tmp_path):
    finetune = make_finetune(
        tmp_path / "a", tiny_base, ("a", "b", "c"), problem_type="multi_label_classification"
    )
    agree(tiny_base, finetune, plain_logits(finetune, TEXTS, 64).sigmoid())


@pytest.mark.parametrize(
    ("labels", "config"), [(("score",), {}), (("warmth", "depth"), {"problem_type": "regression"})]
)
def test_regression_is_left_raw(tiny_base, tmp_path, labels, config):
    finetune = make_finetune(tmp_path / "a", tiny_base, labels, **config)
    agree(tiny_base, finetune, plain_logits(finetune, TEXTS, 64))


def test_a_base_without_a_pooler_answers_with_the_head_s(copied, tmp_path):
    drop_tensors(copied, "pooler.")
    finetune = make_finetune(tmp_path / "a", copied, ("a", "b", "c"))
    assert "bert.pooler.dense.weight" in head_of(copied, finetune).tensors
    agree(copied, finetune, plain_logits(finetune, TEXTS, 64).softmax(dim=-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(tmp_path, dtype):
    folder = make_base(tmp_path / "base", dtype=dtype)
    finetune = make_finetune(tmp_path / "a", folder, ("a", "b", "c"))
    batch, _ = answers(folder, finetune)
    expected = plain_logits(finetune, TEXTS, 64).softmax(dim=-1)
    torch.testing.assert_close(batch, expected, rtol=0, atol=4 * torch.finfo(dtype).eps)
    torch.testing.assert_close(batch.sum(dim=-1), torch.ones(len(TEXTS)), rtol=0, atol=1e-6)


def test_two_heads_share_one_forward_pass(bert, tiny_base, tiny_finetune, tmp_path):
    other = make_finetune(tmp_path / "other", tiny_base, ("no", "yes"), seed=9)
    heads = [Heads(bert).build(head_of(tiny_base, folder)) for folder in (tiny_finetune, other)]
    hidden = bert.forward(bert.encode(TEXTS, want=Want.CLASSIFY))
    whole = [head(hidden) for head in heads]
    assert [value.shape for value in whole] == [(len(TEXTS), 3), (len(TEXTS), 2)]
    for head, value in zip(heads, whole, strict=True):
        torch.testing.assert_close(head(hidden.rows(1, 3)), value[1:3], rtol=0, atol=1e-6)
    assert [head.labels for head in heads] == [("bank", "film", "spam"), ("no", "yes")]
    assert [head.nbytes for head in heads] == [4 * (32 * 3 + 3), 4 * (32 * 2 + 2)]


@pytest.fixture(scope="module")
def good(tiny_base, tiny_finetune):
    return head_of(tiny_base, tiny_finetune)


def with_tensors(head, **tensors):
    """Change tensors; None takes one away."""
    named = {name.replace("__", "."): value for name, value in tensors.items()}
    kept = {name: value for name, value in {**head.tensors, **named}.items() if value is not None}
    return replace(head, tensors=kept)


def with_config(head, **config):
    return replace(head, config={**head.config, **config})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda h: with_tensors(h, classifier__weight=None), r"lacks classifier\.weight"),
        (lambda h: with_tensors(h, extra=np.zeros(3, np.float32)), "brings extra"),
        (
            lambda h: with_tensors(h, bert__pooler__dense__bias=np.zeros(32, np.float32)),
            r"brings bert\.pooler",
        ),
        (
            lambda h: with_tensors(h, classifier__bias=np.zeros(4, np.float32)),
            r"classifier\.bias is \(4,\); here it is \(3,\)",
        ),
        (lambda h: replace(h, labels=("a", "b")), r"classifier\.(bias|weight) is \(3"),
        (lambda h: with_config(h, num_labels=4), "4 labels and names 3"),
        (lambda h: with_config(h, model_type="roberta"), "'roberta'; this base is a 'bert'"),
        (lambda h: replace(h, config={}), "None; this base is a 'bert'"),
        (
            lambda h: with_config(h, architectures=["BertForTokenClassification"]),
            "BertForTokenClassification",
        ),
        (lambda h: with_config(h, architectures="os.system"), "os.system"),
        (lambda h: with_config(h, hidden_size=64), "hidden_size 64; this base has 32"),
        (lambda h: with_config(h, num_hidden_layers=10**12), "num_hidden_layers"),
        (lambda h: with_config(h, vocab_size="66"), "vocab_size '66'"),
        (lambda h: with_config(h, problem_type="alchemy"), "alchemy"),
        (lambda h: with_config(h, problem_type=["regression"]), "problem_type"),
        (lambda h: with_config(h, classifier_dropout="much"), "classifier_dropout|builds no"),
        (lambda h: with_config(h, classifier_dropout=7.0), "builds no"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_by_name(bert, good, spoil, says):
    Heads(bert).build(good)
    with pytest.raises(InvalidSwitchError, match=says):
        Heads(bert).build(spoil(good))


def test_a_head_that_asks_its_backbone_for_more_than_the_base_computes_is_refused(tmp_path):
    """Longformer's first token attends to all others in a classification, and in nothing else."""
    base = make_base(tmp_path / "base", "longformer")
    head = head_of(base, make_finetune(tmp_path / "finetune", base))
    with pytest.raises(InvalidSwitchError, match="input of its own, global_attention_mask"):
        Heads(load(base)).build(head)


def test_a_head_without_the_pooler_it_needs_is_refused(copied, good):
    drop_tensors(copied, "pooler.")
    with pytest.raises(
        InvalidSwitchError, match=r"lacks bert\.pooler\.dense\.bias, bert\.pooler\.dense\.weight"
    ):
        Heads(load(copied)).build(good)


@pytest.mark.parametrize(
    "config",
    [
        {"pooler_hidden_size": 10**12},
        {"pooler_hidden_size": 10**30},
        {"pooler_hidden_size": -1},
        {"pooler_hidden_size": [32]},
        {"pooler_hidden_act": "os.system"},
        {"pooler_hidden_act": {"a": 1}},
        {"pooler_dropout": None},
    ],
    ids=json.dumps,
)
def test_a_hostile_config_is_refused_before_anything_is_made_of_it(folders, tmp_path, config):
    folder = folders["deberta-v2"]
    head = head_of(folder, make_finetune(tmp_path / "a", folder))
    base = load(folder)
    Heads(base).build(head)
    with pytest.raises(InvalidSwitchError, match=r"builds no|does not run|is \(32, 32\)"):
        Heads(base).build(with_config(head, **config))


def test_keys_that_could_run_code_or_fill_memory_are_not_read(bert, good, tmp_path):
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    hostile = with_config(
        good,
        auto_map={"AutoModelForSequenceClassification": f"{tmp_path}--theirs.Model"},
        attn_implementation="someone/kernels",
        _attn_implementation="someone/kernels",
        quantization_config={"quant_method": "gptq"},
        trust_remote_code=True,
        encoder_layers=10**9,
        id2label={str(i): "x" for i in range(10**5)},
        __class__="os.system",
        _name_or_path=str(tmp_path),
    )
    hidden = bert.forward(bert.encode(TEXTS, want=Want.CLASSIFY))
    expected = Heads(bert).build(good)(hidden)
    torch.testing.assert_close(Heads(bert).build(hostile)(hidden), expected, rtol=0, atol=0)
    assert not (tmp_path / "ran").exists()
    assert bert.model.config.num_labels == 2  # the base's own config is left alone
