"""Writes ``peft.npz``: LoRAs of `tiny`'s bases as PEFT saves them, and what PEFT makes of the weights.

    PYTHONPATH=tests python tests/golden/write_peft.py        # with PEFT installed; written with 0.21.2

Imports nothing of ours, so that what we read is held to owes nothing to us. Keys: ``<case>|config``, the JSON
text of ``adapter_config.json``; ``<case>|lora|<name>``, the tensors beside it; ``<case>|tau|<name>``, merged
minus base, where they differ; ``<case>|head|<name>``. Refused cases have their configuration alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

from tiny import make_base

CASES = {
    "bert dense": {"target_modules": ["query", "value", "dense"], "layers_to_transform": [1]},
    "bert embeddings": {
        "target_modules": ["query", "word_embeddings"],
        "use_rslora": True,
        "bias": "all",
    },
    "bert patterns": {
        "target_modules": ["query", "key"],
        "bias": "lora_only",
        "rank_pattern": {"key": 2},
        "alpha_pattern": {"layer.1.attention.self.query": 5},
    },
    "roberta all": {"target_modules": "all-linear", "exclude_modules": r".*layer\.0.*"},
    "modernbert head": {"target_modules": ["Wqkv", "Wo"], "modules_to_save": ["head", "classifier"]},
    "distilbert head": {"target_modules": ["q_lin"], "modules_to_save": ["pre_classifier", "classifier"]},
}
REFUSED = {
    "bert dora": {"target_modules": ["query"], "use_dora": True},
    "bert lora_bias": {"target_modules": ["query"], "lora_bias": True},
    "bert pissa": {"target_modules": ["query"], "init_lora_weights": "pissa"},
}


def write(case: str, options: dict[str, object], folder: Path) -> dict[str, np.ndarray]:
    base = make_base(folder / "base", case.split(maxsplit=1)[0])
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    prefix = model.base_model_prefix + "."
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder / "lora")
    text = (folder / "lora/adapter_config.json").read_text().replace(str(base), "base")
    found = {f"{case}|config": np.array(text)}
    if case in REFUSED:
        return found
    tensors = load_file(folder / "lora/adapter_model.safetensors")
    found |= {f"{case}|lora|{name}": tensor for name, tensor in tensors.items()}
    before = AutoModel.from_pretrained(base).state_dict()
    for name, after in model.merge_and_unload().state_dict().items():
        own = name.removeprefix(prefix)
        if own not in before:
            found[f"{case}|head|{name}"] = after.numpy()
        elif (tau := after - before[own]).any():
            found[f"{case}|tau|{own}"] = tau.numpy()
    return found


def main() -> None:
    found = {}
    for case, options in (CASES | REFUSED).items():
        with tempfile.TemporaryDirectory() as folder:
            found |= write(case, options, Path(folder))
    np.savez_compressed(Path(__file__).with_name("peft.npz"), **found)


if __name__ == "__main__":
    main()
