"""A LoRA merged into its base: the arithmetic, the names, and every refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bitswitch_store.binarize import binarize
from bitswitch_store.checkpoint import Checkpoint, CheckpointError
from bitswitch_store.lora import Lora
from bitswitch_store.match import head_of, match
from bitswitch_store.merge import merge
from bitswitch_store.switch import Rule
from bitswitch_store.task_vector import TaskVector
from loras import PREFIX, factors, golden_cases, golden_lora, golden_part, make_lora, rewrite
from tiny import make_base

MULTI = "multi_label_classification"
QUERY = "encoder.layer.0.attention.self.query"


def merged(base: Path, lora: Path, target: Path, labels: list[str] | None = None) -> Checkpoint:
    target.mkdir()
    return merge(Checkpoint.open(base), Lora.open(lora), target, labels)


def tau(base: Path, finetuned: Checkpoint) -> dict[str, np.ndarray]:
    origin = Checkpoint.open(base)
    vector = TaskVector(origin, finetuned, match(origin, finetuned).tensors)
    found = {name: vector.read(name) for name in vector.names}
    return {name: value for name, value in found.items() if value.any()}


def product(lora: Path, layer: str, scale: float) -> np.ndarray:
    tensors = load_file(lora / "adapter_model.safetensors")
    a, b = (tensors[f"{PREFIX}{layer}.lora_{one}.weight"].double() for one in "AB")
    return (scale * b @ a).numpy()


def test_the_task_vector_is_the_scaled_product_and_the_head_is_dense(tiny_base: Path, tmp_path: Path) -> None:
    lora = make_lora(tmp_path / "lora")
    whole = merged(tiny_base, lora, tmp_path / "merged")
    found = tau(tiny_base, whole)
    layers = [f"encoder.layer.{i}.attention.self.{name}" for i in range(2) for name in ("query", "value")]
    assert sorted(found) == sorted(f"{layer}.weight" for layer in layers)
    for layer in layers:
        np.testing.assert_allclose(found[f"{layer}.weight"], product(lora, f"bert.{layer}", 2.0), atol=3e-8)
    head = head_of(whole, match(Checkpoint.open(tiny_base), whole).head)
    assert head is not None
    assert head.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    stored = load_file(lora / "adapter_model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        np.testing.assert_array_equal(head.tensors[name], stored[PREFIX + name].numpy())


@pytest.mark.parametrize("case", golden_cases())
def test_what_peft_saved_is_merged_to_what_peft_merges(tmp_path: Path, case: str) -> None:
    base = make_base(tmp_path / "base", case.split(maxsplit=1)[0])
    found = tau(base, merged(base, golden_lora(tmp_path / "lora", case), tmp_path / "merged"))
    wanted = golden_part(case, "tau")
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", golden_cases(refused=True))
def test_what_peft_saved_of_another_kind_is_refused(tmp_path: Path, case: str) -> None:
    kind = {
        "dora": "sets use_dora",
        "lora_bias": "sets lora_bias",
        "pissa": "beside a changed base .*'pissa'",
    }
    with pytest.raises(CheckpointError, match=kind[case.split()[1]]):
        Lora.open(golden_lora(tmp_path / "lora", case))


@pytest.mark.parametrize(
    ("config", "query", "value"),
    [
        ({"use_rslora": True}, 8 / 2, 8 / 2),
        ({"lora_alpha": 5}, 5 / 4, 5 / 4),
        ({"alpha_pattern": {"query": 2}}, 2 / 4, 8 / 4),
        ({"alpha_pattern": {r"layer\.[0-9]+\.attention\.self\.value": 2}}, 8 / 4, 2 / 4),
        ({"alpha_pattern": {"uery": 2, "key": 3}}, 8 / 4, 8 / 4),  # a whole part of the name, not its end
        ({"r": 16, "rank_pattern": {"query": 4, "value": 4}}, 8 / 4, 8 / 4),
    ],
)
def test_scale(tiny_base: Path, tmp_path: Path, config: dict, query: float, value: float) -> None:
    lora = make_lora(tmp_path / "lora", **config)
    found = tau(tiny_base, merged(tiny_base, lora, tmp_path / "merged"))
    for name, scale in (("query", query), ("value", value)):
        layer = f"encoder.layer.1.attention.self.{name}"
        np.testing.assert_allclose(found[f"{layer}.weight"], product(lora, f"bert.{layer}", scale), atol=3e-8)


def test_a_rank_of_its_own(tiny_base: Path, tmp_path: Path) -> None:
    layer = "bert.encoder.layer.0.output.dense"
    lora = make_lora(
        tmp_path / "lora", extra=factors(layer, 32, 64, rank=2), rank_pattern={"output.dense": 2}
    )
    found = tau(tiny_base, merged(tiny_base, lora, tmp_path / "merged"))
    np.testing.assert_allclose(
        found["encoder.layer.0.output.dense.weight"], product(lora, layer, 4.0), atol=3e-8
    )


def test_embeddings_biases_and_layers_kept_whole(tiny_base: Path, tmp_path: Path) -> None:
    base = Checkpoint.open(tiny_base)
    words = "embeddings.word_embeddings.weight"
    count = base.shape(words)[0]
    a, b = torch.randn(4, count) * 0.1, torch.randn(32, 4) * 0.1
    bias, norm = torch.randn(32), torch.randn(32)
    lora = make_lora(
        tmp_path / "lora",
        extra={
            f"{PREFIX}bert.embeddings.word_embeddings.lora_embedding_A": a,
            f"{PREFIX}bert.embeddings.word_embeddings.lora_embedding_B": b,
            f"{PREFIX}bert.embeddings.word_embeddings.base_layer.weight": torch.tensor(base.tensor(words)),
            f"{PREFIX}bert.{QUERY}.base_layer.bias": bias,
            f"{PREFIX}bert.embeddings.LayerNorm.weight": norm,
        },
        bias="lora_only",
    )
    whole = merged(tiny_base, lora, tmp_path / "merged")
    found = tau(tiny_base, whole)
    np.testing.assert_allclose(found[words], (2.0 * b.double() @ a.double()).T.numpy(), atol=2e-7)
    np.testing.assert_array_equal(whole.tensor(f"bert.{QUERY}.bias"), bias.numpy())
    np.testing.assert_array_equal(whole.tensor("bert.embeddings.LayerNorm.weight"), norm.numpy())
    assert match(base, whole).head == ("classifier.bias", "classifier.weight")


def test_a_weight_stored_inputs_first(tiny_base: Path, tmp_path: Path) -> None:
    lora = make_lora(tmp_path / "lora", fan_in_fan_out=True)
    found = tau(tiny_base, merged(tiny_base, lora, tmp_path / "merged"))
    np.testing.assert_allclose(found[f"{QUERY}.weight"], product(lora, f"bert.{QUERY}", 2.0).T, atol=3e-8)


def test_a_convolution() -> None:
    from bitswitch_store.checkpoint import Stored
    from bitswitch_store.lora import Product

    def stored(value: torch.Tensor) -> Stored:
        data = value.numpy().reshape(-1).view(np.uint8)
        return Stored(data, 0, len(data), "F32", tuple(value.shape))

    a, b = torch.randn(2, 3, 4, 4), torch.randn(8, 2, 1, 1)
    found = Product("patch.weight", stored(a), stored(b), 0.5, transposed=False).read((8, 3, 4, 4))
    image = torch.randn(1, 3, 9, 9)
    wanted = 0.5 * torch.conv2d(torch.conv2d(image, a), b)
    torch.testing.assert_close(torch.conv2d(image, torch.tensor(found)), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("ours", "theirs"), [("", ""), ("bert.", ""), ("bert.", "bert."), ("", "bert.")])
def test_a_leading_part_on_either_side(tiny_base: Path, tmp_path: Path, ours: str, theirs: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    tensors = {ours + name: value.clone() for name, value in load_file(base / "model.safetensors").items()}
    # A language-model head of the base is no part of a classifier.
    if ours:
        tensors["cls.predictions.bias"] = torch.zeros(7)
    save_file(tensors, base / "model.safetensors")
    lora = make_lora(tmp_path / "lora")
    path = lora / "adapter_model.safetensors"
    save_file({name.replace("bert.", theirs): value.clone() for name, value in load_file(path).items()}, path)
    whole = merged(base, lora, tmp_path / "merged")
    assert match(Checkpoint.open(base), whole).head == ("classifier.bias", "classifier.weight")
    np.testing.assert_allclose(
        tau(base, whole)[f"{ours}{QUERY}.weight"], product(lora, f"{theirs}{QUERY}", 2.0), atol=3e-8
    )


def test_a_base_in_bfloat16_is_merged_in_float32(tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    tensors = {n: v.to(torch.bfloat16) for n, v in load_file(tiny_base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors")
    lora = make_lora(tmp_path / "lora")
    found = tau(base, merged(base, lora, tmp_path / "merged"))
    np.testing.assert_allclose(found[f"{QUERY}.weight"], product(lora, f"bert.{QUERY}", 2.0), atol=3e-8)


def test_without_a_head_there_is_none(tiny_base: Path, tmp_path: Path) -> None:
    lora = rewrite(make_lora(tmp_path / "lora", task_type="FEATURE_EXTRACTION"), drop="classifier")
    whole = merged(tiny_base, lora, tmp_path / "merged")
    switch = binarize(Checkpoint.open(tiny_base), whole, Rule("paper", {"alpha": 0.5}), task="topic")
    assert switch.head is None
    assert len([tensor for tensor in switch.tensors if tensor.active]) == 4


def test_labels(tiny_base: Path, tmp_path: Path) -> None:
    lora = make_lora(tmp_path / "lora")
    beside = {"id2label": {"0": "bank", "1": "film", "2": "spam"}, "problem_type": MULTI}

    def labels(target: str, given: list[str] | None = None) -> tuple[str, ...]:
        whole = merged(tiny_base, lora, tmp_path / target, given)
        head = head_of(whole, match(Checkpoint.open(tiny_base), whole).head)
        assert head is not None
        assert head.config.get("problem_type") == problem
        return head.labels

    problem: str | None = None
    assert labels("given", ["a", "b", "c"]) == ("a", "b", "c")
    (lora / "config.json").write_text(json.dumps(beside))
    problem = MULTI
    assert labels("beside") == ("bank", "film", "spam")
    assert labels("over", ["a", "b", "c"]) == ("a", "b", "c")
    with pytest.raises(CheckpointError, match="2 labels are given; the LoRA's head has 3 outputs"):
        labels("few", ["a", "b"])


def test_labels_need_a_head(tiny_base: Path, tmp_path: Path) -> None:
    lora = rewrite(make_lora(tmp_path / "lora"), drop="classifier")
    with pytest.raises(CheckpointError, match="brings no head"):
        merged(tiny_base, lora, tmp_path / "merged", ["a", "b"])


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"peft_type": "IA3"}, "type 'IA3'; plain LoRA"),
        ({"peft_type": "LOHA"}, "type 'LOHA'; plain LoRA"),
        ({"peft_type": "ADALORA"}, "type 'ADALORA'; plain LoRA"),
        ({"peft_type": "PROMPT_TUNING"}, "type 'PROMPT_TUNING'; plain LoRA"),
        ({"peft_type": None}, "type None; plain LoRA"),
        ({"use_dora": True}, "sets use_dora"),
        ({"lora_bias": True}, "sets lora_bias"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "sets layer_replication"),
        ({"trainable_token_indices": [1, 2]}, "sets trainable_token_indices"),
        ({"init_lora_weights": "pissa_niter_4"}, "beside a changed base .*'pissa_niter_4'"),
        ({"init_lora_weights": "loftq"}, "path_initial_model_for_weight_conversion"),
        ({"r": 8}, "has rank 4; adapter_config.json says 8"),
        ({"rank_pattern": {"query": 2}}, "query has rank 4; adapter_config.json says 2"),
        ({"r": 0}, "r of .* is 0, no number above 0"),
        ({"r": True}, "is True, no number above 0"),
        ({"lora_alpha": "8"}, "lora_alpha of .* is '8', no number above 0"),
        ({"alpha_pattern": {"(": 2}}, "a pattern for lora_alpha is none"),
        ({"alpha_pattern": [2]}, "a pattern for lora_alpha is none"),
    ],
)
def test_what_is_not_plain_is_named(tmp_path: Path, config: dict, sentence: str) -> None:
    lora = make_lora(tmp_path / "lora", **config)
    with pytest.raises(CheckpointError, match=sentence):
        Lora.open(lora)


@pytest.mark.parametrize(
    ("drop", "add", "sentence"),
    [
        ("0.attention.self.query.lora_B", {}, "lacks lora_A or lora_B of bert.encoder.layer.0"),
        ("", {f"{PREFIX}bert.{QUERY}.lora_magnitude_vector": torch.ones(32)}, "is no part of plain LoRA"),
        ("", {f"{PREFIX}bert.x.lora_A.weight": torch.ones(4)}, "lacks"),
        ("", {f"{PREFIX}classifier.weight": torch.ones(3, 32, dtype=torch.int8)}, "stored as I8"),
        ("base_model", {}, "holds no tensor"),
        (
            f"bert.{QUERY}",
            {
                f"{PREFIX}bert.{QUERY}.lora_A.weight": torch.ones(4, 32),
                f"{PREFIX}bert.{QUERY}.lora_B.weight": torch.ones(32, 5),
            },
            "do not multiply",
        ),
    ],
)
def test_a_wrong_tensor_is_named(tmp_path: Path, drop: str, add: dict, sentence: str) -> None:
    lora = rewrite(make_lora(tmp_path / "lora"), drop=drop, add=add)
    with pytest.raises(CheckpointError, match=sentence):
        Lora.open(lora)


@pytest.mark.parametrize(
    ("drop", "add", "config", "sentence"),
    [
        (QUERY, factors(f"bert.{QUERY}", 48, 32), {}, r"of another base: .*query.weight is \[48, 32\]"),
        ("", factors("bert.encoder.layer.7.attention.self.query", 32, 32), {}, "changes 1 of its 5 weights"),
        ("", factors("pre_classifier", 32, 32), {}, "modules_to_save"),
        ("", {f"{PREFIX}bert.{QUERY}.bias": torch.ones(5)}, {}, r"query.bias is \[5\] instead of \[32\]"),
        ("", {}, {"task_type": "TOKEN_CLS"}, "trained for TOKEN_CLS and brings a head: classifier.bias"),
        ("", {f"{PREFIX}qa.weight": torch.ones(2, 32)}, {"task_type": "QUESTION_ANS"}, "QUESTION_ANS"),
        ("classifier", {f"{PREFIX}qa.weight": torch.ones(2, 32)}, {}, "how many labels"),
    ],
)
def test_a_lora_of_something_else_is_named(
    tiny_base: Path, tmp_path: Path, drop: str, add: dict, config: dict, sentence: str
) -> None:
    lora = rewrite(make_lora(tmp_path / "lora", **config), drop=drop, add=add)
    with pytest.raises(CheckpointError, match=sentence):
        merged(tiny_base, lora, tmp_path / "merged")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_what_is_not_finite_is_named(tiny_base: Path, tmp_path: Path, value: float) -> None:
    lora = rewrite(
        make_lora(tmp_path / "lora", lora_alpha=800),
        add={f"{PREFIX}bert.{QUERY}.lora_B.weight": torch.full((32, 4), value)},
    )
    with pytest.raises(CheckpointError, match=r"adds to bert\..*query\.weight is not finite"):
        merged(tiny_base, lora, tmp_path / "merged")


def test_another_vocabulary_is_named(tiny_base: Path, tmp_path: Path) -> None:
    lora = make_lora(tmp_path / "lora")
    words = json.loads((tiny_base / "tokenizer.json").read_text())
    words["model"]["vocab"]["extraordinary"] = len(words["model"]["vocab"])
    (lora / "tokenizer.json").write_text(json.dumps(words))
    whole = merged(tiny_base, lora, tmp_path / "merged")
    with pytest.raises(CheckpointError, match="extraordinary"):
        match(Checkpoint.open(tiny_base), whole)


def test_a_folder_that_is_none_is_named(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        Lora.open(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is a full checkpoint; give it as a fine-tune"):
        Lora.open(tiny_base)
    lora = make_lora(tmp_path / "lora")
    path = lora / "adapter_model.safetensors"
    path.rename(lora / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="a pickle"):
        Lora.open(lora)
    (lora / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        Lora.open(lora)
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        Lora.open(lora)
