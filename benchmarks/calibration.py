"""What calibration wins back: fine-tunes beside their switches at small budgets, data-free and calibrated.

    python benchmarks/finetune.py     --base MODEL_DIR --data DATA_DIR --out CHECKPOINTS TASK …
    python benchmarks/calibration.py  --base MODEL_DIR --data DATA_DIR --checkpoints CHECKPOINTS --out DIR \\
        --tasks TASK …

Accuracy and agreement with the fine-tune are over the full test files. Query set and calibration take the
same 100 training inputs, evenly spaced, without their labels. A size is the whole file's: bit planes, knobs,
head, query set, metadata. ``seconds`` are of CPU time, all threads added up: other work on the machine
does not count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bitswitch.cli.evaluate import evaluate_switch
from bitswitch.cli.make import make_switch
from bitswitch.cli.rows import read_examples


@dataclass(frozen=True)
class Line:
    """One switch of the table."""

    task: str
    budget: float
    calibrated: bool
    size: int
    share: float
    individual: float
    accuracy: float
    agreement: float
    seconds: float

    def __str__(self) -> str:
        how = "calibrated" if self.calibrated else "data-free"
        return (
            f"| {self.task} | {self.budget:.1%} | {how} | {self.size:,} | {self.share:.3%}"
            f" | {self.individual:.4f} | {self.accuracy:.4f} | {self.agreement:.4f} | {self.seconds:.0f} |"
        )


HEAD = "| task | budget | rule | bytes | of fp32 | individual | switch | same label | CPU s |"


def measure(options: argparse.Namespace, task: str, budget: float, calibrate: bool, scratch: Path) -> Line:
    how = ".calibrated" if calibrate else ""
    output = options.out / f"{task}.{budget:g}{how}.switch.safetensors"
    # A file of unlabelled inputs: what `make` sees holds no label.
    inputs = scratch / f"{task}.jsonl"
    train = read_examples(options.data / task / "train.jsonl", labelled=True)
    inputs.write_text("\n".join(json.dumps(_unlabelled(example.text)) for example in train))
    started = time.process_time()
    made = make_switch(
        base=options.base,
        finetuned=options.checkpoints / task,
        task=task,
        output=output,
        queries=inputs,
        calibrate=calibrate,
        rule="budget",
        parameters={"budget": budget},
        metric=[],
        licence=None,
    )
    seconds = time.process_time() - started
    test = options.data / task / "test.jsonl"
    found = evaluate_switch(base=options.base, switch=output, data=test, against=options.checkpoints / task)
    assert found.finetuned is not None
    same = (found.switch.probabilities.argmax(1) == found.finetuned.probabilities.argmax(1)).mean()
    return Line(
        task=task,
        budget=budget,
        calibrated=calibrate,
        size=made.size,
        share=made.size / made.checkpoint_size,
        individual=found.finetuned.accuracy,
        accuracy=found.switch.accuracy,
        agreement=float(same),
        seconds=seconds,
    )


def _unlabelled(text: str | tuple[str, str]) -> str | dict[str, str]:
    return text if isinstance(text, str) else {"text": text[0], "text_b": text[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the switch files are left")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.02, 0.01, 0.005])
    parser.add_argument("--tasks", nargs="+", required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(HEAD, "|" + "---|" * 9, sep="\n", flush=True)
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        for task in options.tasks:
            for budget in options.budgets:
                for calibrate in (False, True):
                    lines.append(measure(options, task, budget, calibrate, Path(scratch)))
                    print(lines[-1], flush=True)
    for budget in options.budgets:
        for calibrate in (False, True):
            some = [line for line in lines if (line.budget, line.calibrated) == (budget, calibrate)]
            lost = sum(line.individual - line.accuracy for line in some) / len(some)
            how = "calibrated" if calibrate else "data-free"
            print(f"{budget:.1%} {how}: {lost * 100:.2f} points below individual in the mean of {len(some)}")


if __name__ == "__main__":
    main()
