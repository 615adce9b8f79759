"""The API's handler in AWS's runtime interface emulator, with the runtime client that Lambda uses."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from bulk import classify_uploads, new_settings
from converse import converse_server
from support import (
    DEFAULT_BUNDLE,
    ROCKET,
    ROOT,
    LambdaContext,
    answer_of,
    classify_bytes,
    classify_json,
    event,
    free_port,
    post_json,
    recorded_event,
    running,
)
from urllib3.filepost import encode_multipart_formdata

from litelens.api.handler import handler
from litelens.aws.s3 import s3_client

Invoke = Callable[[Any], Any]


@contextmanager
def emulated(emulator: Path, bundle: Path, **variables: str) -> Iterator[Invoke]:
    port, runtime_port = free_port(), free_port()
    address = f"http://127.0.0.1:{port}"
    command = [
        str(emulator),
        "--runtime-interface-emulator-address",
        f"127.0.0.1:{port}",
        "--runtime-api-address",
        f"127.0.0.1:{runtime_port}",
        *(sys.executable, "-m", "awslambdaric", "litelens.api.handler.handler"),
    ]
    environment = {
        **os.environ,
        "LITELENS_BUNDLE": str(bundle),
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
        "PYTHONPATH": "",
        **variables,
    }
    with running(command, ready=address, cwd=ROOT / "lambda", env=environment):
        yield lambda event: post_json(f"{address}/2015-03-31/functions/function/invocations", event)


@pytest.fixture(scope="module")
def invoke(emulator: Path) -> Iterator[Invoke]:
    with emulated(emulator, DEFAULT_BUNDLE) as invoke:
        yield invoke


def test_a_cold_and_a_warm_invocation_give_the_handlers_predictions(invoke: Invoke) -> None:
    event = recorded_event("classify_jpeg")
    expected = answer_of(handler(event, LambdaContext()))["predictions"]
    assert len(expected) == 5
    cold, warm = invoke(event), invoke(event)
    assert cold["statusCode"] == warm["statusCode"] == 200
    assert answer_of(cold)["predictions"] == answer_of(warm)["predictions"] == expected


def test_json_with_base64_gets_the_same_predictions(invoke: Invoke) -> None:
    raw, as_json = invoke(recorded_event("classify_jpeg")), invoke(recorded_event("classify_json"))
    assert answer_of(as_json)["predictions"] == answer_of(raw)["predictions"][:3]


def test_an_image_is_classified_after_a_truncated_one_was_refused(invoke: Invoke) -> None:
    refused = invoke(recorded_event("classify_truncated_jpeg"))
    assert (refused["statusCode"], answer_of(refused)["code"]) == (422, "corrupt_image")
    assert invoke(recorded_event("classify_jpeg"))["statusCode"] == 200


def test_an_event_that_is_not_from_api_gateway_does_not_end_the_process(invoke: Invoke) -> None:
    answer = invoke({"Records": []})
    assert answer_of(answer)["code"] == "internal_error"
    assert "stackTrace" not in answer
    assert invoke(recorded_event("classify_jpeg"))["statusCode"] == 200


def test_the_health_route_answers(invoke: Invoke) -> None:
    assert answer_of(invoke(recorded_event("health")))["status"] == "ok"


def test_a_form_gets_the_same_predictions(invoke: Invoke) -> None:
    body, content_type = encode_multipart_formdata({"image": ("rocket.jpg", ROCKET.read_bytes())})
    form = invoke(event("POST", "/v1/classify", body, content_type))
    assert answer_of(form)["predictions"] == answer_of(invoke(classify_bytes(ROCKET.read_bytes())))["predictions"]


def test_s3_uploads_and_the_language_model_work_in_the_emulator(emulator: Path, moto_server: str) -> None:
    settings = new_settings()
    bucket, table = settings.upload_bucket or "", settings.results_table or ""
    s3_client().put_object(Bucket=bucket, Key="rocket.jpg", Body=ROCKET.read_bytes())
    with (
        converse_server() as converse,
        emulated(
            emulator,
            DEFAULT_BUNDLE,
            LITELENS_BUCKETS=bucket,
            LITELENS_UPLOAD_BUCKET=bucket,
            LITELENS_RESULTS_TABLE=table,
            LITELENS_DESCRIBE_MODEL="a-model",
            **converse.environment,
            AWS_ENDPOINT_URL=moto_server,
        ) as invoke,
    ):
        from_s3 = invoke(classify_json({"s3": {"bucket": bucket, "key": "rocket.jpg"}}))
        from_bytes = invoke(classify_bytes(ROCKET.read_bytes()))
        assert answer_of(from_s3)["predictions"] == answer_of(from_bytes)["predictions"]
        missing = invoke(classify_json({"s3_uri": f"s3://{bucket}/missing.jpg"}))
        assert (missing["statusCode"], answer_of(missing)["code"]) == (404, "object_not_found")
        request = event("POST", "/v1/uploads", json.dumps({"content_type": "image/jpeg"}), "application/json")
        upload = answer_of(invoke(request))
        s3_client().put_object(Bucket=bucket, Key=upload["fields"]["key"], Body=ROCKET.read_bytes())
        classify_uploads(settings)
        result = answer_of(invoke(event("GET", f"/v1/results/{upload['id']}")))["result"]
        assert result["predictions"] == answer_of(from_s3)["predictions"]
        described = invoke(event("POST", "/v1/describe", ROCKET.read_bytes(), "image/jpeg"))
        assert answer_of(described)["answer"] == "A rocket beside its tower."


def test_a_damaged_bundle_fails_the_start_with_an_error_that_names_the_file(emulator: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")
    with (bundle / "model.tflite").open("ab") as model:
        model.write(b"!")
    with emulated(emulator, bundle) as invoke, pytest.raises(HTTPError) as caught:
        invoke(recorded_event("health"))
    answer = json.load(caught.value)
    assert answer["errorType"] == "BundleError"
    assert "model.tflite" in answer["errorMessage"]
