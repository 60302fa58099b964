"""What makes two checkpoints of one kind: configuration and vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bitswitch_store.checkpoint import Checkpoint, CheckpointError
from bitswitch_store.likeness import require_same_kind, vocabulary


def checkpoint(folder: Path, tokenizer: Any = None, words: str | None = None, **config: Any) -> Checkpoint:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    save_file({"x": torch.ones(1)}, folder / "model.safetensors")
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if words is not None:
        (folder / "vocab.txt").write_text(words)
    return Checkpoint.open(folder)


def compare(tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    require_same_kind(checkpoint(tmp_path / "base", **ours), checkpoint(tmp_path / "finetuned", **theirs))


SAME = {
    "training settings": ({"hidden_dropout_prob": 0.1, "use_cache": True}, {"hidden_dropout_prob": 0.3}),
    "book-keeping": ({"transformers_version": "4.8.2", "_name_or_path": "a"}, {"transformers_version": "5"}),
    "keys of one side": (
        {"layer_norm_eps": 1e-12},
        {"classifier_dropout": None, "position_embedding_type": "absolute"},
    ),
    "number types": ({"rope_theta": 10000}, {"rope_theta": 10000.0}),
    "a padding token for a causal model": ({"pad_token_id": None}, {"pad_token_id": 2}),
}


@pytest.mark.parametrize("case", SAME)
def test_same_kind(tmp_path: Path, case: str) -> None:
    compare(tmp_path, *SAME[case])


OTHER = {
    "epsilon": (
        {"layer_norm_eps": 1e-12},
        {"layer_norm_eps": 1e-5},
        "layer_norm_eps is 1e-05 instead of 1e-12",
    ),
    "nested": (
        {"rope_parameters": {"full": {"rope_theta": 1.0}}},
        {"rope_parameters": {"full": {"rope_theta": 2.0}}},
        r"rope_parameters\.full\.rope_theta is 2\.0 instead of 1\.0",
    ),
    "padding token": ({"pad_token_id": 1}, {"pad_token_id": 0}, "pad_token_id is 0 instead of 1"),
    "attention": ({"is_decoder": False}, {"is_decoder": True}, "is_decoder is True instead of False"),
    "many": (
        {f"k{i}": 0 for i in range(8)},
        {f"k{i}": 1 for i in range(8)},
        "k0 is 1 instead of 0, .*k4 is 1 instead of 0 and 3 more",
    ),
}


@pytest.mark.parametrize("case", OTHER)
def test_another_kind(tmp_path: Path, case: str) -> None:
    ours, theirs, sentence = OTHER[case]
    with pytest.raises(CheckpointError, match=sentence):
        compare(tmp_path, ours, theirs)


def test_truncation_and_padding_of_the_tokenizer_do_not_count(tmp_path: Path) -> None:
    model = {"type": "WordPiece", "vocab": {"a": 0, "b": 1}}
    compare(
        tmp_path,
        {"tokenizer": {"truncation": {"max_length": 128}, "padding": None, "model": model}},
        {"tokenizer": {"truncation": None, "padding": {"length": 8}, "model": model}},
    )


def test_another_vocabulary_is_refused_by_its_first_tokens(tmp_path: Path) -> None:
    ours = {"tokenizer": {"model": {"vocab": {"a": 0, "b": 1, "c": 2}}}}
    with pytest.raises(
        CheckpointError, match=r"vocabulary is not the base's: 'b' is absent instead of 1, 'c' is 1 "
    ):
        compare(tmp_path, ours, {"words": "a\nc\n"})


def test_a_vocabulary_is_read_from_either_file(tmp_path: Path) -> None:
    expected = {"a": 0, "b": 1}
    unigram = {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}
    assert vocabulary(checkpoint(tmp_path / "unigram", tokenizer=unigram).folder) == expected
    assert vocabulary(checkpoint(tmp_path / "words", words="a\nb\n").folder) == expected
    assert vocabulary(checkpoint(tmp_path / "neither").folder) is None
    compare(tmp_path, {"words": "a\nb\n"}, {"tokenizer": unigram})


def test_a_vocabulary_on_one_side_only_is_not_compared(tmp_path: Path) -> None:
    compare(tmp_path, {"words": "a\n"}, {})


@pytest.mark.parametrize("tokenizer", [[], {"model": {}}, {"model": {"vocab": 3}}])
def test_a_broken_tokenizer_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    folder = checkpoint(tmp_path / "broken", tokenizer=tokenizer).folder
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        vocabulary(folder)
