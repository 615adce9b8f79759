"""Files and models that `litelens import` refuses, by what they are; no process is started for most of them."""

import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema
from small_models import Builder, other_model, small_model

from litelens_client.__main__ import main
from litelens_client.importing import formats
from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.formats import require_tflite
from litelens_client.importing.graph import MAX_OPERATORS, Graph, examine, parse

PHOTO = (1, 224, 224, 3)


def archive(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        for name, data in files.items():
            opened.writestr(name.replace("__", "."), data)
    return content.getvalue()


def refusal(path: Path) -> str:
    with pytest.raises(ImportRefused) as raised:
        require_tflite(path, "mine")
    assert str(path.name) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("model.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "Keras 2"),
        ("model.tflite", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "Keras 2"),
        ("model.keras", archive(config__json=b"{}", model__weights__h5=b""), "Keras 3"),
    ],
)
def test_models_that_need_tensorflow_are_named_with_the_command(
    tmp_path: Path, name: str, content: bytes, named: str
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert named in message
    assert f"litelens import {tmp_path / name} " in message
    assert "--name mine" in message


def test_a_saved_model_is_a_folder_that_needs_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01")
    assert "SavedModel" in refusal(tmp_path / "saved")
    with pytest.raises(ImportRefused, match=f"litelens import {tmp_path / 'saved'} "):
        require_tflite(tmp_path / "saved" / "saved_model.pb", "mine")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("model.tflite", b"", "empty"),
        ("model.onnx", b"\x08\x08\x12\x07pytorch", "ONNX"),
        ("model.tflite", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        ("converted.zip", archive(model_unquant__tflite=b"", labels__txt=b""), "model_unquant.tflite"),
        ("photos.zip", archive(cat__jpg=b""), "ZIP"),
        ("model.pt", archive(data__pkl=b""), "PyTorch"),
        ("model.pth", b"\x80\x02", "PyTorch"),
        ("model.json", b'{"modelTopology": {}}', "TensorFlow.js"),
        ("model.tflite", b"PK\x03\x04 damaged", "ZIP"),
        ("model.tflite", os.urandom(1000).replace(b"TFL3", b"TFL4"), "TFL3"),
        ("model.tflite", small_model()[:6], "TFL3"),
        ("notes.txt", b"this is a text", "TFL3"),
    ],
)
def test_other_files_are_named_by_what_they_are(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert named in refusal(tmp_path / name)


def test_a_folder_is_not_a_missing_file(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    assert "is a folder" in refusal(folder)
    (folder / "model_unquant.tflite").write_bytes(small_model())
    assert str(folder / "model_unquant.tflite") in refusal(folder)
    assert "is a folder" not in refusal(tmp_path / "missing.tflite")


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.tflite")
    refusal(tmp_path / "model.tflite")


def test_a_file_above_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_BYTES", 1000)
    (tmp_path / "model.tflite").write_bytes(small_model() + b"\0" * 1000)
    assert "1,000" in refusal(tmp_path / "model.tflite")


def graph_of(model: bytes) -> Graph:
    return examine(parse(model))


@pytest.mark.parametrize(
    ("inputs", "outputs", "named"),
    [
        ([(1, 300, 300, 3)], [(1, 10, 4), (1, 10), (1, 10), (1,)], "detector"),
        ([PHOTO], [(1, 1917, 4), (1, 1917, 91)], "2 outputs"),
        ([(1, 257, 257, 3)], [(1, 257, 257, 21)], "segmentation"),
        ([(1, 44032)], [(1, 20)], "audio"),
        ([(1, 43, 232, 1)], [(1, 4)], "grayscale"),
        ([(1, 28, 28)], [(1, 10)], r"\(1, 28, 28\)"),
        ([(1, 3, 224, 224)], [(1, 10)], "channels first"),
        ([(1, 8, 224, 224, 3)], [(1, 10)], "video"),
        ([PHOTO, (1, 5)], [(1, 10)], "2 inputs"),
        ([], [(1, 10)], "0 inputs"),
        ([PHOTO], [], "0 outputs"),
        ([PHOTO], [(10,)], r"\(10,\)"),
        ([PHOTO], [(1, 200_000)], "200000"),
        ([(8, 224, 224, 3)], [(8, 10)], "batch of 8"),
        ([(1, -1, -1, 3)], [(1, 10)], "size"),
        ([(1, 5000, 224, 3)], [(1, 10)], "4096"),
    ],
)
def test_models_that_do_not_classify_colour_photos_are_named_by_what_they_are(
    inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]], named: str
) -> None:
    with pytest.raises(ImportRefused, match=named):
        graph_of(other_model(inputs, outputs))


@pytest.mark.parametrize(
    ("custom", "named"),
    [
        ("TFLite_Detection_PostProcess", "detector"),
        ("FlexErf", "FlexErf"),
        ("edgetpu-custom-op", "edgetpu-custom-op"),
    ],
)
def test_operators_that_are_not_in_the_file_are_named(custom: str, named: str) -> None:
    with pytest.raises(ImportRefused, match=named):
        graph_of(other_model([PHOTO], [(1, 10)], custom))


def test_the_data_type_of_an_output_that_has_no_scores_is_named() -> None:
    with pytest.raises(ImportRefused, match="INT64"):
        graph_of(other_model([PHOTO], [(1, 10)], output_type=schema.TensorType.INT64))


def test_several_graphs_are_refused() -> None:
    builder = Builder()
    builder.model.subgraphs = [builder.graph, builder.graph]
    with pytest.raises(ImportRefused, match="2 graphs"):
        parse(builder.build([], []))


def test_more_operators_than_the_limit_are_refused_before_they_are_read() -> None:
    builder = Builder()
    tensor = builder.tensor("t", PHOTO)
    builder.operator(schema.BuiltinOperator.RESHAPE, [tensor], tensor)
    builder.graph.operators *= MAX_OPERATORS + 1
    with pytest.raises(ImportRefused, match=f"{MAX_OPERATORS:,}"):
        parse(builder.build([tensor], [tensor]))


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Run the command, which fails, and return its message."""
    monkeypatch.setenv("LITELENS_MODELS", str(folder / "models"))
    with pytest.raises(SystemExit) as raised:
        main(["import", *arguments, "--mean", "0.5", "--std", "0.5"])
    assert not (folder / "models").exists() or not list((folder / "models").iterdir())
    return raised.value.code


def test_a_refusal_names_the_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sound.tflite"
    path.write_bytes(other_model([(1, 44032)], [(1, 20)]))
    assert str(path) in run(tmp_path, monkeypatch, str(path), "--name", "mine")


@pytest.mark.parametrize(
    ("labels", "named"),
    [("a\nb\na\n", "'a'"), ("a\nb\n", "2 labels"), ("a\nb\nc\nd\n", "4 labels"), ("a\n\x1bb\nc", "U+001B")],
)
def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: str, named: str
) -> None:
    (tmp_path / "model.tflite").write_bytes(small_model())
    (tmp_path / "names.txt").write_text(labels)
    options = (str(tmp_path / "model.tflite"), "--name", "mine", "--labels", str(tmp_path / "names.txt"))
    message = run(tmp_path, monkeypatch, *options)
    assert named in message
    assert "\x1b" not in message


@pytest.mark.parametrize("labels", ["missing.txt", "."])
def test_a_label_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: str
) -> None:
    (tmp_path / "model.tflite").write_bytes(small_model())
    path = str(tmp_path / labels)
    assert path in run(tmp_path, monkeypatch, str(tmp_path / "model.tflite"), "--name", "mine", "--labels", path)


def test_a_model_without_labels_needs_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.tflite").write_bytes(small_model())
    assert "--labels" in run(tmp_path, monkeypatch, str(tmp_path / "model.tflite"), "--name", "mine")


@pytest.mark.parametrize("name", ["Mine", "../mine", "everyday", ""])
def test_a_name_that_no_bundle_can_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "model.tflite").write_bytes(small_model())
    assert f"'{name}'" in run(tmp_path, monkeypatch, str(tmp_path / "model.tflite"), "--name", name)


def test_no_bundle_is_written_over_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "models" / "mine"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text(json.dumps({"learning": {}}))
    (tmp_path / "model.tflite").write_bytes(small_model())
    monkeypatch.setenv("LITELENS_MODELS", str(tmp_path / "models"))
    with pytest.raises(SystemExit, match="mine"):
        main(["import", str(tmp_path / "model.tflite"), "--name", "mine"])
    assert (bundle / "manifest.json").read_text() == '{"learning": {}}'
