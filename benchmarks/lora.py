"""What a switch keeps of a LoRA: trained with PEFT, merged by PEFT, and made switches of several budgets.

    python -m benchmarks.lora --base MODEL_DIR --data DATA_DIR --out DIR TASK …

PEFT and accelerate must be installed; nothing else of the project needs them. Divergence and same label
are against what PEFT merged, over the full test file. A LoRA's bytes are its safetensors file, head included
(fp32); a switch's are its whole file. ``exact`` is what the base with the LoRA merged answers.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.finetune import Recipe, batches, rows
from bitswitch.cli.evaluate import evaluate_switch
from bitswitch.cli.make import make_switch

RANK = 16
TARGETS = {"all linear layers": "all-linear", "query, value": ["query", "value"]}
RECIPE = Recipe(epochs=3, learning_rate=1e-3)
TRAINED = 2000
SWITCHES = ((0.02, False), (0.02, True), (0.01, False), (0.01, True), (0.005, True))
HEAD = "| task | layers | what | bytes | of fp32 | accuracy | same label | divergence |\n|" + "---|" * 8


def train(base: Path, folder: Path, out: Path, targets: str | list[str]) -> tuple[Path, Path, list[str]]:
    """Train a LoRA and save it, and what it is merged; their folders and the labels."""
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
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=RECIPE.learning_rate, weight_decay=0.0
    )
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
        print(f"{folder.name} epoch {epoch + 1}: loss {np.mean(losses):.4f}", flush=True)
    model.save_pretrained(out / "lora")
    model.merge_and_unload().save_pretrained(out / "merged")
    tokenizer.save_pretrained(out / "merged")
    return out / "lora", out / "merged", labels


def measure(base: Path, folder: Path, out: Path, layers: str) -> list[str]:
    """The table's lines of one task and one choice of layers."""
    out.mkdir(parents=True, exist_ok=True)
    lora, merged, labels = train(base, folder, out, TARGETS[layers])
    inputs = out / "inputs.jsonl"
    inputs.write_text("\n".join(json.dumps(row["text"]) for row in rows(folder / "train.jsonl")))
    fp32 = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    lines = []
    for budget, calibrate in SWITCHES:
        output = out / f"{budget:g}{'.calibrated' if calibrate else ''}.switch.safetensors"
        made = make_switch(
            base=base,
            lora=lora,
            labels=labels,
            task=folder.name,
            output=output,
            queries=inputs,
            calibrate=calibrate,
            rule="budget",
            parameters={"budget": budget},
            metric=[],
            licence=None,
        )
        found = evaluate_switch(base=base, switch=output, data=folder / "test.jsonl", against=merged)
        assert found.finetuned is not None
        ours, theirs = (np.float64(one.probabilities).clip(1e-9) for one in (found.switch, found.finetuned))
        same, divergence = (ours.argmax(1) == theirs.argmax(1)).mean(), theirs * np.log(theirs / ours)
        if not lines:
            size = (lora / "adapter_model.safetensors").stat().st_size
            lines.append(
                f"| {folder.name} | {layers} | the LoRA | {size:,} | {size / fp32:.2%}"
                f" | {found.finetuned.accuracy:.4f} | 1 | 0 |"
            )
        how = f"{budget:.1%}, " + ("data-free" if not calibrate or made.uncalibrated else "calibrated")
        lines.append(
            f"| {folder.name} | {layers} | {how} | {made.size:,} | {made.size / fp32:.2%}"
            f" | {found.switch.accuracy:.4f} | {same:.4f} | {divergence.sum(1).mean():.4f} |"
        )
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--base", "--data", "--out"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("tasks", nargs="+")
    options = parser.parse_args()
    table = [HEAD]
    for task in options.tasks:
        for place, layers in enumerate(TARGETS):
            out = options.out / f"{task}-{place}"
            table += measure(options.base, options.data / task, out, layers)
            print("\n".join(table), flush=True)


if __name__ == "__main__":
    main()
