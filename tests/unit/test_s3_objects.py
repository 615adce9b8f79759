"""ObjectReader: moto's server for regular responses, a failing server for errors."""

import logging
import select
import subprocess
import sys
from http.server import BaseHTTPRequestHandler

import pytest
from aws import (
    AWS_TEXT,
    Answer,
    Clock,
    aws_at,
    fake_clock,
    hang_up,
    new_bucket,
    no_response,
    ok,
    region_redirect,
    s3_error,
    scripted_aws,
    slow_body,
    wrong_length,
)
from botocore.exceptions import ClientError
from support import ROOT, free_port

from litelens.aws import clients
from litelens.aws.clients import Deadline
from litelens.aws.errors import (
    BucketNotAllowed,
    ObjectAccessDenied,
    ObjectNotFound,
    ObjectVersionNotFound,
    StorageError,
    StorageTimeout,
    StorageUnavailable,
)
from litelens.aws.s3 import ObjectLocation, ObjectReader, s3_client
from litelens.core.errors import ImageTooLarge

PHOTO = b"\xff\xd8\xff" + bytes(range(256)) * 1000
LOCATION = ObjectLocation("photos", "holiday/secret-key.jpg")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return fake_clock(monkeypatch)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(clients, "READ_SECONDS", 0.2)


@pytest.fixture
def bucket(moto_server: str) -> str:
    """A bucket in moto's S3 with the photo in it."""
    name = new_bucket()
    put(name, LOCATION.key, PHOTO)
    return name


def put(bucket: str, key: str, body: bytes) -> None:
    s3_client().put_object(Bucket=bucket, Key=key, Body=body)


def put_versions(bucket: str, key: str, *bodies: bytes) -> list[str]:
    client = s3_client()
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return [client.put_object(Bucket=bucket, Key=key, Body=body)["VersionId"] for body in bodies]


def read(location: ObjectLocation = LOCATION, max_bytes: int = len(PHOTO), seconds: float = 25) -> bytes:
    """Read the object, with its bucket as the only allowed one."""
    return ObjectReader([location.bucket], max_bytes).read(location, Deadline.after(seconds))


def test_an_object_is_read_whole(bucket: str) -> None:
    assert read(ObjectLocation(bucket, LOCATION.key)) == PHOTO


def test_an_empty_object_is_no_bytes(bucket: str) -> None:
    put(bucket, "nothing.jpg", b"")
    assert read(ObjectLocation(bucket, "nothing.jpg")) == b""


@pytest.mark.parametrize("key", ["ü ß/+&=?#%20.jpg", "a//b.jpg", "é" * 512])
def test_any_key_is_read(bucket: str, key: str) -> None:
    put(bucket, key, b"by its key")
    assert read(ObjectLocation(bucket, key)) == b"by its key"


def test_the_size_limit_is_exact(bucket: str) -> None:
    assert read(ObjectLocation(bucket, LOCATION.key), max_bytes=256_003) == PHOTO
    with pytest.raises(ImageTooLarge):
        read(ObjectLocation(bucket, LOCATION.key), max_bytes=256_002)


def test_a_missing_object_is_not_found(bucket: str) -> None:
    with pytest.raises(ObjectNotFound):
        read(ObjectLocation(bucket, "nothing.jpg"))


def test_an_object_in_a_missing_bucket_is_not_found(moto_server: str) -> None:
    with pytest.raises(ObjectNotFound):
        read(ObjectLocation("no-such-bucket", LOCATION.key))


def test_a_bucket_that_is_not_allowed_is_not_read(bucket: str) -> None:
    for allowed in ([], ["another"], [bucket[:-1]]):
        with pytest.raises(BucketNotAllowed):
            ObjectReader(allowed, len(PHOTO)).read(ObjectLocation(bucket, LOCATION.key), Deadline.after(25))


def test_a_key_does_not_lead_into_another_bucket(bucket: str) -> None:
    with pytest.raises(ObjectNotFound):
        read(ObjectLocation(new_bucket(), f"../{bucket}/{LOCATION.key}"))


def test_a_version_is_read_after_it_was_replaced(bucket: str) -> None:
    first, second = put_versions(bucket, "versioned", b"first", b"second")
    assert read(ObjectLocation(bucket, "versioned", first)) == b"first"
    assert read(ObjectLocation(bucket, "versioned", second)) == b"second"
    assert read(ObjectLocation(bucket, "versioned")) == b"second"


def test_a_deleted_version_is_not_found(bucket: str) -> None:
    first, _ = put_versions(bucket, "versioned", b"first", b"second")
    s3_client().delete_object(Bucket=bucket, Key="versioned", VersionId=first)
    with pytest.raises(ObjectVersionNotFound):
        read(ObjectLocation(bucket, "versioned", first))


def test_a_deleted_object_is_not_found_but_its_versions_are(bucket: str) -> None:
    (version,) = put_versions(bucket, "versioned", b"first")
    s3_client().delete_object(Bucket=bucket, Key="versioned")
    with pytest.raises(ObjectNotFound):
        read(ObjectLocation(bucket, "versioned"))
    assert read(ObjectLocation(bucket, "versioned", version)) == b"first"


def test_access_to_an_archived_object_is_denied(bucket: str) -> None:
    s3_client().put_object(Bucket=bucket, Key="cold.jpg", Body=PHOTO, StorageClass="GLACIER")
    with pytest.raises(ObjectAccessDenied):
        read(ObjectLocation(bucket, "cold.jpg"))


def test_no_request_goes_to_a_bucket_that_is_not_allowed() -> None:
    with scripted_aws(ok(PHOTO)) as requests, pytest.raises(BucketNotAllowed):
        ObjectReader(["photos"], len(PHOTO)).read(ObjectLocation("private", LOCATION.key), Deadline.after(25))
    assert requests == []


@pytest.mark.parametrize("key", ["", "k" * 1025, "é" * 513, "\ud800"])
def test_an_impossible_key_is_not_found_without_a_request(key: str) -> None:
    with scripted_aws(ok(PHOTO)) as requests, pytest.raises(ObjectNotFound):
        read(ObjectLocation("photos", key))
    assert requests == []


@pytest.mark.parametrize("version_id", ["", "v" * 1025, "\ud800"])
def test_an_impossible_version_id_is_not_found_without_a_request(version_id: str) -> None:
    with scripted_aws(ok(PHOTO)) as requests, pytest.raises(ObjectVersionNotFound):
        read(ObjectLocation("photos", LOCATION.key, version_id))
    assert requests == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (s3_error(404, "NoSuchKey"), ObjectNotFound),
        (s3_error(404, "NoSuchBucket"), ObjectNotFound),
        (s3_error(405, "MethodNotAllowed"), ObjectNotFound),
        (s3_error(404, "NoSuchVersion"), ObjectVersionNotFound),
        (s3_error(400, "InvalidArgument"), ObjectVersionNotFound),
        (s3_error(403, "AccessDenied"), ObjectAccessDenied),
        (s3_error(403, "InvalidObjectState"), ObjectAccessDenied),
        (s3_error(400, "InvalidRequest"), ObjectAccessDenied),
        (s3_error(400, "KMS.DisabledException"), ObjectAccessDenied),
        (s3_error(400, "InvalidURI"), ObjectNotFound),
        (s3_error(400, "ExpiredToken"), StorageUnavailable),
        (wrong_length(10**9, b""), ImageTooLarge),
    ],
)
def test_a_permanent_error_of_s3_gets_its_own_class_and_is_not_retried(
    answer: Answer, expected: type[Exception]
) -> None:
    with scripted_aws(answer) as requests, pytest.raises(Exception) as caught:  # noqa: PT011
        read()
    assert type(caught.value) is expected
    assert requests == [f"GET /photos/{LOCATION.key}"]


def test_access_to_a_bucket_without_a_known_region_is_denied() -> None:
    with scripted_aws(region_redirect), pytest.raises(ObjectAccessDenied):
        read()


@pytest.mark.parametrize(
    "failure",
    [
        s3_error(500, "InternalError"),
        s3_error(503, "SlowDown"),
        lambda handler: handler.send_error(502),
        s3_error(400, "RequestTimeout"),
        hang_up,
        wrong_length(len(PHOTO), b""),
        wrong_length(len(PHOTO), PHOTO[:100_000]),
    ],
    ids=["500", "slow-down", "502-in-html", "request-timeout", "hung-up", "no-body", "half-a-body"],
)
def test_two_transient_errors_are_retried(failure: Answer, clock: Clock) -> None:
    with scripted_aws(failure, failure, ok(PHOTO)) as requests:
        assert read() == PHOTO
    assert requests == [f"GET /photos/{LOCATION.key}"] * 3
    assert len(clock.pauses) == 2


@pytest.mark.usefixtures("impatient")
def test_a_stalled_body_is_read_again(clock: Clock) -> None:
    def stop(handler: BaseHTTPRequestHandler) -> None:
        wrong_length(len(PHOTO), PHOTO[:1000])(handler)
        no_response(handler)

    with scripted_aws(stop, ok(PHOTO)) as requests:
        assert read() == PHOTO
    assert len(requests) >= 2
    assert clock.pauses


@pytest.mark.parametrize("failure", [s3_error(503, "SlowDown"), hang_up, wrong_length(9, b"12345678")])
def test_s3_is_unavailable_when_it_fails_until_the_deadline(failure: Answer, clock: Clock) -> None:
    with scripted_aws(failure) as requests, pytest.raises(StorageUnavailable):
        read()
    # Retries of botocore would multiply the requests.
    assert len(requests) == len(clock.pauses) + 1 >= 4


def test_s3_is_unavailable_if_nothing_listens(clock: Clock) -> None:
    with aws_at(f"http://127.0.0.1:{free_port()}"), pytest.raises(StorageUnavailable):
        read()
    assert len(clock.pauses) >= 3


def test_s3_is_unavailable_without_credentials() -> None:
    with scripted_aws(ok(PHOTO)) as requests, pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(StorageUnavailable):
            read()
    assert requests == []


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_botocore_retries_nothing_whatever_the_environment_says(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_RETRY_MODE", mode)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    with scripted_aws(s3_error(503, "SlowDown")) as requests, pytest.raises(ClientError):
        s3_client().get_object(Bucket="photos", Key="any")
    assert len(requests) == 1


@pytest.mark.usefixtures("impatient")
def test_an_s3_that_does_not_respond_is_a_timeout(clock: Clock) -> None:
    with scripted_aws(no_response) as requests, pytest.raises(StorageTimeout):
        read(seconds=1)
    assert requests
    assert clock.pauses


@pytest.mark.usefixtures("impatient")
def test_reading_a_slow_body_stops_at_the_deadline() -> None:
    with scripted_aws(slow_body(PHOTO[:200], pause=0.05)) as requests, pytest.raises(StorageTimeout):
        read(seconds=1.5)
    assert requests


def test_waiting_for_a_body_stops_at_the_deadline(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "READ_SECONDS", 20.0)

    def pause_near_the_deadline(handler: BaseHTTPRequestHandler) -> None:
        clock.now += 24.9
        wrong_length(len(PHOTO), PHOTO[:1000])(handler)
        client_hung_up, _, _ = select.select([handler.connection], [], [], 5)
        if not client_hung_up:
            handler.wfile.write(PHOTO[1000:])

    with scripted_aws(pause_near_the_deadline) as requests, pytest.raises(StorageTimeout):
        read(seconds=25)
    assert len(requests) == 1


def test_a_body_is_not_read_after_the_deadline(clock: Clock) -> None:
    def answer_late(handler: BaseHTTPRequestHandler) -> None:
        clock.now += 26
        ok(PHOTO)(handler)

    with scripted_aws(answer_late) as requests, pytest.raises(StorageTimeout):
        read(seconds=25)
    assert len(requests) == 1


def test_without_time_for_a_response_there_is_no_request(clock: Clock) -> None:
    with scripted_aws(ok(PHOTO)) as requests, pytest.raises(StorageTimeout):
        read(seconds=clients.CONNECT_SECONDS + clients.READ_SECONDS - 0.1)
    assert requests == []


@pytest.mark.parametrize(
    "answer",
    [
        *(s3_error(404, code) for code in ("NoSuchKey", "NoSuchVersion")),
        *(s3_error(403, code) for code in ("AccessDenied", "InvalidObjectState")),
        s3_error(503, "SlowDown"),
        s3_error(400, AWS_TEXT),
        region_redirect,
        hang_up,
        wrong_length(10**9, b""),
    ],
)
@pytest.mark.usefixtures("clock")
def test_messages_and_logs_contain_no_text_of_aws_and_no_key(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with scripted_aws(answer) as requests, pytest.raises((StorageError, ImageTooLarge)) as caught:
        read()
    assert requests
    for text in (str(caught.value), caplog.text):
        for foreign in (AWS_TEXT, "secret-key", "photos", "127.0.0.1", "AKIA", "http"):
            assert foreign not in text


def test_the_connection_is_reused_for_the_next_object() -> None:
    ports = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        ports.append(handler.client_address[1])
        ok(PHOTO)(handler)

    with scripted_aws(answer):
        assert read() == read() == PHOTO
    assert len(ports) == 2
    assert len(set(ports)) == 1


def test_boto3_is_imported_only_when_it_is_used() -> None:
    program = "import sys, litelens.aws.s3; sys.exit(any(m in sys.modules for m in ('boto3', 'botocore', 'urllib3')))"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT / "lambda")
