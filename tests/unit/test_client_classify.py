"""`litelens classify`, with the bundle on this machine and with a fake API."""

import csv
import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aws import aws_at, new_bucket
from bundles import add_bundle
from fake_api import api_server, in_turn, labelled, refused
from support import CAT, DEFAULT_BUNDLE, ROOT, free_port

from litelens.core.classifier import DEFAULT_TOP_K
from litelens_client.__main__ import main
from litelens_client.answers import Answer
from litelens_client.classify import LocalClassifier
from litelens_client.output import COLUMNS
from litelens_client.settings import bundle_folder, page_folder


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the person who runs the tests."""
    monkeypatch.delenv("LITELENS_URL", raising=False)
    monkeypatch.delenv("LITELENS_API_KEY", raising=False)


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """Return a folder with two photos and a text file named like one."""
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).symlink_to(CAT)
    (tmp_path / "b.jpg").write_text("hello")
    return str(tmp_path)


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what the command prints for wrong arguments."""
    with pytest.raises(SystemExit) as raised:
        main(["classify", *arguments])
    assert raised.value.code == 2
    return capsys.readouterr().err


def test_a_photo_gets_five_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--", str(CAT)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["Egyptian cat", "tabby cat"]
    assert sum(line.endswith("%") for line in lines) == DEFAULT_TOP_K == 5


def test_top_k_sets_the_number_of_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(CAT), "--top-k", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 2


@pytest.mark.parametrize(("threshold", "uncertain"), [("0", False), ("1", True)])
def test_the_threshold_decides_whether_an_answer_is_uncertain(
    threshold: str, uncertain: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(CAT), "--threshold", threshold, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["uncertain"] is uncertain


def test_csv_has_a_row_for_each_image_in_order(photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", photos, "--csv"]) == 1
    captured = capsys.readouterr()
    rows = list(csv.DictReader(StringIO(captured.out)))
    assert [row["image"] for row in rows] == [f"{photos}/{name}.jpg" for name in "abc"]
    assert [row["label"] for row in rows] == ["Egyptian cat", "", "Egyptian cat"]
    assert [row["error_code"] for row in rows] == ["", "not_an_image", ""]
    assert re.fullmatch(r"3 photos, 2 sure, 1 failed, \d+\.\d s\n", captured.err)


def test_a_folder_is_printed_as_a_table(photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", photos]) == 1
    header, *rows, problem = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "label", "confidence", "doubt"]
    assert len(rows) == 3
    assert rows[1].split() == [f"{photos}/b.jpg", "failed"]
    assert problem.startswith(f"{photos}/b.jpg: The bytes are not an image")


def test_a_folder_with_one_photo_is_printed_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").symlink_to(CAT)
    assert main(["classify", str(tmp_path)]) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert row.split()[:3] == [f"{tmp_path}/a.jpg", "Egyptian", "cat"]


def test_a_folder_with_one_bad_photo_is_printed_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b.jpg").write_text("hello")
    assert main(["classify", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].startswith(f"{tmp_path}/b.jpg: The bytes are not an image")
    assert captured.err.startswith("1 photo, 0 sure, 1 failed, ")


def test_skipped_files_of_a_folder_are_reported(photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.tiff", "b.tiff", "c.txt"):
        Path(photos, name).touch()
    main(["classify", photos, "--json"])
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert "3 other files were skipped (.tiff, .txt).\n" in captured.err


def test_a_missing_file_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(tmp_path / "nothing.jpg"), str(CAT), "--json"]) == 1
    failed, done = map(json.loads, capsys.readouterr().out.splitlines())
    assert failed["problem"]["detail"].endswith("nothing.jpg cannot be read: No such file or directory.")
    assert done["status"] == "done"


@pytest.mark.parametrize(
    ("name", "sentence"), [("text.jpg", ": The bytes are not an image"), ("none", " cannot be read: No such file")]
)
def test_the_failure_of_a_single_image_is_one_sentence_with_its_name(
    name: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    assert main(["classify", str(tmp_path / name)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{tmp_path / name}{sentence}" in captured.err


def test_an_url_is_not_fetched_and_the_command_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "https://127.0.0.1:1/cat.jpg"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("https://127.0.0.1:1/cat.jpg is a URL")
    assert "curl" in captured.err


def test_the_bundle_is_not_loaded_if_there_is_no_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LITELENS_BUNDLE", "/nonexistent")
    (tmp_path / "empty").mkdir()
    assert main(["classify", str(tmp_path / "nope.jpg"), str(tmp_path / "empty")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    missing, empty = captured.err.splitlines()
    assert missing.endswith("nope.jpg cannot be read: No such file or directory.")
    assert empty.startswith(f"{tmp_path}/empty contains no images")


def test_a_folder_without_images_is_an_error_that_says_what_is_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tiff").touch()
    assert main(["classify", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (sentence,) = captured.err.splitlines()
    assert sentence.startswith(f"{tmp_path} contains no images")
    assert "1 other file (.tiff)" in sentence


def test_ignored_folders_that_contain_images_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", "lost+found/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(CAT)
    assert main(["classify", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert "lost+found" in captured.err.splitlines()[0]


@pytest.mark.parametrize(("threshold", "sure"), [("0", 2), ("1", 0)])
def test_the_summary_counts_the_photos_whose_answer_is_sure(
    threshold: str, sure: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(CAT), str(CAT), "--threshold", threshold]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(f"2 photos, {sure} sure, ")
    assert len(captured.out.splitlines()) == 3


@pytest.mark.parametrize("form", ["--json", "--csv", "--top-k=5"])
def test_ctrl_c_prints_the_photos_so_far(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.jpg").symlink_to(CAT)
    classify = LocalClassifier.classify

    def interrupted(self: LocalClassifier, image: Path, **options: Any) -> Answer:
        if image.name == "c.jpg":
            raise KeyboardInterrupt
        return classify(self, image, **options)

    monkeypatch.setattr(LocalClassifier, "classify", interrupted)
    vectors = tmp_path / "vectors.npy"
    assert main(["classify", str(tmp_path), "--embeddings", str(vectors), form]) == 130
    captured = capsys.readouterr()
    assert [name for name in "abcd" if f"{tmp_path}/{name}.jpg" in captured.out] == ["a", "b"]
    assert captured.err == "Interrupted after 2 of 4 photos.\n"
    assert len(np.load(vectors)) == 2


def test_a_file_that_is_too_large_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large, read_bytes = tmp_path / "large.jpg", Path.read_bytes
    with large.open("wb") as file:
        file.truncate(30_000_000)

    def checked(path: Path) -> bytes:
        assert path != large
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", checked)
    assert main(["classify", str(large)]) == 1
    assert "The image has 30,000,000 bytes; at most 25,000,000 are accepted." in capsys.readouterr().err


def test_the_limit_for_requests_does_not_apply_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELENS_MAX_BYTES", "1000")
    assert main(["classify", str(CAT)]) == 0


def test_the_everyday_bundle_is_the_default_in_every_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LITELENS_BUNDLE")
    monkeypatch.chdir(tmp_path)
    assert main(["classify", str(CAT)]) == 0
    assert "Egyptian cat" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["everyday", str(DEFAULT_BUNDLE)])
def test_the_option_model_replaces_the_variable(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LITELENS_BUNDLE", "/nonexistent")
    assert main(["classify", str(CAT), "--model", model]) == 0
    assert "Egyptian cat" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["pets", "models/pets", "./models/pets/"])
def test_a_model_is_named_by_its_folder_in_models_or_by_a_path(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_bundle(tmp_path / "models", "pets")
    monkeypatch.chdir(tmp_path)
    assert main(["classify", str(CAT), "--model", model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["name"] == "pets"


def test_another_folder_of_models_can_be_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_bundle(tmp_path / "mine", "pets")
    monkeypatch.setenv("LITELENS_MODELS", str(tmp_path / "mine"))
    assert main(["classify", str(CAT), "--model", "pets", "--csv"]) == 0
    (row,) = csv.DictReader(StringIO(capsys.readouterr().out))
    assert row["model"].startswith("pets/")


def test_a_name_in_models_comes_before_a_folder_of_the_same_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add_bundle(tmp_path / "models", "pets")
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    assert bundle_folder("pets") == Path("models/pets")


def test_an_unknown_model_ends_the_command_with_the_names_of_those_that_exist(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add_bundle(tmp_path / "models", "pets")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="everyday, pets"):
        main(["classify", str(CAT), "--model", "pest"])


def test_a_damaged_bundle_ends_the_command_with_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITELENS_BUNDLE", str(tmp_path))
    with pytest.raises(SystemExit, match=r"manifest\.json cannot be read"):
        main(["classify", str(CAT)])


def test_an_installed_package_brings_its_bundle_and_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LITELENS_BUNDLE")
    monkeypatch.setattr("litelens_client.settings._PACKAGE", tmp_path)
    assert (bundle_folder(), page_folder()) == (DEFAULT_BUNDLE, ROOT / "web")
    for name in ("everyday", "web"):
        (tmp_path / "data" / name).mkdir(parents=True)
    assert (bundle_folder(), page_folder()) == (tmp_path / "data" / "everyday", tmp_path / "data" / "web")


def test_photos_in_s3_are_classified_on_this_machine(moto_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    from litelens.aws.s3 import s3_client

    bucket = new_bucket()
    s3_client().put_object(Bucket=bucket, Key="in/a ü.jpg", Body=CAT.read_bytes())
    assert main(["classify", f"s3://{bucket}/in/", f"s3://{bucket}/none.jpg", "--json"]) == 1
    done, failed = map(json.loads, capsys.readouterr().out.splitlines())
    assert (done["source"], done["predictions"][0]["label"]) == (f"s3://{bucket}/in/a ü.jpg", "Egyptian cat")
    assert failed["problem"]["code"] == "object_not_found"


def test_missing_aws_credentials_are_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with aws_at(f"http://127.0.0.1:{free_port()}"):
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(variable)
        assert main(["classify", "s3://photos/a.jpg"]) == 1
    assert "There are no AWS credentials;" in capsys.readouterr().err


def test_the_url_and_the_key_of_an_api_can_be_set_by_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with api_server(in_turn(labelled("cat", confidence=0.9))) as (url, requests):
        monkeypatch.setenv("LITELENS_URL", url)
        monkeypatch.setenv("LITELENS_API_KEY", "key-of-the-tests")
        assert main(["classify", str(CAT), "--top-k", "1", "--threshold", "0.5"]) == 0
    assert capsys.readouterr().out == "cat   90.0%\n"
    assert requests[0].path == "/v1/classify?top_k=1&threshold=0.5"
    assert requests[0].headers["x-api-key"] == "key-of-the-tests"


def test_an_empty_url_stands_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LITELENS_URL", f"http://127.0.0.1:{free_port()}")
    assert main(["classify", str(CAT), "--url", ""]) == 0
    assert "Egyptian cat" in capsys.readouterr().out


def test_the_name_of_a_model_is_sent_to_the_api(capsys: pytest.CaptureFixture[str]) -> None:
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        assert main(["classify", str(CAT), "--url", url, "--model", "pets", "--top-k", "1"]) == 0
    assert requests[0].path == "/v1/classify?model=pets&top_k=1"
    assert capsys.readouterr().out == "cat   90.0%\n"


def test_a_model_that_the_api_does_not_have_is_not_tried_for_every_image(
    photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with api_server(in_turn(refused(404, "model_not_found", "There is no such model."))) as (url, requests):
        assert main(["classify", photos, "--url", url, "--model", "pest", "--parallel", "1"]) == 1
    assert capsys.readouterr().err == "There is no such model. (request request-1)\n"
    assert len(requests) == 1


def test_the_api_reads_objects_in_s3_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        assert main(["classify", "s3://photos/cat.jpg", "--url", url]) == 0
    assert json.loads(requests[0].body) == {"s3_uri": "s3://photos/cat.jpg"}


def test_the_problem_of_an_api_is_printed_with_the_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    with api_server(in_turn(refused(500, "internal_error", "Something broke."))) as (url, _):
        assert main(["classify", str(CAT), "--url", url]) == 1
    assert capsys.readouterr().err == f"{CAT}: Something broke. (request request-1)\n"


@pytest.mark.parametrize("parallel", ["1", "4"])
def test_an_unreachable_api_is_not_tried_for_every_image(
    parallel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(300):
        (tmp_path / f"{number}.jpg").symlink_to(CAT)
    read: list[Path] = []
    read_bytes = Path.read_bytes

    def record(path: Path) -> bytes:
        read.append(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", record)
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["classify", str(tmp_path), "--url", url, "--parallel", parallel, "--csv"]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"{url.removeprefix('http://')} cannot be reached: the connection was not accepted.\n"
    assert captured.out.splitlines() == [",".join(COLUMNS)]
    assert len(read) < 300


def test_a_wrong_key_is_not_tried_for_every_image(photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = refused(403, "forbidden", "Send a valid API key in the header x-api-key.")
    # A photo and an object in S3 are not in the same request.
    sources = [str(CAT), "s3://photos/cat.jpg", photos]
    with api_server(in_turn(labelled("cat"), wrong)) as (url, requests):
        assert main(["classify", *sources, "--url", url, "--parallel", "1"]) == 1
    captured = capsys.readouterr()
    assert "--api-key" in captured.err
    assert captured.err.endswith(" (request request-1)\n")
    assert [line.split()[0] for line in captured.out.splitlines()] == ["image", str(CAT)]
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "PATH_OR_S3"),
        (["a.jpg", "--top-k", "0"], "whole number above 0"),
        (["a.jpg", "--top-k", "\N{ARABIC-INDIC DIGIT THREE}"], "whole number above 0"),
        (["a.jpg", "--top-k", "many"], "whole number above 0"),
        (["a.jpg", "--threshold", "1.5"], "number from 0 to 1"),
        (["a.jpg", "--threshold", "nan"], "number from 0 to 1"),
        (["a.jpg", "--json", "--csv"], "not allowed with"),
        (["a.jpg", "--parallel", "2"], "--parallel needs --url"),
        (["a.jpg", "--original"], "--original needs --url"),
        (["a.jpg", "--url", "host:8080"], "must begin with http:// or https://"),
    ],
)
def test_wrong_arguments_are_rejected(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = usage_error(capsys, *arguments)
    assert sentence in error
    assert error.startswith("usage: litelens classify ")


def test_an_invalid_key_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    error = usage_error(capsys, "a.jpg", "--url", "http://127.0.0.1", "--api-key", "secret\n")
    assert "The API key contains" in error
    assert error.startswith("usage: litelens classify ")
    assert "secret" not in error
