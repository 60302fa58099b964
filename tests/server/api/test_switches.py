"""Switches come and go over HTTP while the server serves."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc
from dataclasses import replace

import httpx
import pytest

from bitswitch_store import file
from bitswitch_store.store import Store
from bitswitch_store.switch import BaseIdentity, Head
from running import BANKING, serving


@pytest.fixture
def published(http):
    """Uploads under a name of the test's own, gone afterwards."""
    names = set()

    def publish(data, name, **fields):
        names.add(name)
        response = http.post("/v1/switches", files={"file": data}, data={"name": name, **fields})
        assert response.status_code == 201, response.text
        return response.json()

    yield publish
    for name in names:
        http.delete(f"/v1/switches/{name}", params={"force": True})


def labelled(path, labels):
    """The switch of a file under other label names: other bytes, the same weights."""
    switch = file.read(path)
    return file.write(replace(switch, head=Head(switch.head.tensors, switch.head.config, labels)))


def test_upload_serve_download_delete(http, published, switch_files):
    data = switch_files["topic"].read_bytes()
    entry = published(data, "mine")
    assert (entry["name"], entry["version"], entry["task"]) == ("mine", 1, "topic")
    assert (entry["size"], entry["digest"]) == (len(data), file.digest(data))
    assert (entry["labels"], entry["aliases"], entry["public"]) == (["bank", "film", "spam"], [], False)
    assert http.get("/v1/switches/mine").json() == entry
    assert entry in http.get("/v1/switches").json()["data"]
    download = http.get("/v1/switches/mine/file")
    assert download.content == data
    assert download.headers["x-switch-digest"] == entry["digest"]
    assert "mine@1.switch.safetensors" in download.headers["content-disposition"].replace("%40", "@")

    ask = {"model": "mine", "input": BANKING[0]}
    answer = http.post("/v1/classify", json=ask).json()
    assert answer["data"][0]["probs"] == pytest.approx(
        http.post("/v1/classify", json={**ask, "model": "topic"}).json()["data"][0]["probs"], abs=1e-6
    )
    model = http.get("/v1/models/mine@1").json()
    assert (model["id"], model["root"], model["parent"], model["owned_by"]) == (
        "mine@1",
        "tiny",
        "base",
        "default",
    )

    gone = http.delete("/v1/switches/mine").json()
    assert (gone["deleted"], gone["data"]) == (True, [entry])
    assert http.post("/v1/classify", json=ask).json()["error"]["code"] == "model_not_found"
    assert http.get("/v1/models/mine").status_code == 404
    # the same bytes still live under the name of another
    assert http.post("/v1/classify", json={**ask, "model": "topic"}).status_code == 200


def test_the_same_again_is_the_same_version_and_other_bytes_are_the_next(http, published, switch_files):
    path = switch_files["topic"]
    first = published(path.read_bytes(), "again")
    assert published(path.read_bytes(), "again") == first
    second = published(labelled(path, ("x", "y", "z")), "again")
    assert second["version"] == 2
    ask = {"input": BANKING[0]}

    def labels(model):
        return http.post("/v1/classify", json={**ask, "model": model}).json()["data"][0]["labels"]

    assert labels("again") == labels("again@2") == ["x", "y", "z"]
    assert labels("again@1") == ["bank", "film", "spam"]
    assert [one["id"] for one in http.get("/v1/models").json()["data"]].count("again") == 1
    assert http.get("/v1/switches/again", params={"version": 1}).json()["digest"] == first["digest"]
    assert http.delete("/v1/switches/again", params={"version": 2}).status_code == 200
    assert labels("again") == ["bank", "film", "spam"]


def test_an_alias_points_moves_guards_and_goes(http, published, switch_files):
    path = switch_files["topic"]
    published(path.read_bytes(), "named")
    published(labelled(path, ("x", "y", "z")), "named")
    alias = "/v1/switches/named/aliases/prod"
    assert http.put(alias, json={"version": 1}).json()["aliases"] == ["prod"]
    answer = http.post("/v1/classify", json={"model": "named@prod", "input": "a"}).json()
    assert answer["model"] == "named@1"
    assert http.put(alias, json={"version": 2}).json()["version"] == 2
    assert http.get("/v1/switches/named", params={"version": "prod"}).json()["version"] == 2

    refused = http.delete("/v1/switches/named", params={"version": 2})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert refused.headers["x-should-retry"] == "false"
    assert "prod" in refused.json()["error"]["message"]
    assert http.delete(alias).json()["aliases"] == []
    assert http.delete("/v1/switches/named", params={"version": 2}).status_code == 200

    assert http.put(alias, json={"version": 9}).status_code == 404
    assert http.put(alias, json={"version": "1"}).status_code == 400
    digits = http.put("/v1/switches/named/aliases/12", json={"version": 1})
    assert (digits.status_code, "version number" in digits.json()["error"]["message"]) == (400, True)


def test_auto_knows_a_switch_from_its_upload_to_its_deletion(house, http, published, switch_files):
    def chosen():
        data = http.post("/v1/route", json={"input": BANKING[0]}).json()["data"]
        return {part["name"] for part in data[0]["mix"]}

    assert chosen() == {"topic"}
    before = len(house.router)
    entry = published(labelled(switch_files["topic"], ("x", "y", "z")), "newer")
    assert chosen() == {"topic", "newer"}
    assert len(house.router) == before + 1
    http.post("/v1/classify", json={"model": "newer", "input": "a"})
    assert entry["digest"] in http.get("/v1/admin/state").json()["resident"]
    http.delete("/v1/switches/newer")
    assert chosen() == {"topic"}
    assert len(house.router) == before
    assert entry["digest"] not in http.get("/v1/admin/state").json()["resident"]


def test_auto_looks_at_the_latest_version_alone(http, published, switch_files):
    path = switch_files["topic"]
    published(path.read_bytes(), "twice")
    published(labelled(path, ("x", "y", "z")), "twice")
    mix = http.post("/v1/route", json={"input": BANKING[0]}).json()["data"][0]["mix"]
    assert sorted((part["name"], part["version"]) for part in mix) == [("topic", 1), ("twice", 2)]


def upload(http, *, files=None, data=None, **more):
    return http.post("/v1/switches", files=files, data=data, **more)


def test_what_is_no_upload_is_refused(http, switch_files):
    good = switch_files["topic"].read_bytes()
    stranger = file.write(replace(file.read(good), base=BaseIdentity("bert", "sha256:" + "0" * 64)))
    head = file.read(good).head
    misfit = file.write(
        replace(
            file.read(good),
            head=Head({"classifier.weight": head.tensors["classifier.weight"]}, head.config, head.labels),
        )
    )
    cases = [
        (upload(http, files={"file": b""}), 422, "invalid_switch", ""),
        (upload(http, files={"file": b"not a switch"}), 422, "invalid_switch", ""),
        (upload(http, files={"file": good[:-1]}), 422, "invalid_switch", ""),
        (upload(http, files={"file": good + b"\0"}), 422, "invalid_switch", ""),
        (upload(http, files={"file": stranger}), 422, "invalid_switch", "belongs to the base bert sha256:00"),
        (upload(http, files={"file": misfit}), 422, "invalid_switch", "classifier.bias"),
        (
            upload(http, files={"file": good}, data={"name": "Bad Name"}),
            400,
            "invalid_request",
            "'Bad Name' is not",
        ),
        (upload(http, files={"file": good}, data={"name": "auto"}), 400, "invalid_request", "reserved"),
        (
            upload(http, files={"file": good}, data={"public": "yes"}),
            400,
            "invalid_request",
            "'public' is neither",
        ),
        (
            upload(http, files={"file": good}, data={"licence": "x"}),
            400,
            "invalid_request",
            "'licence' is not a field",
        ),
        (upload(http, files={"switch": good}), 400, "invalid_request", "'switch' is not a field"),
        (upload(http, files=[("file", good), ("file", good)]), 400, "invalid_request", "Too many files"),
        (upload(http, files={"name": good}), 400, "invalid_request", "no 'file' in the form"),
        (upload(http, data={"file": "text"}, files={"public": b"x"}), 400, "invalid_request", "no 'file'"),
        (upload(http, data={"file": "text"}), 415, "unsupported_media_type", "curl -F"),
        (upload(http, content=good), 415, "unsupported_media_type", "curl -F"),
        (upload(http, json={"file": "x"}), 415, "unsupported_media_type", "curl -F"),
        (
            upload(http, content=b"x", headers={"content-type": "multipart/form-data"}),
            400,
            "invalid_request",
            "boundary",
        ),
    ]
    for number, (response, status, code, fragment) in enumerate(cases):
        assert (number, response.status_code) == (number, status), response.text
        error = response.json()["error"]
        assert (number, error["code"]) == (number, code)
        assert fragment in error["message"], number
    names = {one["name"] for one in http.get("/v1/switches").json()["data"]}
    assert names == {"topic", "polarity", "entail", "bare"}
    assert http.get("/v1/admin/verify").json()["intact"] is True


def test_a_digest_is_checked_wherever_it_is_stated(http, published, switch_files):
    data = switch_files["topic"].read_bytes()
    right, wrong = hashlib.sha256(data).hexdigest(), "0" * 64
    for stated in (right, right.upper(), f"sha256:{right}"):
        published(data, "digested", digest=stated)
        sent = upload(
            http, files={"file": data}, data={"name": "digested"}, headers={"x-content-sha256": stated}
        )
        assert (sent.status_code, sent.json()["version"]) == (201, 1)
    refused = [
        upload(http, files={"file": data}, data={"digest": wrong}),
        upload(http, files={"file": data}, headers={"x-content-sha256": wrong}),
        upload(http, files={"file": data}, data={"digest": right}, headers={"x-content-sha256": wrong}),
    ]
    for response in refused:
        assert (response.status_code, response.json()["error"]["code"]) == (400, "digest_mismatch")
        assert right in response.json()["error"]["message"]
    garbled = upload(http, files={"file": data}, data={"digest": "abc"})
    assert (garbled.status_code, garbled.json()["error"]["param"]) == (400, "digest")


def test_an_upload_is_never_whole_in_memory(house, tmp_path):
    """16 MB that are no switch: what comes in goes out to disk, piece by piece."""

    def form():
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(256):
            yield b"\xff" * 2**16
        yield b"\r\n--b--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    with serving(house.app(max_upload_bytes=2**25)) as address:
        tracemalloc.start()
        response = httpx.post(f"{address}/v1/switches", content=form(), headers=headers, timeout=60)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_switch")
    assert peak < 2**23


def test_an_upload_that_is_too_large_is_cut_off(house, switch_files):
    with serving(house.app(max_upload_bytes=2048)) as address:
        response = httpx.post(f"{address}/v1/switches", files={"file": b"x" * 2**20})
        assert (response.status_code, response.json()["error"]["code"]) == (413, "input_too_long")
        assert "file is larger than 2048 bytes" in response.json()["error"]["message"]


def test_uploads_and_deletions_do_not_disturb_who_is_served(http, address, published, switch_files):
    ask = {"model": "polarity", "input": BANKING[0]}
    expected = http.post("/v1/classify", json=ask).json()["data"][0]["probs"]
    stop, answers = threading.Event(), []

    def keep_asking():
        with httpx.Client(base_url=address, timeout=30) as mine:
            while not stop.is_set():
                answers.append(mine.post("/v1/classify", json=ask))

    thread = threading.Thread(target=keep_asking)
    thread.start()
    for round_ in range(5):
        published(labelled(switch_files["topic"], ("a", "b", str(round_))), "restless")
        assert http.post("/v1/classify", json={"model": "restless", "input": "a"}).status_code == 200
        http.delete("/v1/switches/restless")
    stop.set()
    thread.join(10)
    assert len(answers) > 5
    for answer in answers:
        assert answer.json()["data"][0]["probs"] == pytest.approx(expected, abs=1e-6)
    assert http.get("/v1/admin/verify").json()["intact"] is True


def test_a_switch_of_another_base_is_kept_and_not_served(gated, gate, tmp_path, switch_files):
    """The store was another server's before, or is shared with one."""
    gate.set()
    switch = file.read(switch_files["topic"])
    elsewhere = Store(tmp_path / "store", base=None)
    other = replace(switch, base=BaseIdentity("bert", "sha256:" + "0" * 64))
    elsewhere.put(file.write(other), tenant="default", name="other")
    elsewhere.put(file.write(other), tenant="default", name="topic")
    elsewhere.close()
    with serving(gated.app()) as address, httpx.Client(base_url=address, timeout=30) as http:
        names = [model["id"] for model in http.get("/v1/models").json()["data"]]
        assert ("topic" in names, "other" in names) == (True, False)
        asked = [
            http.get("/v1/models/other"),
            http.get("/v2/models/other"),
            http.post("/v1/classify", json={"model": "other", "input": "who"}),
            http.post("/v1/embeddings", json={"model": "topic@2", "input": "who"}),
        ]
        assert [response.status_code for response in asked] == [404] * 4
        answer = http.post("/v1/classify", json={"model": "topic", "input": "who"}).json()
        assert answer["model"] == "topic@1"
        kept = [(entry["name"], entry["version"]) for entry in http.get("/v1/switches").json()["data"]]
        assert {("other", 1), ("topic", 2)} <= set(kept)
        assert http.delete("/v1/switches/other").status_code == 200


def test_what_is_pinned_is_ready_and_stays_until_it_is_unpinned_or_deleted(http, published, switch_files):
    first = published(labelled(switch_files["topic"], ("x", "y", "z")), "held")
    state = http.get("/v1/admin/state").json()
    assert first["digest"] not in state["resident"]
    assert (first["pinned"], first["digest"] in state["pinned"]) == (False, False)
    answer = http.put("/v1/switches/held/pin")
    assert (answer.status_code, answer.json()) == (200, {**first, "pinned": True})
    state = http.get("/v1/admin/state").json()
    assert first["digest"] in state["resident"]
    assert first["digest"] in state["pinned"]

    second = published(labelled(switch_files["topic"], ("u", "v", "w")), "held")
    assert second["pinned"] is False
    assert http.get("/v1/switches/held?version=1").json()["pinned"] is True
    http.put("/v1/switches/held/aliases/prod", json={"version": 2})
    assert http.put("/v1/switches/held/pin?version=prod").json()["pinned"] is True
    for _ in range(2):
        assert http.delete("/v1/switches/held/pin?version=1").json() == first
    assert http.get("/v1/admin/state").json()["pinned"] == [second["digest"]]
    gone = http.delete("/v1/switches/held?force=true").json()["data"]
    assert [one["pinned"] for one in gone] == [False, False]
    assert http.get("/v1/admin/state").json()["pinned"] == []


def test_a_pin_of_nothing_is_not_found_and_one_too_many_a_conflict(http, house, monkeypatch):
    for method in ("PUT", "DELETE"):
        answer = http.request(method, "/v1/switches/nothing/pin")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    monkeypatch.setattr(house.engine._residency, "_budget", 100)
    answer = http.put("/v1/switches/topic/pin")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert "of the 100 bytes for ready switches" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert http.get("/v1/switches/topic").json()["pinned"] is False
