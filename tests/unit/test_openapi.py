"""The OpenAPI document: valid, the same as the committed file, and complete."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate
from support import ROCKET, ROOT, answer_of, classify_bytes, classify_json, event, reported_errors

from litelens.api.handler import DESCRIBE_PATH, MODEL_PATH, MODELS_PATH, REPORT_PATH, UPLOADS_PATH
from litelens.api.openapi import OPERATIONS, describe_api

Handle = Callable[[dict[str, Any]], dict[str, Any]]

DOCUMENT = describe_api()


def with_components(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with the components that it refers to."""
    return {**schema, "components": DOCUMENT["components"]}


def check(value: Any, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(with_components(schema)).validate(value)


def examples(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    for media in content.values():
        for example in media.get("examples", {}).values():
            yield media["schema"], example["value"]


def test_the_document_is_valid_openapi() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1")


def test_the_committed_file_is_up_to_date() -> None:
    made = subprocess.run([sys.executable, "-m", "litelens.api.openapi"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert (ROOT / "lambda/litelens/api/openapi.json").read_text() == made.stdout, "run: make openapi"


def test_the_served_document_differs_from_the_committed_file_only_in_its_server(handle: Handle) -> None:
    request = event("GET", "/openapi.json")
    request["requestContext"]["path"] = "/live/openapi.json"
    served = answer_of(handle(request))
    committed = json.loads((ROOT / "lambda/litelens/api/openapi.json").read_text())
    assert served.pop("servers") == [{"url": "/live"}]
    assert committed.pop("servers") == [{"url": "/"}]
    assert served == committed


def test_the_document_has_every_route_except_itself_and_the_docs(handle: Handle) -> None:
    for operation in OPERATIONS:
        path = re.sub("{.+?}", "something", operation.path)
        response = handle(event("DELETE", path))
        assert (response["statusCode"], response["multiValueHeaders"]["Allow"]) == (405, [operation.method]), path
    source = (ROOT / "lambda/litelens/api/handler.py").read_text()
    routes = {
        DESCRIBE_PATH,
        MODEL_PATH,
        MODELS_PATH,
        REPORT_PATH,
        UPLOADS_PATH,
        *re.findall(r'^            "(/\S+)": \("', source, re.MULTILINE),
    }
    undocumented = {"/openapi.json", "/docs", "/docs/<name>"}
    documented = {operation.path.replace("{id}", "<upload_id>") for operation in OPERATIONS}
    assert routes - undocumented == documented


def test_the_document_has_every_problem() -> None:
    codes = {error.code for error in reported_errors()}
    documented = set(re.findall(r"`(\w+)`: ", json.dumps(DOCUMENT["paths"])))
    # A client that keeps to the document never meets a refused method.
    assert codes - documented == {"method_not_allowed"}


def test_only_the_health_route_needs_no_key() -> None:
    public_paths = [operation.path for operation in OPERATIONS if operation.is_public]
    assert public_paths == ["/v1/health"]
    assert DOCUMENT["paths"]["/v1/health"]["get"]["security"] == []
    assert DOCUMENT["security"] == [{"apiKey": []}]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_the_examples_match_their_schemas(operation: Any) -> None:
    described = DOCUMENT["paths"][operation.path][operation.method.lower()]
    contents = [described.get("requestBody", {}).get("content", {})]
    contents += [response.get("content", {}) for response in described["responses"].values()]
    shown = [pair for content in contents for pair in examples(content)]
    assert shown
    for schema, value in shown:
        check(value, schema)


def test_answers_match_their_schemas(handle: Handle) -> None:
    photo = ROCKET.read_bytes()
    answers = {
        "ClassifyAnswer": handle(classify_bytes(photo, heatmap="true")),
        "ClassifyManyAnswer": handle(classify_json({"images": [{"image": "aGVsbG8="}]})),
        "ModelAnswer": handle(event("GET", "/v1/model")),
        "ModelsAnswer": handle(event("GET", "/v1/models")),
        "HealthAnswer": handle(event("GET", "/v1/health")),
        "Problem": handle(event("GET", "/v1/nothing")),
    }
    for name, response in answers.items():
        check(answer_of(response), {"$ref": f"#/components/schemas/{name}"})
