"""The Open Inference Protocol v2."""

from __future__ import annotations

import numpy as np
import pytest

from running import BANKING, FAR, FILMS


def infer(http, model, shape, data, path="/v2/models/{}/infer", **fields):
    tensor = {"name": "text", "shape": shape, "datatype": "BYTES", "data": data}
    return http.post(path.format(model), json={"inputs": [tensor], **fields})


def test_the_server_and_its_models_introduce_themselves(http):
    assert http.get("/v2").json()["name"] == "bitswitch"
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    metadata = http.get("/v2/models/topic").json()
    assert (metadata["name"], metadata["versions"]) == ("topic", ["1"])
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [(out["name"], out["datatype"], out["shape"]) for out in metadata["outputs"]] == [
        ("probs", "FP32", [-1, 3]),
        ("label", "BYTES", [-1]),
    ]
    assert http.get("/v2/models/topic/versions/1").json() == metadata
    for path in ("topic/ready", "topic/versions/1/ready", "auto/ready", "base/ready"):
        assert http.get(f"/v2/models/{path}").json() == {"name": path.partition("/")[0], "ready": True}
    assert http.get("/v2/models/topic/versions/2/ready").json() == {
        "error": "The model 'topic@2' does not exist or you do not have access to it."
    }


@pytest.mark.parametrize("path", ["/v2/models/{}/infer", "/v2/models/{}/versions/1/infer"])
def test_it_infers_as_classify_does(http, path):
    texts = [BANKING[0], FILMS[0]]
    answer = infer(http, "topic", [2], texts, path, id="mine").json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("topic", "1", "mine")
    probs, label = answer["outputs"]
    assert (probs["shape"], probs["datatype"], label["shape"], label["datatype"]) == (
        [2, 3],
        "FP32",
        [2],
        "BYTES",
    )
    expected = http.post("/v1/classify", json={"model": "topic", "input": texts}).json()["data"]
    np.testing.assert_allclose(
        np.reshape(probs["data"], (2, 3)), [datum["probs"] for datum in expected], atol=1e-6
    )
    assert label["data"] == [datum["label"] for datum in expected]


@pytest.mark.parametrize("model", ["topic@1", "default/topic", "topic*0.6+polarity@1*0.4", "auto"])
def test_the_model_s_name_is_the_one_that_was_asked_for(http, model):
    assert infer(http, model, [1], [BANKING[0]]).json()["model_name"] == model


@pytest.mark.parametrize("rest", ["", "/ready"])
@pytest.mark.parametrize("model", ["auto", "topic@1", "topic+polarity"])
def test_only_a_plain_name_has_versions(http, model, rest):
    response = http.get(f"/v2/models/{model}/versions/1{rest}")
    assert response.status_code == 400
    assert f"'{model}' has no versions of its own" in response.json()["error"]


def test_a_version_of_a_tenant_s_switch_is_one_of_a_plain_name(http):
    assert http.get("/v2/models/default/topic/versions/1").json()["versions"] == ["1"]


@pytest.mark.parametrize("data", [["a", "b", "who", "what"], [["a", "b"], ["who", "what"]]])
def test_pairs_have_two_columns(http, data):
    probs, _ = infer(http, "entail", [2, 2], data).json()["outputs"]
    expected = http.post(
        "/v1/classify", json={"model": "entail", "input": [["a", "b"], ["who", "what"]]}
    ).json()
    np.testing.assert_allclose(
        np.reshape(probs["data"], (2, 4)), [datum["probs"] for datum in expected["data"]], atol=1e-6
    )


def test_only_the_outputs_asked_for_come(http):
    answer = infer(http, "topic", [1, 1], ["a"], outputs=[{"name": "label"}]).json()
    assert [output["name"] for output in answer["outputs"]] == ["label"]
    assert answer["id"].startswith("req-")


def test_auto_works_while_one_head_answers(http):
    assert infer(http, "auto", [1], [FILMS[0]]).status_code == 200
    mixed = infer(http, "auto", [2], [FILMS[3], BANKING[0]])
    assert mixed.status_code == 400
    assert "heads with different labels" in mixed.json()["error"]
    assert infer(http, "auto", [1], [FAR]).json()["error"].startswith("No switch is near input 0")
