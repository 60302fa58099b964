"""The methods that are compared: for a task and some of its test rows, what is right, and what it costs.

Each is a function of a `Ground` and a `Task`; `METHODS` names them in the order of the page. Knows nothing
of pages. Routed methods are in `routed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import merging
from benchmarks.judge import Added, Flat, Judge, head_bytes
from benchmarks.static import steps
from benchmarks.tasks import Result, Task, spaced
from bitswitch.cli.make import make_switch
from bitswitch_store import file
from bitswitch_store.binarize import binarize
from bitswitch_store.checkpoint import Checkpoint
from bitswitch_store.switch import Rule, Switch

VALIDATION = 100
"""Training rows of each task by which a λ is chosen."""
ALPHAS = (0.4, 0.6, 0.8, 0.9, 0.95)
BUDGETS = (0.03, 0.02, 0.01, 0.005)
EQUAL = 0.01
_KEEP = 0.2
_HALVINGS = 8

Vector = NDArray[np.float32]
Maker = Callable[[Path, Task], None]


@dataclass
class Ground:
    """What all methods stand on.

    Attributes:
        base: folder of the base.
        tasks: those that are merged or routed among.
        scratch: folder where switch files are kept.
        scales: by merge, the λ that was best.
    """

    base: Path
    tasks: Sequence[Task]
    scratch: Path
    flat: Flat = field(init=False)
    scales: dict[str, float] = field(init=False, default_factory=dict)
    _merged: dict[str, tuple[Vector, float]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.flat = Flat(self.base)
        self.scratch.mkdir(parents=True, exist_ok=True)

    @property
    def nbytes(self) -> int:
        """Of the base in float32."""
        return 4 * self.flat.weights

    @cached_property
    def vectors(self) -> list[Vector]:
        """The tasks' task vectors, flat."""
        return [self.flat.vector(task.finetuned) for task in self.tasks]

    def vector(self, task: Task) -> Vector:
        """The one of ``task``."""
        return self.vectors[self.tasks.index(task)]

    def switch(self, task: Task, path: str) -> Path:
        """Where the file of a task's switch of one kind is kept."""
        return self.scratch / f"{task.name}.{path}.switch.safetensors"

    def merged(self, name: str, merge: Callable[[Sequence[Vector]], Vector]) -> tuple[Vector, float]:
        """A merge of all, made once, and the CPU seconds it took."""
        if name not in self._merged:
            vectors = self.vectors
            started = time.process_time()
            found = merge(vectors)
            self._merged = {name: (found, time.process_time() - started)}  # one is held at a time
        return self._merged[name]

    def answer(self, task: Task, added: Added, places: Sequence[int]) -> str:
        """``Result.right`` with these weights written once."""
        judge = Judge(self.base, task)
        judge.set(added)
        return Result.marks(len(task.test), places, judge.right([task.test[i] for i in places]))


Method = Callable[[Ground, Task, Sequence[int]], Result]


def individual(ground: Ground, task: Task, places: Sequence[int]) -> Result:
    """The fine-tune itself; every one is a whole model."""
    right = Judge(ground.base, task).right([task.test[i] for i in places])
    size = ground.nbytes + head_bytes(ground.base, task)
    return Result(Result.marks(len(task.test), places, right), size, 0)


def merge(name: str, function: Callable[[Sequence[Vector]], Vector], scales: Sequence[float]) -> Method:
    """One model for all tasks: θ + λ · a merge of the τ; of several λ the best on validation rows."""

    def method(ground: Ground, task: Task, places: Sequence[int]) -> Result:
        vector, seconds = ground.merged(name, function)
        scale = scales[0] if len(scales) == 1 else best_scale(ground, name, vector, scales)
        right = ground.answer(task, ground.flat.tensors(np.float32(scale) * vector), places)
        head = head_bytes(ground.base, task)
        return Result(right, head, ground.nbytes, seconds / len(ground.tasks), f"λ = {scale:g}")

    return method


def best_scale(ground: Ground, name: str, vector: Vector, scales: Sequence[float]) -> float:
    """The λ with which the mean accuracy over all tasks' validation rows is highest."""
    if name not in ground.scales:
        means = dict.fromkeys(scales, 0.0)
        for task in ground.tasks:
            judge = Judge(ground.base, task)
            rows = [task.train[i] for i in spaced(len(task.train), VALIDATION)]
            for scale in scales:
                judge.set(ground.flat.tensors(np.float32(scale) * vector))
                means[scale] += float(judge.right(rows).mean())
        ground.scales[name] = max(scales, key=lambda scale: means[scale])
    return ground.scales[name]


def emr(ground: Ground, task: Task, places: Sequence[int]) -> Result:
    """EMR-merging: one elected model, and a mask of a bit a weight and a rescaler for each task."""
    elected, seconds = ground.merged("emr", merging.elect)
    added = merging.rescaled(elected, ground.vector(task))
    right = ground.answer(task, ground.flat.tensors(added), places)
    size = ground.flat.weights // 8 + 4 + head_bytes(ground.base, task)
    return Result(right, size, ground.nbytes, seconds / len(ground.tasks))


def added_by(switch: Switch) -> Added:
    """What a switch adds to each tensor."""
    return {tensor.name: steps(tensor, 1.0).numpy() for tensor in switch.tensors}


def switched(path: str, make: Maker) -> Method:
    """A switch, read back from the file it was written to; the file is kept."""

    def method(ground: Ground, task: Task, places: Sequence[int]) -> Result:
        output = ground.switch(task, path)
        seconds = make_once(ground, task, output, make)
        switch = file.read(output)
        right = ground.answer(task, added_by(switch), places)
        told = switch.rule.parameters
        note = f"α = {told['alpha']:.4f}" if "alpha" in told else ""
        if "passes" in told:
            note = f"pass {told['passes']:g}"
        head = switch.head.nbytes if switch.head else 0
        return Result(right, output.stat().st_size, ground.nbytes, seconds, note, head)

    return method


def make_once(ground: Ground, task: Task, output: Path, make: Maker) -> float:
    """Make a switch file unless it is there; the CPU seconds that it took, then or now."""
    clock = output.with_suffix(".seconds")
    if not (output.exists() and clock.exists()):
        started = time.process_time()
        make(output, task)
        clock.write_text(f"{time.process_time() - started:.2f}")
    return float(clock.read_text())


def by_rule(
    base: Path, rule: str, value: float, output: Path, task: Task, *, calibrate: bool = False
) -> None:
    """`bitswitch make`, with the training inputs, unlabelled, to take a hundred example inputs from."""
    inputs = task.unlabelled(output.with_suffix(".jsonl"))
    make_switch(
        base=base,
        finetuned=task.finetuned,
        task=task.name,
        output=output,
        queries=inputs,
        calibrate=calibrate,
        rule=rule,
        parameters={"alpha" if rule == "paper" else "budget": value},
        metric=[],
        licence=None,
    )
    inputs.unlink()


def paper_at(base: Path, share: float, output: Path, task: Task) -> None:
    """The paper's rule at the least α at which the file, head aside, takes at most this share of fp32."""
    inputs = output.with_suffix(".part")
    by_rule(base, "paper", 0.95, inputs, task)
    queries = file.read(inputs).queries
    inputs.unlink()
    origin, tuned = Checkpoint.open(base), Checkpoint.open(task.finetuned)
    limit = share * 4 * sum(origin.numel(name) for name in origin.names) + head_bytes(base, task)
    low, high, found = 0.9, 1.0, b""
    for _ in range(_HALVINGS):
        alpha = (low + high) / 2
        data = file.write(
            binarize(origin, tuned, Rule("paper", {"alpha": alpha}), task=task.name, queries=queries)
        )
        if len(data) <= limit:
            high, found = alpha, data
        else:
            low = alpha
    output.write_bytes(found)


def methods(base: Path, *, budgets: Sequence[float], calibrated: Sequence[float]) -> Mapping[str, Method]:
    """All that need no route, by name, in the order of the page."""
    sums, ties = merging.total, partial(merging.ties, keep=_KEEP)
    found: dict[str, Method] = {
        "individual": individual,
        "weight average": merge("average", merging.weight_average, [1.0]),
        "task arithmetic, λ = .3": merge("sum", sums, [0.3]),
        "task arithmetic, best λ": merge("sum", sums, [0.05, 0.1, 0.2, 0.3, 0.5]),
        "TIES, best λ": merge("ties", ties, [0.3, 0.5, 1.0, 1.5]),
        "EMR-merging": emr,
    }
    for alpha in ALPHAS:
        found[f"T-Switch, α = {alpha}"] = switched(f"paper.{alpha}", partial(by_rule, base, "paper", alpha))
    found[f"T-Switch at {EQUAL:.1%}"] = switched(f"paper.at.{EQUAL}", partial(paper_at, base, EQUAL))
    for budget in budgets:
        make = partial(by_rule, base, "budget", budget)
        found[f"ours at {budget:.1%}, data-free"] = switched(f"budget.{budget}", make)
    for budget in calibrated:
        make = partial(by_rule, base, "budget", budget, calibrate=True)
        found[f"ours at {budget:.1%}, calibrated"] = switched(f"calibrated.{budget}", make)
    return found
