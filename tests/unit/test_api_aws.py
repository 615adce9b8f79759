"""Requests for images in S3: moto's server for regular responses, a failing server for errors."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from aws import Answer, Clock, fake_clock, new_bucket, no_response, ok, s3_error, scripted_aws
from support import DEFAULT_BUNDLE, ROCKET, LambdaContext, answer_of, classify_bytes, classify_json, content_type_of

from litelens.api.handler import create_handler
from litelens.aws.s3 import s3_client
from litelens.core.engines import LiteRT
from litelens.core.images import Limits
from litelens.settings import Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PHOTO = ROCKET.read_bytes()
PHOTO_JSON = {"image": base64.b64encode(PHOTO).decode()}
KEY = "holiday/secret key ü.jpg"
MAX_BYTES = 100_000

# By name: the response of S3, and the expected status and code.
FAULTS: dict[str, tuple[Answer, int, str]] = {
    "no access": (s3_error(403, "AccessDenied"), 403, "object_access_denied"),
    "an archived object": (s3_error(403, "InvalidObjectState"), 403, "object_access_denied"),
    "a busy S3": (s3_error(503, "SlowDown"), 503, "storage_unavailable"),
    "a failing S3": (s3_error(500, "InternalError"), 503, "storage_unavailable"),
    "an S3 that does not respond": (no_response, 504, "storage_timeout"),
}
# By name: the change to a request for the photo at KEY, and the expected status and code. large.bin has MAX_BYTES + 1
# bytes.
REFUSALS: dict[str, tuple[dict[str, str], int, str]] = {
    "another bucket": ({"bucket": "another-bucket"}, 403, "bucket_not_allowed"),
    "a missing object": ({"key": "nothing.jpg"}, 404, "object_not_found"),
    "a missing version": ({"version_id": "00000000-0000-4000-8000-000000000000"}, 404, "object_version_not_found"),
    "an object that is too large": ({"key": "large.bin"}, 413, "image_too_large"),
    "an object that is not an image": ({"key": "hello.txt"}, 415, "not_an_image"),
    "an empty object": ({"key": "nothing-in-it"}, 400, "image_missing"),
}
OUT_OF_TIME = (504, "timeout")
COVERED_CODES = frozenset(code for *_, code in (*FAULTS.values(), *REFUSALS.values(), OUT_OF_TIME))


def put(bucket: str, key: str, body: bytes) -> None:
    s3_client().put_object(Bucket=bucket, Key=key, Body=body)


def handle_with(bucket: str, max_bytes: int = MAX_BYTES) -> Handle:
    """Return a handler that may read this bucket, and accepts up to `max_bytes` of an image in a request."""
    settings = Settings(DEFAULT_BUNDLE, Limits(max_bytes), 1, MAX_BYTES, buckets=frozenset([bucket]))
    handler = create_handler(settings)
    return lambda event: handler(event, LambdaContext())


def problem_of(response: dict[str, Any]) -> tuple[int, str]:
    assert content_type_of(response) == "application/problem+json"
    assert answer_of(response)["status"] == response["statusCode"]
    return response["statusCode"], answer_of(response)["code"]


def succeeded(response: dict[str, Any], status: int = 200) -> Any:
    assert response["statusCode"] == status, response["body"]
    return answer_of(response)


@pytest.fixture
def bucket(moto_server: str) -> str:
    name = new_bucket()
    for key, body in (
        (KEY, PHOTO),
        ("large.bin", bytes(MAX_BYTES + 1)),
        ("hello.txt", b"hello"),
        ("nothing-in-it", b""),
    ):
        put(name, key, body)
    return name


@pytest.fixture
def handle_s3(bucket: str) -> Handle:
    return handle_with(bucket)


@pytest.fixture
def handle_faults() -> Handle:
    return handle_with("photos")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return fake_clock(monkeypatch)


class TestObjects:
    def test_an_object_gets_the_same_answer_as_its_bytes(self, handle_s3: Handle, bucket: str) -> None:
        by_bytes = succeeded(handle_s3(classify_bytes(PHOTO)))
        for image in ({"s3": {"bucket": bucket, "key": KEY}}, {"s3_uri": f"s3://{bucket}/{KEY}"}):
            answer = succeeded(handle_s3(classify_json({**image, "top_k": 5})))
            for field in ("model", "image", "predictions", "uncertain", "group", "request_id"):
                assert answer[field] == by_bytes[field]

    def test_a_request_may_name_a_version(self, handle_s3: Handle, bucket: str) -> None:
        client = s3_client()
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        old = client.put_object(Bucket=bucket, Key="photo", Body=PHOTO)["VersionId"]
        put(bucket, "photo", b"hello")
        location = {"bucket": bucket, "key": "photo"}
        assert problem_of(handle_s3(classify_json({"s3": location}))) == (415, "not_an_image")
        assert succeeded(handle_s3(classify_json({"s3": location | {"version_id": old}})))["image"]["format"] == "JPEG"

    @pytest.mark.parametrize("name", REFUSALS)
    def test_an_unreadable_object_gets_the_problem_with_its_code(
        self, handle_s3: Handle, bucket: str, name: str
    ) -> None:
        other, status, code = REFUSALS[name]
        s3_client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        response = handle_s3(classify_json({"s3": {"bucket": bucket, "key": KEY} | other}))
        assert problem_of(response) == (status, code)
        for secret in (bucket, KEY, *other.values()):
            assert secret not in response["body"]

    @pytest.mark.parametrize("name", FAULTS)
    def test_a_failure_of_s3_gets_the_problem_with_its_code(
        self, handle_faults: Handle, clock: Clock, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr("litelens.aws.clients.READ_SECONDS", 0.2)
        answer, status, code = FAULTS[name]
        with scripted_aws(answer) as requests:
            response = handle_faults(classify_json({"s3_uri": "s3://photos/cat.jpg"}))
        assert requests
        assert problem_of(response) == (status, code)
        assert (response["multiValueHeaders"].get("Retry-After") == ["2"]) is (status == 503)

    @pytest.mark.parametrize(
        ("answer", "reason"), [(s3_error(503, "SlowDown"), "SlowDown"), (no_response, "ReadTimeoutError")]
    )
    def test_the_log_says_why_s3_failed(
        self,
        handle_faults: Handle,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        answer: Answer,
        reason: str,
    ) -> None:
        monkeypatch.setattr("litelens.aws.clients.READ_SECONDS", 0.2)
        with scripted_aws(answer):
            handle_faults(classify_json({"s3_uri": "s3://photos/cat.jpg"}))
        (line,) = [vars(record) for record in caplog.records if record.getMessage() == "failed"]
        assert (line["levelname"], line["reason"]) == ("WARNING", reason)

    def test_no_request_goes_to_a_bucket_that_is_not_allowed(self, handle_faults: Handle) -> None:
        with scripted_aws(ok(PHOTO)) as requests:
            response = handle_faults(classify_json({"s3_uri": "s3://secrets/cat.jpg"}))
        assert problem_of(response) == (403, "bucket_not_allowed")
        assert requests == []

    def test_no_bucket_is_allowed_by_default(self, handle: Handle) -> None:
        with scripted_aws(ok(PHOTO)) as requests:
            assert problem_of(handle(classify_json({"s3_uri": "s3://photos/cat.jpg"})))[1] == "bucket_not_allowed"
        assert requests == []


class TestSeveralImages:
    def test_a_missing_object_does_not_fail_the_others(self, handle_s3: Handle, bucket: str) -> None:
        keys = [KEY, "nothing.jpg", KEY]
        images = [*({"s3": {"bucket": bucket, "key": key}} for key in keys), PHOTO_JSON]
        results = succeeded(handle_s3(classify_json({"images": images})))["results"]
        assert [result["status"] for result in results] == ["done", "failed", "done", "done"]
        assert (results[1]["problem"]["status"], results[1]["problem"]["code"]) == (404, "object_not_found")
        assert results[0]["predictions"] == results[3]["predictions"]

    def test_images_without_time_left_do_not_fail_the_others(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, seconds = LiteRT.run, {"each": 0.0}

        def slowly(*arguments: Any) -> Any:
            clock.now += seconds["each"]
            return run(*arguments)

        monkeypatch.setattr(LiteRT, "run", slowly)
        handle = handle_with("photos")
        seconds["each"] = 14
        results = succeeded(handle(classify_json({"images": [PHOTO_JSON] * 4})))["results"]
        assert [result["status"] for result in results] == ["done", "done", "failed", "failed"]
        assert [(r["problem"]["status"], r["problem"]["code"]) for r in results[2:]] == [OUT_OF_TIME] * 2
