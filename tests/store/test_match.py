"""Which tensors of a fine-tune belong to which of the base, what is its head, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bitswitch_store.checkpoint import Checkpoint, CheckpointError
from bitswitch_store.match import head_of, match
from tiny import FAMILIES, make_base, make_finetune

HEADS = {
    "bert": ["classifier.bias", "classifier.weight"],
    "roberta": [
        f"classifier.{layer}.{kind}" for layer in ("dense", "out_proj") for kind in ("bias", "weight")
    ],
    "distilbert": [
        f"{layer}.{kind}" for layer in ("classifier", "pre_classifier") for kind in ("bias", "weight")
    ],
    "deberta-v2": ["classifier.bias", "classifier.weight", "pooler.dense.bias", "pooler.dense.weight"],
    "modernbert": ["classifier.bias", "classifier.weight", "head.dense.weight", "head.norm.weight"],
    "llama": ["score.weight"],
}

Tensors = dict[str, torch.Tensor]


def copy(
    source: Path, target: Path, tensors: Callable[[Tensors], Tensors] = dict, **config: Any
) -> Checkpoint:
    """A checkpoint with other tensors, and configuration values set or (None) removed."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    save_file(tensors(load_file(source / "model.safetensors")), target / "model.safetensors")
    values = json.loads((source / "config.json").read_text()) | config
    (target / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    return Checkpoint.open(target)


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_matches_whole_with_its_head(tmp_path: Path, family: str) -> None:
    base = make_base(tmp_path / "base", family)
    finetuned = Checkpoint.open(make_finetune(tmp_path / "finetuned", base))
    found = match(Checkpoint.open(base), finetuned)
    lacking = [name for name in Checkpoint.open(base).names if name.startswith("pooler.")]
    left_out = lacking if family == "roberta" else []
    assert [ours for ours, _ in found.tensors] == [
        n for n in Checkpoint.open(base).names if n not in left_out
    ]
    assert all(theirs.endswith(ours) for ours, theirs in found.tensors)
    assert list(found.head) == HEADS[family]


@pytest.mark.parametrize(
    ("ours", "theirs"), [("", ""), ("bert.", ""), ("model.", "bert."), ("bert.", "bert.")]
)
def test_a_leading_part_on_either_side(
    tiny_base: Path, tiny_finetune: Path, tmp_path: Path, ours: str, theirs: str
) -> None:
    def renamed(tensors: Tensors) -> Tensors:
        return {
            theirs + name.removeprefix("bert.") if name.startswith("bert.") else name: tensor
            for name, tensor in tensors.items()
        }

    base = copy(tiny_base, tmp_path / "base", prefixed(ours))
    finetuned = copy(tiny_finetune, tmp_path / "finetuned", renamed)
    found = match(base, finetuned)
    assert [a for a, _ in found.tensors] == list(base.names)
    assert all(b == theirs + a.removeprefix(ours) for a, b in found.tensors)
    assert found.head == ("classifier.bias", "classifier.weight")


def test_a_pooler_that_the_base_lacks_is_head(tiny_base: Path, tiny_finetune: Path, tmp_path: Path) -> None:
    def without_pooler(tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if "pooler" not in name}

    base = copy(tiny_base, tmp_path / "base", without_pooler)
    found = match(base, Checkpoint.open(tiny_finetune))
    assert found.head == (
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "classifier.bias",
        "classifier.weight",
    )


def test_a_language_model_head_of_the_base_is_not_switched(tmp_path: Path) -> None:
    bare = make_base(tmp_path / "bare", "modernbert")
    finetuned = Checkpoint.open(make_finetune(tmp_path / "finetuned", bare))

    def as_masked_language_model(tensors: Tensors) -> Tensors:
        # ModernBERT's heads for masked words and for classes have tensors of equal names and shapes.
        head = {"head.dense.weight": torch.ones(32, 32), "head.norm.weight": torch.ones(32)}
        return prefixed("model.")(tensors) | head | {"decoder.bias": torch.ones(66)}

    base = copy(bare, tmp_path / "base", as_masked_language_model, architectures=["ModernBertForMaskedLM"])
    found = match(base, finetuned)
    assert [a for a, _ in found.tensors] == [name for name in base.names if name.startswith("model.")]
    assert list(found.head) == HEADS["modernbert"]


def test_a_fine_tune_of_the_base_s_own_class_has_no_head(tiny_base: Path, tmp_path: Path) -> None:
    def causal(tensors: Tensors) -> Tensors:
        return prefixed("model.")(tensors) | {"lm_head.weight": torch.ones(66, 32)}

    base = copy(tiny_base, tmp_path / "base", causal, architectures=["SomeForCausalLM"])
    found = match(base, copy(tiny_base, tmp_path / "same", causal, architectures=["SomeForCausalLM"]))
    assert [a for a, _ in found.tensors] == list(base.names)
    assert found.head == ()


def test_the_head_keeps_its_type_and_labels(tiny_base: Path, tiny_finetune: Path, tmp_path: Path) -> None:
    names = ("classifier.bias", "classifier.weight")
    stored = load_file(tiny_finetune / "model.safetensors")
    for dtype, kept in (
        (torch.float32, np.float32),
        (torch.float16, np.float16),
        (torch.bfloat16, np.float32),
    ):

        def cast(tensors: Tensors, dtype: torch.dtype = dtype) -> Tensors:
            return {name: tensor.to(dtype) for name, tensor in tensors.items()}

        finetuned = copy(tiny_finetune, tmp_path / str(dtype), cast)
        head = head_of(finetuned, match(Checkpoint.open(tiny_base), finetuned).head)
        assert head is not None
        assert sorted(head.tensors) == sorted(names)
        for name in names:
            assert head.tensors[name].dtype == kept
            np.testing.assert_array_equal(head.tensors[name], stored[name].to(dtype).float().numpy())
        assert head.labels == ("bank", "film", "spam")
        assert not {"id2label", "label2id"} & head.config.keys()
        assert head.config["hidden_size"] == 32


def test_labels_given_replace_those_of_the_configuration(tiny_finetune: Path, tmp_path: Path) -> None:
    finetuned = Checkpoint.open(tiny_finetune)
    head = head_of(finetuned, ["classifier.bias"], ("a", "b", "c"))
    assert head is not None
    assert head.labels == ("a", "b", "c")
    with pytest.raises(CheckpointError, match="2 labels are given; the fine-tune's head has 3"):
        head_of(finetuned, ["classifier.bias"], ("a", "b"))
    with pytest.raises(CheckpointError, match="has no head that they could name"):
        head_of(finetuned, [], ("a", "b"))
    assert head_of(finetuned, []) is None
    unnamed = head_of(copy(tiny_finetune, tmp_path / "unnamed", id2label=None), ["classifier.bias"])
    assert unnamed is not None
    assert unnamed.labels == ("LABEL_0", "LABEL_1")
    with pytest.raises(CheckpointError, match="does not count from 0"):
        head_of(copy(tiny_finetune, tmp_path / "gap", id2label={"0": "a", "2": "b"}), ["classifier.bias"])


def _without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {n: t for n, t in tensors.items() if not any(part in n for part in parts)}


def _wider(tensors: Tensors) -> Tensors:
    name = "bert.embeddings.word_embeddings.weight"
    return tensors | {name: torch.ones(70, 32)}


REFUSED: dict[str, tuple[Callable[[Tensors], Tensors], dict[str, Any], str]] = {
    "architecture": (dict, {"model_type": "roberta"}, "architecture is roberta, the base's bert"),
    "configuration": (
        dict,
        {"hidden_act": "relu", "layer_norm_eps": 1e-5},
        "configuration is not the base's: hidden_act is 'relu' instead of 'gelu', layer_norm_eps is 1e-05",
    ),
    "shape": (
        _wider,
        {},
        r"other shapes than the base's: embeddings\.word_\S+ is \[70, 32\] instead of \[66, 32\]",
    ),
    "one tensor missing": (
        _without("layer.1.output.dense.bias"),
        {},
        r"lacks tensors of the base: encoder\.layer\.1\.output\.dense\.bias$",
    ),
    "many missing": (
        _without("layer.1."),
        {},
        r"lacks tensors of the base: (encoder\S+, ){4}encoder\S+ and 11 more",
    ),
    "embeddings missing": (
        _without("embeddings"),
        {},
        r"lacks tensors of the base: embeddings\.LayerNorm\.bias",
    ),
    "most missing": (_without("encoder"), {}, r"has 7 of the base's 39 tensors; it lacks encoder"),
    "another head": (
        dict,
        {"architectures": ["BertForTokenClassification"]},
        r"a BertForTokenClassification with tensors that the base lacks: classifier\.bias, class",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_first_differences(
    tiny_base: Path, tiny_finetune: Path, tmp_path: Path, case: str
) -> None:
    tensors, config, sentence = REFUSED[case]
    finetuned = copy(tiny_finetune, tmp_path / "finetuned", tensors, **config)
    with pytest.raises(CheckpointError, match=sentence):
        match(Checkpoint.open(tiny_base), finetuned)
