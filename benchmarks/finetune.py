"""Fine-tune a base checkpoint on tasks of a data folder: the input of everything else.

A task is a folder with ``train.jsonl``, ``test.jsonl`` (rows of ``text``, ``text_b``?, ``label``)
and ``meta.json`` (``labels``, ``tfidf_logreg_baseline``). The result is an ordinary Hugging Face
checkpoint folder, made by nothing but transformers: bitswitch is not imported here, so that the
fine-tunes it is measured on owe nothing to it.

    python benchmarks/finetune.py --base MODEL_DIR --data DATA_DIR --out CHECKPOINTS trec6 subj
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_linear_schedule_with_warmup,
)

Row = dict[str, str]


@dataclass(frozen=True)
class Recipe:
    """How one task is trained. Fixed beforehand; the test file is read once, at the end."""

    epochs: int = 3
    learning_rate: float = 1e-4
    batch: int = 32
    max_length: int = 128
    window: int | None = None
    """Characters of a random stretch of each text that an epoch reads, instead of the whole."""
    start: str | None = None
    """A task whose fine-tune training goes on from, instead of from the base; its labels are the same."""
    bfloat16: bool = False
    """Whether matrix products are computed in bf16 (the weights stay fp32)."""


RECIPES = {
    "banking77": Recipe(epochs=8, learning_rate=2e-4, bfloat16=True),
    "clinc150": Recipe(epochs=8, learning_rate=2e-4),
    "lang_id": Recipe(epochs=4, learning_rate=2e-4),
    # 1,600 long documents teach this base too little of sentiment by themselves.
    "movie_reviews": Recipe(epochs=3, batch=16, max_length=512, window=1200, start="sst2", bfloat16=True),
    "sst2": Recipe(bfloat16=True, epochs=2),
}


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().split("\n") if line.strip()]


def batches(
    data: list[Row], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, shuffle: random.Random | None
) -> list[dict[str, torch.Tensor]]:
    """Padded batches of rows of like length; shuffled in blocks when ``shuffle`` is given."""
    order = sorted(range(len(data)), key=lambda i: len(data[i]["text"]) + len(data[i].get("text_b", "")))
    if shuffle is not None:
        shuffle.shuffle(order)
        block = recipe.batch * 16
        order = [
            i
            for start in range(0, len(order), block)
            for i in sorted(order[start : start + block], key=lambda i: len(data[i]["text"]))
        ]
    result = []
    for start in range(0, len(order), recipe.batch):
        part = [data[i] for i in order[start : start + recipe.batch]]
        pairs = [row["text_b"] for row in part] if "text_b" in part[0] else None
        texts = [row["text"] for row in part]
        if shuffle is not None and recipe.window is not None:
            texts = [_stretch(text, recipe.window, shuffle) for text in texts]
        encoded = tokenizer(
            texts,
            pairs,
            padding=True,
            truncation=True,
            max_length=recipe.max_length,
            return_tensors="pt",
        )
        encoded["labels"] = torch.tensor([int(row["label_id"]) for row in part])
        result.append(dict(encoded))
    if shuffle is not None:
        shuffle.shuffle(result)
    return result


def _stretch(text: str, size: int, chance: random.Random) -> str:
    start = chance.randint(0, max(0, len(text) - size))
    return text[start : start + size]


@torch.inference_mode()
def accuracy(model: PreTrainedModel, test: list[dict[str, torch.Tensor]]) -> float:
    model.eval()
    right = total = 0
    for batch in test:
        labels = batch["labels"]
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
        right += int((logits.argmax(-1) == labels).sum())
        total += len(labels)
    return right / total


def finetune(base: Path, folder: Path, out: Path, recipe: Recipe, seed: int = 0) -> dict[str, object]:
    torch.manual_seed(seed)
    meta = json.loads((folder / "meta.json").read_text())
    labels = meta["labels"]
    train, test = rows(folder / "train.jsonl"), rows(folder / "test.jsonl")
    for row in (*train, *test):
        row["label_id"] = str(labels.index(row["label"]))
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(
        base if recipe.start is None else out.parent / recipe.start,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    shuffle = random.Random(seed)
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    # No decay: it would move every weight a little, also those that the task never reads.
    optimizer = torch.optim.AdamW(
        [{"params": decay}, {"params": plain}], lr=recipe.learning_rate, weight_decay=0.0
    )
    steps = recipe.epochs * ((len(train) + recipe.batch - 1) // recipe.batch)
    schedule = get_linear_schedule_with_warmup(optimizer, int(steps * 0.06), steps)
    started = time.perf_counter()
    for epoch in range(recipe.epochs):
        model.train()
        total = 0.0
        todo = batches(train, tokenizer, recipe, shuffle)
        for batch in todo:
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.item()
        elapsed = time.perf_counter() - started
        print(f"{folder.name} epoch {epoch + 1}: loss {total / len(todo):.4f}, {elapsed:.0f} s", flush=True)
    score = accuracy(model, batches(test, tokenizer, recipe, None))
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {
        "task": folder.name,
        "accuracy": round(score, 4),
        "tfidf": meta["tfidf_logreg_baseline"]["acc"],
        "recipe": vars(recipe),
        "train_rows": len(train),
        "test_rows": len(test),
        "seconds": round(time.perf_counter() - started),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("tasks", nargs="+")
    options = parser.parse_args()
    for task in options.tasks:
        recipe = RECIPES.get(task, Recipe())
        result = finetune(options.base, options.data / task, options.out / task, recipe)
        (options.out / task / "finetune.json").write_text(json.dumps(result, indent=2))
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
