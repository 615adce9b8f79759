"""The API's description: valid, the same as the committed one, and as complete as the code."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate
from support import ROCKET, ROOT, answer_of, classify_bytes, classify_json, event

from handlers import problems
from handlers.openapi import OPERATIONS, describe_api
from handlers.operations import DESCRIBE_PATH, REPORT_PATH, UPLOADS_PATH

Handle = Callable[[dict[str, Any]], dict[str, Any]]

DOCUMENT = describe_api("")


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the components that it refers to."""
    return {**schema, "components": DOCUMENT["components"]}


def check(value: Any, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(resolved(schema)).validate(value)


def examples(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    for media in content.values():
        for example in media.get("examples", {}).values():
            yield media["schema"], example["value"]


def test_it_is_valid_openapi() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1")


def test_the_committed_one_is_what_the_code_makes() -> None:
    made = subprocess.run([sys.executable, "-m", "handlers.openapi"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert (ROOT / "docs" / "openapi.json").read_text() == made.stdout, "docs/openapi.json is old: make openapi"


def test_the_served_one_is_the_committed_one_but_for_its_address(handle: Handle) -> None:
    request = event("GET", "/openapi.json")
    request["requestContext"]["path"] = "/live/openapi.json"
    served = answer_of(handle(request))
    committed = json.loads((ROOT / "docs" / "openapi.json").read_text())
    assert served.pop("servers") == [{"url": "/live"}]
    assert committed.pop("servers") == [{"url": "/"}]
    assert served == committed


def test_it_has_every_route_but_itself_and_the_docs(handle: Handle) -> None:
    for operation in OPERATIONS:
        path = re.sub("{.+?}", "something", operation.path)
        response = handle(event("DELETE", path))
        assert (response["statusCode"], response["multiValueHeaders"]["Allow"]) == (405, [operation.method]), path
    source = (ROOT / "lambda" / "handlers" / "api.py").read_text()
    routes = {
        DESCRIBE_PATH,
        REPORT_PATH,
        UPLOADS_PATH,
        *re.findall(r'^            "(/\S+)": \("', source, re.MULTILINE),
    }
    undocumented = {"/openapi.json", "/docs", "/docs/<name>"}
    documented = {operation.path.replace("{id}", "<upload_id>") for operation in OPERATIONS}
    assert routes - undocumented == documented


def test_it_has_every_problem() -> None:
    codes = {kind.code for kind in problems.KINDS.values()} | {problems.INTERNAL.code}
    documented = set(re.findall(r"`(\w+)`: ", json.dumps(DOCUMENT["paths"])))
    # A client that keeps to the document never meets a refused method.
    assert codes - documented == {"method_not_allowed"}


def test_only_the_health_is_open_to_all() -> None:
    open_to_all = [operation.path for operation in OPERATIONS if operation.is_public]
    assert open_to_all == ["/v1/health"]
    assert DOCUMENT["paths"]["/v1/health"]["get"]["security"] == []
    assert DOCUMENT["security"] == [{"apiKey": []}]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_its_examples_are_of_their_schemas(operation: Any) -> None:
    described = DOCUMENT["paths"][operation.path][operation.method.lower()]
    contents = [described.get("requestBody", {}).get("content", {})]
    contents += [response.get("content", {}) for response in described["responses"].values()]
    shown = [pair for content in contents for pair in examples(content)]
    assert shown
    for schema, value in shown:
        check(value, schema)


def test_real_answers_are_of_their_schemas(handle: Handle) -> None:
    photo = ROCKET.read_bytes()
    answers = {
        "ClassifyAnswer": handle(classify_bytes(photo, heatmap="true")),
        "ClassifyManyAnswer": handle(classify_json({"images": [{"image": "aGVsbG8="}]})),
        "ModelAnswer": handle(event("GET", "/v1/model")),
        "HealthAnswer": handle(event("GET", "/v1/health")),
        "Problem": handle(event("GET", "/v1/nothing")),
    }
    for name, response in answers.items():
        check(answer_of(response), {"$ref": f"#/components/schemas/{name}"})
