"""Uploads by a form, through moto's S3.

moto takes any form. What S3 would refuse is told by the form's policy, which S3 checks against the signature:
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

import base64
import hashlib
import json
import time
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from aws import ENVIRONMENT, aws_at, error, failing_aws, found, new_bucket, still_clock
from support import ROCKET

from adapters.deadline import Deadline
from adapters.errors import ObjectAccessDenied, StorageUnavailable
from adapters.objects import s3_client
from adapters.uploads import Upload, Uploads, image_key, is_upload_id, result_key

MAX_BYTES = 1_000_000


@pytest.fixture
def bucket(moto_server: str) -> str:
    return new_bucket()


@pytest.fixture
def uploads(bucket: str) -> Uploads:
    return Uploads(bucket, MAX_BYTES)


def send(upload: Upload, image: bytes) -> int:
    """The status with which S3 answers the form."""
    fields = {**upload.fields, "file": ("photo.jpg", image, upload.fields["Content-Type"])}
    return urllib3.request("POST", upload.url, fields=fields).status


def soon() -> Deadline:
    return Deadline.after(25)


def policy_of(upload: Upload) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(upload.fields["policy"]))
    return document


def id_made_at(seconds: float) -> str:
    return str(uuid.UUID(int=int(seconds * 1000) << 80 | 7 << 76 | 0b10 << 62))


def test_an_image_sent_by_the_form_is_there(uploads: Uploads, bucket: str) -> None:
    upload = uploads.create("image/jpeg")
    assert not uploads.is_there(upload.id, soon())
    assert send(upload, ROCKET.read_bytes()) == 204
    assert uploads.is_there(upload.id, soon())
    assert s3_client().get_object(Bucket=bucket, Key=image_key(upload.id))["Body"].read() == ROCKET.read_bytes()


def test_each_upload_has_an_image_of_its_own(uploads: Uploads) -> None:
    first, second = uploads.create("image/jpeg"), uploads.create("image/jpeg")
    send(first, b"first")
    assert uploads.is_there(first.id, soon())
    assert not uploads.is_there(second.id, soon())


@pytest.mark.parametrize(
    ("key", "result"),
    [
        ("uploads/cat.jpg", "results/cat.jpg.json"),
        ("uploads/2026/a b+ü.jpg", "results/2026/a b+ü.jpg.json"),
        ("uploads/uploads/cat", "results/uploads/cat.json"),
        ("uploads/" + "k" * 1011, "results/" + "k" * 1011 + ".json"),
    ],
)
def test_a_result_is_beside_its_image(key: str, result: str) -> None:
    assert result_key(key) == result


@pytest.mark.parametrize("key", ["uploads/" + "k" * 1012, "uploads/" + "ü" * 508])
def test_a_key_that_would_be_too_long_for_a_result_is_hashed(key: str) -> None:
    assert result_key(key) == f"results/sha256-{hashlib.sha256(key.encode()).hexdigest()}.json"


def test_a_saved_result_is_there_as_json(uploads: Uploads, bucket: str) -> None:
    uploads.save_result("uploads/cat.jpg", b'{"status": "done"}', soon())
    saved = s3_client().get_object(Bucket=bucket, Key="results/cat.jpg.json")
    assert (saved["Body"].read(), saved["ContentType"]) == (b'{"status": "done"}', "application/json")


def test_the_form_takes_one_key_one_type_and_a_size_within_limits(uploads: Uploads, bucket: str) -> None:
    upload = uploads.create("image/webp")
    conditions = policy_of(upload)["conditions"]
    assert ["content-length-range", 1, MAX_BYTES] in conditions
    assert {"bucket": bucket} in conditions
    assert {"key": f"uploads/{upload.id}"} in conditions
    assert {"Content-Type": "image/webp"} in conditions
    # Exact values only: any other list would be a looser condition, such as starts-with.
    assert [condition for condition in conditions if isinstance(condition, list)] == [
        ["content-length-range", 1, MAX_BYTES]
    ]


def test_every_field_of_the_form_is_in_the_policy(uploads: Uploads) -> None:
    upload = uploads.create("image/jpeg")
    exact = {name: value for c in policy_of(upload)["conditions"] if isinstance(c, dict) for name, value in c.items()}
    for name, value in upload.fields.items():
        assert name in ("policy", "x-amz-signature") or exact[name] == value


def test_the_form_is_signed_in_the_present_way(uploads: Uploads) -> None:
    fields = uploads.create("image/jpeg").fields
    assert fields["x-amz-algorithm"] == "AWS4-HMAC-SHA256"
    assert len(fields["x-amz-signature"]) == 64
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in str(fields)


def test_the_form_expires_when_it_says(bucket: str) -> None:
    before = datetime.now(UTC).replace(microsecond=0).timestamp()
    upload = Uploads(bucket, MAX_BYTES, expires_in=60).create("image/jpeg")
    expires = datetime.fromisoformat(policy_of(upload)["expiration"]).timestamp()
    assert (upload.expires_in, upload.max_bytes) == (60, MAX_BYTES)
    assert before + 60 <= expires <= time.time() + 60


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_the_form_goes_to_the_buckets_region(region: str) -> None:
    with aws_at("http://127.0.0.1"), pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ENDPOINT_URL")
        patch.setenv("AWS_DEFAULT_REGION", region)
        upload = Uploads("litelens-uploads", MAX_BYTES).create("image/jpeg")
    regional = "" if region == "us-east-1" else f".{region}"
    assert upload.url == f"https://litelens-uploads.s3{regional}.amazonaws.com/"


def test_a_form_cannot_be_made_without_credentials() -> None:
    with aws_at("http://127.0.0.1"), pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(StorageUnavailable):
            Uploads("photos", MAX_BYTES).create("image/jpeg")


def test_ids_are_of_version_7_and_tell_when_they_were_made(uploads: Uploads) -> None:
    before = time.time_ns() // 1_000_000
    parsed = uuid.UUID(uploads.create("image/jpeg").id)
    assert before <= parsed.int >> 80 <= time.time_ns() // 1_000_000
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_ids_differ_and_sort_by_time(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(10**18, 10**18 + 100 * 10**6, 10**6))
    monkeypatch.setattr("adapters.uploads.time", SimpleNamespace(time_ns=lambda: next(now)))
    ids = [uploads.create("image/jpeg").id for _ in range(100)]
    assert ids == sorted(set(ids))
    assert len({text[-12:] for text in ids}) == 100
    assert all(map(is_upload_id, ids))


@pytest.mark.parametrize(
    "text",
    [
        "",
        str(uuid.uuid4()),
        "0193B2C0-1111-7111-8111-0123456789AB",
        "0193b2c0111171118111012345678901",
        "{0193b2c0-1111-7111-8111-0123456789ab}",
        "0193b2c0-1111-7111-c111-0123456789ab",
        "0193b2c0-1111-7111-8111-0123456789ab\n",
        "0193b2c0-1111-7111-8111-0123456789ab/../x",
        "\u0660193b2c0-1111-7111-8111-0123456789ab",
    ],
)
def test_anything_but_a_canonical_uuid_of_version_7_is_no_upload(text: str) -> None:
    assert not is_upload_id(text)
    uploads = Uploads("photos", MAX_BYTES)
    with failing_aws(found(b"not ours")) as requests, pytest.raises(ValueError, match="no such upload"):
        uploads.is_there(text, soon())
    assert requests == []


@pytest.mark.parametrize(("age", "is_open"), [(0, True), (920, True), (961, False), (-30, True), (-86_400, False)])
def test_an_upload_is_open_while_its_form_is_and_a_minute_of_grace(age: int, is_open: bool) -> None:
    uploads = Uploads("photos", MAX_BYTES, expires_in=900)
    assert uploads.is_open(id_made_at(time.time() - age)) is is_open


def test_what_fails_in_passing_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    still_clock(monkeypatch)
    uploads, upload_id = Uploads("photos", MAX_BYTES), id_made_at(time.time())
    slow, busy = error(503, "SlowDown"), error(500, "InternalError")
    with failing_aws(slow, busy, found(b"")) as requests:
        assert uploads.is_there(upload_id, soon())
    assert requests == [f"HEAD /photos/uploads/{upload_id}"] * 3
    with failing_aws(slow, busy, found(b"")) as requests:
        uploads.save_result("uploads/cat.jpg", b"{}", soon())
    assert requests == ["PUT /photos/results/cat.jpg.json"] * 3


def test_no_access_is_not_taken_for_an_image_that_has_not_arrived() -> None:
    uploads, upload_id = Uploads("photos", MAX_BYTES), id_made_at(time.time())
    with failing_aws(error(403, "AccessDenied")), pytest.raises(ObjectAccessDenied):
        uploads.is_there(upload_id, soon())
    with failing_aws(error(403, "AccessDenied")), pytest.raises(ObjectAccessDenied):
        uploads.save_result("uploads/cat.jpg", b"{}", soon())
