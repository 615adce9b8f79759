"""`litelens import` of Keras files and SavedModel folders: what runs, and what is refused. TensorFlow is not needed."""

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bundles import add_bundle, change_manifest

from litelens_client.__main__ import main
from litelens_client.importing import command, tensorflow_models

HDF5 = b"\x89HDF\r\n\x1a\n" + b"\0" * 100


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a Keras file."""
    monkeypatch.delenv("LITELENS_MODELS", raising=False)
    monkeypatch.setattr(command, "can_convert", lambda: True)
    monkeypatch.chdir(tmp_path)
    Path("model.h5").write_bytes(HDF5)
    return tmp_path


class Steps:
    """Stands for the steps of training: records the command, writes a bundle, and ends with a code."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.command: list[str] = []

    def __call__(self, arguments: list[str], **options: Any) -> SimpleNamespace:
        self.command = arguments
        if self.code == 0:
            shutil.rmtree("models/mine", ignore_errors=True)
            write_bundle("mine")
        return SimpleNamespace(returncode=self.code)


def write_bundle(name: str, architecture: str = "file") -> None:
    bundle = add_bundle(Path("models"), name)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["training"]["network"]["architecture"] = architecture
    change_manifest(bundle, training=manifest["training"], name=name)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    monkeypatch.setattr(subprocess, "run", steps)
    return steps


def run(*options: str, model: str = "model.h5") -> int:
    return main(["import", model, "--name", "mine", *options])


def option(steps: Steps, name: str) -> str:
    return steps.command[steps.command.index(name) + 1]


def test_the_options_become_those_of_training(steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--quantize", "photos", "--labels", "names.txt", "--mean", "0.5", "--std", "0.25", "--crop", "0.9") == 0
    assert steps.command[1:4] == ["-m", "training", "all"]
    assert option(steps, "--model") == "model.h5"
    assert option(steps, "--calibration") == "photos"
    assert option(steps, "--labels") == "names.txt"
    assert option(steps, "--models") == "models"
    assert "preprocessing.mean=[0.5, 0.5, 0.5]" in steps.command
    assert "preprocessing.std=[0.25, 0.25, 0.25]" in steps.command
    assert "preprocessing.crop=0.9" in steps.command
    assert "--data" not in steps.command
    assert "models/mine" in capsys.readouterr().out


def test_the_labels_beside_the_model_are_used(steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.txt").write_text("cat\ndog\n")
    assert run("--data", "photos", "--json") == 0
    assert option(steps, "--labels") == "labels.txt"
    assert option(steps, "--data") == "photos"
    assert json.loads(capsys.readouterr().out)["folder"] == "models/mine"


def test_a_saved_model_is_named_by_its_folder_or_its_file(steps: Steps) -> None:
    Path("saved").mkdir()
    Path("saved/saved_model.pb").write_bytes(b"\x08\x01")
    for model in ("saved", "saved/saved_model.pb"):
        assert run("--quantize", "photos", model=model) == 0
        assert option(steps, "--model") == "saved"


@pytest.mark.parametrize(("before", "after"), [(None, "1.0.0"), ("1.0.0", "1.1.0"), ("1.3.0", "1.4.0")])
def test_each_import_has_a_version_of_its_own(steps: Steps, before: str | None, after: str) -> None:
    if before:
        write_bundle("mine")
        change_manifest(Path("models/mine"), version=before)
    assert run("--quantize", "photos") == 0
    assert f'version="{after}"' in steps.command


@pytest.mark.parametrize("options", [["--multi-label"], ["--no-multi-label"], ["--scores", "logits"]])
def test_options_for_tflite_files_are_refused(options: list[str], steps: Steps) -> None:
    with pytest.raises(SystemExit, match=f"{options[0].removeprefix('--no')}.*tflite"):
        run("--quantize", "photos", *options)
    assert steps.command == []


def test_without_photos_nothing_is_started(steps: Steps) -> None:
    with pytest.raises(SystemExit, match=r"--quantize FOLDER.*--data FOLDER"):
        run()
    assert steps.command == []


def test_a_model_that_was_made_otherwise_is_not_replaced(steps: Steps) -> None:
    write_bundle("mine", architecture="resnet50-cifar")
    with pytest.raises(SystemExit, match="not replaced"):
        run("--quantize", "photos")
    assert steps.command == []


@pytest.mark.parametrize(("code", "reason"), [(-11, "signal 11"), (1, "not imported")])
def test_steps_that_fail_are_reported(code: int, reason: str, steps: Steps) -> None:
    steps.code = code
    with pytest.raises(SystemExit, match=reason):
        run("--quantize", "photos")


def test_without_tensorflow_the_sentence_has_the_command(monkeypatch: pytest.MonkeyPatch, steps: Steps) -> None:
    monkeypatch.setattr(command, "can_convert", lambda: False)
    with pytest.raises(SystemExit, match=r"\.venv-train/bin/litelens import model\.h5 --quantize photos --name mine"):
        run("--quantize", "photos")
    assert steps.command == []


def test_models_are_converted_in_a_checkout_with_tensorflow_only(monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    monkeypatch.setattr(tensorflow_models, "find_spec", lambda name: name)
    assert tensorflow_models.can_convert()
    monkeypatch.setattr(tensorflow_models, "_STEPS", work / "training" / "__main__.py")
    assert not tensorflow_models.can_convert()
