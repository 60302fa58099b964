"""What a model answers whose weights were written once: transformers' own model of a task, and its head.

Knows nothing of switches, of kernels or of how the weights came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.tasks import Task, columns
from bitswitch.base.load import quiet
from bitswitch.cli.rows import Example
from bitswitch_store.checkpoint import Checkpoint
from bitswitch_store.match import match

_AT_ONCE = 32
Added = Mapping[str, NDArray[np.float32]]
"""What is added to the base, by the names of its tensors; a tensor that is not there stays the base's."""


class Judge:
    """One task's fine-tune, loaded as transformers does, its backbone settable to anything.

    Args:
        base: folder of the base.
        task: whose head and labels answer.
    """

    def __init__(self, base: Path, task: Task) -> None:
        self._base = Checkpoint.open(base)
        tuned = Checkpoint.open(task.finetuned)
        self._partner = dict(match(self._base, tuned).tensors)
        with quiet():
            self._tokenizer = AutoTokenizer.from_pretrained(task.finetuned, local_files_only=True)
            self._model = AutoModelForSequenceClassification.from_pretrained(
                task.finetuned, local_files_only=True, dtype=torch.float32
            ).eval()
        self._own = self._model.state_dict()
        self.labels = [self._model.config.id2label[i] for i in range(self._model.config.num_labels)]

    @torch.no_grad()
    def set(self, added: Added) -> None:
        """Set the backbone to the base plus this; the head stays the task's."""
        for name, partner in self._partner.items():
            weights = self._base.tensor(name)
            if name in added:
                weights = weights + added[name]
            self._own[partner].copy_(torch.from_numpy(np.ascontiguousarray(weights)))

    @torch.inference_mode()
    def right(self, examples: Sequence[Example]) -> NDArray[np.bool_]:
        """Which of them get their label, (examples,)."""
        found = np.zeros(len(examples), bool)
        order = sorted(range(len(examples)), key=lambda i: len(str(examples[i].text)))
        for start in range(0, len(order), _AT_ONCE):
            places = order[start : start + _AT_ONCE]
            first, second = columns([examples[i].text for i in places])
            fields = self._tokenizer(first, second, padding=True, truncation=True, return_tensors="pt")
            best = self._model(**fields).logits.argmax(-1).tolist()
            labels = [self.labels[place] for place in best]
            found[places] = [label == examples[i].label for i, label in zip(places, labels, strict=True)]
        return found


class Flat:
    """Task vectors as one flat array each, and back.

    Args:
        base: folder of the base.
    """

    def __init__(self, base: Path) -> None:
        self._base = Checkpoint.open(base)
        self.weights = sum(self._base.numel(name) for name in self._base.names)

    def vector(self, finetuned: Path) -> NDArray[np.float32]:
        """Of one fine-tune, float32 (weights,); 0 where it lacks a tensor."""
        tuned = Checkpoint.open(finetuned)
        partner = dict(match(self._base, tuned).tensors)
        return np.concatenate(
            [
                (tuned.tensor(partner[name]) - self._base.tensor(name)).reshape(-1)
                if name in partner
                else np.zeros(self._base.numel(name), np.float32)
                for name in self._base.names
            ]
        )

    def tensors(self, vector: NDArray[np.float32]) -> Added:
        """By name, each in its shape; views."""
        found, start = {}, 0
        for name in self._base.names:
            stop = start + self._base.numel(name)
            found[name] = vector[start:stop].reshape(self._base.shape(name))
            start = stop
        return found

    def flatten(self, added: Added) -> NDArray[np.float32]:
        """The other way round; 0 where a tensor is not among them."""
        return np.concatenate(
            [
                added[name].reshape(-1) if name in added else np.zeros(self._base.numel(name), np.float32)
                for name in self._base.names
            ]
        )


def head_bytes(base: Path, task: Task) -> int:
    """Bytes of a task's head in float32."""
    tuned = Checkpoint.open(task.finetuned)
    return sum(4 * tuned.numel(name) for name in match(Checkpoint.open(base), tuned).head)
