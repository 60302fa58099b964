"""Image models the same way: fine-tunes of a small ViT beside their switches, and `auto` over all of them.

    python benchmarks/vision_train.py --data DATA_DIR --out CHECKPOINTS TASK …
    python benchmarks/vision.py --data DATA_DIR --checkpoints CHECKPOINTS --out DIR --tasks TASK …

Accuracy is over all test rows, through the engine that serves; also of the bare base under a fine-tune's
own head: what is left without a switch. A size is the whole file's. `auto` gets the test rows of all tasks,
and is right only where task and label are. Query sets are 100 training images each, unlabelled.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bitswitch.base.features import recipe
from bitswitch.base.heads import Heads
from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch.cli.evaluate import Evaluation, evaluate_switch
from bitswitch.cli.make import make_switch
from bitswitch.core import Mix, Request, Want
from bitswitch.engine.engine import Engine
from bitswitch.router.auto import AutoSwitch
from bitswitch_store import file
from bitswitch_store.switch import Head

HEAD = "| task | rule | bytes | of fp32 | individual | switch | same label | CPU s |"
CHUNK = 64


@dataclass(frozen=True)
class Task:
    """One task's files: `make` reads the images alone, `eval` the labels too."""

    name: str
    queries: Path
    test: Path

    @classmethod
    def write(cls, data: Path, name: str, folder: Path) -> Task:
        with np.load(data / f"{name}.npz") as rows:
            classes = [str(one) for one in rows["classes"]]
            queries = [{"image": _png(image)} for image in rows["x_train"]]
            test = [
                {"image": _png(image), "label": classes[label]}
                for image, label in zip(rows["x_test"], rows["y_test"], strict=True)
            ]
        return cls(
            name, _lines(folder / f"{name}.jsonl", queries), _lines(folder / f"{name}.test.jsonl", test)
        )

    def images(self) -> tuple[list[str], list[str]]:
        """The test rows: data URLs and labels."""
        rows = [json.loads(line) for line in self.test.read_text().splitlines()]
        return [row["image"] for row in rows], [row["label"] for row in rows]


def _png(image: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _lines(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def switched(options: argparse.Namespace, task: Task, rule: str, parameters: dict[str, float]) -> Evaluation:
    """Make a switch and score it beside its fine-tune; prints a row of the table."""
    output = options.out / f"{task.name}.{rule}.{next(iter(parameters.values())):g}.switch.safetensors"
    started = time.process_time()
    made = make_switch(
        base=options.checkpoints / "base",
        finetuned=options.checkpoints / task.name,
        task=task.name,
        output=output,
        queries=task.queries,
        rule=rule,
        parameters=parameters,
        metric=[],
        licence=None,
    )
    seconds = time.process_time() - started
    found = evaluate_switch(
        base=options.checkpoints / "base",
        switch=output,
        data=task.test,
        against=options.checkpoints / task.name,
    )
    assert found.finetuned is not None
    same = (found.switch.probabilities.argmax(1) == found.finetuned.probabilities.argmax(1)).mean()
    how = f"{rule} {next(iter(parameters.values())):g}"
    print(
        f"| {task.name} | {how} | {made.size:,} | {made.size / made.checkpoint_size:.2%}"
        f" | {found.finetuned.accuracy:.4f} | {found.switch.accuracy:.4f} | {same:.4f} | {seconds:.1f} |",
        flush=True,
    )
    return found


def bare(base: Base, head: Head, task: Task) -> float:
    """Accuracy of the bare base under a switch's head."""
    answers = Heads(base).build(head)
    images, labels = task.images()
    right = 0
    for start in range(0, len(images), CHUNK):
        hidden = base.forward(base.encode(images[start : start + CHUNK], want=Want.CLASSIFY))
        found = answers(hidden).argmax(1).tolist()
        truth = labels[start : start + CHUNK]
        right += sum(head.labels[i] == label for i, label in zip(found, truth, strict=True))
    return right / len(images)


class Auto:
    """`auto` over a set of switches, an input at a time, as the server answers it."""

    def __init__(self, base: Base, files: Sequence[Path]) -> None:
        self._base = base
        self._switches = {file.digest(path.read_bytes()): file.read(path) for path in files}
        self._router = AutoSwitch(recipe=recipe(base))
        for digest, switch in self._switches.items():
            assert switch.queries is not None
            self._router.add(digest, switch.queries)
        self.engine = Engine(base, self._switches.__getitem__)

    def answers(self, images: Sequence[str]) -> list[tuple[str, str] | None]:
        """Task and label of each image; None where the router abstains."""
        rows = self._base.encode(images, want=Want.FEATURES)
        features = self.engine.submit(Request(Mix.of(), Want.FEATURES, rows)).result().values
        routes = self._router.pick(features, self._switches.keys())
        futures = [
            None if head is None else self.engine.submit(Request(route.mix, Want.CLASSIFY, (row,), head))
            for row, route in zip(rows, routes, strict=True)
            for head in (route.head,)
        ]
        found: list[tuple[str, str] | None] = []
        for route, future in zip(routes, futures, strict=True):
            switch = None if route.head is None else self._switches[route.head]
            if switch is None or future is None or switch.head is None:
                found.append(None)
            else:
                found.append((switch.task, switch.head.labels[int(future.result().values[0].argmax())]))
        return found


def report_auto(base: Base, files: Sequence[Path], tasks: Sequence[Task]) -> None:
    """A table of what `auto` makes of every test row of all tasks."""
    auto = Auto(base, files)
    auto.engine.start()
    try:
        print("| task | right task | abstained | right task and label |", "|" + "---|" * 4, sep="\n")
        for task in tasks:
            images, labels = task.images()
            found = [
                one
                for start in range(0, len(images), CHUNK)
                for one in auto.answers(images[start : start + CHUNK])
            ]
            routed = np.mean([one is not None and one[0] == task.name for one in found])
            abstained = np.mean([one is None for one in found])
            right = np.mean([one == (task.name, label) for one, label in zip(found, labels, strict=True)])
            print(f"| {task.name} | {routed:.4f} | {abstained:.4f} | {right:.4f} |", flush=True)
    finally:
        auto.engine.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the switch files are left")
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.03, 0.02, 0.01])
    parser.add_argument("--alphas", type=float, nargs="*", default=[0.8, 0.9, 0.95])
    parser.add_argument("--auto", type=float, default=0.02, help="the budget of the switches that `auto` has")
    parser.add_argument("--tasks", nargs="+", required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(HEAD, "|" + "---|" * 8, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        tasks = [Task.write(options.data, name, Path(scratch)) for name in options.tasks]
        rules = [("budget", "budget", value) for value in options.budgets]
        rules += [("paper", "alpha", value) for value in options.alphas]
        for rule, parameter, value in rules:
            some = [switched(options, task, rule, {parameter: value}) for task in tasks]
            individual = np.mean([one.finetuned.accuracy for one in some if one.finetuned])
            switch = np.mean([one.switch.accuracy for one in some])
            print(f"mean, {rule} {value:g}: {switch:.4f} of {individual:.4f}", flush=True)
        base = load(options.checkpoints / "base")
        files = [options.out / f"{task.name}.budget.{options.auto:g}.switch.safetensors" for task in tasks]
        for task, path in zip(tasks, files, strict=True):
            head = file.read(path).head
            assert head is not None
            print(f"{task.name}: the bare base under its head {bare(base, head, task):.4f}", flush=True)
        report_auto(base, files, tasks)


if __name__ == "__main__":
    main()
