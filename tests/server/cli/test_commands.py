"""The commands as a user types them, over a tiny base: right files, right tables, faults as exit status 2."""

import json

import numpy as np
import pytest
import typer

from bitswitch.base.features import dim, features, recipe
from bitswitch.base.load import load
from bitswitch.cli.main import app
from bitswitch.cli.rows import read_examples
from bitswitch.core import Want
from bitswitch_store import file
from bitswitch_store.codes import Codes

TEXTS = [
    "my card was charged twice",
    "brilliant film",
    "win cash money now",
    "who wrote hamlet",
    "great plot",
]


@pytest.fixture
def inputs(tmp_path):
    path = tmp_path / "inputs.jsonl"
    lines = [
        json.dumps(TEXTS[0]),
        "",
        json.dumps({"text": TEXTS[1]}),
        json.dumps({"text": "a", "text_b": "b"}),
    ]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "label": "bank"}) for text in TEXTS))
    return path


def make(run, base, finetune, output, *more):
    return run("make", "--base", base, "--finetuned", finetune, "--name", "topic", "-o", output, *more)


def test_make_inspect_eval(run, tiny_base, tiny_finetune, inputs, data, tmp_path):
    output = tmp_path / "topic.switch.safetensors"
    status, out, err = make(
        run, tiny_base, tiny_finetune, output,
        "--queries", inputs, "--rule", "paper", "--alpha", 0.8, "--metric", "accuracy=0.93",
        "--licence", "MIT",
    )  # fmt: skip
    assert (status, err) == (0, "")
    switch = file.read(output)
    assert f"{output.stat().st_size:,} bytes" in out
    assert switch.task == "topic"
    assert switch.licence == "MIT"
    assert dict(switch.metric) == {"accuracy": 0.93}
    assert switch.rule.parameters == {"alpha": 0.8}
    assert switch.head.labels == ("bank", "film", "spam")
    assert switch.base == load(tiny_base).identity

    status, out, err = run("inspect", output)
    assert (status, err) == (0, "")
    for part in (
        "topic",
        switch.base.digest,
        "bank, film, spam",
        "hidden:1|mean+last|l2|style:0.4|pair:0.2",
        "entropy bound",
        "0.93",
    ):
        assert part in out
    assert all(tensor.name in out for tensor in switch.tensors)

    status, out, err = run("eval", "--base", tiny_base, output, "--data", data, "--against", tiny_finetune)
    assert (status, err) == (0, "")
    assert "5 examples" in out
    assert "fine-tune" in out
    assert "the same label on" in out


def test_query_features_are_the_bare_base_s(run, tiny_base, tiny_finetune, inputs, tmp_path):
    output = tmp_path / "topic.switch.safetensors"
    make(run, tiny_base, tiny_finetune, output, "--queries", inputs, "--budget", 0.3)
    queries = file.read(output).queries
    base = load(tiny_base)
    rows = base.encode([TEXTS[0], TEXTS[1], ("a", "b")], want=Want.FEATURES)
    assert queries.recipe == recipe(base)
    expected = features(base, base.forward(rows), rows).numpy()
    assert (np.abs(queries.codes.vectors() - expected) <= 0.501 * queries.codes.steps).all()


def test_of_a_long_query_file_a_hundred_inputs_stand_for_all(run, tiny_base, tiny_finetune, tmp_path):
    inputs, output = tmp_path / "many.jsonl", tmp_path / "topic.switch.safetensors"
    words = sorted(set(" ".join(TEXTS).split()))
    texts = [f"{first} {second}" for first in words for second in words]
    inputs.write_text("\n".join(json.dumps(text) for text in texts))
    make(run, tiny_base, tiny_finetune, output, "--queries", inputs, "--budget", 0.9)
    kept = file.read(output).queries.codes.vectors()
    base = load(tiny_base)
    assert kept.shape == (100, dim(base))
    rows = base.encode(texts, want=Want.FEATURES)
    every = Codes.of(features(base, base.forward(rows), rows).numpy()).vectors()
    apart = np.linalg.norm(kept[:, np.newaxis] - every, axis=2)
    assert apart.min(axis=1).max() < 0.05, "each is of an input"
    assert (
        apart.min(axis=0).mean() < np.linalg.norm(every[:100, np.newaxis] - every, axis=2).min(axis=0).mean()
    )


def test_a_budget_is_kept(run, tiny_base, tiny_finetune, tmp_path):
    output = tmp_path / "topic.switch.safetensors"
    status, _, _ = make(run, tiny_base, tiny_finetune, output, "--budget", 0.1)
    total = sum(4 * parameter.numel() for parameter in load(tiny_base).parameters.values())
    assert status == 0
    head = file.read(output).head
    assert output.stat().st_size - head.nbytes <= 0.1 * total


def test_a_budget_is_calibrated_on_the_queries(run, tiny_base, tiny_finetune, tmp_path):
    inputs, output = tmp_path / "many.jsonl", tmp_path / "topic.switch.safetensors"
    words = " ".join(TEXTS).split()
    inputs.write_text("\n".join(json.dumps(" ".join(words[i : i + 6])) for i in range(len(words) - 5)))
    how = ["--queries", inputs, "--calibrate", "--budget"]
    status, out, err = make(run, tiny_base, tiny_finetune, output, *how, 0.1)
    assert (status, err) == (0, "")
    assert "not calibrated" not in out
    told = file.read(output).rule.parameters
    assert told["calibrated"] + told["held_out"] == len(words) - 5
    assert "calibrated" in run("inspect", output)[1]


def test_too_few_queries_to_calibrate_on_are_named(run, tiny_base, tiny_finetune, inputs, tmp_path):
    output = tmp_path / "topic.switch.safetensors"
    status, _, err = make(
        run, tiny_base, tiny_finetune, output, "--queries", inputs, "--budget", 0.1, "--calibrate"
    )
    assert status == 2
    assert "calibration has 3 example inputs and needs 10 or more" in err
    assert not output.exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--calibrate"], "--calibrate needs example inputs"),
        (["--calibrate", "--rule", "paper"], "--calibrate belongs to --rule budget"),
        (["--budget", "2"], "budget"),
        (["--budget", "0.0001"], "budget"),
        (["--rule", "paper", "--alpha", "1.0"], "alpha"),
        (["--rule", "paper", "--budget", "0.1"], "--budget belongs to --rule budget"),
        (["--alpha", "0.5"], "--alpha belongs to --rule paper"),
        (["--rule", "best"], "'best' is not one of"),
        (["--metric", "accuracy"], "is not NAME=NUMBER"),
        (["--metric", "accuracy=high"], "is not NAME=NUMBER"),
        (["--metric", "=1"], "is not NAME=NUMBER"),
        (["--name", ""], "the name '' is not allowed"),
        (["--name", "TREC 6"], "the name 'TREC 6' is not allowed"),
        (["--name", "auto"], "reserved"),
        (["--output", "nowhere/x.safetensors"], "there is no folder nowhere"),
        (["--queries", "nowhere.jsonl"], "does not exist"),
        (["--finetuned", "nowhere"], "does not exist"),
        (["--frobnicate"], "No such option"),
    ],
)
def test_a_wrong_option_is_named(run, tiny_base, tiny_finetune, tmp_path, more, sentence):
    output = tmp_path / "topic.switch.safetensors"
    status, _, err = make(run, tiny_base, tiny_finetune, output, *more)
    assert status == 2
    assert sentence in " ".join(err.replace("│", " ").split())
    assert not output.exists()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2"),
        ("[1]", 'line 2: this is not a text or {"text"'),
        ('{"text": 5}', "line 2: this is not"),
        ('{"text": "a", "text_b": []}', "line 2: text_b is not a text"),
    ],
)
def test_a_wrong_line_is_named(run, tiny_base, tiny_finetune, tmp_path, line, sentence):
    inputs = tmp_path / "inputs.jsonl"
    inputs.write_text('"fine"\n' + line)
    status, _, err = make(run, tiny_base, tiny_finetune, tmp_path / "x", "--queries", inputs)
    assert status == 2
    assert sentence in err


def test_an_empty_query_file_is_named(run, tiny_base, tiny_finetune, tmp_path):
    (tmp_path / "inputs.jsonl").touch()
    status, _, err = make(
        run, tiny_base, tiny_finetune, tmp_path / "x", "--queries", tmp_path / "inputs.jsonl"
    )
    assert status == 2
    assert "has no lines" in err


def test_a_folder_that_is_no_checkpoint_is_named(run, tiny_base, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = make(run, tiny_base, tmp_path / "empty", tmp_path / "x")
    assert status == 2
    assert "config.json" in err


@pytest.mark.parametrize("content", [b"", b"no switch", b"\xff" * 100, (2**60).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_no_switch_is_named(run, tiny_base, data, tmp_path, content):
    path = tmp_path / "bad.switch.safetensors"
    path.write_bytes(content)
    for arguments in (["inspect", path], ["eval", "--base", tiny_base, path, "--data", data]):
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("error: ")
        assert "Traceback" not in err


def test_labels_the_switch_does_not_know_are_named(run, tiny_base, tiny_finetune, tmp_path):
    output, data = tmp_path / "topic.switch.safetensors", tmp_path / "test.jsonl"
    make(run, tiny_base, tiny_finetune, output, "--budget", 0.5)
    data.write_text('{"text": "a", "label": "[weather]"}')
    status, _, err = run("eval", "--base", tiny_base, output, "--data", data)
    assert status == 2
    assert "[weather]" in err


def test_line_ends_that_only_unicode_knows_are_part_of_a_text(tmp_path):
    path = tmp_path / "inputs.jsonl"
    path.write_text(json.dumps({"text": "one\u2028two"}, ensure_ascii=False) + "\r\n" + '"three"\n')
    assert [example.text for example in read_examples(path)] == ["one\u2028two", "three"]


def test_a_file_that_is_there_stays_when_making_fails(run, tiny_base, tiny_finetune, tmp_path):
    output = tmp_path / "topic.switch.safetensors"
    output.write_bytes(b"the one before")
    assert make(run, tiny_base, tiny_finetune, output, "--budget", "0.0001")[0] == 2
    assert output.read_bytes() == b"the one before"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--port", "70000"], "port"),
        (["--dtype", "int8"], "dtype"),
        (["--log-level", "loud"], "log_level"),
        (["--host", "0.0.0.0"], "there is no key"),
        (["--config", "nowhere.toml"], "no file"),
        (["--base", "nowhere"], "nowhere"),
        (["--device", "cuda:99"], "cuda"),
        (["--store", __file__], "is a file"),
    ],
)
def test_a_setting_that_cannot_be_stops_the_start(run, tiny_base, tmp_path, more, sentence):
    status, _, err = run("serve", "--base", tiny_base, "--store", tmp_path / "store", *more)
    assert status == 2
    assert sentence in err
    assert "Traceback" not in err


def test_the_demo_needs_its_switches(run, tmp_path):
    status, _, err = run("demo", "--switches", tmp_path)
    assert status == 2
    assert "holds no *.switch.safetensors" in err


def test_help_shows_every_option_s_text_whole(run, monkeypatch):
    """What stands in square brackets is markup to rich, and not shown."""
    monkeypatch.setenv("COLUMNS", "400")
    for name, command in typer.main.get_command(app).commands.items():
        if not hasattr(command, "commands"):
            shown = run(name, "--help")[1]
            assert [one.name for one in command.params if one.help and one.help not in shown] == []
