"""A folder of tasks and a folder of their fine-tunes, and what is found out about each, kept in a third.

A task is a folder with ``train.jsonl`` and ``test.jsonl``, as `finetune` reads them, and has a checkpoint
folder of its own name. Knows no method.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitswitch.cli.rows import Example, Text, read_examples

UNSEEN = "-"
"""In `Result.right`: a test row that was not asked."""


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        data: its folder of rows.
        finetuned: its checkpoint folder.
    """

    name: str
    data: Path
    finetuned: Path

    @cached_property
    def test(self) -> list[Example]:
        """All test rows."""
        return read_examples(self.data / "test.jsonl", labelled=True)

    @cached_property
    def train(self) -> list[Example]:
        """All training rows."""
        return read_examples(self.data / "train.jsonl", labelled=True)

    def unlabelled(self, path: Path) -> Path:
        """Write the training inputs to ``path``, without labels: what `make` sees holds none."""
        lines = (
            one.text if isinstance(one.text, str) else {"text": one.text[0], "text_b": one.text[1]}
            for one in self.train
        )
        path.write_text("\n".join(map(json.dumps, lines)))
        return path


def tasks_of(data: Path, checkpoints: Path, names: Sequence[str] = ()) -> list[Task]:
    """The tasks named, or all that have both data and a fine-tune, sorted.

    Raises:
        ValueError: one that is named, or every one, lacks either.
    """
    found = {
        folder.parent.name: Task(folder.parent.name, folder.parent, checkpoints / folder.parent.name)
        for folder in sorted(data.glob("*/test.jsonl"))
        if (checkpoints / folder.parent.name / "config.json").is_file()
    }
    if missing := sorted(set(names) - found.keys()):
        raise ValueError(
            f"{', '.join(missing)}: no test.jsonl below {data}, or no checkpoint below {checkpoints}"
        )
    if not found:
        raise ValueError(f"no task has both a test.jsonl below {data} and a checkpoint below {checkpoints}")
    return [task for name, task in found.items() if not names or name in names]


def spaced(count: int, most: int | None) -> list[int]:
    """Places of ``most`` of ``count`` rows, evenly spaced; all where there are not more."""
    if most is None or count <= most:
        return list(range(count))
    return [count * i // most for i in range(most)]


@dataclass(frozen=True)
class Result:
    """What one method did on one task.

    Attributes:
        right: a character for each test row: 1 for the right label, 0 for another, `UNSEEN`.
        size: bytes that the task adds to the store.
        shared: bytes that are kept once for all tasks.
        seconds: of CPU time, to make what is stored for the task; 0 where nothing is made.
        note: a choice that was made, such as a λ.
        head: bytes of ``size`` that are a switch's head.
    """

    right: str
    size: int
    shared: int
    seconds: float = 0.0
    note: str = ""
    head: int = 0

    def accuracy(self, places: Sequence[int]) -> float:
        """The share of right answers to these test rows; NaN if one was not asked."""
        seen = [self.right[place] for place in places]
        return float("nan") if UNSEEN in seen else seen.count("1") / len(seen)

    @staticmethod
    def marks(count: int, places: Sequence[int], right: NDArray[np.bool_]) -> str:
        """``Result.right`` of a test file of ``count`` rows, of which ``places`` were asked."""
        found = [UNSEEN] * count
        for place, hit in zip(places, right, strict=True):
            found[place] = "1" if hit else "0"
        return "".join(found)


class Results:
    """A folder with one JSON file for each method and task: an interrupted run goes on from there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, method: str, task: Task, places: Sequence[int]) -> Result | None:
        """What is known, if it covers these test rows."""
        path = self._path(method, task)
        if not path.exists():
            return None
        result = Result(**json.loads(path.read_text()))
        known = all(result.right[place] != UNSEEN for place in places)
        return result if known else None

    def put(self, method: str, task: Task, result: Result) -> None:
        """Keep it: whole, or not at all."""
        path = self._path(method, task)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(asdict(result)))
        unfinished.replace(path)

    def _path(self, method: str, task: Task) -> Path:
        return self._folder / f"{method}.{task.name}.json"


def columns(texts: Sequence[Text]) -> tuple[list[str], list[str] | None]:
    """First texts, and second ones if the inputs are pairs: as a tokenizer takes them."""
    if isinstance(texts[0], str):
        return [str(text) for text in texts], None
    return [text[0] for text in texts], [text[1] for text in texts]
