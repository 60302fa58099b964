"""Make the demo's switches from fine-tunes, and measure them: the files in demo/switches, and their table.

    python benchmarks/finetune.py       --base MODEL_DIR --data DATA_DIR --out CHECKPOINTS TASK …
    python benchmarks/demo_switches.py  --base MODEL_DIR --data DATA_DIR --checkpoints CHECKPOINTS TASK …

Accuracies are over the full test files: the fine-tune as transformers runs it, its switch by name, and
``auto`` among all of these switches (an abstention counts as wrong). A query set is made of 100 training
inputs, evenly spaced; what is stored of them is feature vectors, no text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bitswitch.cli.evaluate import evaluate_switch
from bitswitch.cli.make import make_switch
from bitswitch.cli.rows import Example, read_examples
from bitswitch.cli.serve import House
from bitswitch.settings import read_settings

CHUNK = 64
LICENCES = {
    "banking77": "data CC BY 4.0",
    "movie_reviews": "data CC BY 4.0",
    "sms_spam": "data CC BY 4.0 (UCI)",
    "trec6": "data: no formal licence (Li & Roth 2002)",
}


@dataclass
class Line:
    """One task of the table."""

    task: str
    tfidf: float
    individual: float
    switch: float
    size: int
    seconds: float
    auto: float = 0.0
    right_task: float = 0.0
    abstained: float = 0.0


def make(options: argparse.Namespace, task: str, folder: Path) -> Line:
    meta = json.loads((options.data / task / "meta.json").read_text())
    finetuned = options.checkpoints / task
    test = options.data / task / "test.jsonl"
    output = options.out / f"{task}.switch.safetensors"
    train = read_examples(options.data / task / "train.jsonl", labelled=True)
    queries = folder / f"{task}.jsonl"
    queries.write_text("\n".join(json.dumps(one.text) for one in train))
    figure = json.loads((finetuned / "finetune.json").read_text())["accuracy"]
    started = time.perf_counter()
    made = make_switch(
        base=options.base,
        finetuned=finetuned,
        task=task,
        output=output,
        queries=queries,
        rule="budget",
        parameters={"budget": options.budget},
        metric=[f"finetuned_accuracy={figure}"],
        licence=LICENCES.get(task),
    )
    seconds = time.perf_counter() - started
    print(made.summary(), f"in {seconds:.0f} s", flush=True)
    found = evaluate_switch(base=options.base, switch=output, data=test, against=finetuned)
    assert found.finetuned is not None
    tfidf = meta["tfidf_logreg_baseline"]["acc"]
    return Line(task, tfidf, found.finetuned.accuracy, found.switch.accuracy, made.size, seconds)


async def auto(house: House, examples: Sequence[Example], line: Line) -> None:
    """Fill in how ``auto`` did on a task's test set."""
    right = to_task = abstained = 0
    for start in range(0, len(examples), CHUNK):
        part = examples[start : start + CHUNK]
        routed = await house.answers.route("default", [one.text for one in part])
        kept = [one for one, choice in zip(part, routed.choices, strict=True) if not choice.abstained]
        abstained += len(part) - len(kept)
        if not kept:
            continue
        answer = await house.answers.classify("default", "auto", [one.text for one in kept])
        for one, item in zip(kept, answer.items, strict=True):
            assert item.selection.head is not None
            to_task += item.selection.head.name == line.task
            right += item.labels[int(item.values.argmax())] == one.label
    line.auto, line.right_task = right / len(examples), to_task / len(examples)
    line.abstained = abstained / len(examples)


def table(lines: Sequence[Line], checkpoint: int) -> str:
    head = "| task | TF-IDF | individual | switch | auto | right task | abstained | bytes | of fp32 |"
    rows = [head, "|" + "---|" * 9]
    rows.extend(
        f"| {one.task} | {one.tfidf:.4f} | {one.individual:.4f} | {one.switch:.4f} | {one.auto:.4f}"
        f" | {one.right_task:.4f} | {one.abstained:.4f} | {one.size:,} | {one.size / checkpoint:.2%} |"
        for one in lines
    )

    def mean(name: str) -> float:
        return sum(getattr(one, name) for one in lines) / len(lines)

    rows.append(
        f"| **mean** | {mean('tfidf'):.4f} | {mean('individual'):.4f} | {mean('switch'):.4f}"
        f" | {mean('auto'):.4f} | {mean('right_task'):.4f} | {mean('abstained'):.4f}"
        f" | {mean('size'):,.0f} | {mean('size') / checkpoint:.2%} |"
    )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("demo/switches"))
    parser.add_argument("--budget", type=float, default=0.02)
    parser.add_argument("tasks", nargs="+")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        lines = [make(options, task, Path(scratch)) for task in sorted(options.tasks)]
        house = House.build(read_settings(base=options.base, store=Path(scratch) / "store"))
        house.start()
        for line in lines:
            path = options.out / f"{line.task}.switch.safetensors"
            house.publisher.publish(path.read_bytes(), tenant="default", name=None, public=False)
        for line in lines:
            test = read_examples(options.data / line.task / "test.jsonl", labelled=True)
            asyncio.run(auto(house, test, line))
        verdict = house.engine.verify()
        house.stop()
        checkpoint = sum(path.stat().st_size for path in options.base.glob("*.safetensors"))
        print(table(lines, checkpoint))
        print(f"base intact afterwards: {verdict.intact}")


if __name__ == "__main__":
    main()
