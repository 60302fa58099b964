"""``bitswitch make``: a fine-tune, or a LoRA, and a few example inputs → a switch file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bitswitch.base.features import features, recipe
from bitswitch.base.heads import Heads
from bitswitch.base.load import load
from bitswitch.calibrate.calibration import Calibration
from bitswitch.cli.rows import Text, read_examples
from bitswitch.core import Want
from bitswitch.errors import InvalidSwitchError
from bitswitch.router.representatives import representatives
from bitswitch_store import file
from bitswitch_store.binarize import binarize
from bitswitch_store.checkpoint import Checkpoint, CheckpointError
from bitswitch_store.entry import check_name
from bitswitch_store.likeness import PREPROCESSING
from bitswitch_store.lora import CONFIG, Lora
from bitswitch_store.match import head_of, match
from bitswitch_store.merge import merge
from bitswitch_store.switch import QuerySet, Rule

QUERIES = 100
"""Query vectors kept, at most: the paper's number."""
CANDIDATES, CANDIDATE_TOKENS = 4 * QUERIES, 2**16
"""Example inputs that those are chosen from, at most, and their tokens where they are more than `QUERIES`:
all go through half of the base. From a longer file they are taken evenly spaced."""


@dataclass(frozen=True)
class Made:
    """What came of it."""

    output: Path
    size: int
    checkpoint_size: int
    active: int
    weights: int
    uncalibrated: bool

    def summary(self) -> str:
        """One line for the terminal, and one more if calibration was in vain."""
        line = (
            f"{self.output}: {self.size:,} bytes, {self.size / self.checkpoint_size:.2%} of the base in fp32;"
            f" {self.active:,} of {self.weights:,} weights ({self.active / self.weights:.2%}) are active"
        )
        if not self.uncalibrated:
            return line
        return f"{line}\nnot calibrated: no fit answered the inputs held out better"


def make_switch(
    *,
    base: Path,
    finetuned: Path | None = None,
    lora: Path | None = None,
    labels: Sequence[str] | None = None,
    task: str,
    output: Path,
    queries: Path | None,
    calibrate: bool = False,
    rule: str,
    parameters: Mapping[str, float],
    metric: Sequence[str],
    licence: str | None,
) -> Made:
    """Make the switch of ``finetuned`` or of ``lora``, whichever is given, and write its file.

    Raises:
        ValueError: whatever was given does not do; the message says what.
        InvalidName: the task's name could not be published.
    """
    check_name(task)
    if calibrate and queries is None:
        raise ValueError("--calibrate needs example inputs: give a file of about 100 with --queries")
    if not output.parent.is_dir():
        raise ValueError(f"there is no folder {output.parent} to write {output.name} into")
    figures = dict(_figure(text) for text in metric)
    texts = None if queries is None else [example.text for example in read_examples(queries)]
    origin = Checkpoint.open(base)
    if calibrate and (base / PREPROCESSING).is_file():
        raise ValueError(
            "--calibrate fits to texts, and this base reads images: leave it out;"
            " --rule budget chooses the bits without examples"
        )
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        _fine_tune(origin, finetuned, lora, labels) as tuned,
        Progress(*columns, transient=True) as bars,
    ):
        query_set = None if texts is None else query_features(base, texts, bars)
        bar = bars.add_task("tensors", total=None)

        def step(_: str, number: int, of: int) -> None:
            bars.update(bar, completed=number, total=of)

        switch = binarize(
            origin,
            tuned,
            Rule(rule, parameters),
            task=task,
            queries=query_set,
            labels=labels,
            metric=figures,
            licence=licence,
            progress=step,
            refinement=_calibration(base, tuned.folder, texts, bars) if calibrate and texts else None,
        )
    data = file.write(switch)
    # Whole or not at all: a file that is there already stays until the new one is complete.
    unfinished = output.with_name(f".{output.name}.part")
    unfinished.write_bytes(data)
    unfinished.replace(output)
    weights = sum(origin.numel(name) for name in origin.names)
    in_vain = calibrate and "calibrated" not in switch.rule.parameters
    return Made(output, len(data), 4 * weights, switch.active, weights, uncalibrated=in_vain)


@contextmanager
def _fine_tune(
    base: Checkpoint, finetuned: Path | None, lora: Path | None, labels: Sequence[str] | None
) -> Iterator[Checkpoint]:
    """The full fine-tune; that of a LoRA lies in a folder of its own as long as it is needed."""
    if (finetuned is None) == (lora is None):
        raise ValueError("give a full fine-tune or a LoRA, one of them")
    if finetuned is not None:
        if (finetuned / CONFIG).is_file() and not (finetuned / "config.json").is_file():
            raise CheckpointError(f"{finetuned} holds {CONFIG}: it is PEFT's; give it with --lora")
        yield Checkpoint.open(finetuned)
    elif lora is not None:
        with TemporaryDirectory(prefix="bitswitch-") as folder:
            merged = merge(base, Lora.open(lora), Path(folder), labels)
            _require_whole_head(base, merged)
            yield merged


def _require_whole_head(base: Checkpoint, merged: Checkpoint) -> None:
    """PEFT saves of the layers that are new with the task only what it was told to."""
    head = head_of(merged, match(base, merged).head)
    if head is None:
        return
    try:
        Heads(load(base.folder, dtype="float32")).build(head)
    except InvalidSwitchError as error:
        raise CheckpointError(
            f"the LoRA does not hold a whole head: {error}. Layers that are new with the task are saved if"
            " modules_to_save of its LoraConfig names every one of them"
        ) from error


def query_features(base: Path, texts: Sequence[Text], bars: Progress) -> QuerySet:
    """The query set of the example inputs that stand for all best, made by the bare base."""
    model = load(base, dtype="float32")
    texts = _evenly(texts, CANDIDATES)
    affordable = len(texts) * CANDIDATE_TOKENS // model.encoder.guess(texts)
    texts = _evenly(texts, max(QUERIES, affordable))
    bar = bars.add_task("query set", total=len(texts))
    vectors = []
    for start in range(0, len(texts), 16):
        rows = model.encode(texts[start : start + 16], want=Want.FEATURES)
        vectors.append(features(model, model.forward_lower(rows), rows).numpy())
        bars.update(bar, advance=len(rows))
    every = np.concatenate(vectors)
    return QuerySet.of(every[representatives(every, QUERIES)], recipe(model))


def _evenly(texts: Sequence[Text], most: int) -> list[Text]:
    """So many of them, evenly spaced; all if there are no more."""
    count = min(len(texts), most)
    return [texts[len(texts) * i // count] for i in range(count)]


def _calibration(base: Path, finetuned: Path, texts: Sequence[Text], bars: Progress) -> Calibration:
    # A usual hundred: those that stand for all hold too much of what is rare to fit to.
    texts = _evenly(texts, QUERIES)
    bar = bars.add_task("calibration", total=None)

    def step(number: int, of: int, distance: float) -> None:
        bars.update(
            bar, completed=number, total=of, description=f"calibration, {distance:.4f} from the fine-tune"
        )

    return Calibration(base, finetuned, texts, progress=step)


def _figure(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not equals or not math.isfinite(number):
        raise ValueError(f"--metric {text!r} is not NAME=NUMBER, such as accuracy=0.93")
    return name, number
