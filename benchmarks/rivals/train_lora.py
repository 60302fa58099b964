"""Trains a LoRA with PEFT, run by PEFT's own Python; saves it, and what PEFT merges it to.

    python -m benchmarks.rivals.train_lora BASE TASK_FOLDER OUT TARGETS

Rank 16 on ``TARGETS`` (``all-linear``, or names with commas between), 2,000 training rows evenly spaced.
Imports nothing of ours, so that it runs in an environment without it.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.finetune import Recipe, batches, rows

RANK = 16
RECIPE = Recipe(epochs=3, learning_rate=1e-3)
TRAINED = 2000


def train(base: Path, folder: Path, out: Path, targets: str | list[str]) -> None:
    torch.manual_seed(0)
    labels = json.loads((folder / "meta.json").read_text())["labels"]
    known = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    tokenizer = AutoTokenizer.from_pretrained(base)
    whole = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels), **known)
    config = LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=2 * RANK, target_modules=targets)
    model = get_peft_model(whole, config)
    every = rows(folder / "train.jsonl")
    data = [every[len(every) * i // TRAINED] for i in range(TRAINED)]
    for row in data:
        row["label_id"] = str(labels.index(row["label"]))
    chance = random.Random(0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RECIPE.learning_rate, weight_decay=0.0)
    model.train()
    for epoch in range(RECIPE.epochs):
        losses = []
        for batch in batches(data, tokenizer, RECIPE, chance):
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
        print(f"{folder.name} epoch {epoch + 1}: loss {sum(losses) / len(losses):.4f}", flush=True)
    model.save_pretrained(out / "lora")
    model.merge_and_unload().save_pretrained(out / "merged")
    tokenizer.save_pretrained(out / "merged")


if __name__ == "__main__":
    base, folder, out, targets = sys.argv[1:]
    train(Path(base), Path(folder), Path(out), targets if targets == "all-linear" else targets.split(","))
