"""Checkpoint folders: what is read, the digest a stranger can reproduce, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bitswitch_store.checkpoint import Checkpoint, CheckpointError

TENSORS = {
    "b.weight": torch.linspace(-3, 3, 35).reshape(5, 7),
    "a.LayerNorm.gamma": torch.arange(4.0),
    "a.LayerNorm.beta": torch.ones(4),
    "scale": torch.tensor(2.5),
}


def save(folder: Path, *parts: dict[str, torch.Tensor], config: object = None) -> Path:
    """A checkpoint folder; several parts are shards."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"} if config is None else config))
    if len(parts) == 1:
        save_file(parts[0], folder / "model.safetensors")
        return folder
    weights = {}
    for i, part in enumerate(parts, start=1):
        name = f"model-{i:05}-of-{len(parts):05}.safetensors"
        save_file(part, folder / name)
        weights |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    ("dtype", "stored"), [(torch.float32, "F32"), (torch.float16, "F16"), (torch.bfloat16, "BF16")]
)
def test_tensors_are_widened_exactly(tmp_path: Path, dtype: torch.dtype, stored: str) -> None:
    awkward = torch.tensor([0.0, -0.0, 1e-7, 6e-5, -65504.0, 1 / 3, float("inf"), float("nan")], dtype=dtype)
    checkpoint = Checkpoint.open(save(tmp_path, {"x": awkward, "odd": torch.ones(3, dtype=dtype)}))
    assert checkpoint.dtype("x") == stored
    got = checkpoint.tensor("x")
    assert got.dtype == np.float32
    assert got.tobytes() == awkward.float().numpy().tobytes()
    assert bytes(checkpoint.raw("x")) == awkward.view(torch.uint8).numpy().tobytes()
    got[:] = 0  # a copy: the file is untouched
    assert checkpoint.tensor("x")[5] != 0


def test_names_are_sorted_renamed_and_without_buffers(tmp_path: Path) -> None:
    buffers = {"position_ids": torch.arange(3), "mask": torch.ones(2, dtype=torch.bool)}
    checkpoint = Checkpoint.open(save(tmp_path, TENSORS | buffers))
    assert checkpoint.names == ("a.LayerNorm.bias", "a.LayerNorm.weight", "b.weight", "scale")
    assert checkpoint.tensor("a.LayerNorm.weight").tolist() == [0, 1, 2, 3]
    assert checkpoint.shape("b.weight") == (5, 7)
    assert checkpoint.shape("scale") == ()
    assert checkpoint.numel("b.weight") == 35
    assert "scale" in checkpoint
    assert "position_ids" not in checkpoint
    assert checkpoint.architecture == "bert"


def test_the_digest_is_what_the_docstring_says(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save(tmp_path, {"w": torch.ones(2, 3), "s": torch.tensor(1.0).half()}))
    one = hashlib.sha256(b"\x00\x00\x80\x3f" * 6).hexdigest()
    half = hashlib.sha256(b"\x00\x3c").hexdigest()
    lines = f"s\tF16\t\t{half}\nw\tF32\t2,3\t{one}\n"
    identity = checkpoint.identity()
    assert identity.digest == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert identity.architecture == "bert"
    assert checkpoint.identity() is identity


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    whole = Checkpoint.open(save(tmp_path / "whole", TENSORS))
    first = {name: TENSORS[name] for name in list(TENSORS)[:2]}
    second = {name: TENSORS[name] for name in list(TENSORS)[2:]}
    sharded = Checkpoint.open(save(tmp_path / "sharded", first, second))
    assert sharded.names == whole.names
    assert sharded.identity() == whole.identity()


@pytest.mark.parametrize(
    "changed",
    [
        TENSORS | {"scale": torch.tensor(-2.5)},
        TENSORS | {"scale": torch.tensor([2.5])},
        TENSORS | {"scale": torch.tensor(2.5).half()},
        {name.replace("scale", "other"): tensor for name, tensor in TENSORS.items()},
    ],
    ids=["value", "shape", "dtype", "name"],
)
def test_the_digest_sees_every_change(tmp_path: Path, changed: dict[str, torch.Tensor]) -> None:
    before = Checkpoint.open(save(tmp_path / "before", TENSORS)).identity()
    assert Checkpoint.open(save(tmp_path / "after", changed)).identity().digest != before.digest


def _without_shard(folder: Path) -> None:
    save(folder, {"x": torch.ones(1)}, {"y": torch.ones(1)})
    (folder / "model-00002-of-00002.safetensors").unlink()


def _without_tensor(folder: Path) -> None:
    save(folder, {"x": torch.ones(1)}, {"y": torch.ones(1)})
    save_file({"z": torch.ones(1)}, folder / "model-00002-of-00002.safetensors")


def _twice(folder: Path) -> None:
    save(folder, {"x": torch.ones(1)}, {"y": torch.ones(1)})
    save_file({"y": torch.ones(1), "x": torch.ones(1)}, folder / "model-00002-of-00002.safetensors")


def _outside(folder: Path) -> None:
    save(folder, {"x": torch.ones(1)}, {"y": torch.ones(1)})
    index = {"weight_map": {"x": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _pickle(folder: Path) -> None:
    save(folder, {"x": torch.ones(1)})
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _truncated(folder: Path) -> None:
    save(folder, {"x": torch.ones(100)})
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1])


def _broken_config(folder: Path) -> None:
    save(folder, {"x": torch.ones(1)})
    (folder / "config.json").write_text("{")


def _bare(folder: Path) -> None:
    save(folder, {"x": torch.ones(1)})
    (folder / "model.safetensors").unlink()


def _quantised(folder: Path) -> None:
    save(folder, {"x": torch.ones(1)}, config={"model_type": "bert", "quantization_config": {"bits": 4}})


def _no_model_type(folder: Path) -> None:
    save(folder, {"x": torch.ones(1)}, config={"hidden_size": 1})


def _no_config(folder: Path) -> None:
    save(folder, {"x": torch.ones(1)})
    (folder / "config.json").unlink()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (_without_shard, r"lacks model-00002-of-00002\.safetensors, which .*index\.json names"),
    "missing tensor": (_without_tensor, "shards in .* lack y, which"),
    "tensor twice": (_twice, "holds the tensor x twice"),
    "shard elsewhere": (_outside, "no weight_map of tensor names to shard file names"),
    "pickle": (_pickle, r"holds pytorch_model\.bin, a pickle.*save_pretrained"),
    "truncated": (_truncated, "is not a safetensors file"),
    "no weights": (_bare, r"has no model\.safetensors and no model\.safetensors\.index\.json"),
    "no config": (_no_config, r"config\.json is missing"),
    "broken config": (_broken_config, r"config\.json cannot be read as JSON"),
    "list config": (lambda folder: save(folder, {"x": torch.ones(1)}, config=[]), "holds no JSON object"),
    "no model type": (_no_model_type, "has no model_type"),
    "quantised": (_quantised, "is quantised; the weights must be stored in F32, F16 or BF16"),
    "float64": (
        lambda folder: save(folder, {"x": torch.ones(1, dtype=torch.float64)}),
        "x is stored as F64; weights are read in F32, F16 or BF16",
    ),
    "int8": (
        lambda folder: save(folder, {"x.weight": torch.ones(1, dtype=torch.int8)}),
        r"x\.weight is stored as I8",
    ),
    "packed integers": (
        lambda folder: save(folder, {"x.qweight": torch.ones(1, dtype=torch.int32)}),
        r"x\.qweight is stored as I32",
    ),
    "no parameter": (lambda folder: save(folder, {"x": torch.arange(2)}), "holds no floating tensor"),
    "legacy name twice": (
        lambda folder: save(folder, {"LayerNorm.gamma": torch.ones(1), "LayerNorm.weight": torch.ones(1)}),
        r"holds the tensor LayerNorm\.weight twice",
    ),
    "unprintable name": (
        lambda folder: save(folder, {"a\tF32": torch.ones(1)}),
        r"'a\\tF32' is not printable",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path: Path, case: str) -> None:
    build, sentence = REFUSED[case]
    folder = tmp_path / "checkpoint"
    build(folder)
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        Checkpoint.open(tmp_path / "none")
