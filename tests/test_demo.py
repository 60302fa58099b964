"""The demo's switches on the real base: what is served is what transformers computes on static weights."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from bitswitch.base.load import load
from bitswitch.cli.demo import demo_base
from bitswitch.cli.rows import read_examples
from bitswitch_client import Client
from bitswitch_store import file
from oracle import written
from running import House, serving

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "demo" / "switches").glob("*.switch.safetensors"))
TASKS = ("banking77", "movie_reviews", "sms_spam", "trec6")
LONG = "the film was long , and the plot was longer still . " * 80
QUESTIONS = read_examples(ROOT / "demo" / "questions.jsonl", labelled=True)
TEXTS = [question.text for question in QUESTIONS] + ["", "?", "naïve café 🙂", LONG]
PAIRS = [("who wrote it ?", "hamlet was written by shakespeare ."), (LONG, "short"), ("a", LONG)]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    built = House.build(demo_base(), tmp_path_factory.mktemp("demo") / "store", timeout=120)
    with built.running() as house, serving(house.app()) as address, Client(address, timeout=120) as client:
        for path in FILES:
            client.publish(path)
        yield client


def static(path):
    """The fine-tune that the switch stands for, as transformers runs any checkpoint."""
    switch, base = file.read(path), load(demo_base())
    config = AutoConfig.from_pretrained(demo_base(), num_labels=len(switch.head.labels))
    model = AutoModelForSequenceClassification.from_config(config).eval()
    weights = {
        f"{model.base_model_prefix}.{name}": tensor
        for name, tensor in written(base.parameters, [(switch, 1.0)]).items()
    }
    head = {name: torch.tensor(array) for name, array in switch.head.tensors.items()}
    model.load_state_dict({**weights, **head}, strict=False)
    missing = set(dict(model.named_parameters())) - weights.keys() - head.keys()
    assert not missing
    tokenizer = AutoTokenizer.from_pretrained(demo_base())

    @torch.no_grad()
    def probabilities(text):
        fields = tokenizer(*([text] if isinstance(text, str) else text), truncation=True, return_tensors="pt")
        return model(**fields).logits[0].softmax(-1).numpy()

    return probabilities


def test_there_are_four_and_they_are_small():
    assert tuple(path.name.split(".")[0] for path in FILES) == TASKS
    checkpoint = sum(path.stat().st_size for path in demo_base().glob("*.safetensors"))
    sizes = [path.stat().st_size for path in FILES]
    assert all(size <= 0.03 * checkpoint for size in sizes)
    assert sum(sizes) < 8e6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.split(".")[0])
def test_served_probabilities_are_those_of_static_weights(client, path):
    task, oracle = path.name.split(".")[0], static(path)
    expected = [oracle(text) for text in (*TEXTS, *PAIRS)]
    batch = client.classify(task, TEXTS).data + client.classify(task, PAIRS).data
    for wanted, got in zip(expected, batch, strict=True):
        np.testing.assert_allclose(got.probs, wanted, atol=1e-5)
    for text, wanted in zip(TEXTS[::3], expected[::3], strict=False):
        (single,) = client.classify(task, text).data
        np.testing.assert_allclose(single.probs, wanted, atol=1e-5)
    assert client.verify().intact


def test_auto_finds_each_question_s_task(client):
    for question in QUESTIONS:
        (item,) = client.classify("auto", question.text).data
        assert max(item.mix, key=lambda part: part.weight).name == question.label
        (named,) = client.classify(question.label, question.text).data
        assert item.label == named.label


def test_the_demo_runs_and_ends():
    command = [sys.executable, "-m", "bitswitch.cli", "demo", "--port", "0", "--exit"]
    environment = {"COLUMNS": "80", "PATH": "", "HF_HUB_OFFLINE": "1", "HOME": str(Path.home())}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "curl" not in line)
    for task in TASKS:
        assert len(re.findall(rf" {task} +{task} ", done.stdout)) == 2, done.stdout
    assert "abst" not in done.stdout
    assert done.stdout.count(" auto ") >= len(QUESTIONS)
    assert "is the base's, bit for bit" in done.stdout
    assert "as 4 full checkpoints" in done.stdout
    assert "/docs" in done.stdout
