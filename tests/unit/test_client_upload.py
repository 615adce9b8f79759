"""`litelens upload`, to moto's S3 and to a fake one."""

import hashlib
import itertools
import json
import os
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from aws import Answer, aws_at, dynamodb_error, new_bucket, ok, s3_error, scripted_aws
from bulk import new_table
from fake_api import MODEL, classification, problem
from PIL import Image
from support import encoded, free_port

from litelens.aws.clients import Deadline
from litelens.aws.results_table import ResultId, ResultsTable
from litelens.aws.s3 import s3_client
from litelens_client.__main__ import main

JPEG = encoded(Image.new("RGB", (2, 2)), "JPEG")
PNG = encoded(Image.new("RGB", (2, 2)), "PNG")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the person who runs the tests, and the retries."""
    for name in ("LITELENS_UPLOAD_BUCKET", "LITELENS_RESULTS_TABLE", "LITELENS_MAX_UPLOAD_BYTES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("litelens_client.upload._ATTEMPTS", 1)


@pytest.fixture
def bucket(moto_server: str) -> str:
    return new_bucket()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Create a folder with three photos and other files."""
    folder = tmp_path / "photos"
    create(folder, "a.jpg", "sub/b ü+.jpg", "notes.txt", "clip.mov", ".hidden.jpg")
    (folder / "sub" / "c.png").write_bytes(PNG)
    return folder


def create(folder: Path, *names: str) -> Path:
    """Create these files, each with other bytes, and return the folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(JPEG + name.encode())
    return folder


def upload(bucket: str, *arguments: str | Path) -> int:
    return main(["upload", *map(str, arguments), "--bucket", bucket])


def keys(bucket: str) -> list[str]:
    return [entry["Key"] for entry in s3_client().list_objects_v2(Bucket=bucket).get("Contents", ())]


def versions(bucket: str) -> int:
    return len(s3_client().list_object_versions(Bucket=bucket)["Versions"])


def keep_versions(bucket: str) -> None:
    s3_client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the JSON lines, sorted by their source."""
    return sorted(map(json.loads, capsys.readouterr().out.splitlines()), key=lambda line: str(line["source"]))


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as raised:
        main(["upload", *map(str, arguments)])
    assert raised.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("usage: litelens upload ")
    return message


def test_a_folder_is_uploaded_below_uploads_with_its_relative_paths(
    bucket: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(bucket, photos) == 0
    assert keys(bucket) == ["uploads/a.jpg", "uploads/sub/b ü+.jpg", "uploads/sub/c.png"]
    stored = s3_client().get_object(Bucket=bucket, Key="uploads/sub/b ü+.jpg")
    assert stored["Body"].read() == (photos / "sub" / "b ü+.jpg").read_bytes()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "2 other files were skipped (.mov, .txt).",
        "3 of 3 sent, 0 were there already, 0 failed.",
    ]


@pytest.mark.parametrize("prefix", ["trip/day 1", "/trip/day 1/", "uploads/trip/day 1"])
def test_a_prefix_is_a_folder_below_uploads(bucket: str, photos: Path, prefix: str) -> None:
    assert upload(bucket, photos / "sub", "--prefix", prefix) == 0
    assert keys(bucket) == ["uploads/trip/day 1/b ü+.jpg", "uploads/trip/day 1/c.png"]


def test_a_named_file_is_uploaded_whatever_its_suffix(bucket: str, photos: Path) -> None:
    assert upload(bucket, photos / "notes.txt", photos / "sub" / "c.png") == 0
    assert keys(bucket) == ["uploads/c.png", "uploads/notes.txt"]


def test_uploads_have_their_content_type(bucket: str, photos: Path) -> None:
    upload(bucket, photos)
    types = [s3_client().head_object(Bucket=bucket, Key=key)["ContentType"] for key in keys(bucket)]
    assert types == ["image/jpeg", "image/jpeg", "image/png"]


def test_the_bucket_can_be_set_by_a_variable(bucket: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELENS_UPLOAD_BUCKET", bucket)
    assert main(["upload", str(photos / "a.jpg")]) == 0
    assert keys(bucket) == ["uploads/a.jpg"]


def test_the_outcome_of_each_photo_is_a_json_line(
    bucket: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(bucket, photos / "a.jpg")
    capsys.readouterr()
    assert upload(bucket, photos / "a.jpg", photos / "sub", photos / "gone.jpg", "--json") == 1
    there, gone, new, _ = printed(capsys)
    assert (there["status"], there["key"]) == ("skipped", "uploads/a.jpg")
    assert there["revision"] == hashlib.md5((photos / "a.jpg").read_bytes()).hexdigest()
    assert (gone["status"], gone["problem"]["code"]) == ("failed", "unreadable")
    assert (new["status"], new["key"]) == ("sent", "uploads/b ü+.jpg")


@pytest.mark.parametrize("count", [3, 25])
def test_repeating_the_command_sends_only_what_is_missing(
    count: int, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_versions(bucket)
    folder = create(tmp_path, *(f"{number}.jpg" for number in range(count)))
    assert upload(bucket, folder) == 0
    create(folder, "new.jpg")
    capsys.readouterr()
    assert upload(bucket, folder) == 0
    assert capsys.readouterr().err == f"1 of {count + 1} sent, {count} were there already, 0 failed.\n"
    assert versions(bucket) == count + 1


@pytest.mark.parametrize("count", [3, 25])
def test_a_changed_photo_is_sent_again(count: int, bucket: str, tmp_path: Path) -> None:
    keep_versions(bucket)
    folder = create(tmp_path, *(f"{number}.jpg" for number in range(count)))
    assert upload(bucket, folder) == 0
    as_long = (folder / "1.jpg").read_bytes()[::-1]
    (folder / "1.jpg").write_bytes(as_long)
    assert upload(bucket, folder) == 0
    assert s3_client().get_object(Bucket=bucket, Key="uploads/1.jpg")["Body"].read() == as_long
    assert versions(bucket) == count + 1


def by_method(**answers: Answer) -> Answer:
    """Return a fake S3 with an answer for each HTTP method."""
    return lambda handler: answers[handler.command](handler)


def accept(handler: BaseHTTPRequestHandler) -> None:
    """Answer like PutObject."""
    handler.send_response(200)
    handler.send_header("ETag", '"0123456789abcdef0123456789abcdef"')
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def listing(*paths: Path, is_truncated: bool = False) -> Answer:
    """Return the answer of ListObjectsV2 for these files, each by its name under uploads/."""
    entries = "".join(
        f"<Contents><Key>uploads/{path.name}</Key><Size>{path.stat().st_size}</Size>"
        f"<ETag>&quot;{hashlib.md5(path.read_bytes()).hexdigest()}&quot;</ETag></Contents>"
        for path in paths
    )
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>1</NextContinuationToken>" if is_truncated else ""
    return ok(f"<ListBucketResult>{more or '<IsTruncated>false</IsTruncated>'}{entries}</ListBucketResult>".encode())


def methods(requests: list[str]) -> dict[str, int]:
    names = [request.split()[0] for request in requests]
    return {name: names.count(name) for name in sorted(set(names))}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return create(tmp_path / "many", *(f"photo-{number}.jpg" for number in range(20)))


def test_many_photos_are_compared_with_a_listing(many: Path) -> None:
    with scripted_aws(by_method(GET=listing(*many.iterdir()))) as requests:
        assert upload("photos", many) == 0
    assert len(requests) == 1
    assert "prefix=uploads%2Fphoto-&" in requests[0]


def test_a_few_photos_are_compared_one_at_a_time(many: Path) -> None:
    few = sorted(many.iterdir())[:9]
    with scripted_aws(by_method(HEAD=s3_error(404, "NotFound"), PUT=accept)) as requests:
        assert upload("photos", *few) == 0
    assert methods(requests) == {"HEAD": 9, "PUT": 9}


def test_listing_stops_in_a_large_bucket(many: Path) -> None:
    answers = by_method(GET=listing(is_truncated=True), HEAD=s3_error(404, "NotFound"), PUT=accept)
    with scripted_aws(answers) as requests:
        assert upload("photos", many) == 0
    assert methods(requests) == {"GET": 2, "HEAD": 20, "PUT": 20}


def test_the_permission_to_put_is_enough(many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    denied = s3_error(403, "AccessDenied")
    with scripted_aws(by_method(GET=denied, HEAD=denied, PUT=accept)):
        assert upload("photos", many) == 0
    assert capsys.readouterr().err == "20 of 20 sent, 0 were there already, 0 failed.\n"


def test_a_photo_that_is_too_large_does_not_stop_the_others(
    bucket: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LITELENS_MAX_UPLOAD_BYTES", "1000")
    with (photos / "a.jpg").open("r+b") as file:
        file.truncate(1001)
    assert upload(bucket, photos) == 1
    assert keys(bucket) == ["uploads/sub/b ü+.jpg", "uploads/sub/c.png"]
    message = capsys.readouterr().err.splitlines()
    assert f"{photos}/a.jpg: The image has 1,001 bytes; at most 1,000 are accepted." in message
    assert message[-1] == "2 of 3 sent, 0 were there already, 1 failed."


def test_an_invalid_setting_ends_the_command_with_a_sentence(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELENS_MAX_UPLOAD_BYTES", "much")
    with pytest.raises(SystemExit, match="LITELENS_MAX_UPLOAD_BYTES must be a whole number above 0"):
        upload("photos", photos)


def test_a_missing_file_fails_without_a_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_aws(s3_error(500, "InternalError")) as requests:
        assert upload("photos", tmp_path / "gone.jpg") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}/gone.jpg cannot be read: No such file or directory.",
        "0 of 1 sent, 0 were there already, 1 failed.",
    ]
    assert requests == []


@pytest.mark.parametrize("name", ["k" * 200 + ".jpg", os.fsdecode(b"caf\xe9.jpg")])
def test_a_name_that_cannot_be_a_key_does_not_stop_the_others(
    name: str, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = create(tmp_path / "photos", "a.jpg")
    Path(folder, name).write_bytes(JPEG)
    prefix = "p" * 900
    assert upload(bucket, folder, "--prefix", prefix) == 1
    assert keys(bucket) == [f"uploads/{prefix}/a.jpg"]
    assert "cannot be a key in S3: it is too long, or not valid UTF-8." in capsys.readouterr().err


def test_two_photos_cannot_get_the_same_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = create(tmp_path / "one", "a.jpg"), create(tmp_path / "other", "a.jpg")
    with scripted_aws(s3_error(500, "InternalError")) as requests:
        message = usage_error(capsys, one, other, "--bucket", "photos")
    assert f"{one}/a.jpg and {other}/a.jpg would both be uploaded as uploads/a.jpg" in message
    assert requests == []


def test_a_photo_named_twice_is_sent_once(bucket: str, photos: Path) -> None:
    keep_versions(bucket)
    assert upload(bucket, photos, photos / "a.jpg") == 0
    assert versions(bucket) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "PATH"),
        (["a.jpg"], "set --bucket or LITELENS_UPLOAD_BUCKET to the stack's output UploadBucketName"),
        (["a.jpg", "--bucket", "photos", "--wait"], "--wait needs the results table"),
        (["a.jpg", "--parallel", "0"], "whole number above 0"),
    ],
)
def test_wrong_arguments_are_rejected(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sentence in usage_error(capsys, *arguments)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (s3_error(404, "NoSuchBucket"), "The bucket photos does not exist."),
        (
            s3_error(403, "AccessDenied"),
            "The bucket photos cannot be written to; you need the permission s3:PutObject.",
        ),
        (
            s3_error(403, "InvalidAccessKeyId"),
            "The bucket photos cannot be written to: AWS rejects the credentials; they are wrong or have expired.",
        ),
        (s3_error(503, "SlowDown"), "The bucket photos cannot be written to: SlowDown."),
    ],
)
def test_a_bucket_that_cannot_be_written_to_ends_the_upload(
    answer: Answer, sentence: str, many: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = by_method(GET=s3_error(403, "AccessDenied"), HEAD=s3_error(404, "NotFound"), PUT=answer)
    with scripted_aws(empty):
        assert upload("photos", many) == 1
    assert capsys.readouterr().err == f"{sentence}\n"


def test_a_missing_network_is_reported(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with aws_at(f"http://127.0.0.1:{free_port()}"):
        assert upload("photos", photos) == 1
    assert "The bucket photos cannot be written to: AWS cannot be reached" in capsys.readouterr().err


def test_missing_credentials_are_reported(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with aws_at(f"http://127.0.0.1:{free_port()}"):
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(variable)
        assert upload("photos", photos) == 1
    assert "There are no AWS credentials;" in capsys.readouterr().err


def test_a_failure_in_the_middle_says_how_to_continue(many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    puts = itertools.chain([accept] * 3, itertools.repeat(s3_error(500, "InternalError")))
    answers = by_method(GET=listing(), PUT=lambda handler: next(puts)(handler))
    with scripted_aws(answers):
        assert upload("photos", many, "--parallel", "1") == 1
    assert capsys.readouterr().err == (
        "The bucket photos cannot be written to: InternalError. 3 of 20 sent, 0 were there already, 0 failed; run the "
        "same command again to continue.\n"
    )


@pytest.fixture
def table(moto_server: str) -> str:
    return new_table("ResultsTable")


def save(table: str, bucket: str, key: str, revision: str, result: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    document = {
        "bucket": bucket,
        "key": key,
        "revision": revision,
        "model": MODEL,
        "time": now.isoformat(),
        "result": result,
    }
    result_id = ResultId(bucket, key, revision, "pets/1.0.0")
    ResultsTable(table).save(result_id, json.dumps(document).encode(), now, 1, Deadline.after(20))


DONE = {"status": "done", **classification("cat")}
FAILED = {"status": "failed", "problem": problem(415, "not_an_image", "It is no image.")}


def etag(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_wait_prints_the_results_in_the_order_of_the_photos(
    bucket: str, table: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(table, bucket, "uploads/c.png", etag(photos / "sub" / "c.png"), DONE)
    save(table, bucket, "uploads/a.jpg", etag(photos / "a.jpg"), FAILED)
    paths = [photos / "a.jpg", photos / "gone.jpg", photos / "sub" / "c.png"]
    assert upload(bucket, *paths, "--wait", "--table", table) == 1
    captured = capsys.readouterr()
    _, *rows, first, second = captured.out.splitlines()
    assert [row.split()[:2] for row in rows] == [
        [f"{photos}/a.jpg", "failed"],
        [f"{photos}/gone.jpg", "failed"],
        [f"{photos}/sub/c.png", "cat"],
    ]
    assert first == f"{photos}/a.jpg: It is no image. (request request-1)"
    assert second == f"{photos}/gone.jpg cannot be read: No such file or directory."
    assert captured.err == "2 of 3 sent, 0 were there already, 1 failed; 1 could not be classified.\n"


def test_ctrl_c_prints_the_results_that_have_arrived(
    bucket: str, table: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("litelens_client.upload._pause", interrupt)
    save(table, bucket, "uploads/a.jpg", etag(photos / "a.jpg"), DONE)
    assert upload(bucket, photos, "--wait", "--table", table) == 130
    captured = capsys.readouterr()
    _, row = captured.out.splitlines()
    assert row.split()[:2] == [f"{photos}/a.jpg", "cat"]
    assert captured.err.splitlines()[-1].startswith("Interrupted: 3 of 3 sent, ")


def test_ignored_folders_that_contain_images_are_named(
    bucket: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "lost+found").mkdir()
    (photos / "a.jpg").rename(photos / "lost+found" / "a.jpg")
    assert upload(bucket, photos) == 0
    assert keys(bucket) == ["uploads/sub/b ü+.jpg", "uploads/sub/c.png"]
    assert any("lost+found" in line for line in capsys.readouterr().err.splitlines())


def test_a_folder_without_photos_is_an_error(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert upload(bucket, tmp_path) == 1
    assert capsys.readouterr().err.startswith(f"{tmp_path} contains no images")


def test_wait_prints_the_same_json_as_classify(
    bucket: str, table: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(table, bucket, "uploads/a.jpg", etag(photos / "a.jpg"), DONE)
    assert upload(bucket, photos / "a.jpg", "--wait", "--table", table, "--json") == 0
    (line,) = printed(capsys)
    assert (line["source"], line["status"], line["model"]) == (f"{photos}/a.jpg", "done", MODEL)
    assert line["predictions"][0]["label"] == "cat"


def test_wait_ignores_results_of_older_revisions(
    bucket: str, table: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("litelens_client.upload._POLL_SECONDS", 0)
    monkeypatch.setattr("litelens_client.upload._MAX_WAIT_SECONDS", 0)
    save(table, bucket, "uploads/a.jpg", "0123456789abcdef0123456789abcdef", DONE)
    assert upload(bucket, photos / "a.jpg", "--wait", "--table", table) == 1
    captured = capsys.readouterr()
    assert "cat" not in captured.out
    assert "No result has arrived for 0 minutes, and 1 are missing." in captured.err
    assert "ImagesDeadLettersUrl" in captured.err


@pytest.mark.parametrize("is_there", [True, False])
def test_in_a_versioned_bucket_wait_finds_the_result_of_this_version(
    is_there: bool, bucket: str, table: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_versions(bucket)
    photo = photos / "a.jpg"
    if is_there:
        version = s3_client().put_object(Bucket=bucket, Key="uploads/a.jpg", Body=photo.read_bytes())["VersionId"]
        save(table, bucket, "uploads/a.jpg", version, DONE)
    else:
        # The result arrives between two polls.
        def classify(_: float) -> None:
            version = s3_client().head_object(Bucket=bucket, Key="uploads/a.jpg")["VersionId"]
            save(table, bucket, "uploads/a.jpg", version, DONE)

        monkeypatch.setattr("litelens_client.upload.time.sleep", classify)
    assert upload(bucket, photo, "--wait", "--table", table) == 0
    assert versions(bucket) == 1


@pytest.mark.parametrize("is_versioned", [False, True])
def test_wait_sends_a_photo_again_whose_result_has_expired(
    is_versioned: bool, bucket: str, table: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_versioned:
        keep_versions(bucket)
    photo, key = photos / "a.jpg", "uploads/a.jpg"
    old = s3_client().put_object(Bucket=bucket, Key=key, Body=photo.read_bytes())

    # The result of the new object arrives between two polls.
    def classify(_: float) -> None:
        head = s3_client().head_object(Bucket=bucket, Key=key)
        assert head.get("VersionId") != old.get("VersionId") or not is_versioned
        save(table, bucket, key, head.get("VersionId") or etag(photo), DONE)

    monkeypatch.setattr("litelens_client.upload.time.sleep", classify)
    monkeypatch.setattr("litelens_client.upload._PENDING", timedelta(0))
    assert upload(bucket, photo, "--wait", "--table", table) == 0


@pytest.mark.parametrize("result", [DONE, FAILED])
def test_wait_does_not_send_an_old_photo_again_that_has_a_result(
    result: dict[str, Any],
    bucket: str,
    table: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    upload(bucket, photos / "a.jpg")
    save(table, bucket, "uploads/a.jpg", etag(photos / "a.jpg"), result)
    capsys.readouterr()
    monkeypatch.setattr("litelens_client.upload._PENDING", timedelta(0))
    upload(bucket, photos / "a.jpg", "--wait", "--table", table)
    assert "0 of 1 sent, 1 were there already" in capsys.readouterr().err


def test_wait_does_not_send_a_photo_again_whose_result_is_pending(
    bucket: str, table: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(bucket, photos / "a.jpg")
    capsys.readouterr()
    monkeypatch.setattr(
        "litelens_client.upload.time.sleep",
        lambda _: save(table, bucket, "uploads/a.jpg", etag(photos / "a.jpg"), DONE),
    )
    assert upload(bucket, photos / "a.jpg", "--wait", "--table", table) == 0
    assert "0 of 1 sent, 1 were there already" in capsys.readouterr().err


def test_an_url_fails_alone_and_is_named(bucket: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "https://example.com/cat.jpg"
    assert upload(bucket, url, photos / "a.jpg") == 1
    assert keys(bucket) == ["uploads/a.jpg"]
    assert capsys.readouterr().err.startswith(f"{url} is a URL")


@pytest.mark.parametrize("path", ["-", "s3://photos/a.jpg"])
def test_only_files_and_folders_are_uploaded(bucket: str, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["upload", path, "--bucket", bucket])
    assert f"{path} is neither a file nor a folder" in capsys.readouterr().err


def test_nothing_is_sent_if_the_table_does_not_exist(
    bucket: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(bucket, photos / "a.jpg", "--wait", "--table", "none") == 1
    assert capsys.readouterr().err == "The table none does not exist, or not in this region.\n"
    assert s3_client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_table_that_cannot_be_read_is_reported(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = by_method(HEAD=s3_error(404, "NotFound"), PUT=accept, POST=dynamodb_error("AccessDeniedException"))
    with scripted_aws(answers):
        assert upload("photos", photos / "a.jpg", "--wait", "--table", "results") == 1
    assert "The table results cannot be read; you need the permission dynamodb:Query." in capsys.readouterr().err
