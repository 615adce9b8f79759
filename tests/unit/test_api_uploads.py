"""Large images by the handler, the whole road: a form, real HTTP to moto's S3, and the result."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from aws import error, failing_s3, found, new_bucket
from support import ROCKET, answer_of, classify_bytes, event
from test_api_aws import MAX_BYTES, handle_with, problem_of, put, succeeded
from test_uploads import id_made_at

from adapters.errors import StorageUnavailable
from adapters.objects import s3_client
from adapters.uploads import Uploads
from litelens.engines import LiteRT

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PHOTO = ROCKET.read_bytes()
UNKNOWN = (404, "result_not_found")
OFF = (501, "not_configured")
PROVOKED = frozenset(code for _, code in (UNKNOWN, OFF))


@pytest.fixture
def bucket(moto_server: str) -> str:
    return new_bucket()


@pytest.fixture
def handle_s3(bucket: str) -> Handle:
    return handle_with(bucket)


@pytest.fixture
def handle_faults() -> Handle:
    return handle_with("photos")


def create(handle: Handle) -> Any:
    return succeeded(handle(event("POST", "/v1/uploads", '{"content_type": "image/jpeg"}', "application/json")), 201)


def send(upload: Any, image: bytes) -> None:
    form = {**upload["fields"], "file": ("photo.jpg", image, "image/jpeg")}
    assert urllib3.request("POST", upload["url"], fields=form).status == 204


def result(handle: Handle, upload_id: str) -> dict[str, Any]:
    return handle(event("GET", f"/v1/results/{upload_id}"))


def test_an_upload_is_pending_until_it_is_there_and_then_done(handle_s3: Handle) -> None:
    upload = create(handle_s3)
    assert list(upload) == ["id", "url", "fields", "expires_in", "max_bytes", "request_id"]
    assert (upload["max_bytes"], upload["expires_in"]) == (MAX_BYTES, 900)
    assert succeeded(result(handle_s3, upload["id"]))["result"] == {"status": "pending"}
    send(upload, PHOTO)
    answer = succeeded(result(handle_s3, upload["id"]))
    assert list(answer) == ["id", "model", "result", "request_id"]
    assert answer["id"] == upload["id"]
    assert answer["result"]["status"] == "done"
    assert answer["result"]["predictions"] == succeeded(handle_s3(classify_bytes(PHOTO)))["predictions"]


def test_a_result_is_kept_and_not_inferred_twice(
    handle_s3: Handle, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = create(handle_s3)
    send(upload, PHOTO)
    first = succeeded(result(handle_s3, upload["id"]))
    saved = s3_client().get_object(Bucket=bucket, Key=f"results/{upload['id']}.json")
    assert saved["ContentType"] == "application/json"
    s3_client().delete_object(Bucket=bucket, Key=upload["fields"]["key"])
    monkeypatch.setattr(LiteRT, "run", None)
    second = event("GET", f"/v1/results/{upload['id']}")
    second["requestContext"]["requestId"] = "another-request"
    assert succeeded(handle_s3(second)) == first | {"request_id": "another-request"}


@pytest.mark.parametrize(
    ("image", "status", "code"), [(PHOTO[:20_000], 422, "corrupt_image"), (b"hello", 415, "not_an_image")]
)
def test_an_image_that_cannot_be_classified_has_failed_for_good(
    handle_s3: Handle, bucket: str, image: bytes, status: int, code: str
) -> None:
    upload = create(handle_s3)
    send(upload, image)
    first = succeeded(result(handle_s3, upload["id"]))["result"]
    assert first["status"] == "failed"
    assert (first["problem"]["status"], first["problem"]["code"]) == (status, code)
    s3_client().delete_object(Bucket=bucket, Key=upload["fields"]["key"])
    assert succeeded(result(handle_s3, upload["id"]))["result"] == first


@pytest.mark.parametrize("upload_id", ["x", "..", "%2e%2e", "results", "9a00d317-3e73-4f23-aec5-3eb8269d6efd"])
def test_an_id_that_was_not_given_out_is_unknown(handle_faults: Handle, upload_id: str) -> None:
    with failing_s3(found(b"{}")) as requests:
        assert problem_of(result(handle_faults, upload_id)) == UNKNOWN
    assert requests == []


def test_an_id_is_pending_until_its_form_expires_and_then_unknown(handle_s3: Handle) -> None:
    assert succeeded(result(handle_s3, id_made_at(time.time() - 840)))["result"] == {"status": "pending"}
    assert problem_of(result(handle_s3, id_made_at(time.time() - 961))) == UNKNOWN


def test_an_image_that_came_in_time_is_classified_after_its_form_expired(handle_s3: Handle, bucket: str) -> None:
    upload_id = id_made_at(time.time() - 86_400)
    put(bucket, f"uploads/{upload_id}", PHOTO)
    assert succeeded(result(handle_s3, upload_id))["result"]["status"] == "done"


def test_a_failing_s3_is_not_kept_as_a_result(handle_faults: Handle) -> None:
    with failing_s3(error(403, "AccessDenied")) as requests:
        response = result(handle_faults, id_made_at(time.time()))
    assert problem_of(response) == (403, "object_access_denied")
    assert [request for request in requests if request.startswith("PUT")] == []


def test_a_kept_result_that_cannot_be_read_is_made_again(handle_s3: Handle, bucket: str) -> None:
    upload = create(handle_s3)
    send(upload, PHOTO)
    put(bucket, f"results/{upload['id']}.json", b'{"id": "of an older form"}')
    assert succeeded(result(handle_s3, upload["id"]))["result"]["status"] == "done"


def test_a_result_that_cannot_be_kept_is_answered_all_the_same(
    handle_s3: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StorageUnavailable("S3 cannot be used at the moment.")

    upload = create(handle_s3)
    send(upload, PHOTO)
    monkeypatch.setattr(Uploads, "save_result", refuse)
    assert succeeded(result(handle_s3, upload["id"]))["result"]["status"] == "done"


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


def test_an_image_too_large_for_a_request_is_sent_to_uploads_where_there_are_any(handle: Handle, bucket: str) -> None:
    response = handle_with(bucket, len(PHOTO) - 1)(classify_bytes(PHOTO))
    assert problem_of(response) == (413, "request_too_large")
    assert answer_of(response)["detail"].endswith("Send it by POST /v1/uploads.")
    assert "uploads" not in answer_of(handle(classify_bytes(bytes(6_000_001))))["detail"]


def test_an_upload_may_be_larger_than_an_image_in_a_request(bucket: str) -> None:
    handle = handle_with(bucket, len(PHOTO) - 1)
    upload = create(handle)
    send(upload, PHOTO)
    assert succeeded(result(handle, upload["id"]))["result"]["status"] == "done"
