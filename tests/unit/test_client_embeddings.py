"""`litelens classify --embeddings`, on this machine and with a fake API."""

import base64
import csv
import json
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import add_bundle, remove_features
from class_folders import BASE
from fake_api import api_server, classification, each_image, failed, in_turn, refused
from support import CAT, ROCKET, SAMPLES

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier, Options
from litelens.core.images import Limits
from litelens_client.__main__ import main

PHOTOS = {"a.jpg": CAT, "c.jpg": ROCKET, "d.jpg": SAMPLES / "coffee.jpg"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the person who runs the tests."""
    for name in ("LITELENS_URL", "LITELENS_API_KEY", "LITELENS_MODELS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three photos, and a text file named like one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, path in PHOTOS.items():
        (folder / name).symlink_to(path)
    (folder / "b.jpg").write_text("hello")
    return folder


def classify(out: Path, *arguments: object) -> int:
    """Run the command with a fast model."""
    return main(["classify", *map(str, arguments), "--model", str(BASE), "--embeddings", str(out)])


def classify_with(url: str, out: Path, *arguments: object) -> int:
    """Run the command with an API, one request at a time."""
    return main(["classify", *map(str, arguments), "--url", url, "--parallel", "1", "--embeddings", str(out)])


def written(out: Path) -> tuple[np.ndarray, list[str]]:
    return np.load(out), json.loads(out.with_suffix(".json").read_text())


def embedding_of(path: Path) -> np.ndarray:
    prediction = Classifier(load_bundle(BASE), Limits(), threads=1).classify(path.read_bytes(), Options(embedding=True))
    assert prediction.embedding
    return prediction.embedding.values


def result(values: Sequence[float] | None) -> dict[str, Any]:
    """Return the result of an API for an image, with this embedding."""
    encoded = None if values is None else base64.b64encode(np.array(values, "<f4").tobytes()).decode()
    embedding: dict[str, Any] = {"backbone": "everyday/1.1.0", "dimension": len(values or ()), "base64": encoded}
    more = {} if values is None else {"embedding": embedding}
    return {"status": "done", **classification("cat"), **more}


def test_the_embeddings_and_the_names_are_written_in_the_order_of_the_photos(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    classify(out, photos / "d.jpg", photos / "a.jpg", photos / "c.jpg")
    embeddings, names = written(out)
    assert names == [str(photos / name) for name in ("d.jpg", "a.jpg", "c.jpg")]
    assert (embeddings.dtype, embeddings.shape) == (np.float32, (3, 1280))
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(embeddings[1], embedding_of(CAT))


def test_photos_that_cannot_be_classified_are_left_out(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    assert classify(out, photos) == 1
    embeddings, names = written(out)
    assert names == [str(photos / name) for name in PHOTOS]
    assert [np.array_equal(row, embedding_of(path)) for row, path in zip(embeddings, PHOTOS.values(), strict=True)] == [
        True
    ] * 3


def test_the_results_are_printed_without_the_embeddings(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, options in enumerate(([], ["--json"], ["--csv"])):
        printed = []
        for command in (["--embeddings", str(tmp_path / f"{number}.npy")], []):
            assert main(["classify", str(CAT), str(ROCKET), "--model", str(BASE), *options, *command]) == 0
            printed.append(capsys.readouterr().out)
        assert without_times(printed[0], options) == without_times(printed[1], options)
        assert len(written(tmp_path / f"{number}.npy")[1]) == 2


def without_times(text: str, options: list[str]) -> Any:
    if options == ["--json"]:
        return [{**json.loads(line), "timing_ms": None} for line in text.splitlines()]
    return list(csv.reader(StringIO(text)))


def test_an_earlier_file_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    assert classify(out, CAT, ROCKET) == classify(out, CAT) == 0
    assert len(written(out)[0]) == len(written(out)[1]) == 1


def test_without_photos_the_files_are_empty(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    out = tmp_path / "out.npy"
    assert classify(out, tmp_path / "text.jpg") == 1
    embeddings, names = written(out)
    assert (len(embeddings), names) == (0, [])


@pytest.mark.skipif(sys.platform != "linux", reason="the system has no such names")
def test_names_that_are_not_utf_8_are_kept(tmp_path: Path) -> None:
    path = tmp_path / b"caf\xe9.jpg".decode(errors="surrogateescape")
    path.write_bytes(CAT.read_bytes())
    out = tmp_path / "out.npy"
    assert classify(out, tmp_path) == 0
    assert written(out)[1] == [str(path)]


def test_a_model_without_features_has_no_embeddings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = remove_features(add_bundle(tmp_path, "plain", BASE))
    arguments = ["classify", str(CAT), str(ROCKET), "--model", str(plain), "--json"]
    assert main([*arguments, "--embeddings", str(tmp_path / "out.npy")]) == 1
    codes = [json.loads(line)["problem"]["code"] for line in capsys.readouterr().out.splitlines()]
    assert codes == ["invalid_option"] * 2
    assert main(arguments) == 0


@pytest.mark.parametrize(("name", "named"), [("folder.npy", "folder.npy"), ("beside.npy", "beside.json")])
def test_a_file_that_cannot_be_written_is_an_error_after_the_results(
    name: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "beside.json").mkdir()
    assert classify(tmp_path / name, CAT, "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["status"] == "done"
    assert str(tmp_path / named) in captured.err


@pytest.mark.parametrize("name", ["out.json", "out", "out.npz", ".npy", "none/out.npy", ""])
def test_another_path_than_that_of_a_npy_file_in_a_folder_is_rejected(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        main(["classify", str(CAT), "--embeddings", name])
    assert raised.value.code == 2
    assert "--embeddings" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_api_is_asked_for_the_embedding_of_each_photo(photos: Path, tmp_path: Path) -> None:
    rows = {PHOTOS[name].read_bytes(): [float(number), -1.5] for number, name in enumerate(PHOTOS)}

    def result_of(image: bytes) -> dict[str, Any]:
        return result(rows[image]) if image in rows else failed(415, "not_an_image")

    out = tmp_path / "out.npy"
    with api_server(each_image(result_of)) as (url, requests):
        assert classify_with(url, out, photos) == 1
    assert {request.path for request in requests} == {"/v1/classify?embedding=true"}
    embeddings, names = written(out)
    assert names == [str(photos / name) for name in PHOTOS]
    assert embeddings.tolist() == [[0, -1.5], [1, -1.5], [2, -1.5]]


def test_an_api_is_not_asked_for_embeddings_without_the_option() -> None:
    with api_server(each_image(lambda _: result(None))) as (url, requests):
        assert main(["classify", str(CAT), "--url", url]) == 0
    assert requests[0].path == "/v1/classify"


def test_an_answer_without_an_embedding_is_an_error(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npy"
    results = {PHOTOS["a.jpg"].read_bytes(): [1, 0], PHOTOS["d.jpg"].read_bytes(): [0, 1]}
    with api_server(each_image(lambda image: result(results.get(image)))) as (url, _):
        assert classify_with(url, out, *(photos / name for name in PHOTOS), "--csv") == 1
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3
    embeddings, names = written(out)
    assert embeddings.tolist() == [[1, 0], [0, 1]]
    assert names == [str(photos / name) for name in ("a.jpg", "d.jpg")]


def test_what_was_answered_before_an_error_of_the_api_is_kept(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    responses = [each_image(lambda _: result([1, 0])), in_turn(refused(403, "forbidden"))]
    # A photo and an object in S3 are not in the same request.
    with api_server(lambda request: responses.pop(0)(request)) as (url, _):
        assert classify_with(url, out, photos / "a.jpg", "s3://photos/b.jpg") == 1
    embeddings, names = written(out)
    assert (embeddings.tolist(), names) == ([[1, 0]], [str(photos / "a.jpg")])
