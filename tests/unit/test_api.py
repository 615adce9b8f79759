import base64
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import test_api_aws
import test_api_describe
import test_api_inputs
import test_api_models
import test_api_uploads
from bundles import add_bundle, change_manifest
from PIL import Image
from support import (
    DEFAULT_BUNDLE,
    ROCKET,
    LambdaContext,
    answer_of,
    classify_bytes,
    classify_json,
    content_type_of,
    encoded,
    event,
    recorded_event,
    reported_errors,
)

from litelens import telemetry
from litelens.api import handler as api
from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.formats import MEDIA_TYPES
from litelens.core.images import Limits
from litelens.settings import Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]
Printed = Callable[[], str]

PHOTO = ROCKET.read_bytes()
PHOTO_BASE64 = base64.b64encode(PHOTO).decode()
REQUEST_ID = recorded_event("health")["requestContext"]["requestId"]
GIANT_PNG = encoded(Image.new("1", (8000, 7000)), "PNG")


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Return a function that returns the output so far: log lines, metrics, standard output and standard error."""
    written = StringIO()
    monkeypatch.setattr(telemetry.logger.registered_handler, "stream", written)

    def read_output() -> str:
        written.write("".join(capsys.readouterr()))
        return written.getvalue()

    return read_output


def lines(printed: Printed) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed().splitlines()]


def labels(response: dict[str, Any]) -> list[str]:
    assert response["statusCode"] == 200, response["body"]
    return [prediction["label"] for prediction in answer_of(response)["predictions"]]


def test_raw_bytes_get_the_documented_answer(handle: Handle) -> None:
    response = handle(classify_bytes(PHOTO))
    answer = answer_of(response)
    manifest = json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())
    assert response["statusCode"] == 200
    assert content_type_of(response) == "application/json"
    assert list(answer) == ["image", "predictions", "uncertain", "timing_ms", "group", "model", "request_id"]
    assert answer["model"] == {"name": manifest["name"], "version": manifest["version"]}
    assert [list(prediction) for prediction in answer["predictions"]] == [["label", "index", "confidence", "group"]] * 5
    assert answer["uncertain"] is (answer["predictions"][0]["confidence"] < manifest["threshold"])
    assert list(answer["timing_ms"]) == ["decode", "inference", "total"]
    assert answer["request_id"] == REQUEST_ID


def test_every_way_to_send_the_same_image_gives_the_same_answer(handle: Handle) -> None:
    lines = "\n".join(PHOTO_BASE64[i : i + 76] for i in range(0, len(PHOTO_BASE64), 76))
    ways = [
        classify_bytes(PHOTO),
        classify_bytes(PHOTO, "IMAGE/JPEG; charset=binary"),
        classify_json({"image": PHOTO_BASE64}),
        classify_json({"image": lines}),
        classify_json({"image": f"data:image/jpeg;base64,{PHOTO_BASE64}"}),
        classify_json({"image": f' DATA:image/jpeg;name="a b.jpg";base64,\n{lines}'}),
        classify_json({"image": PHOTO_BASE64, "top_k": 5}),
        event("POST", "/v1/classify", json.dumps({"image": PHOTO_BASE64}).encode(), "application/json"),
    ]
    answers = [answer_of(handle(way))["predictions"] for way in ways]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("content_type", MEDIA_TYPES)
def test_each_image_type_is_accepted(handle: Handle, content_type: str) -> None:
    if content_type == "image/heic":
        data = ROCKET.with_suffix(".heic").read_bytes()
    else:
        with Image.open(ROCKET) as photo:
            data = encoded(photo, content_type.removeprefix("image/").upper())
    assert len(labels(handle(classify_bytes(data, content_type)))) == 5


def test_header_names_are_case_insensitive(handle: Handle) -> None:
    lower = classify_bytes(PHOTO)
    lower["headers"] = {name.lower(): value for name, value in lower["headers"].items()}
    lower["multiValueHeaders"] = None
    assert len(labels(handle(lower))) == 5


def test_top_k_is_read_from_the_query_or_the_json(handle: Handle) -> None:
    assert len(labels(handle(classify_bytes(PHOTO, top_k="3")))) == 3
    assert len(labels(handle(classify_json({"image": PHOTO_BASE64, "top_k": 1000})))) == 1000
    assert len(labels(handle(classify_json({"image": PHOTO_BASE64, "top_k": 3.0})))) == 3
    both = event("POST", "/v1/classify", json.dumps({"image": PHOTO_BASE64, "top_k": 2}), "application/json")
    assert len(labels(handle(both | {"queryStringParameters": {"top_k": "7"}}))) == 2
    query_only = event("POST", "/v1/classify", json.dumps({"image": PHOTO_BASE64}), "application/json", {"top_k": "7"})
    assert len(labels(handle(query_only))) == 7


def test_the_answer_has_the_classifiers_predictions(handle: Handle) -> None:
    prediction = Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1).classify(PHOTO)
    expected = [(c.label, c.index, pytest.approx(c.confidence, abs=1e-6)) for c in prediction.candidates]
    answered = answer_of(handle(classify_bytes(PHOTO)))["predictions"]
    assert [(p["label"], p["index"], p["confidence"]) for p in answered] == expected


def test_the_limits_in_the_settings_apply_to_decoding() -> None:
    handler = api.create_handler(Settings(DEFAULT_BUNDLE, Limits(pixels=100), threads=1))
    assert answer_of(handler(classify_bytes(PHOTO), LambdaContext()))["code"] == "image_too_large"


def test_the_model_route_returns_the_manifest_the_metrics_and_a_link_to_the_report(handle: Handle) -> None:
    answer = answer_of(handle(event("GET", "/v1/model")))
    assert answer["manifest"] == json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())
    assert answer["metrics"] == json.loads((DEFAULT_BUNDLE / "metrics.json").read_text())
    report = handle(event("GET", answer["links"]["report"]))
    assert report["body"] == (DEFAULT_BUNDLE / "report.html").read_text()
    assert content_type_of(report).startswith("text/html")


def test_the_model_route_returns_the_models_warnings(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path, "warned")
    change_manifest(bundle, warnings=["No better than chance."])
    handler = api.create_handler(Settings(bundle, Limits(), threads=1))
    answer = answer_of(handler(event("GET", "/v1/model"), LambdaContext()))
    assert answer["manifest"]["warnings"] == ["No better than chance."]


def test_the_report_is_sandboxed_from_its_origin(handle: Handle) -> None:
    (policy,) = handle(event("GET", "/v1/model/report"))["multiValueHeaders"]["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'; ")
    assert "allow-same-origin" not in policy


def test_the_model_route_lists_the_deployments_features_and_limits(handle: Handle) -> None:
    bare = answer_of(handle(event("GET", "/v1/model")))
    assert bare["links"].keys() == {"report"}
    assert bare["limits"] == {"request_bytes": Limits().bytes, "pixels": Limits().pixels}
    everything = Settings(
        DEFAULT_BUNDLE,
        Limits(bytes=1000, pixels=100),
        threads=1,
        max_upload_bytes=2000,
        upload_bucket="uploads",
        results_table="results",
        describe_model="a-model",
    )
    answer = answer_of(api.create_handler(everything)(event("GET", "/v1/model"), LambdaContext()))
    assert answer["links"] == {
        "report": "/v1/model/report",
        "uploads": "/v1/uploads",
        "describe": "/v1/describe",
    }
    assert answer["limits"] == {"request_bytes": 1000, "pixels": 100, "upload_bytes": 2000}


def test_health_reports_the_time_of_the_first_inference(handle: Handle) -> None:
    health = answer_of(handle(recorded_event("health")))
    assert health["status"] == "ok"
    assert health["warm_up_ms"] > 0


def test_creating_the_handler_fails_if_the_first_inference_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("litelens.core.engines.LiteRT.run", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        api.create_handler(Settings(DEFAULT_BUNDLE, Limits(), threads=1))


def with_type(content_type: str) -> dict[str, Any]:
    made = event("POST", "/v1/classify", None, content_type)
    return {name: made[name] for name in ("headers", "multiValueHeaders")}


# By name: the request, and the expected status and code.
BAD_REQUESTS = {
    "invalid JSON": (classify_json("{"), 400, "invalid_json"),
    "JSON that is not UTF-8": (event("POST", "/v1/classify", b"\xff\xfe", "application/json"), 400, "invalid_json"),
    "deeply nested JSON": (classify_json('{"images":' * 100_000), 400, "invalid_request"),
    "no body": (event("POST", "/v1/classify", None, "application/json"), 400, "invalid_json"),
    "a list": (classify_json([1]), 400, "invalid_request"),
    "an unknown field": (classify_json({"image": PHOTO_BASE64, "topk": 1}), 400, "invalid_request"),
    "an image that is not text": (classify_json({"image": 7}), 400, "invalid_request"),
    "no image": (classify_json({"top_k": 1}), 400, "image_missing"),
    "an empty image": (classify_json({"image": ""}), 400, "image_missing"),
    "an empty data URL": (classify_json({"image": "data:image/png;base64,"}), 400, "image_missing"),
    "a request without an image": (event("POST", "/v1/classify", None, "image/png"), 400, "image_missing"),
    "bad base64": (classify_json({"image": "!!!!"}), 400, "invalid_base64"),
    "a body that is marked as base64 but is not": (
        event("POST", "/v1/classify", b"") | {"body": "abc!"} | with_type("image/png"),
        400,
        "invalid_base64",
    ),
    "truncated base64": (classify_json({"image": PHOTO_BASE64[:-3]}), 400, "invalid_base64"),
    "base64 that is not ASCII": (classify_json({"image": "äöü"}), 400, "invalid_base64"),
    "a data URL that is not in base64 as it says": (
        classify_json({"image": "data:image/png;base64,%89PNG"}),
        400,
        "invalid_base64",
    ),
    "a data URL of text": (classify_json({"image": "data:text/plain,abcd"}), 415, "not_an_image"),
    "the URL of a page": (classify_json({"image": "https://example.com/cat.jpg"}), 400, "invalid_base64"),
    "top_k 0": (classify_json({"image": PHOTO_BASE64, "top_k": 0}), 400, "invalid_option"),
    "top_k 0 in the query": (classify_bytes(PHOTO, top_k="0"), 400, "invalid_option"),
    "top_k x beside JSON": (
        event("POST", "/v1/classify", "{}", "application/json", {"top_k": "x"}),
        400,
        "invalid_option",
    ),
    "top_k -1": (classify_bytes(PHOTO, top_k="-1"), 400, "invalid_option"),
    "top_k true": (classify_json({"image": PHOTO_BASE64, "top_k": True}), 400, "invalid_request"),
    "top_k 2.5": (classify_json({"image": PHOTO_BASE64, "top_k": 2.5}), 400, "invalid_request"),
    "top_k empty": (classify_bytes(PHOTO, top_k=""), 400, "invalid_option"),
    "no content type": (event("POST", "/v1/classify", PHOTO), 415, "unsupported_media_type"),
    "text": (event("POST", "/v1/classify", "hello", "text/plain"), 415, "unsupported_media_type"),
    "a TIFF type": (classify_bytes(PHOTO, "image/tiff"), 415, "unsupported_media_type"),
    "bytes that are not an image": (classify_bytes(b"hello"), 415, "not_an_image"),
    "base64 of bytes that are not an image": (classify_json({"image": "aGVsbG8="}), 415, "not_an_image"),
    "a truncated image": (classify_bytes(PHOTO[:20_000]), 422, "corrupt_image"),
    "too many bytes": (classify_bytes(PHOTO + b"\0" * 6_000_000), 413, "request_too_large"),
    "too many pixels": (classify_bytes(GIANT_PNG, "image/png"), 413, "image_too_large"),
    "an unknown path": (event("GET", "/v1/classifier"), 404, "not_found"),
    "a method that is not allowed": (event("GET", "/v1/classify"), 405, "method_not_allowed"),
    "a method that is not allowed, with a trailing slash": (event("POST", "/v1/health/"), 405, "method_not_allowed"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_gets_the_problem_with_its_code(handle: Handle, name: str) -> None:
    request, status, code = BAD_REQUESTS[name]
    response = handle(request)
    problem = answer_of(response)
    assert (response["statusCode"], problem["code"]) == (status, code)
    assert content_type_of(response) == "application/problem+json"
    assert list(problem) == ["type", "title", "status", "detail", "code", "request_id"]
    assert problem["type"] == f"urn:litelens:problem:{code}"
    assert problem["status"] == status
    assert problem["request_id"] == REQUEST_ID
    assert len(labels(handle(classify_bytes(PHOTO)))) == 5


def test_each_problem_code_is_covered_by_a_test() -> None:
    """Each module computes COVERED_CODES from the expected codes of its own tests."""
    codes_here = {code for _, _, code in BAD_REQUESTS.values()}
    others = (test_api_inputs, test_api_models, test_api_aws, test_api_uploads, test_api_describe)
    assert all(module.COVERED_CODES for module in others)
    covered = codes_here.union(*(module.COVERED_CODES for module in others))
    sent_by_api_gateway = {"forbidden", "too_many_requests", "quota_exceeded"}
    assert covered == {error.code for error in reported_errors()} - sent_by_api_gateway - {"internal_error"}


def test_a_method_that_is_not_allowed_gets_the_allowed_one(handle: Handle) -> None:
    assert handle(event("GET", "/v1/classify"))["multiValueHeaders"]["Allow"] == ["POST"]


def test_an_internal_error_reveals_no_details(monkeypatch: pytest.MonkeyPatch, printed: Printed) -> None:
    handler = api.create_handler(Settings(DEFAULT_BUNDLE, Limits(), threads=1))

    def broken(*_: object) -> None:
        raise KeyError("/var/secret/path")

    monkeypatch.setattr("litelens.core.engines.LiteRT.run", broken)
    response = handler(classify_bytes(PHOTO), LambdaContext())
    assert (response["statusCode"], answer_of(response)["code"]) == (500, "internal_error")
    for text in (response["body"], printed()):
        assert "secret" not in text
        assert "Traceback" not in text
        assert ".py" not in text
    line, metrics = lines(printed)
    assert line["message"] == "failed"
    assert line["error"] == "KeyError"
    assert any(frame.startswith("litelens.core.classifier.predict:") for frame in line["at"])
    assert metrics["Failed"] == [1.0]


@pytest.mark.parametrize("malformed", [{}, [], {"Records": []}, {"httpMethod": "GET", "path": "/nothing"}])
def test_an_event_that_is_not_from_api_gateway_gets_an_internal_error_without_a_stack_trace(
    handle: Handle, printed: Printed, malformed: Any
) -> None:
    response = handle(malformed)
    assert (response["statusCode"], answer_of(response)["code"]) == (500, "internal_error")
    assert answer_of(response)["request_id"] == LambdaContext.aws_request_id
    assert "Traceback" not in response["body"] + printed()
    assert ".py" not in response["body"] + printed()


def test_a_problem_quotes_little_of_the_request(handle: Handle) -> None:
    long = "x" * 5000
    for request in (
        event("POST", "/v1/classify", "x", long),
        classify_json({long: 1}),
        classify_bytes(PHOTO, top_k="9" * 5000),
        classify_json({"image": "", "top_k": 10**4000}),
    ):
        assert len(handle(request)["body"]) < 500


def test_no_answer_and_no_log_line_contains_the_image(handle: Handle, printed: Printed) -> None:
    marker = b"LEAK-MARKER-0123456789"
    requests = [
        classify_bytes(marker),
        classify_bytes(PHOTO[:20_000] + marker),
        classify_bytes(PHOTO + marker),
        classify_json({"image": base64.b64encode(marker * 30).decode()}),
        classify_json({"image": marker.decode()}),
        classify_json('{"image": "' + marker.decode()),
    ]
    bodies = [handle(request)["body"] for request in requests]
    # A line of metrics for each request, and one for each problem.
    assert len(lines(printed)) == 2 * len(requests) - 1
    text = "".join([*bodies, printed()])
    for leak in (marker.decode(), base64.b64encode(marker * 30).decode()[:20], PHOTO_BASE64[:40], "Traceback", ".py"):
        assert leak not in text
    assert str(Path(__file__).parent.parent.parent) not in text


def test_each_image_or_problem_is_logged_with_its_request_id(handle: Handle, printed: Printed) -> None:
    handle(classify_bytes(PHOTO))
    handle(classify_bytes(b"hello"))
    by_message = {line["message"]: line for line in lines(printed) if "message" in line}
    classified, refused = by_message["classified"], by_message["refused"]
    assert classified["request_id"] == refused["request_id"] == REQUEST_ID
    assert classified["bytes"] == len(PHOTO)
    assert (classified["format"], classified["width"], classified["height"]) == ("JPEG", 640, 427)
    assert (refused["code"], refused["status"]) == ("not_an_image", 415)


def test_each_request_emits_its_metrics(handle: Handle, printed: Printed) -> None:
    for request in (classify_bytes(PHOTO), classify_bytes(b"hello"), recorded_event("health")):
        handle(request)
    classified, refused, health = (line for line in lines(printed) if "_aws" in line)
    assert classified["Requests"] == refused["Requests"] == health["Requests"] == [1.0]
    assert classified["Classified"] == refused["Refused"] == [1.0]
    assert classified["Inference"][0] > 0
