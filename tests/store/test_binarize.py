"""A base and a fine-tune to a switch: every family, every stored type, both rules, every refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bitswitch_store import file
from bitswitch_store.binarize import binarize
from bitswitch_store.checkpoint import Checkpoint, CheckpointError
from bitswitch_store.switch import QuerySet, Rule, SwitchError
from oracle import written
from tiny import FAMILIES, make_base, make_finetune

PAPER = Rule("paper", {"alpha": 0.6})
BUDGET = Rule("budget", {"budget": 0.3})


def cast(source: Path, target: Path, dtype: torch.dtype) -> Checkpoint:
    """The same checkpoint in another stored type."""
    target.mkdir()
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(tensors, target / "model.safetensors")
    return Checkpoint.open(target)


def changed(source: Path, target: Path, **values: torch.Tensor) -> Checkpoint:
    """The same checkpoint with some tensors replaced; dots in names are written ``__``."""
    target.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (target / name).write_bytes((source / name).read_bytes())
    replaced = {name.replace("__", "."): value for name, value in values.items()}
    save_file(load_file(source / "model.safetensors") | replaced, target / "model.safetensors")
    return Checkpoint.open(target)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rule", [PAPER, BUDGET], ids=["paper", "budget"])
def test_a_switch_brings_the_base_nearer_to_the_fine_tune(tmp_path: Path, family: str, rule: Rule) -> None:
    folder = make_base(tmp_path / "base", family)
    base = Checkpoint.open(folder)
    finetuned = Checkpoint.open(make_finetune(tmp_path / "finetuned", folder, ("a", "b", "c")))
    switch = binarize(base, finetuned, rule, task="topic")
    assert switch.base == base.identity()
    assert switch.head is not None
    assert switch.head.labels == ("a", "b", "c")
    weights = {name: torch.from_numpy(base.tensor(name)) for name in base.names}
    result = written(weights, [(switch, 1.0)])
    prefix = next(name for name in finetuned.names if "embed" in name).split("embed")[0]
    nearer = 0
    for tensor in switch.tensors:
        wanted = torch.from_numpy(finetuned.tensor(prefix + tensor.name))
        before, after = (weights[tensor.name] - wanted).norm(), (result[tensor.name] - wanted).norm()
        assert after < before, tensor.name
        nearer += 1
    assert nearer > 10
    assert file.read(file.write(switch)).active == switch.active


@pytest.mark.parametrize("ours", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("theirs", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_types_may_differ(
    tiny_base: Path, tiny_finetune: Path, tmp_path: Path, ours: torch.dtype, theirs: torch.dtype
) -> None:
    base, finetuned = cast(tiny_base, tmp_path / "b", ours), cast(tiny_finetune, tmp_path / "f", theirs)
    switch = binarize(base, finetuned, Rule("paper", {"alpha": 0.0}), task="topic")
    name = "encoder.layer.0.output.dense.weight"
    tensor = next(tensor for tensor in switch.tensors if tensor.name == name)
    tau = finetuned.tensor("bert." + name) - base.tensor(name)
    assert tensor.active == np.count_nonzero(tau)
    np.testing.assert_allclose(
        tensor.knobs, np.sqrt(np.square(tau[tau != 0], dtype=np.float64).mean()), rtol=1e-6
    )


@pytest.mark.parametrize("share", [0.06, 0.07, 0.08])
def test_the_file_obeys_the_budget_its_head_aside(tmp_path: Path, share: float) -> None:
    folder = make_base(tmp_path / "base", "bert", seed=3)
    finetuned = make_finetune(tmp_path / "finetuned", folder, touched=1.0)
    base = Checkpoint.open(folder)
    queries = QuerySet.of(np.ones((10, 32)), "hidden:1|mean|l2")
    switch = binarize(
        base,
        Checkpoint.open(finetuned),
        Rule("budget", {"budget": share}),
        task="topic",
        queries=queries,
        metric={"accuracy": 0.5},
        licence="MIT",
    )
    limit = share * 4 * sum(base.numel(name) for name in base.names)
    assert switch.head is not None
    assert 0.95 * limit < len(file.write(switch)) - switch.head.nbytes <= limit
    assert switch.head.nbytes == sum(array.size * 4 for array in switch.head.tensors.values())
    assert switch.queries is queries
    assert (switch.licence, switch.metric, switch.task) == ("MIT", {"accuracy": 0.5}, "topic")


def test_the_same_input_gives_the_same_file(tiny_base: Path, tiny_finetune: Path) -> None:
    for rule in (PAPER, BUDGET):
        once, again = (
            binarize(Checkpoint.open(tiny_base), Checkpoint.open(tiny_finetune), rule, task="topic")
            for _ in range(2)
        )
        assert once.created.endswith("+00:00")
        assert file.write(replace(once, created="")) == file.write(replace(again, created=""))


def test_an_untouched_tensor_and_a_scalar_are_left_out(
    tiny_base: Path, tiny_finetune: Path, tmp_path: Path
) -> None:
    same = "encoder.layer.0.output.dense.weight"
    stored = load_file(tiny_base / "model.safetensors")[same]
    base = changed(tiny_base, tmp_path / "b", scale=torch.tensor(1.0))
    finetuned = changed(
        tiny_finetune,
        tmp_path / "f",
        bert__scale=torch.tensor(2.0),
        **{"bert__" + same.replace(".", "__"): stored},
    )
    for rule in (PAPER, BUDGET):
        names = [tensor.name for tensor in binarize(base, finetuned, rule, task="topic").tensors]
        assert same not in names
        assert "scale" not in names
        assert "encoder.layer.1.output.dense.weight" in names


def test_a_head_alone_is_a_switch(tiny_base: Path, tmp_path: Path) -> None:
    finetuned = Checkpoint.open(make_finetune(tmp_path / "finetuned", tiny_base, touched=0.0))
    for rule in (PAPER, BUDGET):
        switch = binarize(Checkpoint.open(tiny_base), finetuned, rule, task="probe")
        assert switch.tensors == ()
        assert switch.head is not None


def test_progress_is_told_for_every_tensor(tiny_base: Path, tiny_finetune: Path) -> None:
    told: list[tuple[str, int, int]] = []
    base = Checkpoint.open(tiny_base)
    binarize(
        base,
        Checkpoint.open(tiny_finetune),
        PAPER,
        task="topic",
        progress=lambda name, number, count: told.append((name, number, count)),
    )
    assert told == [(name, i, 39) for i, name in enumerate(base.names, start=1)]


NAME = "bert__encoder__layer__0__output__dense__weight"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_refused(
    tiny_base: Path, tiny_finetune: Path, tmp_path: Path, value: float
) -> None:
    bad = torch.zeros(32, 64)
    bad[3, 5] = value
    finetuned = changed(tiny_finetune, tmp_path / "f", **{NAME: bad})
    with pytest.raises(
        CheckpointError, match=r"bert\.encoder\S+dense\.weight of the fine-tune has a weight that"
    ):
        binarize(Checkpoint.open(tiny_base), finetuned, PAPER, task="topic")
    base = changed(tiny_base, tmp_path / "b", **{NAME.removeprefix("bert__"): bad})
    with pytest.raises(
        CheckpointError, match=r"^encoder\S+dense\.weight of the base has a weight that is not"
    ):
        binarize(base, Checkpoint.open(tiny_finetune), PAPER, task="topic")


def test_a_head_that_is_not_finite_is_refused(tiny_base: Path, tiny_finetune: Path, tmp_path: Path) -> None:
    finetuned = changed(tiny_finetune, tmp_path / "f", classifier__bias=torch.full((3,), float("nan")))
    with pytest.raises(SwitchError, match=r"head tensor classifier\.bias"):
        binarize(Checkpoint.open(tiny_base), finetuned, PAPER, task="topic")


def test_a_fine_tune_that_changes_nothing_is_refused(tiny_base: Path) -> None:
    base = Checkpoint.open(tiny_base)
    for rule in (PAPER, BUDGET):
        with pytest.raises(CheckpointError, match="it changes nothing"):
            binarize(base, base, rule, task="topic")


RULES = {
    "unknown rule": (Rule("best", {"alpha": 0.5}), "'best' is unknown; 'paper' and 'budget' are known"),
    "another's parameter": (Rule("paper", {"budget": 0.5}), "paper takes alpha, not budget"),
    "no parameter": (Rule("budget"), "budget takes budget, not nothing"),
    "alpha of 1": (Rule("paper", {"alpha": 1.0}), r"alpha is 1\.0; .* from 0 to below 1"),
    "alpha that is no number": (Rule("paper", {"alpha": float("nan")}), "alpha is nan"),
    "budget of 0": (Rule("budget", {"budget": 0.0}), r"budget is 0\.0; .* above 0 and at most 1"),
    "budget in percent": (Rule("budget", {"budget": 2.0}), r"budget is 2\.0"),
    "budget below the biases": (
        Rule("budget", {"budget": 0.01}),
        "a budget .* times as large would just hold them",
    ),
}


@pytest.mark.parametrize("case", RULES)
def test_a_rule_that_cannot_be_followed_is_refused(tiny_base: Path, tiny_finetune: Path, case: str) -> None:
    rule, sentence = RULES[case]
    with pytest.raises(SwitchError, match=sentence):
        binarize(Checkpoint.open(tiny_base), Checkpoint.open(tiny_finetune), rule, task="topic")
