"""Large images by the handlers, the whole road: a form, real HTTP to moto's S3, a notification, and the result."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from aws import failing_aws, found
from bulk import Context, Put, batch, classify_uploads, new_settings, notification, record, results_of
from support import DEFAULT_BUNDLE, ROCKET, LambdaContext, answer_of, classify_bytes, event
from test_api_aws import MAX_BYTES, problem_of, put, succeeded
from test_uploads import id_made_at

from adapters.objects import s3_client
from handlers.api import create_handler
from handlers.batches import create_handler as create_bulk_handler
from litelens.images import Limits
from settings import Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PHOTO = ROCKET.read_bytes()
UNKNOWN = (404, "result_not_found")
OFF = (501, "not_configured")
PROVOKED = frozenset(code for _, code in (UNKNOWN, OFF))


@pytest.fixture
def settings(moto_server: str) -> Settings:
    return new_settings(MAX_BYTES)


@pytest.fixture
def handle_s3(settings: Settings) -> Handle:
    return handle_with(settings)


@pytest.fixture
def handle_faults() -> Handle:
    return handle_with(Settings(DEFAULT_BUNDLE, Limits(), 1, upload_bucket="photos", results_table="results"))


def handle_with(settings: Settings) -> Handle:
    handler = create_handler(settings)
    return lambda event: handler(event, LambdaContext())


def create(handle: Handle) -> Any:
    return succeeded(handle(event("POST", "/v1/uploads", '{"content_type": "image/jpeg"}', "application/json")), 201)


def send(upload: Any, image: bytes) -> None:
    form = {**upload["fields"], "file": ("photo.jpg", image, "image/jpeg")}
    assert urllib3.request("POST", upload["url"], fields=form).status == 204


def result(handle: Handle, upload_id: str) -> dict[str, Any]:
    return handle(event("GET", f"/v1/results/{upload_id}"))


def etag_of(settings: Settings, key: str) -> str:
    return s3_client().head_object(Bucket=settings.upload_bucket, Key=key)["ETag"].strip('"')


def test_an_upload_is_pending_until_it_was_classified_and_then_done(handle_s3: Handle, settings: Settings) -> None:
    upload = create(handle_s3)
    assert list(upload) == ["id", "url", "fields", "expires_in", "max_bytes", "request_id"]
    assert (upload["max_bytes"], upload["expires_in"]) == (MAX_BYTES, 900)
    assert succeeded(result(handle_s3, upload["id"]))["result"] == {"status": "pending"}
    send(upload, PHOTO)
    assert succeeded(result(handle_s3, upload["id"]))["result"] == {"status": "pending"}
    classify_uploads(settings)
    answer = succeeded(result(handle_s3, upload["id"]))
    assert list(answer) == ["id", "model", "result", "request_id"]
    assert answer["id"] == upload["id"]
    assert answer["result"]["status"] == "done"
    assert answer["result"]["predictions"] == succeeded(handle_s3(classify_bytes(PHOTO)))["predictions"]


def test_a_result_outlasts_its_image(handle_s3: Handle, settings: Settings) -> None:
    upload = create(handle_s3)
    send(upload, PHOTO)
    classify_uploads(settings)
    first = succeeded(result(handle_s3, upload["id"]))
    s3_client().delete_object(Bucket=settings.upload_bucket, Key=upload["fields"]["key"])
    second = event("GET", f"/v1/results/{upload['id']}")
    second["requestContext"]["requestId"] = "another-request"
    assert succeeded(handle_s3(second)) == first | {"request_id": "another-request"}


@pytest.mark.parametrize(
    ("image", "status", "code"), [(PHOTO[:20_000], 422, "corrupt_image"), (b"hello", 415, "not_an_image")]
)
def test_an_image_that_cannot_be_classified_has_failed_for_good(
    handle_s3: Handle, settings: Settings, image: bytes, status: int, code: str
) -> None:
    upload = create(handle_s3)
    send(upload, image)
    classify_uploads(settings)
    failed = succeeded(result(handle_s3, upload["id"]))["result"]
    assert failed["status"] == "failed"
    assert (failed["problem"]["status"], failed["problem"]["code"]) == (status, code)


def test_the_image_that_was_sent_last_counts(handle_s3: Handle, settings: Settings) -> None:
    upload = create(handle_s3)
    key = upload["fields"]["key"]
    send(upload, b"hello")
    overwritten = Put(settings.upload_bucket, key, etag_of(settings, key))
    send(upload, PHOTO)
    classify_uploads(settings)
    # The message of the first comes late, and finds it overwritten.
    create_bulk_handler(settings)(batch(notification(record(overwritten))), Context())
    assert [r.is_superseded for r in results_of(settings, key)] == [True, False]
    assert succeeded(result(handle_s3, upload["id"]))["result"]["status"] == "done"


@pytest.mark.parametrize("upload_id", ["x", "..", "%2e%2e", "results", "9a00d317-3e73-4f23-aec5-3eb8269d6efd"])
def test_an_id_that_was_not_given_out_is_unknown(handle_faults: Handle, upload_id: str) -> None:
    with failing_aws(found(b"{}")) as requests:
        assert problem_of(result(handle_faults, upload_id)) == UNKNOWN
    assert requests == []


def test_an_id_is_pending_until_its_form_expires_and_then_unknown(handle_s3: Handle) -> None:
    assert succeeded(result(handle_s3, id_made_at(time.time() - 840)))["result"] == {"status": "pending"}
    assert problem_of(result(handle_s3, id_made_at(time.time() - 961))) == UNKNOWN


def test_an_image_that_waits_in_the_queue_is_pending_however_long(handle_s3: Handle, settings: Settings) -> None:
    upload_id = id_made_at(time.time() - 86_400)
    put(settings.upload_bucket, f"uploads/{upload_id}", PHOTO)
    assert succeeded(result(handle_s3, upload_id))["result"] == {"status": "pending"}


def test_without_a_bucket_there_are_no_uploads(handle: Handle) -> None:
    request = event("POST", "/v1/uploads", '{"content_type": "image/jpeg"}', "application/json")
    assert problem_of(handle(request)) == OFF
    assert problem_of(handle(event("POST", "/v1/uploads", "{", "application/json"))) == OFF
    assert problem_of(result(handle, id_made_at(time.time()))) == OFF


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        ("{}", "application/json", 400, "invalid_request"),
        ('{"content_type": "image/tiff"}', "application/json", 400, "invalid_request"),
        ('{"content_type": "image/png", "id": "x"}', "application/json", 400, "invalid_request"),
        ("{", "application/json", 400, "invalid_json"),
        (PHOTO, "image/jpeg", 415, "unsupported_media_type"),
        (None, None, 415, "unsupported_media_type"),
    ],
)
def test_only_an_image_type_makes_a_form(
    handle_s3: Handle, body: str | bytes | None, content_type: str | None, status: int, code: str
) -> None:
    assert problem_of(handle_s3(event("POST", "/v1/uploads", body, content_type))) == (status, code)


def test_an_image_too_large_for_a_request_is_sent_to_uploads_where_there_are_any(
    handle: Handle, settings: Settings
) -> None:
    response = handle_with(dataclasses.replace(settings, limits=Limits(len(PHOTO) - 1)))(classify_bytes(PHOTO))
    assert problem_of(response) == (413, "request_too_large")
    assert answer_of(response)["detail"].endswith("Send it by POST /v1/uploads.")
    assert "uploads" not in answer_of(handle(classify_bytes(bytes(6_000_001))))["detail"]
