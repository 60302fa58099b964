"""What binds the client to the server: its calls, and what it reads, stand in the server's OpenAPI."""

from __future__ import annotations

import re
from datetime import date
from typing import Any, cast

import httpx
import pytest

from bitswitch.api.app import create_app
from bitswitch.tenants.keys import Keys
from bitswitch_client import calls
from bitswitch_client.call import Call
from bitswitch_store.switch import BaseIdentity

CALLS = [
    calls.classify("a", ["one", ("two", "texts")]),
    calls.embed("a", "one"),
    calls.embed("a", "one", dimensions=3),
    calls.route("one"),
    calls.models(),
    calls.switches(),
    calls.switch("a"),
    calls.switch("a", version="prod", tenant="b"),
    calls.publish(b"bytes"),
    calls.publish(b"bytes", "a", public=True),
    calls.download("a", "unused", version=3, tenant="b"),
    calls.delete("a"),
    calls.delete("a", version=3, force=True),
    calls.alias("a", "prod", 3),
    calls.unalias("a", "prod"),
    calls.usage(),
    calls.usage(since=date(2026, 1, 1), until=date(2026, 1, 31), tenant="b", after="x", limit=3),
    calls.audit(),
    calls.audit(tenant="b", after=3, limit=3),
    calls.sharing("a"),
    calls.share("a", public=True, tenants=["b"]),
    calls.whoami(),
    calls.pin("a"),
    calls.pin("a", version="prod"),
    calls.unpin("a", version=3),
    calls.verify(),
    calls.state(),
    calls.ready(),
]


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    """The server's own; it is made of the endpoints' types alone, so the parts may be missing."""
    missing = cast("Any", None)
    app = create_app(
        answers=missing,
        publisher=missing,
        store=missing,
        verify=missing,
        state=missing,
        metrics=missing,
        keys=Keys(None),
        quotas=missing,
        ledger=missing,
        base_name="base",
        base_identity=BaseIdentity("bert", "sha256:" + 64 * "0"),
        max_body_bytes=1024,
        max_upload_bytes=1024,
    )
    return app.openapi()


def schema_of(openapi: dict[str, Any], content: dict[str, Any], kind: str) -> dict[str, Any]:
    return resolved(openapi, content[kind]["schema"])


def resolved(openapi: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return cast("dict[str, Any]", openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    return schema


def operation(openapi: dict[str, Any], call: Call[Any]) -> dict[str, Any]:
    assert call.path in openapi["paths"], f"{call.path} is no path of the server"
    return cast("dict[str, Any]", openapi["paths"][call.path][call.method.lower()])


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_the_server_takes_what_the_client_sends(openapi: dict[str, Any], call: Call[Any]) -> None:
    taken = operation(openapi, call)
    parameters = {(one["in"], one["name"]): one for one in taken.get("parameters", ())}
    assert set(re.findall(r"{(\w+)}", call.path)) == call.fill.keys()
    sent = {("path", name) for name in call.fill} | {
        ("query", name) for name in call.arguments().get("params", ())
    }
    assert sent <= parameters.keys()
    assert {place for place, one in parameters.items() if one["required"]} <= sent
    if "requestBody" not in taken:
        assert call.json is None
        assert call.file is None
        return
    kind = "application/json" if call.file is None else "multipart/form-data"
    body = schema_of(openapi, taken["requestBody"]["content"], kind)
    fields = set(call.arguments()["json"] if call.file is None else {"file", *call.form})
    assert fields <= body["properties"].keys()
    assert set(body.get("required", ())) <= fields


@pytest.mark.parametrize("call", [call for call in CALLS if not call.path.endswith("/file")], ids=str)
def test_the_client_reads_nothing_that_the_server_does_not_promise(
    openapi: dict[str, Any], call: Call[Any]
) -> None:
    (status,) = [status for status in operation(openapi, call)["responses"] if status.startswith("2")]
    content = operation(openapi, call)["responses"][status]["content"]
    promised = least(openapi, content["application/json"]["schema"])
    assert call.parse(httpx.Response(int(status), json=promised)) is not None


def test_a_field_that_the_server_dropped_is_noticed(openapi: dict[str, Any]) -> None:
    promised = least(openapi, {"$ref": "#/components/schemas/SwitchOut"})
    for field in ("name", "version", "digest", "aliases", "created"):
        kept = {name: value for name, value in promised.items() if name != field}
        with pytest.raises(KeyError, match=field):
            calls.switch("a").parse(httpx.Response(200, json=kept))


def least(openapi: dict[str, Any], schema: dict[str, Any]) -> Any:
    """The smallest value with all that a schema promises: every property, one of each list."""
    schema = resolved(openapi, schema)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if "anyOf" in schema:
        strings = [
            one for one in schema["anyOf"] if one.get("type") == "string"
        ]  # embeddings: base64, as asked
        return least(openapi, (strings or schema["anyOf"])[0])
    match schema.get("type"):
        case "object":
            return {name: least(openapi, one) for name, one in schema.get("properties", {}).items()}
        case "array":
            return [least(openapi, schema["items"])]
        case "string":
            return {"date-time": "2026-01-02T03:04:05Z", "date": "2026-01-02"}.get(
                schema.get("format", ""), ""
            )
    return {"integer": 0, "number": 0.5, "boolean": True}[schema["type"]]
