"""``make --lora`` as a user types it: PEFT's folder becomes the switch that the merged model would be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bitswitch.cli.main import main
from bitswitch.cli.make import make_switch
from bitswitch_store import file
from bitswitch_store.switch import Switch
from loras import make_lora, rewrite
from oracle import knob_per_weight, signs
from tiny import WORDS, make_base

BUDGET = {"rule": "budget", "parameters": {"budget": 0.2}}


def make(base: Path, output: Path, **given: object) -> Switch:
    defaults = {"task": "topic", "queries": None, "metric": [], "licence": None, **BUDGET}
    make_switch(**{"base": base, "output": output, **defaults, **given})
    return file.read(output)


def assert_same(first: Switch, second: Switch) -> None:
    """Equal but for what the last bit of τ decides: of the bits one in a thousand, of the knobs 1e-3."""
    assert [tensor.name for tensor in first.tensors] == [tensor.name for tensor in second.tensors]
    bits = different = 0
    for one, other in zip(first.tensors, second.tensors, strict=True):
        ours, theirs = signs(one), signs(other)
        bits, different = bits + ours.size, different + int((ours != theirs).sum())
        np.testing.assert_allclose(
            np.median(knob_per_weight(one)), np.median(knob_per_weight(other)), rtol=1e-3
        )
    assert different <= bits / 1000
    assert first.head is not None
    assert second.head is not None
    assert first.head.labels == second.head.labels
    assert first.head.tensors.keys() == second.head.tensors.keys()
    for name, value in first.head.tensors.items():
        np.testing.assert_array_equal(value, second.head.tensors[name])


def run(monkeypatch, capfd, *arguments):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["bitswitch", "make", *map(str, arguments)])
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    seen = capfd.readouterr()
    return status, seen.out, " ".join(seen.err.replace("│", " ").split())


def test_a_lora_becomes_a_switch(monkeypatch, capfd, tiny_base, tmp_path):
    output, lora = tmp_path / "topic.switch.safetensors", make_lora(tmp_path / "lora")
    status, out, err = run(
        monkeypatch, capfd, "--base", tiny_base, "--lora", lora, "--name", "topic", "-o", output,
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
                  parameters={"budget": 0.07})  # fmt: skip
    assert switch.rule.parameters["calibrated"] > 10
    # The layers that it leaves alone are the base's own.
    touched = {tensor.name for tensor in switch.tensors}
    assert all("query" in name or "value" in name for name in touched)
    assert any(name.endswith("query.weight") for name in touched)


def test_labels_of_a_full_fine_tune_can_be_given(tiny_base, tiny_finetune, tmp_path):
    switch = make(tiny_base, tmp_path / "x", finetuned=tiny_finetune, labels=["a", "b", "c"])
    assert switch.head.labels == ("a", "b", "c")


def test_a_wrong_choice_is_named(monkeypatch, capfd, tiny_base, tiny_finetune, tmp_path):
    lora, output = make_lora(tmp_path / "lora"), tmp_path / "x"
    plain = ["--base", tiny_base, "--name", "topic", "-o", output]
    for more, sentence in [
        ([], "give one of --finetuned"),
        (["--lora", lora, "--finetuned", tiny_finetune], "give one of --finetuned"),
        (["--finetuned", lora], "give it with --lora"),
        (["--lora", tiny_finetune], "it is a full checkpoint"),
        (["--lora", lora, "--labels", "a,b"], "2 labels are given; the LoRA's head has 3 outputs"),
        (["--lora", lora, "--labels", "a,b,a"], "a"),
    ]:
        status, _, err = run(monkeypatch, capfd, *plain, *more)
        assert status == 2, more
        assert sentence in err
        assert not output.exists()


def test_a_head_that_peft_did_not_save_whole_is_named(tmp_path):
    base = make_base(tmp_path / "base", "deberta-v2")
    lora = rewrite(make_lora(tmp_path / "lora"), drop="bert")
    with pytest.raises(ValueError, match=r"whole head: the head lacks pooler\.dense\.bias.*modules_to_save"):
        make(base, tmp_path / "x", lora=lora)


@pytest.fixture
def peft():
    return pytest.importorskip("peft", reason="PEFT is not installed; only this test would need it")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rule", [BUDGET, {"rule": "paper", "parameters": {"alpha": 0.7}}])
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bert", {"target_modules": ["query", "value", "dense"]}),
        ("bert", {"target_modules": ["query", "word_embeddings"], "use_rslora": True, "bias": "all"}),
        ("bert", {"target_modules": ["query", "key"], "bias": "lora_only", "rank_pattern": {"key": 2},
                  "alpha_pattern": {"layer.1.attention.self.query": 5}}),
        ("roberta", {"target_modules": "all-linear"}),
        ("modernbert", {"target_modules": ["Wqkv", "Wo"], "modules_to_save": ["head", "classifier"]}),
        ("distilbert", {"target_modules": ["q_lin"], "modules_to_save": ["pre_classifier", "classifier"]}),
    ],
)  # fmt: skip
def test_what_peft_saved_makes_the_switch_of_what_peft_merged(peft, tmp_path, family, options, rule):
    from transformers import AutoModelForSequenceClassification

    base, names = make_base(tmp_path / "base", family), ("bank", "film", "spam")
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    # A pooler that the file lacks would be new with the task, and PEFT would not save it.
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(tmp_path / "lora")
    whole = model.merge_and_unload()
    whole.config.id2label, whole.config.label2id = dict(enumerate(names)), {n: i for i, n in enumerate(names)}
    whole.save_pretrained(tmp_path / "merged")
    ours = make(base, tmp_path / "ours", lora=tmp_path / "lora", labels=names, **rule)
    theirs = make(base, tmp_path / "theirs", finetuned=tmp_path / "merged", **rule)
    assert sum(tensor.active for tensor in ours.tensors) > 100
    assert_same(ours, theirs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{"use_dora": True}, {"init_lora_weights": "pissa"}, {"lora_bias": True}])
def test_what_peft_saved_beside_plain_lora_is_refused(peft, tiny_base, tmp_path, options):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=3)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"], **options)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "lora")
    with pytest.raises(ValueError, match=r"is not plain LoRA|beside a changed base"):
        make(tiny_base, tmp_path / "x", lora=tmp_path / "lora")
