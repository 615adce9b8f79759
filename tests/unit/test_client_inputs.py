"""The images that arguments name: files, folders, S3 URIs and standard input."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aws import aws_at, new_bucket
from fake_api import Request, Response, api_server
from support import ROOT, free_port

from litelens_client.answers import Failed
from litelens_client.inputs import (
    ImageFile,
    ImageObject,
    find_images,
    ignored_folders,
    names_one_image,
    notices,
    skipped_sentence,
)
from litelens_client.learning.photos import list_class_folders


def create(folder: Path, *names: str) -> str:
    """Create these files in the folder and return its path."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"image")
    return str(folder)


def names(*arguments: str) -> list[str]:
    return [item.name for item in find_images(arguments).images]


def failure(argument: str) -> Failed:
    (item,) = find_images([argument]).images
    assert isinstance(item, Failed)
    return item


@pytest.fixture
def bucket(moto_server: str) -> str:
    return new_bucket()


def put(bucket: str, *keys: str) -> None:
    from litelens.aws.s3 import s3_client

    for key in keys:
        s3_client().put_object(Bucket=bucket, Key=key, Body=b"image")


def test_a_named_file_may_have_any_suffix(tmp_path: Path) -> None:
    folder = create(tmp_path, "photo", ".hidden.jpg", "notes.txt")
    paths = [f"{folder}/{name}" for name in ("photo", ".hidden.jpg", "notes.txt")]
    inputs = find_images(paths)
    assert inputs.images == [ImageFile(path) for path in paths]
    assert not inputs.skipped


def test_a_missing_file_is_a_failure(tmp_path: Path) -> None:
    failed = failure(f"{tmp_path}/nope.jpg")
    assert failed.code == "unreadable"
    assert failed.detail == f"{tmp_path}/nope.jpg cannot be read: No such file or directory."


@pytest.mark.parametrize(
    "url", ["https://example.com/cat.jpg", "http://127.0.0.1:8080/a b.jpg?x=1", "HTTPS://EXAMPLE.COM", "file:///a.jpg"]
)
def test_an_url_is_a_failure_that_says_what_to_do(url: str) -> None:
    failed = failure(url)
    assert failed.code == "unreadable"
    assert failed.detail.startswith(f"{url} is a URL")
    assert ("curl" in failed.detail) is not url.startswith("file:")
    assert names_one_image(url)


def test_a_file_whose_path_looks_like_an_url_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(create(tmp_path, "https:/example.com/cat.jpg"))
    assert find_images(["https://example.com/cat.jpg"]).images == [ImageFile("https://example.com/cat.jpg")]


def test_a_folder_stands_for_all_images_below_it_sorted(tmp_path: Path) -> None:
    folder = create(tmp_path, "b.JPG", "a.png", "notes.txt", "sub/deep/c.webp", "sub/d.jpeg", "jpg")
    assert names(folder) == [f"{folder}/{name}" for name in ("a.png", "b.JPG", "sub/d.jpeg", "sub/deep/c.webp")]


def test_arguments_keep_their_order(tmp_path: Path) -> None:
    folder = create(tmp_path, "a.jpg", "b.jpg")
    last, first = f"{folder}/b.jpg", f"{folder}/a.jpg"
    assert names(last, folder, "missing.jpg", first) == [last, first, last, "missing.jpg", first]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    folder = create(tmp_path, "a.jpg", "._a.jpg", ".thumbnails/a.jpg")
    assert names(folder) == [f"{folder}/a.jpg"]


SYSTEM_FILES = [
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "__MACOSX/a.jpg",
    "__macosx/sub/a.jpg",
    ".thumbnails/a.jpg",
    ".@__thumb/a.jpg",
    "#recycle/a.jpg",
    "@Recycle/a.jpg",
    "$RECYCLE.BIN/a.jpg",
    "System Volume Information/a.jpg",
    "lost+found/a.jpg",
    "sub/@eaDir/a.jpg",
    "SYNOFILE_THUMB_M.jpg",
    "SYNOPHOTO_THUMB_B.jpg",
    "Thumbs.db",
    "desktop.ini",
    "ehthumbs.db",
    ".DS_Store",
    "._a.jpg",
]


@pytest.mark.parametrize("name", SYSTEM_FILES)
def test_what_systems_add_to_folders_of_photos_is_left_out(tmp_path: Path, name: str) -> None:
    folder = create(tmp_path, "a.jpg", name)
    inputs = find_images([folder])
    assert inputs.images == [ImageFile(f"{folder}/a.jpg")]
    assert inputs.skipped == []


@pytest.mark.parametrize(
    "name", ["recycler/a.jpg", "thumbs/a.jpg", "eaDir/a.jpg", "thumbs.db.jpg", "a@eaDir/b.jpg", "MACOSX/a.jpg"]
)
def test_similar_names_are_not_left_out(tmp_path: Path, name: str) -> None:
    folder = create(tmp_path, name)
    assert names(folder) == [f"{folder}/{name}"]


def test_ignored_folders_with_images_are_named_once(tmp_path: Path) -> None:
    with_images = ("lost+found/deep/a.jpg", "cat/Temporary Items/a.JPG", "dog/Temporary Items/b.jpg")
    create(tmp_path, *with_images, "lost/lost+found/a.txt", "cat/a.jpg")
    assert ignored_folders(tmp_path) == ["Temporary Items", "lost+found"]


@pytest.mark.parametrize("name", [".thumbnails", "#recycle", "$RECYCLE.BIN", "@eaDir", "Network Trash Folder"])
def test_hidden_folders_trash_and_thumbnails_are_not_named(tmp_path: Path, bucket: str, name: str) -> None:
    folder = create(tmp_path, "a.jpg", f"cat/{name}/b.jpg")
    put(bucket, "in/a.jpg", f"in/cat/{name}/b.jpg")
    assert ignored_folders(tmp_path) == []
    assert find_images([folder, f"s3://{bucket}/in/"]).ignored == {}


def test_a_class_folder_that_is_ignored_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create(tmp_path, "cat/a.jpg", "dog/a.jpg", "recycler/a.jpg")
    assert list_class_folders(tmp_path).labels == ("cat", "dog", "recycler")
    assert capsys.readouterr().err == ""
    create(tmp_path, "lost+found/a.jpg")
    assert list_class_folders(tmp_path).labels == ("cat", "dog", "recycler")
    assert "lost+found" in capsys.readouterr().err


def test_a_named_file_or_folder_is_never_left_out(tmp_path: Path) -> None:
    folder = create(tmp_path, "@eaDir/a.jpg")
    assert names(f"{folder}/@eaDir", f"{folder}/@eaDir/a.jpg") == [f"{folder}/@eaDir/a.jpg"] * 2


def test_what_systems_add_is_left_out_of_prefixes_too(bucket: str) -> None:
    put(bucket, "trip/a.jpg", *(f"trip/{name}" for name in SYSTEM_FILES))
    inputs = find_images([f"s3://{bucket}/trip/"])
    assert [item.name for item in inputs.images] == [f"s3://{bucket}/trip/a.jpg"]
    assert inputs.skipped == []


def test_circular_links_are_not_followed(tmp_path: Path) -> None:
    folder = create(tmp_path, "sub/a.jpg")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    assert names(folder) == [f"{folder}/self.jpg", f"{folder}/sub/a.jpg"]


def test_a_named_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    create(tmp_path, "sub/a.jpg")
    (tmp_path / "link").symlink_to("sub")
    assert names(f"{tmp_path}/link") == [f"{tmp_path}/link/a.jpg"]


def test_pipes_in_a_folder_are_left_out(tmp_path: Path) -> None:
    folder = create(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert names(folder) == [f"{folder}/a.jpg"]


@pytest.mark.parametrize("name", ["two\nlines.jpg", "写真.jpg", os.fsdecode(b"caf\xe9.jpg")])
def test_files_with_unusual_names_can_be_read(name: str, tmp_path: Path) -> None:
    (source,) = find_images([create(tmp_path, name)]).images
    assert isinstance(source, ImageFile)
    assert source.image.read_bytes() == b"image"


def test_a_folder_without_images_is_a_failure(tmp_path: Path) -> None:
    failed = failure(create(tmp_path, "notes.txt"))
    assert failed.code == "no_images"
    assert failed.detail.startswith(f"{tmp_path} contains no images: it has only 1 other file (.txt).")
    assert find_images([str(tmp_path)]).skipped == []


def test_an_empty_folder_is_a_failure(tmp_path: Path) -> None:
    failed = failure(create(tmp_path, ".hidden.jpg"))
    assert failed.code == "no_images"
    assert failed.detail.startswith(f"{tmp_path} contains no images: no files were found in it.")


def test_ignored_folders_are_named_by_the_folder_or_prefix_that_contains_them(tmp_path: Path, bucket: str) -> None:
    names = ("a.jpg", "sub/lost+found/b.jpg", "#recycle/a.txt", "temporary items/._a.jpg")
    folder = create(tmp_path, *names)
    put(bucket, *(f"in/{name}" for name in names))
    prefix = f"s3://{bucket}/in/"
    inputs = find_images([folder, prefix])
    assert inputs.ignored == {folder: ["lost+found"], prefix: ["lost+found"]}
    assert [item.name for item in inputs.images] == [f"{folder}/a.jpg", f"{prefix}a.jpg"]
    first, second = notices([], inputs.ignored)
    assert folder in first
    assert "lost+found" in first
    assert prefix in second


def test_skipped_files_are_reported_by_their_suffixes(tmp_path: Path) -> None:
    folder = create(tmp_path, "a.jpg", "b.tiff", "sub/c.TIFF", "notes.txt", "README", ".DS_Store", ".cache/x.bin")
    inputs = find_images([folder])
    assert [image.name for image in inputs.images] == [f"{folder}/a.jpg"]
    assert skipped_sentence(inputs.skipped) == "4 other files were skipped (.tiff, .txt, no extension)."


def test_at_most_five_suffixes_are_reported(tmp_path: Path) -> None:
    folder = create(tmp_path, "a.jpg", *(f"a.{letter}" for letter in "abcdefg"))
    assert skipped_sentence(find_images([folder]).skipped) == "7 other files were skipped (.a, .b, .c, .d, .e, ...)."


def test_a_single_skipped_file_is_reported_in_the_singular() -> None:
    assert skipped_sentence([".tif"]) == "1 other file was skipped (.tif)."


def test_arguments_for_one_image_differ_from_folders_and_prefixes(tmp_path: Path) -> None:
    assert all(map(names_one_image, ["-", "a.jpg", "missing", "s3://photos/a.jpg"]))
    assert not any(map(names_one_image, [str(tmp_path), "s3://photos", "s3://photos/", "s3://photos/in/"]))


def test_a_folder_that_cannot_be_listed_is_a_failure_after_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create(tmp_path, "a.jpg", "closed/b.jpg")
    scandir = os.scandir

    # Tests often run as root, which may list every folder.
    def refuse(path: str) -> Any:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, failed = find_images([folder]).images
    assert found.name == f"{folder}/a.jpg"
    assert isinstance(failed, Failed)
    assert failed.detail == f"{folder}/closed cannot be read: Permission denied."


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "lambda:client")
    code = "from litelens_client.inputs import find_images; print(find_images(['-']).images[0].image)"
    done = subprocess.run([sys.executable, "-c", code], input=b"\xff\xd8", capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == b"b'\\xff\\xd8'\n"


def test_standard_input_that_cannot_be_read_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "lambda:client")
    code = "from litelens_client.inputs import find_images; print(find_images(['-']).images[0].detail)"
    with (tmp_path / "written").open("wb") as only_written:
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=only_written, capture_output=True, cwd=ROOT, check=True
        )
    assert done.stdout == b"standard input cannot be read: Bad file descriptor.\n"


def test_an_s3_uri_is_taken_without_a_request() -> None:
    assert find_images(["s3://photos/a b.jpg", "s3://photos/text"]).images == [
        ImageObject("s3://photos/a b.jpg"),
        ImageObject("s3://photos/text"),
    ]


def test_a_prefix_stands_for_all_images_below_it(bucket: str) -> None:
    put(
        bucket,
        "in/b.jpg",
        "in/a ü.PNG",
        "in/",
        "in/x.jpg/",
        "in/notes.txt",
        "in/.cache/a.jpg",
        "in/sub/c.gif",
        "out.jpg",
    )
    found = [f"s3://{bucket}/in/{name}" for name in ("a ü.PNG", "b.jpg", "sub/c.gif")]
    inputs = find_images([f"s3://{bucket}/in/"])
    assert inputs.images == [ImageObject(uri) for uri in found]
    assert inputs.skipped == [".txt"]


@pytest.mark.parametrize("end", ["", "/"])
def test_a_bucket_stands_for_all_its_images(bucket: str, end: str) -> None:
    put(bucket, "b.jpg", "in/a.jpg")
    assert names(f"s3://{bucket}{end}") == [f"s3://{bucket}/b.jpg", f"s3://{bucket}/in/a.jpg"]


def test_a_prefix_is_listed_over_several_pages() -> None:
    def list_one(request: Request) -> Response:
        is_first = "continuation-token" not in request.path
        more = "<IsTruncated>true</IsTruncated><NextContinuationToken>1</NextContinuationToken>" if is_first else ""
        key = "a.jpg" if is_first else "b.jpg"
        page = f"<ListBucketResult>{more}<Contents><Key>{key}</Key></Contents></ListBucketResult>"
        return Response(200, page.encode())

    with api_server(list_one) as (url, _), aws_at(url):
        assert names("s3://photos/") == ["s3://photos/a.jpg", "s3://photos/b.jpg"]


def test_a_prefix_without_images_is_a_failure(bucket: str) -> None:
    assert failure(f"s3://{bucket}/in/").detail.startswith(f"s3://{bucket}/in/ contains no images: ")


def test_a_missing_bucket_is_a_failure(moto_server: str) -> None:
    failed = failure("s3://no-such-bucket-anywhere/")
    assert (failed.code, failed.detail) == (
        "unreadable",
        "s3://no-such-bucket-anywhere/ cannot be listed: the bucket does not exist.",
    )


def test_missing_credentials_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with aws_at(f"http://127.0.0.1:{free_port()}"):
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(variable)
        assert failure("s3://photos/").detail.startswith("There are no AWS credentials;")


@pytest.mark.parametrize("uri", ["s3:///a.jpg", "s3://", "s3://?/a.jpg"])
def test_an_s3_uri_without_bucket_is_a_failure(uri: str) -> None:
    assert failure(uri).detail.startswith(f"{uri} names no bucket")
    assert names_one_image(uri)
