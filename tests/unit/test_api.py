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
import test_api_uploads
from PIL import Image
from support import (
    CIFAR_BUNDLE,
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
)

from handlers import api, problems, records
from handlers.bodies import IMAGE_TYPES
from litelens.bundle import load_bundle
from litelens.classifier import Classifier
from litelens.images import Limits
from settings import Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]
Printed = Callable[[], str]

PHOTO = ROCKET.read_bytes()
PHOTO_BASE64 = base64.b64encode(PHOTO).decode()
REQUEST_ID = recorded_event("health")["requestContext"]["requestId"]
GIANT_PNG = encoded(Image.new("1", (8000, 7000)), "PNG")


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """What the handler has written for CloudWatch: its log, its metrics, and anything on standard error."""
    written = StringIO()
    monkeypatch.setattr(records.logger.registered_handler, "stream", written)

    def all_so_far() -> str:
        written.write("".join(capsys.readouterr()))
        return written.getvalue()

    return all_so_far


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


@pytest.mark.parametrize("content_type", IMAGE_TYPES)
def test_each_image_type_is_taken(handle: Handle, content_type: str) -> None:
    with Image.open(ROCKET) as photo:
        data = encoded(photo, content_type.removeprefix("image/").upper())
    assert len(labels(handle(classify_bytes(data, content_type)))) == 5


def test_header_names_may_be_of_any_case(handle: Handle) -> None:
    lower = classify_bytes(PHOTO)
    lower["headers"] = {name.lower(): value for name, value in lower["headers"].items()}
    lower["multiValueHeaders"] = None
    assert len(labels(handle(lower))) == 5


def test_top_k_is_taken_from_the_query_or_the_json(handle: Handle) -> None:
    assert len(labels(handle(classify_bytes(PHOTO, top_k="3")))) == 3
    assert len(labels(handle(classify_json({"image": PHOTO_BASE64, "top_k": 1000})))) == 1000
    both = event("POST", "/v1/classify", json.dumps({"image": PHOTO_BASE64, "top_k": 2}), "application/json")
    assert len(labels(handle(both | {"queryStringParameters": {"top_k": "7"}}))) == 2
    query_only = event("POST", "/v1/classify", json.dumps({"image": PHOTO_BASE64}), "application/json", {"top_k": "7"})
    assert len(labels(handle(query_only))) == 7


def test_the_answer_is_the_classifiers(handle: Handle) -> None:
    prediction = Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1).classify(PHOTO)
    expected = [(c.label, c.index, pytest.approx(c.confidence, abs=1e-6)) for c in prediction.candidates]
    answered = answer_of(handle(classify_bytes(PHOTO)))["predictions"]
    assert [(p["label"], p["index"], p["confidence"]) for p in answered] == expected


def test_the_settings_limits_reach_the_decoder() -> None:
    handler = api.create_handler(Settings(DEFAULT_BUNDLE, Limits(pixels=100), threads=1))
    assert answer_of(handler(classify_bytes(PHOTO), LambdaContext()))["code"] == "image_too_large"


def test_the_model_route_gives_the_manifest_the_metrics_and_the_way_to_the_report(handle: Handle) -> None:
    answer = answer_of(handle(event("GET", "/v1/model")))
    assert answer["manifest"] == json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())
    assert answer["metrics"] == json.loads((DEFAULT_BUNDLE / "metrics.json").read_text())
    report = handle(event("GET", answer["links"]["report"]))
    assert report["body"] == (DEFAULT_BUNDLE / "report.html").read_text()
    assert content_type_of(report).startswith("text/html")


def test_the_models_warnings_reach_whoever_asks_for_the_model(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").symlink_to(CIFAR_BUNDLE / "model.tflite")
    manifest = json.loads((CIFAR_BUNDLE / "manifest.json").read_text()) | {"warnings": ["No better than chance."]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    handler = api.create_handler(Settings(tmp_path, Limits(), threads=1))
    answer = answer_of(handler(event("GET", "/v1/model"), LambdaContext()))
    assert answer["manifest"]["warnings"] == ["No better than chance."]


def test_the_report_cannot_reach_what_pages_of_the_same_origin_keep(handle: Handle) -> None:
    (policy,) = handle(event("GET", "/v1/model/report"))["multiValueHeaders"]["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'; ")
    assert "allow-same-origin" not in policy


def test_the_model_route_tells_what_the_deployment_has_and_takes(handle: Handle) -> None:
    bare = answer_of(handle(event("GET", "/v1/model")))
    assert bare["links"].keys() == {"report"}
    assert bare["limits"] == {"request_bytes": 6_000_000, "pixels": 50_000_000}
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


def test_health_tells_of_the_inference_at_start_up(handle: Handle) -> None:
    health = answer_of(handle(recorded_event("health")))
    assert health["status"] == "ok"
    assert health["warm_up_ms"] > 0


def test_start_up_fails_when_the_first_inference_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("litelens.engines.LiteRT.run", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        api.create_handler(Settings(DEFAULT_BUNDLE, Limits(), threads=1))


def with_type(content_type: str) -> dict[str, Any]:
    made = event("POST", "/v1/classify", None, content_type)
    return {name: made[name] for name in ("headers", "multiValueHeaders")}


# What is sent, the status, and the code.
BAD_REQUESTS = {
    "no JSON": (classify_json("{"), 400, "invalid_json"),
    "JSON in disguise": (event("POST", "/v1/classify", b"\xff\xfe", "application/json"), 400, "invalid_json"),
    "deeply nested JSON": (classify_json('{"images":' * 100_000), 400, "invalid_request"),
    "no body": (event("POST", "/v1/classify", None, "application/json"), 400, "invalid_json"),
    "a list": (classify_json([1]), 400, "invalid_request"),
    "an unknown field": (classify_json({"image": PHOTO_BASE64, "topk": 1}), 400, "invalid_request"),
    "an image that is no text": (classify_json({"image": 7}), 400, "invalid_request"),
    "no image": (classify_json({"top_k": 1}), 400, "image_missing"),
    "an empty image": (classify_json({"image": ""}), 400, "image_missing"),
    "an empty data URL": (classify_json({"image": "data:image/png;base64,"}), 400, "image_missing"),
    "no bytes": (event("POST", "/v1/classify", None, "image/png"), 400, "image_missing"),
    "bad base64": (classify_json({"image": "!!!!"}), 400, "invalid_base64"),
    "a body that is not the base64 that it should be": (
        event("POST", "/v1/classify", b"") | {"body": "abc"} | with_type("image/png"),
        400,
        "invalid_base64",
    ),
    "cut base64": (classify_json({"image": PHOTO_BASE64[:-3]}), 400, "invalid_base64"),
    "base64 that is no ASCII": (classify_json({"image": "äöü"}), 400, "invalid_base64"),
    "a data URL without base64": (classify_json({"image": "data:image/png,abcd"}), 400, "invalid_base64"),
    "top_k 0": (classify_json({"image": PHOTO_BASE64, "top_k": 0}), 400, "invalid_option"),
    "top_k 0 in the query": (classify_bytes(PHOTO, top_k="0"), 400, "invalid_option"),
    "top_k 101 beside JSON": (
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
    "bytes that are no image": (classify_bytes(b"hello"), 415, "not_an_image"),
    "base64 of no image": (classify_json({"image": "aGVsbG8="}), 415, "not_an_image"),
    "a cut image": (classify_bytes(PHOTO[:20_000]), 422, "corrupt_image"),
    "too many bytes": (classify_bytes(PHOTO + b"\0" * 6_000_000), 413, "request_too_large"),
    "too many pixels": (classify_bytes(GIANT_PNG, "image/png"), 413, "image_too_large"),
    "another path": (event("GET", "/v1/classifier"), 404, "not_found"),
    "another method": (event("GET", "/v1/classify"), 405, "method_not_allowed"),
    "another method and a slash": (event("POST", "/v1/health/"), 405, "method_not_allowed"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_input_gets_a_problem_that_says_so(handle: Handle, name: str) -> None:
    request, status, code = BAD_REQUESTS[name]
    response = handle(request)
    problem = answer_of(response)
    assert (response["statusCode"], problem["code"]) == (status, code)
    assert content_type_of(response) == "application/problem+json"
    assert list(problem) == ["type", "title", "status", "detail", "code", "request_id"]
    assert problem["type"] == f"urn:litelens:problem:{code}"
    assert problem["status"] == status
    assert problem["detail"].endswith(".")
    assert problem["request_id"] == REQUEST_ID
    assert len(labels(handle(classify_bytes(PHOTO)))) == 5


def test_every_kind_of_problem_is_provoked_by_some_test() -> None:
    """Each file's PROVOKED is made of what its tests compare answers with."""
    here = {code for _, _, code in BAD_REQUESTS.values()}
    others = (test_api_inputs, test_api_aws, test_api_uploads, test_api_describe)
    assert all(file.PROVOKED for file in others)
    provoked = here.union(*(file.PROVOKED for file in others))
    assert provoked == {kind.code for kind in problems.KINDS.values()}


def test_a_refused_method_names_the_allowed_one(handle: Handle) -> None:
    assert handle(event("GET", "/v1/classify"))["multiValueHeaders"]["Allow"] == ["POST"]


def test_an_error_of_ours_is_reported_without_its_insides(monkeypatch: pytest.MonkeyPatch, printed: Printed) -> None:
    handler = api.create_handler(Settings(DEFAULT_BUNDLE, Limits(), threads=1))

    def broken(*_: object) -> None:
        raise KeyError("/var/secret/path")

    monkeypatch.setattr("litelens.engines.LiteRT.run", broken)
    response = handler(classify_bytes(PHOTO), LambdaContext())
    assert (response["statusCode"], answer_of(response)["code"]) == (500, "internal_error")
    for text in (response["body"], printed()):
        assert "secret" not in text
        assert "Traceback" not in text
        assert ".py" not in text
    line, metrics = lines(printed)
    assert line["message"] == "failed"
    assert line["error"] == "KeyError"
    assert any(frame.startswith("litelens.classifier.classify:") for frame in line["at"])
    assert metrics["Failed"] == [1.0]


@pytest.mark.parametrize("strange", [{}, [], {"Records": []}, {"httpMethod": "GET", "path": "/nothing"}])
def test_an_event_that_is_not_api_gateways_is_reported_without_a_stack_trace(
    handle: Handle, printed: Printed, strange: Any
) -> None:
    response = handle(strange)
    assert (response["statusCode"], answer_of(response)["code"]) == (500, "internal_error")
    assert answer_of(response)["request_id"] == LambdaContext.aws_request_id
    assert "Traceback" not in response["body"] + printed()
    assert ".py" not in response["body"] + printed()


def test_an_answer_repeats_little_of_what_was_sent(handle: Handle) -> None:
    long = "x" * 5000
    for request in (
        event("POST", "/v1/classify", "x", long),
        classify_json({long: 1}),
        classify_bytes(PHOTO, top_k="9" * 5000),
        classify_json({"image": "", "top_k": 10**4000}),
    ):
        assert len(handle(request)["body"]) < 500


def test_no_answer_and_no_log_line_leaks_what_was_sent(handle: Handle, printed: Printed) -> None:
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
    assert len(lines(printed)) == 2 * len(requests)
    text = "".join([*bodies, printed()])
    for leak in (marker.decode(), base64.b64encode(marker * 30).decode()[:20], PHOTO_BASE64[:40], "Traceback", ".py"):
        assert leak not in text
    assert str(Path(__file__).parent.parent.parent) not in text


def test_each_request_logs_one_line_that_can_be_found_by_its_id(handle: Handle, printed: Printed) -> None:
    handle(classify_bytes(PHOTO))
    handle(classify_bytes(b"hello"))
    classified, refused = (line for line in lines(printed) if "level" in line)
    assert classified["message"] == "classified"
    assert classified["request_id"] == refused["request_id"] == REQUEST_ID
    assert classified["bytes"] == len(PHOTO)
    assert (classified["format"], classified["width"], classified["height"]) == ("JPEG", 640, 427)
    assert refused["message"] == "refused"
    assert (refused["code"], refused["status"]) == ("not_an_image", 415)


def test_each_request_emits_its_metrics(handle: Handle, printed: Printed) -> None:
    for request in (classify_bytes(PHOTO), classify_bytes(b"hello"), recorded_event("health")):
        handle(request)
    classified, refused, health = (line for line in lines(printed) if "_aws" in line)
    assert classified["Requests"] == refused["Requests"] == health["Requests"] == [1.0]
    assert classified["Classified"] == refused["Refused"] == [1.0]
    assert classified["Inference"][0] > 0
