"""A server whose base reads images, over HTTP: the numbers, the bits, the errors, and who sees what."""

from __future__ import annotations

import base64
import io
import random

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from bitswitch.base.load import load
from bitswitch.core import InputLimits, Mix, Request, Want
from bitswitch.engine.arena import Arena
from bitswitch.engine.engine import Engine
from bitswitch.engine.planes import Planes
from bitswitch.engine.swap import Swap
from bitswitch.tenants.caller import Role
from bitswitch.tenants.key_ring import KeyRing
from bitswitch.tenants.keys import Keys
from bitswitch_client import Client, InvalidRequestError
from bitswitch_store.checkpoint import Checkpoint
from oracle import written
from running import House, make_switches, serving
from switches import random_switch
from tiny import IMAGE_FAMILIES, data_url, make_image_base, picture

LIGHT = tuple(data_url(picture(seed)) for seed in range(6))
DARK = tuple(data_url(picture(seed).point(lambda value: value // 4)) for seed in range(10, 16))
TASKS = {
    "animal": (("cat", "dog", "owl"), LIGHT),
    "digit": (("0", "1"), DARK),
    "other": (("yes", "no"), None),
}
LIMITS = InputLimits(image_bytes=8192, image_pixels=4096, request_pixels=6000)


@pytest.fixture(scope="module", params=IMAGE_FAMILIES)
def any_base(request, tmp_path_factory):
    return make_image_base(tmp_path_factory.mktemp(request.param) / "base", request.param)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return make_image_base(tmp_path_factory.mktemp("vit") / "base")


@pytest.fixture(scope="module")
def files(base_folder, tmp_path_factory):
    return make_switches(base_folder, tmp_path_factory.mktemp("files"), TASKS)


@pytest.fixture(scope="module")
def house(base_folder, files, tmp_path_factory):
    built = House.build(base_folder, tmp_path_factory.mktemp("store"), input_limits=LIMITS)
    with built.running(files.values()) as house:
        yield house


@pytest.fixture(scope="module")
def http(house):
    with serving(house.app()) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client


def classify(http, model, inputs, path="/v1/classify"):
    response = http.post(path, json={"model": model, "input": inputs})
    assert response.status_code == 200, response.text
    return response.json()


def plain(house, files, mix, image):
    """The library's own probabilities, at weights that the oracle wrote over the base's files."""
    checkpoint = Checkpoint.open(house.base.folder)
    stored = {name: torch.from_numpy(checkpoint.tensor(name)) for name in checkpoint.names}
    terms = sorted((house.store.find("default", name).digest, name) for name in mix)
    weights = written(stored, [(house.switch(name), mix[name]) for _, name in terms])
    heaviest = max(mix, key=mix.get)
    folder = files[heaviest].parent / f"finetune-{heaviest}"
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        # A base of its own, for the names: transformers calls parts of a ViT otherwise than its files do.
        for name, parameter in (copy := load(house.base.folder)).parameters.items():
            parameter.copy_(weights[name])
    state = copy.model.state_dict()
    missing, unexpected = model.base_model.load_state_dict(state, strict=False)
    assert not missing
    assert all(name.startswith("pooler.") for name in unexpected)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        logits = model(**processor(image.convert("RGB"), return_tensors="pt")).logits[0]
    return logits.softmax(-1).numpy()


@pytest.mark.parametrize("mix", [{"animal": 1.0}, {"digit": 1.0}, {"animal": 0.6, "digit": 0.4}])
@pytest.mark.parametrize("path", ["/v1/classify", "/classify"])
def test_a_switch_answers_as_the_library_does(http, house, files, mix, path):
    images = [picture(1), picture(2, (40, 30)), picture(3, (16, 16), "L")]
    model = "+".join(f"{name}*{weight}" for name, weight in mix.items())
    answer = classify(http, model, [data_url(image) for image in images], path)
    assert answer["usage"]["prompt_tokens"] == 3 * 5
    for datum, image in zip(answer["data"], images, strict=True):
        expected = plain(house, files, mix, image)
        np.testing.assert_allclose(datum["probs"], expected, atol=1e-5)
        assert datum["label"] == TASKS[max(mix, key=mix.get)][0][int(expected.argmax())]
        assert datum["truncated"] is False


def test_the_switch_is_what_answers(house, files):
    """Or the test above could not fail."""
    alone = plain(house, files, {"animal": 1.0}, picture(1))
    assert np.abs(alone - plain(house, files, {"animal": 0.6, "digit": 0.4}, picture(1))).max() > 1e-3


def test_plain_base64_is_an_image_too(http):
    whole = classify(http, "animal", LIGHT[0])["data"]
    assert classify(http, "animal", LIGHT[0].partition(",")[2])["data"] == whole


def test_auto_finds_the_task_of_an_image(http, house):
    """By the images' own features: a dark one is of the digits."""
    routes = http.post("/v1/route", json={"input": [LIGHT[0], DARK[0]]}).json()["data"]
    assert [route["mix"][0]["name"] for route in routes] == ["animal", "digit"]
    (datum,) = classify(http, "auto", [DARK[1]])["data"]
    assert datum["route"]["mix"][0]["name"] == "digit"
    assert datum["labels"] == ["0", "1"]
    assert house.engine.verify().intact


@pytest.fixture
def switched(any_base):
    base = load(any_base)
    shapes = {name: tuple(one.shape) for name, one in base.parameters.items()}
    return base, {f"s{i}": random_switch(shapes, 0.3, i, base=base.identity) for i in range(4)}


MIXES = [Mix.of([(f"s{i}", 1.0)]) for i in range(4)] + [Mix.of([("s0", 0.5), ("s3", -0.25)]), Mix()]


def test_thousands_of_transitions_leave_every_bit(switched):
    base, switches = switched
    before = base.digest()
    loaded = {name: one.clone() for name, one in base.parameters.items()}
    expected = {mix: written(loaded, [(switches[digest], weight) for digest, weight in mix]) for mix in MIXES}
    arena = Arena(base.parameters)
    swap, chance = Swap(arena), random.Random(0)
    planes = {digest: Planes(arena, switch) for digest, switch in switches.items()}
    for number in range(2000):
        mix = chance.choice(MIXES)
        with swap.at(mix, [planes[digest] for digest in mix.digests]):
            if number % 100 == 0:
                for name, weights in base.parameters.items():
                    assert torch.equal(weights, expected[mix][name]), (number, name)
    swap.rest()
    assert base.digest() == before


def test_the_engine_answers_any_order_of_mixes(switched):
    """In place or in one pass, as it likes."""
    base, switches = switched
    engine = Engine(base, switches.__getitem__)
    engine.start()
    rows, chance = base.encode(LIGHT[:1], want=Want.CLASSIFY), random.Random(0)
    first = {mix: engine.submit(Request(mix, Want.EMBED, rows)).result(60).values for mix in MIXES}
    for _ in range(30):
        some = [chance.choice(MIXES) for _ in range(10)]
        for mix, future in [(mix, engine.submit(Request(mix, Want.EMBED, rows))) for mix in some]:
            np.testing.assert_allclose(future.result(60).values, first[mix], atol=2e-6)
    verdict = engine.verify()
    assert (verdict.intact, verdict.checked) == (True, len(base.parameters))
    engine.stop(10)


@pytest.mark.parametrize(
    ("given", "status", "code", "says"),
    [
        ("Who wrote Hamlet?", 400, "invalid_request", "Input 0 is no image"),
        ([LIGHT[0], ["a", "b"]], 400, "invalid_request", "Input 1 is a pair"),
        ("http://example.org/cat.png", 400, "invalid_request", "fetches nothing"),
        (LIGHT[0][:-40], 400, "invalid_request", "damaged or incomplete"),
        ("data:image/gif;base64,R0lGODlh", 415, "unsupported_media_type", "image/gif"),
        (data_url(picture(1, (80, 60))), 413, "input_too_long", "more than 4096 pixels"),
        ([data_url(picture(1, (60, 60)))] * 2, 413, "input_too_long", "7200 pixels together"),
        ("data:image/png;base64," + "A" * 12_000, 413, "input_too_long", "more than 8192 bytes"),
        ([LIGHT[0]] * 65, 413, "input_too_long", "65 inputs"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/classify", "/v1/route"])
def test_what_cannot_be_read_is_told(http, path, given, status, code, says):
    body = {"input": given} | ({"model": "animal"} if path == "/v1/classify" else {})
    response = http.post(path, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), response.text
    assert says in error["message"]
    assert error["param"].startswith("input")
    assert http.get("/v1/admin/verify").json()["intact"] is True


def test_embeddings_are_of_texts(http):
    response = http.post("/v1/embeddings", json={"model": "base", "input": LIGHT[0]})
    assert response.status_code == 400
    assert "/v1/classify" in response.json()["error"]["message"]


def test_the_inference_protocol_says_that_it_reads_images(http):
    metadata = http.get("/v2/models/animal").json()
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES", "data": list(LIGHT[:2])}
    outputs = http.post("/v2/models/animal/infer", json={"inputs": [tensor]}).json()["outputs"]
    expected = [datum["label"] for datum in classify(http, "animal", list(LIGHT[:2]))["data"]]
    assert next(one for one in outputs if one["name"] == "label")["data"] == expected
    wrong = http.post("/v2/models/animal/infer", json={"inputs": [{**tensor, "name": "text"}]})
    assert (wrong.status_code, "reads 'image'" in wrong.json()["error"]) == (400, True)


def test_the_client_sends_bytes_and_files(http, tmp_path):
    buffer = io.BytesIO()
    picture(1).save(buffer, "WEBP", lossless=True)
    path = tmp_path / "photo.jpg"  # the name does not matter
    path.write_bytes(base64.b64decode(LIGHT[1].partition(",")[2]))
    with Client(str(http.base_url)) as client:
        sent = client.classify("animal", [buffer.getvalue(), path, LIGHT[0]])
        expected = classify(http, "animal", [LIGHT[1], LIGHT[1], LIGHT[0]])["data"]
        for ours, theirs in zip(sent.data, expected, strict=True):
            np.testing.assert_allclose(ours.probs, theirs["probs"], atol=1e-6)
        assert client.classify("animal", path).data[0].label == expected[0]["label"]
        assert len(client.route(buffer.getvalue()).data) == 1
        with pytest.raises(InvalidRequestError, match="is no image"):
            client.classify("animal", "a text")


def test_an_invisible_switch_takes_no_image(house):
    """What another tenant has near an image moves no route of ours: as if it were not there."""
    secret = b"the secret of this test's server"
    ring = KeyRing(house.store.database, secret)
    _, text = ring.create("acme", Role.CALLER)
    keys = Keys(ring=ring, secret=secret)
    with serving(house.app(keys=keys)) as address, httpx.Client(base_url=address) as http:
        http.headers["authorization"] = f"Bearer {text}"
        named = http.post("/v1/classify", json={"model": "default/animal", "input": LIGHT[0]})
        unknown = http.post("/v1/classify", json={"model": "default/absent", "input": LIGHT[0]})
        route = http.post("/v1/route", json={"input": LIGHT[0]}).json()["data"][0]
    assert (named.status_code, unknown.status_code) == (404, 404)
    assert (route["abstained"], route["neighbours"]) == (True, [])
