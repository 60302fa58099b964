"""``bitswitch make`` and ``eval`` over a base that reads images, as a user types them."""

import base64
import json

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from bitswitch.base.features import features, recipe
from bitswitch.base.load import load
from bitswitch.cli.rows import read_examples
from bitswitch.core import Want
from bitswitch_store import file
from tiny import data_url, make_finetune, make_image_base, picture

LABELS = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_image_base(tmp_path_factory.mktemp("vit") / "base")


@pytest.fixture(scope="module")
def finetune(base, tmp_path_factory):
    return make_finetune(tmp_path_factory.mktemp("tuned") / "tuned", base, LABELS, noise=0.1)


@pytest.fixture
def images(tmp_path):
    """A file of lines beside a folder of images; every other image stands in its line."""
    (tmp_path / "some").mkdir()
    lines = []
    for i in range(8):
        picture(i).save(tmp_path / "some" / f"{i}.png")
        lines.append({"image": data_url(picture(i)) if i % 2 else f"some/{i}.png"})
    path = tmp_path / "images.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def labelled(path, labels):
    rows = [
        json.loads(line) | {"label": label}
        for line, label in zip(path.read_text().split("\n"), labels, strict=True)
    ]
    data = path.with_name("labelled.jsonl")
    data.write_text("\n".join(map(json.dumps, rows)))
    return data


def test_lines_of_images_are_read(images):
    examples = read_examples(images)
    whole = data_url(picture(1))
    assert [example.text for example in examples[:2]] == [data_url(picture(0)).partition(",")[2], whole]
    for line, says in (
        ({"image": "some/absent.png"}, "line 1: .*absent.png"),
        ({"image": 3}, "line 1: this is not a text or"),
        ({"image": "some/0.png", "text": 3}, "line 1: this is not a text or"),
    ):
        images.write_text(json.dumps(line))
        with pytest.raises(ValueError, match=says):
            read_examples(images)


@pytest.mark.parametrize(
    "rule", [("--rule", "budget", "--budget", "0.5"), ("--rule", "paper", "--alpha", "0.8")]
)
def test_a_switch_of_images_is_made_and_scored(run, base, finetune, images, tmp_path, rule):
    output = tmp_path / "animal.switch.safetensors"
    given = ("--base", base, "--finetuned", finetune, "--name", "animal", "--queries", images)
    status, out, err = run("make", *given, *rule, "-o", output)
    assert (status, err) == (0, ""), out + err
    switch = file.read(output)
    assert switch.head is not None
    assert switch.head.labels == LABELS
    model = load(base)
    rows = model.encode([data_url(picture(i)) for i in range(8)], want=Want.FEATURES)
    expected = features(model, model.forward(rows), rows).numpy()
    assert switch.queries.recipe == recipe(model)
    codes = switch.queries.codes
    assert (np.abs(codes.vectors() - expected) <= 0.501 * codes.steps).all()

    theirs = AutoModelForImageClassification.from_pretrained(finetune).eval()
    processor = AutoImageProcessor.from_pretrained(finetune, backend="pil")
    with torch.inference_mode():
        logits = theirs(**processor([picture(i) for i in range(8)], return_tensors="pt")).logits
    data = labelled(images, [LABELS[i] for i in logits.argmax(1)])
    status, out, err = run("eval", "--base", base, output, "--data", data, "--against", finetune)
    assert status == 0, out + err
    assert "8 examples" in out
    (line,) = [line for line in out.splitlines() if "fine-tune" in line]
    assert "1.0000" in line  # the labels are its own


def test_calibration_is_of_texts(run, base, finetune, images, tmp_path):
    output = tmp_path / "x.switch.safetensors"
    given = ("--base", base, "--finetuned", finetune, "--name", "x", "--queries", images)
    status, _, err = run("make", *given, "--calibrate", "-o", output)
    assert status == 2
    assert "--calibrate fits to texts" in err
    assert not output.exists()


def test_an_image_that_cannot_be_decoded_stops_it(run, base, finetune, tmp_path):
    (tmp_path / "half.png").write_bytes(base64.b64decode(data_url(picture()).partition(",")[2])[:-40])
    queries = tmp_path / "queries.jsonl"
    queries.write_text(json.dumps({"image": "half.png"}))
    given = ("--base", base, "--finetuned", finetune, "--name", "x", "--queries", queries)
    status, _, err = run("make", *given, "-o", tmp_path / "x")
    assert status == 2
    assert "Input 0 cannot be decoded as an image" in err
