"""UploadBucket, with moto's S3.

moto accepts any form. What S3 would refuse follows from the form's signed policy:
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

import base64
import json
import time
import uuid
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from aws import ENVIRONMENT, Answer, aws_at, fake_clock, new_bucket, ok, s3_error, scripted_aws
from support import ROCKET

from litelens.aws.clients import Deadline
from litelens.aws.errors import ObjectAccessDenied, StorageUnavailable
from litelens.aws.s3 import UploadBucket, UploadForm, image_key, is_upload_id, s3_client

MAX_BYTES = 1_000_000
TODAY = date(2026, 11, 30)


@pytest.fixture
def bucket(moto_server: str) -> str:
    return new_bucket()


@pytest.fixture
def uploads(bucket: str) -> UploadBucket:
    return UploadBucket(bucket, MAX_BYTES)


def send(upload: UploadForm, image: bytes) -> int:
    """Send an image with the form; return the status of S3's response."""
    fields = {**upload.fields, "file": ("photo.jpg", image, upload.fields["Content-Type"])}
    return urllib3.request("POST", upload.url, fields=fields).status


def soon() -> Deadline:
    return Deadline.after(25)


def policy_of(upload: UploadForm) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(upload.fields["policy"]))
    return document


def id_made_at(seconds: float) -> str:
    return str(uuid.UUID(int=int(seconds * 1000) << 80 | 7 << 76 | 0b10 << 62))


def test_an_image_sent_with_the_form_is_in_the_bucket(uploads: UploadBucket, bucket: str) -> None:
    upload = uploads.create_form("image/jpeg")
    assert not uploads.has_image(upload.id, soon())
    assert send(upload, ROCKET.read_bytes()) == 204
    assert uploads.has_image(upload.id, soon())
    assert s3_client().get_object(Bucket=bucket, Key=image_key(upload.id))["Body"].read() == ROCKET.read_bytes()


def test_each_upload_has_its_own_image(uploads: UploadBucket) -> None:
    first, second = uploads.create_form("image/jpeg"), uploads.create_form("image/jpeg")
    send(first, b"first")
    assert uploads.has_image(first.id, soon())
    assert not uploads.has_image(second.id, soon())


def test_the_results_of_a_batch_are_lines_of_json(uploads: UploadBucket, bucket: str) -> None:
    uploads.save_results("batch", [b'{"a": 1}', b'{"b": 2}'], TODAY, soon())
    saved = s3_client().get_object(Bucket=bucket, Key="results/2026-11-30/batch.jsonl")
    assert (saved["Body"].read(), saved["ContentType"]) == (b'{"a": 1}\n{"b": 2}\n', "application/jsonl")


def test_the_form_accepts_one_key_one_type_and_a_size_within_limits(uploads: UploadBucket, bucket: str) -> None:
    upload = uploads.create_form("image/webp")
    conditions = policy_of(upload)["conditions"]
    assert ["content-length-range", 1, MAX_BYTES] in conditions
    assert {"bucket": bucket} in conditions
    assert {"key": f"uploads/{upload.id}"} in conditions
    assert {"Content-Type": "image/webp"} in conditions
    # All other conditions are exact values. A list would be a looser condition, such as starts-with.
    assert [condition for condition in conditions if isinstance(condition, list)] == [
        ["content-length-range", 1, MAX_BYTES]
    ]


def test_every_field_of_the_form_is_in_the_policy(uploads: UploadBucket) -> None:
    upload = uploads.create_form("image/jpeg")
    exact = {name: value for c in policy_of(upload)["conditions"] if isinstance(c, dict) for name, value in c.items()}
    for name, value in upload.fields.items():
        assert name in ("policy", "x-amz-signature") or exact[name] == value


def test_the_form_is_signed_with_signature_version_4(uploads: UploadBucket) -> None:
    fields = uploads.create_form("image/jpeg").fields
    assert fields["x-amz-algorithm"] == "AWS4-HMAC-SHA256"
    assert len(fields["x-amz-signature"]) == 64
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in str(fields)


def test_the_form_expires_after_its_lifetime(bucket: str) -> None:
    before = datetime.now(UTC).replace(microsecond=0).timestamp()
    upload = UploadBucket(bucket, MAX_BYTES, expires_in=60).create_form("image/jpeg")
    expires = datetime.fromisoformat(policy_of(upload)["expiration"]).timestamp()
    assert (upload.expires_in, upload.max_bytes) == (60, MAX_BYTES)
    assert before + 60 <= expires <= time.time() + 60


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_the_form_goes_to_the_buckets_region(region: str) -> None:
    with aws_at("http://127.0.0.1"), pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ENDPOINT_URL")
        patch.setenv("AWS_DEFAULT_REGION", region)
        upload = UploadBucket("litelens-uploads", MAX_BYTES).create_form("image/jpeg")
    regional = "" if region == "us-east-1" else f".{region}"
    assert upload.url == f"https://litelens-uploads.s3{regional}.amazonaws.com/"


def test_a_form_cannot_be_made_without_credentials() -> None:
    with aws_at("http://127.0.0.1"), pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(StorageUnavailable):
            UploadBucket("photos", MAX_BYTES).create_form("image/jpeg")


def test_ids_are_uuids_of_version_7_with_the_time_of_creation(uploads: UploadBucket) -> None:
    before = time.time_ns() // 1_000_000
    parsed = uuid.UUID(uploads.create_form("image/jpeg").id)
    assert before <= parsed.int >> 80 <= time.time_ns() // 1_000_000
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_ids_differ_and_sort_by_time(uploads: UploadBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(10**18, 10**18 + 100 * 10**6, 10**6))
    monkeypatch.setattr("litelens.aws.s3.time", SimpleNamespace(time_ns=lambda: next(now)))
    ids = [uploads.create_form("image/jpeg").id for _ in range(100)]
    assert ids == sorted(set(ids))
    assert len({text[-12:] for text in ids}) == 100
    assert all(map(is_upload_id, ids))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "0193B2C0-1111-7111-8111-0123456789AB",
        "0193b2c0111171118111012345678901",
        "{0193b2c0-1111-7111-8111-0123456789ab}",
        "0193b2c0-1111-7111-c111-0123456789ab",
        "0193b2c0-1111-7111-8111-0123456789ab\n",
        "0193b2c0-1111-7111-8111-0123456789ab/../x",
        "\u0660193b2c0-1111-7111-8111-0123456789ab",
    ],
)
def test_only_a_canonical_uuid_of_version_7_is_an_upload_id(text: str) -> None:
    assert not is_upload_id(text)
    uploads = UploadBucket("photos", MAX_BYTES)
    with scripted_aws(ok(b"not ours")) as requests, pytest.raises(ValueError, match="upload"):
        uploads.has_image(text, soon())
    assert requests == []


@pytest.mark.parametrize(("age", "is_accepted"), [(0, True), (920, True), (961, False), (-30, True), (-86_400, False)])
def test_an_upload_is_accepted_until_a_minute_after_its_form_expires(age: int, is_accepted: bool) -> None:
    uploads = UploadBucket("photos", MAX_BYTES, expires_in=900)
    assert uploads.accepts_upload(id_made_at(time.time() - age)) is is_accepted


def test_transient_errors_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_clock(monkeypatch)
    uploads, upload_id = UploadBucket("photos", MAX_BYTES), id_made_at(time.time())
    slow, busy = s3_error(503, "SlowDown"), s3_error(500, "InternalError")
    with scripted_aws(slow, busy, ok(b"")) as requests:
        assert uploads.has_image(upload_id, soon())
    assert requests == [f"HEAD /photos/uploads/{upload_id}"] * 3
    with scripted_aws(slow, busy, ok(b"")) as requests:
        uploads.save_results("batch", [b"{}"], TODAY, soon())
    assert requests == ["PUT /photos/results/2026-11-30/batch.jsonl"] * 3


def test_denied_access_is_not_mistaken_for_a_missing_image() -> None:
    uploads, upload_id = UploadBucket("photos", MAX_BYTES), id_made_at(time.time())
    with scripted_aws(s3_error(403, "AccessDenied")), pytest.raises(ObjectAccessDenied):
        uploads.has_image(upload_id, soon())


@pytest.mark.parametrize("refusal", [s3_error(403, "AccessDenied"), s3_error(400, "KMS.DisabledException")])
def test_results_that_may_not_be_written_are_the_operators_failure(refusal: Answer) -> None:
    with scripted_aws(refusal), pytest.raises(StorageUnavailable):
        UploadBucket("photos", MAX_BYTES).save_results("batch", [b"{}"], TODAY, soon())
