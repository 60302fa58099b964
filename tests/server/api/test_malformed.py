"""Whatever is sent, the answer is a 4xx with a sentence that names the fault, and the base is untouched."""

from __future__ import annotations

import json

import httpx
import pytest

CLASSIFY, EMBED, ROUTE, INFER = "/v1/classify", "/v1/embeddings", "/v1/route", "/v2/models/topic/infer"
TEXT = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}


def body(**fields):
    return json.dumps({"model": "topic", "input": "who", **fields}).encode()


def asking(*outputs):
    return json.dumps({"inputs": [TEXT], "outputs": [{"name": name} for name in outputs]}).encode()


MANY = {f"x{i}": i for i in range(65)}


def tensor(**fields):
    return json.dumps({"inputs": [{**TEXT, **fields}]}).encode()


# path, body, status, code, fragment of the sentence
MALFORMED = [
    (CLASSIFY, b"", 400, "invalid_request", "body is empty"),
    (CLASSIFY, b"   ", 400, "invalid_request", "body is empty"),
    (CLASSIFY, b"{", 400, "invalid_request", "not valid JSON: EOF"),
    (CLASSIFY, b'{"model": "topic", "input": "a",}', 400, "invalid_request", "trailing comma"),
    (CLASSIFY, b'{"model": "topic"} x', 400, "invalid_request", "trailing characters"),
    (CLASSIFY, b"model=topic&input=who", 400, "invalid_request", "not valid JSON"),
    (CLASSIFY, b"[1]", 400, "invalid_request", "not an object"),
    (CLASSIFY, b"null", 400, "invalid_request", "not an object"),
    (CLASSIFY, b'"topic"', 400, "invalid_request", "not an object"),
    (CLASSIFY, b"[" * 10_000, 400, "invalid_request", "recursion limit"),
    (CLASSIFY, b'{"model": "topic", "input": "\xff"}', 400, "invalid_request", "byte 0xff at position 29"),
    (CLASSIFY, b'{"model": "topic", "input": "\\ud800"}', 400, "invalid_request", "hex escape"),
    (CLASSIFY, b'{"model": "topic", "input": NaN}', 400, "invalid_request", "expected value"),
    (CLASSIFY, b'{"model": "topic", "input": 1e999}', 400, "invalid_request", "input is a number"),
    (CLASSIFY, b'{"input": ' + b"9" * 5000 + b"}", 400, "invalid_request", "number out of range"),
    (CLASSIFY, b'{"input": "' + b"a" * 2**16 + b'"}', 413, "input_too_long", "larger than 65536 bytes"),
    (CLASSIFY, b"{}", 400, "invalid_request", "model is missing. input is missing."),
    (CLASSIFY, b'{"input": "who"}', 400, "invalid_request", "model is missing"),
    (CLASSIFY, b'{"model": "topic"}', 400, "invalid_request", "input is missing"),
    (CLASSIFY, body(temperature=0), 400, "invalid_request", "temperature is not a field"),
    (CLASSIFY, body(**MANY), 400, "invalid_request", "The body has 67 fields; at most 64 are read."),
    (CLASSIFY, body(model=3), 400, "invalid_request", "model: Input should be a valid string"),
    (CLASSIFY, body(model=None), 400, "invalid_request", "model: Input should be a valid string"),
    (CLASSIFY, body(model=""), 400, "invalid_model", "model is empty"),
    (CLASSIFY, body(model="a+"), 400, "invalid_model", "nothing on one side"),
    (CLASSIFY, body(model="a*x"), 400, "invalid_model", "weight 'x'"),
    (CLASSIFY, body(model="topic*11"), 400, "invalid_model", "between -10 and 10"),
    (CLASSIFY, body(model="Topic"), 400, "invalid_model", "name 'Topic'"),
    (CLASSIFY, body(model="topic\0"), 400, "invalid_model", "name 'topic\\x00'"),
    (CLASSIFY, body(model="x" * 9000), 400, "invalid_request", "at most 8192 characters"),
    (CLASSIFY, body(model="nosuch"), 404, "model_not_found", "'nosuch' does not exist"),
    (CLASSIFY, body(model="topic@2"), 404, "model_not_found", "'topic@2' does not exist"),
    (CLASSIFY, body(model="topic@prod"), 404, "model_not_found", "'topic@prod'"),
    (CLASSIFY, body(model="acme/topic"), 404, "model_not_found", "'acme/topic'"),
    (CLASSIFY, body(model="topic*0.5+nosuch*0.5"), 404, "model_not_found", "'nosuch'"),
    (CLASSIFY, body(model="base"), 400, "model_not_a_classifier", "bare base has no classification head"),
    (CLASSIFY, body(model="topic*0"), 400, "model_not_a_classifier", "bare base has no"),
    (CLASSIFY, body(model="bare"), 400, "model_not_a_classifier", "bare@1, has no classification head"),
    (
        CLASSIFY,
        body(model="bare*2+topic"),
        400,
        "model_not_a_classifier",
        "heaviest switch of the mix, bare",
    ),
    (CLASSIFY, body(input=[]), 400, "invalid_request", "input is an empty list"),
    (CLASSIFY, body(input=None), 400, "invalid_request", "input is null"),
    (CLASSIFY, body(input=True), 400, "invalid_request", "input is true or false"),
    (CLASSIFY, body(input={"text": "a"}), 400, "invalid_request", "input is an object"),
    (CLASSIFY, body(input=["a", {}]), 400, "invalid_request", "input has an object at 1"),
    (CLASSIFY, body(input=["a", None]), 400, "invalid_request", "input has null at 1"),
    (CLASSIFY, body(input=["{braces}", 1.5]), 400, "invalid_request", "input has a number at 1"),
    (CLASSIFY, body(input=[["a"]]), 400, "invalid_request", "at 0 that is no pair"),
    (CLASSIFY, body(input=["a", ["a", "b", "c"]]), 400, "invalid_request", "at 1 that is no pair"),
    (CLASSIFY, body(input=[["a", 1]]), 400, "invalid_request", "at 0 that is no pair"),
    (CLASSIFY, body(input=["a"] * 65), 413, "input_too_long", "65 inputs; one request holds at most 64"),
    (EMBED, body(input=[1, 2, 3]), 400, "invalid_request", "list of token ids; send the text"),
    (EMBED, body(input=[[1, 2], [3]]), 400, "invalid_request", "list of token ids at 0"),
    (EMBED, body(encoding_format="hex"), 400, "invalid_request", "encoding_format: Input should be 'float'"),
    (EMBED, body(dimensions=0), 400, "invalid_request", "dimensions: Input should be greater than"),
    (EMBED, body(dimensions=33), 400, "invalid_request", "dimensions is 33; this model's embeddings have 32"),
    (EMBED, body(dimensions=True), 400, "invalid_request", "dimensions: Input should be a valid integer"),
    (EMBED, body(dimensions="8"), 400, "invalid_request", "dimensions: Input should be a valid integer"),
    (EMBED, body(dimensions=8.0), 400, "invalid_request", "dimensions: Input should be a valid integer"),
    (ROUTE, body(), 400, "invalid_request", "model: Input should be 'auto'"),
    (ROUTE, b'{"model": "auto"}', 400, "invalid_request", "input is missing"),
    (INFER, b"{}", 400, None, "inputs is missing"),
    (INFER, b'{"inputs": []}', 400, None, "inputs: List should have at least 1 item"),
    (INFER, json.dumps({"inputs": [TEXT, TEXT]}).encode(), 400, None, "inputs: List should have at most 1"),
    (INFER, tensor(name="image"), 400, None, "The input is 'image'; this server's base reads 'text'"),
    (INFER, tensor(datatype="FP32"), 400, None, "inputs.0.datatype: Input should be 'BYTES'"),
    (INFER, tensor(shape=[2]), 400, None, "shape [2] does not fit 1 texts"),
    (INFER, tensor(shape=[0], data=[]), 400, None, "There is no input"),
    (INFER, tensor(shape=[1, 3], data=["a", "b", "c"]), 400, None, "shape [1, 3] does not fit"),
    (INFER, tensor(shape=[-1]), 400, None, "inputs.0.shape.0: Input should be greater than"),
    (INFER, tensor(data=[1]), 400, None, "inputs.0.data is no list of texts"),
    (INFER, tensor(**MANY), 400, None, "inputs.0 has 69 fields; at most 64"),
    (INFER, asking("probs", "probs"), 400, None, "outputs names an output more than once."),
    (INFER, asking("probs", "label", "probs"), 400, None, "outputs: List should have at most 2 items"),
    ("/v2/models/nosuch/infer", tensor(), 404, None, "'nosuch' does not exist"),
    ("/v2/models/topic/versions/9/infer", tensor(), 404, None, "'topic@9' does not exist"),
    ("/v2/models/topic+polarity/versions/1/infer", tensor(), 400, None, "'topic+polarity' has no versions"),
    ("/v2/models/topic*0.5/versions/1/infer", tensor(), 400, None, "'topic*0.5' has no versions of its own"),
    ("/v2/models/topic@1/versions/1/infer", tensor(), 400, None, "name one switch, such as 'trec6'"),
    ("/v2/models/base/versions/1/infer", tensor(), 400, None, "'base' has no versions of its own"),
    ("/v2/models/topic/versions/x/infer", tensor(), 400, None, "version: Input should be a valid integer"),
]


def told(response: httpx.Response, protocol: bool) -> tuple[str | None, str]:
    error = response.json()["error"]
    if protocol:
        assert isinstance(error, str)
        return None, error
    assert error.keys() == {"message", "type", "param", "code"}
    return error["code"], error["message"]


@pytest.mark.parametrize("case", MALFORMED, ids=[case[4][:40] for case in MALFORMED])
def test_it_is_refused_with_a_sentence(http, case):
    path, content, status, code, fragment = case
    response = http.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    got, message = told(response, path.startswith("/v2"))
    assert got == code
    assert fragment in message
    assert message.endswith((".", ")"))
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    "case",
    [
        ("GET", "/nowhere", 404, "not_found", "no path '/nowhere'"),
        ("GET", "/v1/switches/", 404, "not_found", "no path"),
        ("GET", "/v1/classify", 405, "method_not_allowed", "GET is not a method"),
        ("PATCH", "/v1/switches", 405, "method_not_allowed", "PATCH is not a method"),
        ("GET", "/v1/models/nosuch", 404, "model_not_found", "'nosuch'"),
        ("GET", "/v1/models/topic+polarity", 404, "model_not_found", "'topic+polarity'"),
        ("GET", "/v1/models/%ED%A0%80", 400, "invalid_model", "is no name"),
        ("GET", "/v1/switches/nosuch", 404, "model_not_found", "'nosuch'"),
        ("GET", "/v1/switches/topic?version=7", 404, "model_not_found", "'topic@7'"),
        ("GET", "/v1/switches/nosuch/file", 404, "model_not_found", "'nosuch'"),
        ("DELETE", "/v1/switches/nosuch", 404, "model_not_found", "'nosuch'"),
        ("DELETE", "/v1/switches/topic?version=7", 404, "model_not_found", "'topic@7'"),
        (
            "DELETE",
            "/v1/switches/topic?version=0",
            400,
            "invalid_request",
            "version: Input should be",
        ),
        (
            "DELETE",
            "/v1/switches/topic?force=yess",
            400,
            "invalid_request",
            "force: Input should be",
        ),
        ("DELETE", "/v1/switches/topic/aliases/nosuch", 404, "model_not_found", "'topic@nosuch'"),
        ("GET", f"/v1/switches/{'a' * 65}", 400, "invalid_request", "name: String should have at most 64"),
    ],
)
def test_so_is_a_path_that_leads_nowhere(http, case):
    method, path, status, code, fragment = case
    response = http.request(method, path)
    assert response.status_code == status, response.text
    got, message = told(response, protocol=False)
    assert (got, fragment in message) == (code, True), message


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/xml", "nonsense"]
)
def test_a_body_of_another_kind_is_refused(http, kind):
    response = http.post(CLASSIFY, content=body(), headers={"content-type": kind})
    assert response.status_code == 415
    assert told(response, protocol=False)[0] == "unsupported_media_type"
    assert "reads 'application/json'" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "application/vnd.api+json"},
        {"content-type": "application/x-www-form-urlencoded"},  # what `curl -d` says
    ],
)
def test_json_is_read_under_these_names(http, headers):
    assert http.post(CLASSIFY, content=body(), headers=headers).status_code == 200


def test_a_body_without_a_stated_length_is_cut_off_too(http):
    def endless():
        yield b'{"input": "'
        for _ in range(1000):
            yield b"a" * 4096

    response = http.post(CLASSIFY, content=endless(), headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert "larger than 65536 bytes" in response.json()["error"]["message"]


def test_the_base_is_untouched_by_all_of_it(http):
    """Runs last in this file; the engine has seen whatever of the above came through to it."""
    for path, content, *_ in MALFORMED:
        http.post(path, content=content, headers={"content-type": "application/json"})
    verdict = http.get("/v1/admin/verify").json()
    assert verdict["intact"] is True
    assert verdict["differing"] == []
    assert verdict["checked"] > 30
