"""``make --lora`` as a user types it: PEFT's folder becomes the switch that the merged model would be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bitswitch.cli.make import make_switch
from bitswitch_store import file
from bitswitch_store.switch import Switch
from loras import golden_cases, golden_lora, golden_part, make_lora, rewrite
from tiny import WORDS, make_base

BUDGET = {"rule": "budget", "parameters": {"budget": 0.2}}


def make(base: Path, output: Path, **given: object) -> Switch:
    defaults = {"task": "topic", "queries": None, "metric": [], "licence": None, **BUDGET}
    make_switch(**{"base": base, "output": output, **defaults, **given})
    return file.read(output)


@pytest.fixture
def run(run):
    """Run ``bitswitch make …``; its error output in one line, without the box around it."""

    def made(*arguments):
        status, out, err = run("make", *arguments)
        return status, out, " ".join(err.replace("│", " ").split())

    return made


def test_a_lora_becomes_a_switch(run, tiny_base, tmp_path):
    output, lora = tmp_path / "topic.switch.safetensors", make_lora(tmp_path / "lora")
    status, out, err = run(
        "--base", tiny_base, "--lora", lora, "--name", "topic", "-o", output,
        "--labels", "bank, film,spam", "--budget", 0.2,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert str(output) in out
    switch = file.read(output)
    assert switch.head.labels == ("bank", "film", "spam")
    assert len(switch.tensors) == 4
    assert set(tmp_path.iterdir()) == {lora, output}


def test_it_can_be_calibrated(tiny_base, tmp_path):
    inputs = tmp_path / "inputs.jsonl"
    inputs.write_text("\n".join(json.dumps(" ".join(WORDS[i : i + 5])) for i in range(len(WORDS) - 5)))
    lora = make_lora(tmp_path / "lora")
    switch = make(tiny_base, tmp_path / "x", lora=lora, queries=inputs, calibrate=True,
                  parameters={"budget": 0.12})  # fmt: skip
    assert switch.rule.parameters["calibrated"] > 10
    # The layers that it leaves alone are the base's own.
    touched = {tensor.name for tensor in switch.tensors}
    assert touched
    assert all("query" in name or "value" in name for name in touched)


def test_labels_of_a_full_fine_tune_can_be_given(tiny_base, tiny_finetune, tmp_path):
    switch = make(tiny_base, tmp_path / "x", finetuned=tiny_finetune, labels=["a", "b", "c"])
    assert switch.head.labels == ("a", "b", "c")


def test_a_wrong_choice_is_named(run, tiny_base, tiny_finetune, tmp_path):
    lora, output = make_lora(tmp_path / "lora"), tmp_path / "x"
    plain = ["--base", tiny_base, "--name", "topic", "-o", output]
    for more, sentence in [
        ([], "give one of --finetuned"),
        (["--lora", lora, "--finetuned", tiny_finetune], "give one of --finetuned"),
        (["--finetuned", lora], "give it with --lora"),
        (["--lora", tiny_finetune], "it is a full checkpoint"),
        (["--lora", lora, "--labels", "a,b"], "2 labels are given; the LoRA's head has 3 outputs"),
        (["--lora", lora, "--labels", "a,b,a"], "two labels of the head have the same name"),
        (["--lora", lora, "--labels", "a,,c"], "'a,,c' has an empty name"),
        (["--lora", tmp_path], "has no adapter_config.json; a folder that PEFT's save_pretrained wrote"),
    ]:
        status, _, err = run(*plain, *more)
        assert status == 2, more
        assert sentence in err
        assert not output.exists()


def test_a_head_that_peft_did_not_save_whole_is_named(tmp_path):
    base = make_base(tmp_path / "base", "deberta-v2")
    lora = rewrite(make_lora(tmp_path / "lora"), drop="bert")
    with pytest.raises(ValueError, match=r"whole head: the head lacks pooler\.dense\.bias.*modules_to_save"):
        make(base, tmp_path / "x", lora=lora)


@pytest.mark.parametrize("case", golden_cases())
def test_a_folder_that_peft_wrote_becomes_a_switch_with_its_head(tmp_path, case):
    base = make_base(tmp_path / "base", case.split()[0])
    switch = make(base, tmp_path / "x", lora=golden_lora(tmp_path / "lora", case), labels=["a", "b", "c"])
    assert {tensor.name for tensor in switch.tensors} <= golden_part(case, "tau").keys()
    assert switch.active > 100
    head = golden_part(case, "head")
    assert switch.head.labels == ("a", "b", "c")
    assert switch.head.tensors.keys() == head.keys()
    for name, value in switch.head.tensors.items():
        np.testing.assert_array_equal(value, head[name])
