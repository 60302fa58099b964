"""Classification, embeddings and routes over HTTP: the shapes, and the numbers behind them."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bitswitch_store.checkpoint import Checkpoint
from oracle import written
from running import BANKING, FAR, FILMS, TASKS
from tiny import data_url, picture

PAIR = ("who wrote hamlet", "is it a good question?")


@pytest.fixture(scope="module")
def plain(house, switch_files):
    """The library's own probabilities, at weights that the oracle wrote over the base's files."""
    checkpoint = Checkpoint.open(house.base.folder)
    stored = {name: torch.from_numpy(checkpoint.tensor(name)) for name in checkpoint.names}

    def probabilities(task, text, mix=None):
        folder = switch_files[task].parent / f"finetune-{task}"
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        terms = sorted(
            (house.store.find("default", name).digest, house.switch(name), weight)
            for name, weight in (mix or {task: 1.0}).items()
        )
        weights = written(stored, [(switch, weight) for _, switch, weight in terms])
        model.base_model.load_state_dict(weights, strict=False)
        words = AutoTokenizer.from_pretrained(folder)
        single, other = (text, None) if isinstance(text, str) else text
        with torch.inference_mode():
            logits = model(**words(single, other, return_tensors="pt")).logits[0]
        return torch.softmax(logits, -1).numpy()

    return probabilities


def classify(http, model, inputs, path="/v1/classify"):
    response = http.post(path, json={"model": model, "input": inputs})
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("path", ["/v1/classify", "/classify"])
def test_a_switch_answers_as_the_library_does(http, plain, task, path):
    texts = [BANKING[0], FILMS[1], list(PAIR)]
    answer = classify(http, task, texts, path)
    assert (answer["object"], answer["model"]) == ("list", f"{task}@1")
    assert answer["mix"] == [{"name": task, "version": 1, "weight": 1.0}]
    usage = answer["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"] > 0
    assert usage["completion_tokens"] == 0
    for index, (datum, text) in enumerate(zip(answer["data"], texts, strict=True)):
        expected = plain(task, text if isinstance(text, str) else tuple(text))
        assert datum["index"] == index
        np.testing.assert_allclose(datum["probs"], expected, atol=1e-5)
        assert datum["labels"] == list(TASKS[task][0])
        assert datum["label"] == datum["labels"][int(expected.argmax())]
        assert datum["num_classes"] == len(datum["labels"])
        assert datum["mix"] == answer["mix"]
        assert datum["route"] is None
        assert datum["truncated"] is False


def test_a_mix_is_answered_by_its_heaviest_head(http, plain):
    answer = classify(http, "topic*0.3 + polarity*0.7", BANKING[0])
    assert answer["model"] == "topic@1*0.3+polarity@1*0.7"
    assert [(part["name"], part["weight"]) for part in answer["mix"]] == [("topic", 0.3), ("polarity", 0.7)]
    assert answer["data"][0]["labels"] == ["bad", "good"]
    expected = plain("polarity", BANKING[0], {"topic": 0.3, "polarity": 0.7})
    np.testing.assert_allclose(answer["data"][0]["probs"], expected, atol=1e-5)
    assert classify(http, answer["model"], BANKING[0])["data"] == answer["data"]


def test_a_negative_weight_subtracts(http, plain):
    answer = classify(http, "topic + bare*-0.5", BANKING[0])
    expected = plain("topic", BANKING[0], {"topic": 1.0, "bare": -0.5})
    np.testing.assert_allclose(answer["data"][0]["probs"], expected, atol=1e-5)


def test_equal_switches_of_a_mix_are_merged(http):
    merged = classify(http, "topic*0.5+topic@1*0.5", BANKING[0])
    assert merged["mix"] == [{"name": "topic", "version": 1, "weight": 1.0}]
    assert merged["data"] == classify(http, "topic", BANKING[0])["data"]


def test_what_is_too_long_is_cut_and_said_to_be(http):
    data = classify(http, "topic", ["bank " * 200, "bank"])["data"]
    assert [datum["truncated"] for datum in data] == [True, False]


def test_auto_routes_each_input_by_itself(http):
    together = classify(http, "auto", [BANKING[0], FILMS[3], BANKING[1]])
    assert together["model"] == "auto"
    assert together["mix"] is None
    for text, datum in zip([BANKING[0], FILMS[3], BANKING[1]], together["data"], strict=True):
        alone = classify(http, "auto", text)
        assert datum["mix"] == datum["route"]["mix"] == alone["mix"]
        np.testing.assert_allclose(datum["probs"], alone["data"][0]["probs"], atol=1e-6)
        by_name = "+".join(f"{part['name']}@{part['version']}*{part['weight']}" for part in datum["mix"])
        np.testing.assert_allclose(
            classify(http, by_name, text)["data"][0]["probs"], datum["probs"], atol=1e-6
        )
    heads = [datum["labels"] for datum in together["data"]]
    assert heads == [["bank", "film", "spam"], ["bad", "good"], ["bank", "film", "spam"]]


def test_auto_abstains_from_classifying_what_is_far_and_says_which(http):
    response = http.post("/v1/classify", json={"model": "auto", "input": [BANKING[0], FAR]})
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("route_abstained", "input.1")
    assert "No switch is near input 1: its distance" in error["message"]


def test_route_tells_what_auto_would_do_and_why(http):
    response = http.post("/v1/route", json={"model": "auto", "input": [FILMS[0], FAR, BANKING[0]]})
    answer = response.json()
    assert (answer["object"], answer["model"]) == ("list", "auto")
    near, far, bank = answer["data"]
    assert [one["index"] for one in (near, far, bank)] == [0, 1, 2]
    assert near["mix"][0]["name"] == "polarity"
    assert bank["mix"][0]["name"] == "topic"
    assert (near["abstained"], far["abstained"]) == (False, True)
    assert far["mix"] == []
    assert far["distance"] > far["threshold"]
    for one in (near, far, bank):
        assert sum(neighbour["share"] for neighbour in one["neighbours"]) == pytest.approx(1)
        assert min(n["distance"] for n in one["neighbours"]) >= 0
    assert {part["name"]: part["weight"] for part in near["mix"]} == pytest.approx(
        {neighbour["name"]: neighbour["share"] for neighbour in near["neighbours"]}
    )
    assert classify(http, "auto", FILMS[0])["data"][0]["route"]["mix"] == near["mix"]


def embed(http, model, inputs, **fields):
    response = http.post("/v1/embeddings", json={"model": model, "input": inputs, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def test_embeddings_are_the_base_s_own_and_those_of_a_mix_differ(http):
    base = embed(http, "base", [BANKING[0], FILMS[0]])
    assert (base["object"], base["model"], base["mix"]) == ("list", "base", [])
    assert [(one["object"], one["index"]) for one in base["data"]] == [("embedding", 0), ("embedding", 1)]
    vector = np.array(base["data"][0]["embedding"])
    assert vector.shape == (32,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    bare = np.array(embed(http, "bare", BANKING[0])["data"][0]["embedding"])
    assert np.abs(bare - vector).max() > 1e-3


def test_base64_holds_the_same_values(http):
    floats = embed(http, "topic", BANKING[0])["data"][0]["embedding"]
    text = embed(http, "topic", BANKING[0], encoding_format="base64", user="someone")["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(text), "<f4").tolist() == floats


def test_fewer_dimensions_are_the_first_ones_at_unit_length(http):
    whole = np.array(embed(http, "base", BANKING[0])["data"][0]["embedding"])
    short = np.array(embed(http, "base", BANKING[0], dimensions=8)["data"][0]["embedding"])
    np.testing.assert_allclose(short, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-6)
    assert embed(http, "base", BANKING[0], dimensions=32)["data"][0]["embedding"] == pytest.approx(whole)


def test_auto_embeds_what_is_far_by_the_base(http):
    near, far = embed(http, "auto", [BANKING[0], FAR])["data"]
    assert near["mix"] == [{"name": "topic", "version": 1, "weight": 1.0}]
    assert (far["mix"], far["route"]["abstained"]) == ([], True)
    assert far["embedding"] == pytest.approx(embed(http, "base", FAR)["data"][0]["embedding"], abs=1e-6)


def test_a_text_may_be_empty_and_hold_any_character(http):
    data = classify(http, "topic", ["", "\0", "{fault}", "😀 é \u202e", "</script>"])["data"]
    assert all(sum(datum["probs"]) == pytest.approx(1, abs=1e-5) for datum in data)


def test_a_server_of_texts_refuses_an_image(http):
    image = data_url(picture())
    response = http.post("/v1/classify", json={"model": "topic", "input": ["a text", image]})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "input.1")
    assert "Input 1 is an image; this server's base reads texts" in error["message"]
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["who"]}
    response = http.post("/v2/models/topic/infer", json={"inputs": [tensor]})
    assert (response.status_code, "reads 'text'" in response.json()["error"]) == (400, True)
