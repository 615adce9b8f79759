"""Large images, end to end: an upload form, HTTP to moto's S3, a notification, and the result."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from aws import ok, scripted_aws
from bulk import Context, StoredObject, batch, classify_uploads, new_settings, notification, record, results_of
from support import DEFAULT_BUNDLE, ROCKET, LambdaContext, answer_of, classify_bytes, event
from test_api_aws import MAX_BYTES, problem_of, put, succeeded
from test_s3_uploads import id_made_at

from litelens.api.handler import create_handler
from litelens.aws.s3 import s3_client
from litelens.bulk.batches import create_handler as create_bulk_handler
from litelens.core.images import Limits
from litelens.settings import Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PHOTO = ROCKET.read_bytes()
NOT_FOUND = (404, "result_not_found")
NOT_CONFIGURED = (501, "not_configured")
COVERED_CODES = frozenset(code for _, code in (NOT_FOUND, NOT_CONFIGURED))


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


def create_upload(handle: Handle) -> Any:
    return succeeded(handle(event("POST", "/v1/uploads", '{"content_type": "image/jpeg"}', "application/json")), 201)


def send_form(upload: Any, image: bytes) -> None:
    form = {**upload["fields"], "file": ("photo.jpg", image, "image/jpeg")}
    assert urllib3.request("POST", upload["url"], fields=form).status == 204


def get_result(handle: Handle, upload_id: str) -> dict[str, Any]:
    return handle(event("GET", f"/v1/results/{upload_id}"))


def etag_of(settings: Settings, key: str) -> str:
    return s3_client().head_object(Bucket=settings.upload_bucket, Key=key)["ETag"].strip('"')


def test_an_upload_is_pending_until_it_is_classified(handle_s3: Handle, settings: Settings) -> None:
    upload = create_upload(handle_s3)
    assert list(upload) == ["id", "url", "fields", "expires_in", "max_bytes", "request_id"]
    assert (upload["max_bytes"], upload["expires_in"]) == (MAX_BYTES, 300)
    assert succeeded(get_result(handle_s3, upload["id"]))["result"] == {"status": "pending"}
    send_form(upload, PHOTO)
    assert succeeded(get_result(handle_s3, upload["id"]))["result"] == {"status": "pending"}
    classify_uploads(settings)
    answer = succeeded(get_result(handle_s3, upload["id"]))
    assert list(answer) == ["id", "model", "result", "request_id"]
    assert answer["id"] == upload["id"]
    assert answer["result"]["status"] == "done"
    assert answer["result"]["predictions"] == succeeded(handle_s3(classify_bytes(PHOTO)))["predictions"]


def test_a_result_remains_after_its_image_is_deleted(handle_s3: Handle, settings: Settings) -> None:
    upload = create_upload(handle_s3)
    send_form(upload, PHOTO)
    classify_uploads(settings)
    first = succeeded(get_result(handle_s3, upload["id"]))
    s3_client().delete_object(Bucket=settings.upload_bucket, Key=upload["fields"]["key"])
    second = event("GET", f"/v1/results/{upload['id']}")
    second["requestContext"]["requestId"] = "another-request"
    assert succeeded(handle_s3(second)) == first | {"request_id": "another-request"}


@pytest.mark.parametrize(
    ("image", "status", "code"), [(PHOTO[:20_000], 422, "corrupt_image"), (b"hello", 415, "not_an_image")]
)
def test_an_image_that_cannot_be_classified_gets_a_failed_result(
    handle_s3: Handle, settings: Settings, image: bytes, status: int, code: str
) -> None:
    upload = create_upload(handle_s3)
    send_form(upload, image)
    classify_uploads(settings)
    failed = succeeded(get_result(handle_s3, upload["id"]))["result"]
    assert failed["status"] == "failed"
    assert (failed["problem"]["status"], failed["problem"]["code"]) == (status, code)


def test_the_result_is_that_of_the_last_image_sent(handle_s3: Handle, settings: Settings) -> None:
    upload = create_upload(handle_s3)
    key = upload["fields"]["key"]
    send_form(upload, b"hello")
    overwritten = StoredObject(settings.upload_bucket, key, etag_of(settings, key))
    send_form(upload, PHOTO)
    classify_uploads(settings)
    # The message about the first image arrives late, when the image is already overwritten.
    create_bulk_handler(settings)(batch(notification(record(overwritten))), Context())
    assert [r.is_superseded for r in results_of(settings, key)] == [True, False]
    assert succeeded(get_result(handle_s3, upload["id"]))["result"]["status"] == "done"


@pytest.mark.parametrize("upload_id", ["x", "..", "%2e%2e", "results", "9a00d317-3e73-4f23-aec5-3eb8269d6efd"])
def test_an_invalid_upload_id_is_not_found(handle_faults: Handle, upload_id: str) -> None:
    with scripted_aws(ok(b"{}")) as requests:
        assert problem_of(get_result(handle_faults, upload_id)) == NOT_FOUND
    assert requests == []


def test_an_unused_upload_is_pending_until_its_form_expires(handle_s3: Handle) -> None:
    assert succeeded(get_result(handle_s3, id_made_at(time.time() - 300)))["result"] == {"status": "pending"}
    assert problem_of(get_result(handle_s3, id_made_at(time.time() - 361))) == NOT_FOUND


def test_an_image_in_the_queue_is_pending_at_any_age(handle_s3: Handle, settings: Settings) -> None:
    upload_id = id_made_at(time.time() - 86_400)
    put(settings.upload_bucket, f"uploads/{upload_id}", PHOTO)
    assert succeeded(get_result(handle_s3, upload_id))["result"] == {"status": "pending"}


def test_uploads_are_not_configured_without_a_bucket(handle: Handle) -> None:
    request = event("POST", "/v1/uploads", '{"content_type": "image/jpeg"}', "application/json")
    assert problem_of(handle(request)) == NOT_CONFIGURED
    assert problem_of(handle(event("POST", "/v1/uploads", "{", "application/json"))) == NOT_CONFIGURED
    assert problem_of(get_result(handle, id_made_at(time.time()))) == NOT_CONFIGURED


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
def test_an_upload_form_needs_a_supported_image_type(
    handle_s3: Handle, body: str | bytes | None, content_type: str | None, status: int, code: str
) -> None:
    assert problem_of(handle_s3(event("POST", "/v1/uploads", body, content_type))) == (status, code)


def test_an_image_too_large_for_a_request_is_referred_to_uploads_if_there_are_forms(
    handle: Handle, settings: Settings
) -> None:
    small = dataclasses.replace(settings, limits=Limits(len(PHOTO) - 1))
    response = handle_with(small)(classify_bytes(PHOTO))
    assert problem_of(response) == (413, "request_too_large")
    assert "/v1/uploads" in answer_of(response)["detail"]
    without_table = handle_with(dataclasses.replace(small, results_table=None))(classify_bytes(PHOTO))
    assert "uploads" not in answer_of(without_table)["detail"]
    assert "uploads" not in answer_of(handle(classify_bytes(bytes(6_000_001))))["detail"]
