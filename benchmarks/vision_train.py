"""A small ViT trained on several image tasks at once, and a fine-tune of it for each of them.

A task is ``<name>.npz``: ``x_train``, ``y_train``, ``x_test``, ``y_test``, ``classes``; images uint8 (rows,
height, width) or (rows, height, width, 3). The base learns every second training row of all tasks in one
label space; a fine-tune starts from it with a new head and all rows of its task. Both are ordinary Hugging
Face folders, made by nothing but transformers: bitswitch is not imported here.

    python benchmarks/vision_train.py --data DATA_DIR --out CHECKPOINTS cifar10 fashion_mnist gtsrb mnist
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    get_cosine_schedule_with_warmup,
)

SIZE = 32
SHIFT = 3
MIRRORED = ("cifar10", "fashion_mnist")
"""Tasks whose labels a mirror image keeps."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Fixed beforehand; the test rows are read once, at the end."""

    epochs: int
    learning_rate: float
    decay: float
    batch: int = 64


BASE = Recipe(epochs=20, learning_rate=1e-3, decay=0.05)
# No decay: it would move every weight a little, also those that the task never reads.
FINETUNE = Recipe(epochs=12, learning_rate=3e-4, decay=0.0)


@dataclass(frozen=True)
class Task:
    """One task's rows.

    Attributes:
        train, test: uint8 (rows, 3, SIZE, SIZE), resized as the image processor does.
    """

    name: str
    classes: tuple[str, ...]
    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor

    @classmethod
    def read(cls, path: Path, processor: ViTImageProcessor) -> Task:
        with np.load(path) as data:
            return cls(
                name=path.stem,
                classes=tuple(str(one) for one in data["classes"]),
                train=_resized(data["x_train"], processor),
                train_labels=torch.from_numpy(data["y_train"].astype(np.int64)),
                test=_resized(data["x_test"], processor),
                test_labels=torch.from_numpy(data["y_test"].astype(np.int64)),
            )


def _resized(images: np.ndarray, processor: ViTImageProcessor) -> torch.Tensor:
    rgb = [Image.fromarray(image).convert("RGB") for image in images]
    resized = processor(rgb, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    return torch.from_numpy(np.asarray(resized, np.uint8))


def pixels(images: torch.Tensor) -> torch.Tensor:
    """What the processor's rescaling and normalising make of uint8 images: float32 within ±1."""
    return images.float() / 127.5 - 1


def varied(images: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Each image moved by up to SHIFT pixels, and half of those that may be mirrored."""
    padded = torch.nn.functional.pad(images.float(), (SHIFT,) * 4, mode="replicate").to(torch.uint8)
    rows = torch.arange(len(images)).view(-1, 1, 1)
    line = torch.arange(SIZE)
    down = (torch.randint(2 * SHIFT + 1, (len(images), 1)) + line).view(-1, SIZE, 1)
    right = torch.randint(2 * SHIFT + 1, (len(images), 1)) + line
    flip = mirrored & (torch.rand(len(images)) < 0.5)
    right = torch.where(flip.unsqueeze(1), right.flip(1), right).view(-1, 1, SIZE)
    return padded.permute(0, 2, 3, 1)[rows, down, right].permute(0, 3, 1, 2)


def train(
    model: ViTForImageClassification,
    images: torch.Tensor,
    labels: torch.Tensor,
    mirrored: torch.Tensor,
    *,
    recipe: Recipe,
    title: str,
) -> None:
    """Cross-entropy under AdamW; matrix products in bf16, the weights stay fp32."""
    groups = [
        {"params": [p for p in model.parameters() if p.dim() == 2], "weight_decay": recipe.decay},
        {"params": [p for p in model.parameters() if p.dim() != 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    steps = recipe.epochs * (len(images) // recipe.batch)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    model.train()
    started = time.process_time()
    for epoch in range(recipe.epochs):
        total = 0.0
        parts = torch.randperm(len(images)).split(recipe.batch)[: steps // recipe.epochs]
        for part in parts:
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(pixel_values=pixels(varied(images[part], mirrored[part]))).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), labels[part], label_smoothing=0.05)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.item()
        seconds = time.process_time() - started
        print(f"{title} epoch {epoch + 1}: loss {total / len(parts):.4f}, {seconds:.0f} CPU s", flush=True)
    model.eval()


@torch.inference_mode()
def accuracy(model: ViTForImageClassification, images: torch.Tensor, labels: torch.Tensor) -> float:
    found = [model(pixel_values=pixels(part)).logits.argmax(-1) for part in images.split(250)]
    return float((torch.cat(found) == labels).float().mean())


def save(model: ViTForImageClassification, processor: ViTImageProcessor, folder: Path, facts: object) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "finetune.json").write_text(json.dumps(facts, indent=2))
    print(json.dumps(facts), flush=True)


def make_base(tasks: list[Task], processor: ViTImageProcessor, out: Path) -> None:
    names = [f"{task.name}/{label}" for task in tasks for label in task.classes]
    config = ViTConfig(
        image_size=SIZE,
        patch_size=8,
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=768,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    images, labels, mirrored, first = [], [], [], 0
    for task in tasks:
        images.append(task.train[::2])
        labels.append(task.train_labels[::2] + first)
        mirrored.append(torch.full((len(labels[-1]),), task.name in MIRRORED))
        first += len(task.classes)
    model = ViTForImageClassification(config)
    train(model, torch.cat(images), torch.cat(labels), torch.cat(mirrored), recipe=BASE, title="base")
    facts = {"task": "base", "recipe": vars(BASE), "train_rows": sum(map(len, labels))}
    save(model, processor, out / "base", facts)


def make_finetune(task: Task, processor: ViTImageProcessor, out: Path) -> None:
    model = ViTForImageClassification.from_pretrained(
        out / "base",
        num_labels=len(task.classes),
        id2label=dict(enumerate(task.classes)),
        label2id={name: i for i, name in enumerate(task.classes)},
        ignore_mismatched_sizes=True,
    )
    torch.nn.init.normal_(model.classifier.weight, std=0.02)
    torch.nn.init.zeros_(model.classifier.bias)
    mirrored = torch.full((len(task.train),), task.name in MIRRORED)
    train(model, task.train, task.train_labels, mirrored, recipe=FINETUNE, title=task.name)
    facts = {
        "task": task.name,
        "accuracy": round(accuracy(model, task.test, task.test_labels), 4),
        "recipe": vars(FINETUNE),
        "train_rows": len(task.train),
        "test_rows": len(task.test),
    }
    save(model, processor, out / task.name, facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("tasks", nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    processor = ViTImageProcessor(size={"height": SIZE, "width": SIZE})
    tasks = [Task.read(options.data / f"{name}.npz", processor) for name in options.tasks]
    if not (options.out / "base").is_dir():
        make_base(tasks, processor, options.out)
    for task in tasks:
        if not (options.out / task.name).is_dir():
            make_finetune(task, processor, options.out)


if __name__ == "__main__":
    main()
