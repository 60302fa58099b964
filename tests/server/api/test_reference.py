"""``/docs`` comes from the installation: every file it names is served here, and no other host is named."""

from __future__ import annotations

import base64
import hashlib
import re

import httpx
import pytest

from running import serving


@pytest.fixture
def page(http):
    return http.get("/docs")


def test_it_names_no_other_host_and_every_file_is_there(page, http):
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "//" not in re.sub(r"^\s*//.*|<!--.*?-->", "", page.text, flags=re.MULTILINE)
    named = re.findall(r"(?:src|href|url)(?:=|: |\": )[\"']([^\"']+)", page.text)
    kinds = {one.rpartition(".")[2]: http.get(one).headers["content-type"] for one in named}
    assert {kind: value.partition(";")[0] for kind, value in kinds.items()} == {
        "js": "text/javascript",
        "css": "text/css",
        "png": "image/png",
        "json": "application/json",
    }
    bundle = next(one for one in named if one.endswith(".js"))
    assert "SwaggerUIBundle" in http.get(bundle).text
    assert 'validatorUrl": null' in page.text


def test_its_policy_lets_its_own_script_run_and_nothing_foreign(page):
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert policy["connect-src"] == "'self'"
    sources = {source for value in policy.values() for source in value.split()}
    assert sources <= {"'none'", "'self'", "'unsafe-inline'", "data:", f"'sha256-{digest}'"}


def test_it_needs_no_key_and_is_off_with_the_document(house):
    with serving(house.app(key="correct-horse")) as address, httpx.Client(base_url=address) as client:
        assert client.get("/docs").status_code == 200
        assert client.get("/docs/files/swagger-ui.css").status_code == 200
        assert client.get("/docs/files/nothing.js").status_code == 404
        assert client.get("/docs/files/../../main.py").status_code == 404
        assert client.get("/v1/models").status_code == 401
    with serving(house.app(docs=False)) as address, httpx.Client(base_url=address) as client:
        for path in ("/docs", "/docs/files/swagger-ui.css", "/openapi.json"):
            assert client.get(path).status_code == 404
