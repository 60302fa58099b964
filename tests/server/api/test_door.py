"""With a key, all but health and documentation is closed; without one, it is to pages of other sites."""

from __future__ import annotations

import socket

import httpx
import pytest

from running import serving

KEY = "correct-horse"
OPEN = {"/health", "/v2/health/live", "/v2/health/ready"}


@pytest.fixture(scope="module")
def locked(house):
    app = house.app(key=KEY)
    with serving(app) as address, httpx.Client(base_url=address, timeout=30) as http:
        yield app, http


def test_every_path_but_health_needs_the_key(locked):
    app, http = locked
    closed = 0
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            url = path.format(model="topic", model_id="topic", version=1, name="topic", alias="x")
            response = http.request(method.upper(), url, content=b"{" if method in ("post", "put") else None)
            if path in OPEN:
                assert response.status_code == 200, path
                continue
            closed += 1
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"] == "Bearer"
            error = response.json()["error"]
            if not path.startswith("/v2"):
                assert (error["code"], error["type"]) == ("invalid_api_key", "authentication_error")
    assert closed > 20


def test_the_documentation_is_open_unless_it_is_off(house, locked):
    _, http = locked
    assert http.get("/docs").status_code == http.get("/openapi.json").status_code == 200
    with serving(house.app(key=KEY, docs=False)) as address:
        assert httpx.get(f"{address}/docs").status_code == 404
        assert httpx.get(f"{address}/openapi.json").status_code == 404


@pytest.mark.parametrize("header", ["Bearer wrong-horse", "Basic correct-horse", "correct-horse"])
def test_another_key_does_not_open(locked, header):
    _, http = locked
    assert http.get("/v1/models", headers={"authorization": header}).status_code == 401


def test_the_key_opens(locked):
    _, http = locked
    headers = {"authorization": f"Bearer {KEY}"}
    assert http.get("/v1/models", headers=headers).status_code == 200
    body = {"model": "topic", "input": "who"}
    assert http.post("/v1/classify", json=body, headers=headers).status_code == 200
    # with a key, whoever knows it is a friend, whatever page they come from
    headers["origin"] = "https://console.example"
    assert http.post("/v1/classify", json=body, headers=headers).status_code == 200


def test_who_has_no_key_is_answered_before_the_body(locked):
    _, http = locked
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=10) as plain:
        head = "POST /v1/switches HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\n"
        plain.sendall(f"{head}content-length: 100000\r\n\r\n--b".encode())
        assert plain.recv(100).startswith(b"HTTP/1.1 401")


def test_without_keys_a_page_of_another_site_may_not_change_things(http, address):
    body = {"model": "topic", "input": "who"}
    refused = http.post("/v1/classify", json=body, headers={"origin": "https://evil.example"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert http.post("/v1/classify", json=body, headers={"origin": "null"}).status_code == 403
    assert http.post("/v1/classify", json=body, headers={"origin": address}).status_code == 200
    assert http.get("/v1/models", headers={"origin": "https://evil.example"}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "10.0.0.1", "localhost.evil.example", "[", ""]
)
def test_without_keys_a_name_that_was_made_to_lead_here_is_refused(http, host):
    """DNS rebinding: the page's origin is then that of the host."""
    headers = {"host": host, "origin": f"http://{host}"}
    for response in (
        http.get("/v1/models", headers=headers),
        http.post("/v1/classify", json={"model": "topic", "input": "who"}, headers=headers),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (403, "permission_denied")
        assert f"not {host!r}" in response.json()["error"]["message"]
    assert http.get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.8.8.8:1", "[::1]", "[::1]:8000"]
)
def test_without_keys_the_loopback_address_is_open(http, host):
    assert http.get("/v1/models", headers={"host": host}).status_code == 200


def test_with_a_key_the_server_may_have_any_name(locked):
    _, http = locked
    headers = {"authorization": f"Bearer {KEY}", "host": "switches.example"}
    assert http.get("/v1/models", headers=headers).status_code == 200
