"""What a switch keeps of a LoRA: trained with PEFT, merged by PEFT, and made switches of several budgets.

    python -m benchmarks.lora --base MODEL_DIR --data DATA_DIR --out DIR TASK …

PEFT trains in an environment of its own, as the rivals of ``make bench`` run; this is no subject there, since
the tasks' texts are not in the project. Divergence and same label are against what PEFT merged, over the
full test file. A LoRA's bytes are its safetensors file, head included (fp32); a switch's are its whole file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

import numpy as np

from benchmarks.finetune import rows
from benchmarks.report import Table
from benchmarks.rivals.environment import OURS, environment
from bitswitch.cli.evaluate import evaluate_switch
from bitswitch.cli.make import make_switch

TARGETS = {"all linear": "all-linear", "query, value": "query,value"}
SWITCHES = ((0.02, False), (0.02, True), (0.01, False), (0.01, True), (0.005, True))
COLUMNS = ("task", "layers", "what", "bytes", "of fp32", "accuracy", "same label", "divergence")


def train(binaries: Path, base: Path, folder: Path, out: Path, targets: str) -> tuple[Path, Path]:
    """Let PEFT train; the folders of the LoRA and of what it is merged."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    command = [binaries / "python", "-m", "benchmarks.rivals.train_lora", base, folder, out, targets]
    subprocess.run(command, check=True, env=clean, cwd=Path(__file__).parents[1])
    return out / "lora", out / "merged"


def measure(binaries: Path, base: Path, folder: Path, out: Path, layers: str) -> list[list[object]]:
    """The table's rows of one task and one choice of layers."""
    out.mkdir(parents=True, exist_ok=True)
    lora, merged = train(binaries, base, folder, out, TARGETS[layers])
    inputs = out / "inputs.jsonl"
    inputs.write_text("\n".join(json.dumps(row["text"]) for row in rows(folder / "train.jsonl")))
    fp32 = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    lines: list[list[object]] = []

    def line(what: str, size: int, *figures: object) -> None:
        lines.append([folder.name, layers, what, f"{size:,}", f"{size / fp32:.2%}", *figures])

    for budget, calibrate in SWITCHES:
        output = out / f"{budget:g}{'.calibrated' if calibrate else ''}.switch.safetensors"
        made = make_switch(
            base=base,
            lora=lora,
            labels=json.loads((folder / "meta.json").read_text())["labels"],
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
            line("the LoRA", size, f"{found.finetuned.accuracy:.4f}", 1, 0)
        how = f"{budget:.1%}, " + ("data-free" if not calibrate or made.uncalibrated else "calibrated")
        line(how, made.size, f"{found.switch.accuracy:.4f}", f"{same:.4f}", f"{divergence.sum(1).mean():.4f}")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--base", "--data", "--out"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--rivals", type=Path, default=Path(".venv-rivals"), help="environments of their own")
    parser.add_argument("tasks", nargs="+")
    options = parser.parse_args()
    base, data, out = (path.absolute() for path in (options.base, options.data, options.out))
    binaries = environment("peft", options.rivals.absolute())
    table: list[list[object]] = []
    for task in options.tasks:
        for place, layers in enumerate(TARGETS):
            table += measure(binaries, base, data / task, out / f"{task}-{place}", layers)
            print("\n".join(Table("What a switch keeps of a LoRA", COLUMNS, table).lines()), flush=True)


if __name__ == "__main__":
    main()
