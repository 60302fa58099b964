"""The OpenAPI document: whole, and of use to who reads it."""

from __future__ import annotations

import json

import pytest
from fastapi.openapi.models import OpenAPI


@pytest.fixture(scope="module")
def document(house):
    return house.app(key="correct-horse").openapi()


def operations(document):
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_it_is_a_valid_document(document):
    assert OpenAPI.model_validate(document).openapi.startswith("3.")
    schemas = document["components"]["schemas"]
    references = set()

    def collect(value):
        if isinstance(value, dict):
            references.update([value["$ref"]] if "$ref" in value else [])
            for inner in value.values():
                collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)

    collect(document)
    assert {reference.rpartition("/")[2] for reference in references} == schemas.keys()
    json.dumps(document, allow_nan=False)


def test_every_operation_has_a_summary_and_says_what_it_does(document):
    listed = operations(document)
    assert len(listed) > 25
    for path, method, operation in listed:
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        assert operation["tags"], (method, path)
    ids = [operation["operationId"] for _, _, operation in listed]
    assert len(set(ids)) == len(ids)


def test_every_operation_tells_our_own_shape_of_errors(document):
    for path, method, operation in operations(document):
        assert "422" not in operation["responses"], (method, path)
        fault = operation["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"]
        guarded_v2 = path.startswith("/v2") and not path.startswith("/v2/health")
        assert fault.endswith("ProtocolFault" if guarded_v2 else "FaultResponse"), (method, path)


def test_every_body_refuses_what_it_does_not_know_and_has_an_example(document):
    schemas = document["components"]["schemas"]
    for name in ("ClassifyRequest", "EmbeddingsRequest", "RouteRequest", "AliasRequest", "InferRequest"):
        assert schemas[name]["additionalProperties"] is False
    for name in ("ClassifyRequest", "EmbeddingsRequest"):
        assert schemas[name]["properties"]["model"]["examples"]
        assert schemas[name]["properties"]["input"]["examples"]
    upload = document["paths"]["/v1/switches"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert upload["schema"]["required"] == ["file"]


def test_the_key_is_asked_for_where_it_is_needed(document):
    for path, _, operation in operations(document):
        assert ("security" in operation) != path.endswith(("/health", "/live", "/health/ready")), path
