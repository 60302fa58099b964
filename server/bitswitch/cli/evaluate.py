"""``bitswitch eval``: the accuracy of a switch, through the engine that serves it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer

from bitswitch.base.load import load, quiet
from bitswitch.base.model import Base
from bitswitch.cli.rows import Example, read_examples
from bitswitch.core import Mix, Request, Want
from bitswitch.engine.engine import Engine
from bitswitch_store import file
from bitswitch_store.switch import Switch

CHUNK = 64
"""Examples per request, and per batch of the fine-tune beside it."""


@dataclass(frozen=True)
class Scored:
    """Predictions of one model on the examples."""

    name: str
    bytes: int
    accuracy: float
    seconds: float
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """The switch, and its fine-tune where it was given."""

    examples: int
    switch: Scored
    finetuned: Scored | None

    def table(self) -> Table:
        """For the terminal."""
        table = Table("model", "bytes", "accuracy", "seconds", title=f"{self.examples:,} examples")
        for column in table.columns[1:]:
            column.justify = "right"
        for scored in (self.finetuned, self.switch):
            if scored:
                table.add_row(
                    scored.name, f"{scored.bytes:,}", f"{scored.accuracy:.4f}", f"{scored.seconds:.1f}"
                )
        if self.finetuned:
            ours, theirs = self.switch.probabilities, self.finetuned.probabilities
            same = (ours.argmax(1) == theirs.argmax(1)).mean()
            table.caption = f"the same label on {same:.2%} of the examples"
        return table


def evaluate_switch(*, base: Path, switch: Path, data: Path, against: Path | None) -> Evaluation:
    """Measure.

    Raises:
        ValueError: the switch has no head or is of another base, or a label of the data is not its.
    """
    examples = read_examples(data, labelled=True)
    content = file.read(switch)
    if content.head is None:
        raise ValueError(f"{switch} has no classification head; there is nothing to score")
    labels = content.head.labels
    unknown = sorted({str(example.label) for example in examples} - set(labels))
    if unknown:
        raise ValueError(f"{data} has labels that the switch does not know: {', '.join(unknown[:5])}")
    model = load(base)
    ours = _switched(model, content, switch, examples)
    theirs = None if against is None else _finetuned(against, model, examples, labels)
    return Evaluation(len(examples), ours, theirs)


def _switched(model: Base, content: Switch, path: Path, examples: Sequence[Example]) -> Scored:
    digest = file.digest(path.read_bytes())
    engine = Engine(model, lambda _: content)
    engine.check(content)
    engine.start()
    started = time.perf_counter()
    try:
        futures = []
        for start in range(0, len(examples), CHUNK):
            texts = [example.text for example in examples[start : start + CHUNK]]
            rows = model.encode(texts, want=Want.CLASSIFY)
            futures.append(engine.submit(Request(Mix.of([(digest, 1.0)]), Want.CLASSIFY, rows, digest)))
        values = np.concatenate([future.result().values for future in futures])
    finally:
        engine.stop()
    seconds = time.perf_counter() - started
    labels = content.head.labels if content.head else ()
    return _scored("switch", path.stat().st_size, values, examples=examples, labels=labels, seconds=seconds)


@torch.inference_mode()
def _finetuned(folder: Path, base: Base, examples: Sequence[Example], labels: tuple[str, ...]) -> Scored:
    """The fine-tune as transformers runs it; images it gets as the base reads them."""
    images = base.encoder.kind == "image"
    kind = AutoModelForImageClassification if images else AutoModelForSequenceClassification
    with quiet():
        model = kind.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = None if images else AutoTokenizer.from_pretrained(folder, local_files_only=True)
    own = tuple(model.config.id2label[i] for i in range(model.config.num_labels))
    if own != labels:
        raise ValueError(f"{folder} has other labels than the switch")
    started = time.perf_counter()
    values = []
    for start in range(0, len(examples), CHUNK):
        texts = [example.text for example in examples[start : start + CHUNK]]
        if tokenizer is None:
            fields = base.encoder.pad(base.encode(texts, want=Want.CLASSIFY))
        else:
            fields = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        values.append(model(**fields).logits.float().softmax(-1).numpy())
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return _scored(
        "fine-tune", size, np.concatenate(values), examples=examples, labels=labels, seconds=seconds
    )


def _scored(
    name: str,
    size: int,
    values: NDArray[np.float32],
    *,
    examples: Sequence[Example],
    labels: tuple[str, ...],
    seconds: float,
) -> Scored:
    right = [labels[i] == example.label for i, example in zip(values.argmax(1), examples, strict=True)]
    return Scored(name, size, float(np.mean(right)), seconds, values)
