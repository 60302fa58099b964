"""LoRAs in PEFT's file format at a tiny size: made here of random factors, or saved by PEFT itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parent / "golden" / "peft.npz"
"""Written by PEFT: `golden/write_peft.py` says how, and what the keys are."""
PREFIX = "base_model.model."
CONFIG = {
    "peft_type": "LORA",
    "task_type": "SEQ_CLS",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["query", "value"],
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "init_lora_weights": True,
    "modules_to_save": ["classifier", "score"],
}


def factors(layer: str, outputs: int, inputs: int, rank: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """Both factors of one linear layer by their names in the file."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{PREFIX}{layer}.lora_A.weight": torch.randn(rank, inputs, generator=generator) * 0.1,
        f"{PREFIX}{layer}.lora_B.weight": torch.randn(outputs, rank, generator=generator) * 0.1,
    }


def make_lora(
    folder: Path, *, labels: int = 3, extra: Mapping[str, torch.Tensor] | None = None, **config: object
) -> Path:
    """A LoRA of `tiny.make_base`'s BERT: query and value of both layers, and a classifier."""
    generator = torch.Generator().manual_seed(9)
    tensors = {
        f"{PREFIX}classifier.weight": torch.randn(labels, 32, generator=generator),
        f"{PREFIX}classifier.bias": torch.randn(labels, generator=generator),
    }
    for layer in range(2):
        for part, name in enumerate(("query", "value")):
            path = f"bert.encoder.layer.{layer}.attention.self.{name}"
            tensors |= factors(path, 32, 32, seed=2 * layer + part)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    save_file(tensors | dict(extra or {}), folder / "adapter_model.safetensors")
    return folder


def rewrite(folder: Path, *, drop: str = "", add: Mapping[str, torch.Tensor] | None = None) -> Path:
    """Take tensors whose name contains ``drop`` out of the file, and put others in."""
    path = folder / "adapter_model.safetensors"
    kept = {name: t.clone() for name, t in load_file(path).items() if not drop or drop not in name}
    save_file(kept | dict(add or {}), path)
    return folder


def golden_cases(*, refused: bool = False) -> list[str]:
    """Those that PEFT merged as well, or those of another kind than plain LoRA."""
    with np.load(GOLDEN) as golden:
        cases = [key.partition("|")[0] for key in golden.files if key.endswith("|config")]
        return [
            case for case in cases if refused != any(key.startswith(f"{case}|tau|") for key in golden.files)
        ]


def golden_part(case: str, part: str) -> dict[str, np.ndarray]:
    """A case's arrays by name; ``part`` is ``lora``, ``tau`` or ``head``."""
    start = f"{case}|{part}|"
    with np.load(GOLDEN) as golden:
        return {key.removeprefix(start): golden[key] for key in golden.files if key.startswith(start)}


def golden_lora(folder: Path, case: str) -> Path:
    """The folder as PEFT saved it."""
    folder.mkdir()
    with np.load(GOLDEN) as golden:
        (folder / "adapter_config.json").write_text(str(golden[f"{case}|config"]))
    safetensors.numpy.save_file(golden_part(case, "lora"), folder / "adapter_model.safetensors")
    return folder
