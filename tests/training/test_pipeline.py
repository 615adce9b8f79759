"""The whole way from images to a bundle that serves, on a few images and small networks, by the command line."""

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from PIL import Image
from support import CIFAR_BUNDLE, DATA, DEFAULT_BUNDLE, ROCKET, ROOT, encoded, require

from handlers.bodies import IMAGE_TYPES
from litelens.bundle import load_bundle
from litelens.classifier import Classifier
from litelens.images import Limits
from training.__main__ import main
from training.assemble import build_network
from training.dataset import load_dataset
from training.errors import QuantizationError, RunError
from training.preset import load_preset
from training.quantize import check_integer_only
from training.run import DataFacts, open_run, start_run

STEPS = ("fit", "quantize", "evaluate", "report", "publish")
SMALL = (
    "--set=name=small",
    "--set=network.architecture=cnn",
    "--set=network.weights=none",
    "--set=gate.most_lost=0.005",
    "--set=preprocessing.height=32",
    "--set=preprocessing.width=32",
    "--set=validation_share=0.25",
    "--set=recipe.batch_size=16",
    "--set=recipe.precision=float32",
    "--set=recipe.steps_per_execution=1",
    "--set=recipe.phases.0.epochs=2",
    "--set=recipe.phases.0.warmup_epochs=0",
    "--set=recipe.phases.0.learning_rate=0.01",
    "--set=quantization.converters=['TFLiteConverter']",
    "--set=quantization.weight_bits=[8]",
    "--set=quantization.calibration_images=[20]",
)
# The beginnings of all lines that a training prints, except Keras' line for each epoch.
BEGINNINGS = (
    *("Data: ", "Fitted: ", "Quantizing: ", "TFLiteConverter, ", "litert-quantizer, ", "Quantized: ", "Evaluating ..."),
    *("Evaluated on ", "Report: ", "The model is sure of no golden image", "Golden images without ", "Published"),
    *("Warning: ", "This CPU has no bfloat16 ", "Fitting "),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrays of cifar10's shape: ten shades that can be told apart, with noise."""
    generator = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("data") / "small.npz"
    classes = np.arange(160) % 10
    noise = generator.integers(0, 20, (160, 32, 32, 3))
    images = (classes[:, None, None, None] * 23 + noise).astype(np.uint8)
    np.savez(path, x_train=images[:120], y_train=classes[:120], x_test=images[120:], y_test=classes[120:])
    return path


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every step was run from the command line; it holds the run and models/."""
    folder = tmp_path_factory.mktemp("trained")
    step_by_step(folder, data, *STEPS)
    return folder


def step_by_step(folder: Path, data: Path, *steps: str, more: tuple[str, ...] = SMALL) -> None:
    for step in steps:
        main([step, "cifar10", f"--data={data}", f"--run={folder / 'run'}", f"--models={folder / 'models'}", *more])


def document(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_published_bundle_serves(folder: Path) -> None:
    classifier = Classifier(load_bundle(folder / "models" / "small"), Limits(), threads=1)
    assert len(classifier.classify(ROCKET.read_bytes()).candidates) == 5


def test_the_bundle_holds_model_manifest_measurements_and_report(folder: Path) -> None:
    bundle = folder / "models" / "small"
    files = ["golden", "manifest.json", "metrics.json", "model.tflite", "report.html"]
    assert sorted(p.name for p in bundle.iterdir()) == files
    metrics = document(bundle / "metrics.json")
    assert metrics["metrics"] == document(bundle / "manifest.json")["metrics"]
    assert f"{metrics['metrics']['int8_top1']:.1%}" in (bundle / "report.html").read_text()


def test_the_bundle_holds_golden_images_of_each_format(folder: Path) -> None:
    bundle = load_bundle(folder / "models" / "small")
    assert {image.media_type for image in bundle.golden} == set(IMAGE_TYPES)
    assert sorted(p.name for p in (bundle.folder / "golden").iterdir()) == sorted(image.file for image in bundle.golden)


def test_the_manifest_says_what_was_done_and_measured(folder: Path) -> None:
    manifest = document(folder / "models" / "small" / "manifest.json")
    assert manifest["training"]["fit"]["images"] == 90
    assert manifest["training"]["fit"]["epochs"] == 2
    assert manifest["training"]["fit"]["backend"] == "tensorflow"
    assert manifest["metrics"]["test_images"] == 40
    assert 0 <= manifest["metrics"]["int8_top1"] <= manifest["metrics"]["int8_top5"] <= 1
    assert manifest["threshold"] == manifest["metrics"]["threshold"]
    assert manifest["quantization"]["converter"] == "TFLiteConverter"
    assert [field for field in manifest if field != "warnings"] == [
        field for field in document(DEFAULT_BUNDLE / "manifest.json") if field != "warnings"
    ]


def test_the_measurements_hold_what_the_figures_are_made_of(folder: Path) -> None:
    measured = document(folder / "run" / "metrics.json")
    assert [row["label"] for row in measured["classes"]] == list(load_preset("cifar10").label_names())
    assert sum(map(sum, measured["confusion"])) == measured["metrics"]["test_images"]
    assert sum(row["images"] for row in measured["reliability"]) == measured["metrics"]["test_images"]
    assert measured["coverage"][-1]["accuracy"] == pytest.approx(measured["metrics"]["int8_top1"])
    assert {name: sum(counts) for name, counts in measured["distribution"].items()} == {
        "train": 90,
        "validation": 30,
        "test": 40,
    }
    assert [(str(row["phase"]), str(row["epoch"])) for row in measured["history"]] == [("1", "1"), ("1", "2")]
    assert [candidate["chosen"] for candidate in measured["candidates"]] == [True]


def test_the_command_in_the_measurements_repeats_the_run(folder: Path, data: Path, tmp_path: Path) -> None:
    command = document(folder / "run" / "metrics.json")["command"]
    assert command.startswith("python -m training all cifar10 --data small.npz --set name=small --set ")
    shutil.copy(data, tmp_path)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'lambda'}"}
    repeated = command.replace("python", sys.executable, 1)
    subprocess.run(repeated, shell=True, check=True, cwd=tmp_path, env=environment, capture_output=True)
    again = document(tmp_path / "models" / "small" / "metrics.json")
    assert again["metrics"] == document(folder / "run" / "metrics.json")["metrics"]


def test_nothing_of_the_libraries_below_is_printed(data: Path, tmp_path: Path) -> None:
    """As in `make train`: all candidates are made, by both converters, and measured by both engines."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'lambda'}"
    arguments = [change for change in SMALL if "quantization" not in change]
    arguments += ["--set=recipe.phases.0.epochs=1", "--set=quantization.calibration_images=[20]"]
    command = [sys.executable, "-m", "training", "all", "cifar10", f"--data={data}", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    epoch, *lines = [line for line in done.stdout.splitlines() if not line.startswith(BEGINNINGS)]
    assert "val_accuracy" in epoch
    assert lines == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"fp32_top1": 0.506, "int8_top1": 0.5, "test_images": 1000},
            r"int8 loses 0.60% top-1 to fp32 on 1000 test images, more than the 0.50%",
        ),
        ({"test_images": 1000, "test_duplicates": 6}, r"0.60% of the test images also occur among those for training"),
        ({"fp32_top1": None, "agreement": 0.89}, r"int8 agrees with fp32 on 89.00% of the images only"),
        (
            {"openvino_agreement": 0.965, "test_images": 1000},
            r"OpenVINO and LiteRT agree on 96.50% of the test images only, less than the 97%",
        ),
        (
            {
                "fp32_top1": 0.5,
                "int8_top1": 0.5,
                "openvino_top1": 0.494,
                "openvino_agreement": 0.98,
                "test_images": 1000,
            },
            r"OpenVINO and LiteRT are 0.60% apart in top-1 on 1000 test images, more than the 0.30%",
        ),
    ],
)
def test_a_model_that_is_not_good_enough_is_not_published(
    folder: Path, tmp_path: Path, changes: dict[str, float], complaint: str
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    measured = document(run / "metrics.json")
    measured["metrics"] |= changes
    (run / "metrics.json").write_text(json.dumps(measured))
    with pytest.raises(SystemExit, match=complaint):
        step_by_step(tmp_path, tmp_path, "publish")
    assert not (tmp_path / "models").exists()


def test_a_few_lost_images_of_a_small_test_set_count_as_chance(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    measured = document(run / "metrics.json")
    measured["metrics"] |= {"fp32_top1": 0.6, "int8_top1": 0.5, "test_images": 40}
    (run / "metrics.json").write_text(json.dumps(measured))
    step_by_step(tmp_path, tmp_path, "publish")
    assert load_bundle(tmp_path / "models" / "small").labels


def test_a_preset_may_let_more_pass_and_its_manifest_says_why(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    measured = document(run / "metrics.json")
    measured["metrics"] |= {"fp32_top1": 0.506, "int8_top1": 0.5, "test_images": 1000}
    (run / "metrics.json").write_text(json.dumps(measured))
    step_by_step(tmp_path, tmp_path, "publish", more=(*SMALL, "--set=gate.most_lost=0.01", "--set=gate.reason=small"))
    gate = document(tmp_path / "models" / "small" / "manifest.json")["gate"]
    assert (gate["most_lost"], gate["reason"]) == (0.01, "small")


def test_labels_that_do_not_fit_the_models_outputs_are_not_published(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "data.json").write_text(json.dumps({"labels": ["cat", "dog"], "digest": ""}))
    with pytest.raises(SystemExit, match=r"the tensor logits has the shape \(1, 10\), but there are 2 labels"):
        step_by_step(tmp_path, tmp_path, "publish")
    assert list((tmp_path / "models").iterdir()) == []


def test_data_of_other_labels_are_refused_by_every_step(folder: Path, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "data.json").write_text(json.dumps({"labels": ["cat", "dog"], "digest": ""}))
    for step in ("fit", "quantize", "evaluate", "report"):
        with pytest.raises(SystemExit, match="was begun with 2 labels, 'cat', 'dog', but the data has 10, 'airplane'"):
            step_by_step(tmp_path, data, step)


def test_other_images_than_the_run_was_begun_with_are_refused(folder: Path, data: Path, tmp_path: Path) -> None:
    """Drawn anew from more images, the test split would hold some that were trained on."""
    shutil.copytree(folder / "run", tmp_path / "run")
    with np.load(data) as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "x_train": arrays["x_train"][::-1]})
    for step in ("fit", "quantize", "evaluate", "report"):
        with pytest.raises(SystemExit, match="was begun with other images, so that test images may have been trained"):
            step_by_step(tmp_path, tmp_path / "other.npz", step)


def test_another_candidate_can_be_made_without_fitting_again(folder: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    step_by_step(tmp_path, data, "quantize", more=(*SMALL, "--set=quantization.weight_bits=[7]"))
    (candidate,) = document(tmp_path / "run" / "candidates.json")["candidates"]
    assert candidate["weight_bits"] == 7


def test_a_version_that_was_not_measured_is_not_published(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    with pytest.raises(SystemExit, match=r"says version '1.0.0', but the preset '2.0.0'; run: .* evaluate"):
        step_by_step(tmp_path, tmp_path, "publish", more=(*SMALL, '--set=version="2.0.0"'))


def test_a_folder_that_is_no_bundle_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "models" / "small").mkdir(parents=True)
    (tmp_path / "models" / "small" / "thesis.txt").write_text("the only copy")
    with pytest.raises(SystemExit, match=r"small is there but is no bundle, and is left as it is"):
        step_by_step(tmp_path, tmp_path, "publish")
    assert (tmp_path / "models" / "small" / "thesis.txt").read_text() == "the only copy"


def test_test_images_that_all_occur_in_training_are_refused(data: Path, tmp_path: Path) -> None:
    with np.load(data) as arrays:
        same = {**arrays, "x_test": arrays["x_train"][:40], "y_test": arrays["y_train"][:40]}
    np.savez(tmp_path / "same.npz", **same)
    step_by_step(tmp_path, tmp_path / "same.npz", "fit", "quantize")
    with pytest.raises(SystemExit, match="every test image also occurs for training or validation"):
        step_by_step(tmp_path, tmp_path / "same.npz", "evaluate")


def test_a_full_disk_where_models_are_exported_is_a_sentence(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("No space left on device; while writing saved_model.pb")

    shutil.copytree(folder / "run", tmp_path / "run")
    monkeypatch.setattr(keras.Model, "export", full)
    with pytest.raises(SystemExit, match="the network cannot be exported: No space left on device"):
        step_by_step(tmp_path, data, "quantize")


def test_the_int8_model_follows_the_network(folder: Path, data: Path) -> None:
    preset = load_preset("cifar10", [change.removeprefix("--set=") for change in SMALL])
    run = open_run(folder / "run", preset)
    network = build_network(run.preset, len(run.labels))
    network.load_weights(run.weights)
    with np.load(data) as arrays:
        images = arrays["x_test"]
    expected = network.predict(run.preset.preprocessing.normalized(images), verbose=0)["logits"]
    classifier = Classifier(load_bundle(folder / "models" / "small"), Limits(), threads=1)
    found = np.stack([classifier.logits(image) for image in images])
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.95


def test_publishing_again_replaces_the_bundle_whole(folder: Path, data: Path) -> None:
    stale = folder / "models" / "small" / "stale"
    stale.write_text("left over")
    step_by_step(folder, data, "publish")
    assert not stale.exists()
    assert sorted(p.name for p in (folder / "models").iterdir()) == ["small"]


def test_a_model_that_was_not_measured_or_cannot_be_served_is_not_published(folder: Path, tmp_path: Path) -> None:
    def publish(run: Path) -> None:
        main(["publish", "cifar10", f"--run={run}", f"--models={folder / 'models'}", *SMALL])

    run = shutil.copytree(folder / "run", tmp_path / "run")
    published = (folder / "models" / "small" / "model.tflite").read_bytes()
    (run / "model.tflite").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match=r"metrics.json is of another model than .*model.tflite"):
        publish(run)
    metrics = document(run / "metrics.json")
    (run / "metrics.json").write_text(json.dumps({**metrics, "model": hashlib.sha256(b"damaged").hexdigest()}))
    with pytest.raises(SystemExit, match="this is not a TFLite model"):
        publish(run)
    assert (folder / "models" / "small" / "model.tflite").read_bytes() == published
    assert sorted(p.name for p in (folder / "models").iterdir()) == ["small"]


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (
            OSError(28, "No space left on device", "models/small"),
            r"models/small: No space left on device. Nothing was published",
        ),
        (KeyboardInterrupt(), "Stopped"),
    ],
    ids=["full disk", "interruption"],
)
def test_a_failure_at_the_last_moment_is_a_sentence_and_leaves_the_published_bundle(
    folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, sentence: str
) -> None:
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name == "bundle":
            raise failure
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(SystemExit, match=sentence):
            step_by_step(folder, data, "publish")
    assert load_bundle(folder / "models" / "small").name == "small"
    assert sorted(p.name for p in (folder / "models").iterdir()) == ["small"]


def test_a_disk_that_takes_no_checkpoint_is_a_sentence(data: Path, tmp_path: Path) -> None:
    """The process may write files of 300 kB at most, which a checkpoint exceeds."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); "
    call = "from training.__main__ import main; main(sys.argv[1:])"
    arguments = ["fit", "cifar10", f"--data={data}", f"--run={tmp_path / 'run'}", *SMALL]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'lambda'}"}
    done = subprocess.run(
        [sys.executable, "-c", limited + call, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("mend that and give the same command again, with --resume.")


def test_a_new_model_makes_the_old_measurements_void(folder: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    step_by_step(tmp_path, data, "quantize")
    with pytest.raises(SystemExit, match=r"metrics.json is missing; .*: python -m training evaluate"):
        step_by_step(tmp_path, data, "publish")


def test_new_measurements_make_the_old_report_void(folder: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    step_by_step(tmp_path, data, "evaluate")
    with pytest.raises(SystemExit, match=r"report.html is missing; .*: python -m training report"):
        step_by_step(tmp_path, data, "publish")


@pytest.mark.parametrize("step", ["quantize", "evaluate", "report", "publish"])
def test_a_step_without_the_one_before_it_says_which(step: str, tmp_path: Path, data: Path) -> None:
    with pytest.raises(SystemExit, match=r"preset.json is missing; .*: python -m training fit"):
        step_by_step(tmp_path, data, step)
    preset = load_preset("cifar10", [change.removeprefix("--set=") for change in SMALL])
    start_run(tmp_path / "run", preset, DataFacts(preset.label_names(), load_dataset(preset, data).digest()))
    with pytest.raises(SystemExit, match=r"is missing; the step that writes it is: python -m training \w+"):
        step_by_step(tmp_path, data, step)


@pytest.mark.parametrize("content", ["{", "[]", '{"images": 3}'])
def test_facts_that_are_damaged_or_of_another_version_are_named(folder: Path, tmp_path: Path, content: str) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "fit.json").write_text(content)
    with pytest.raises(SystemExit, match=r"fit.json (is damaged|does not fit)"):
        step_by_step(tmp_path, tmp_path, "publish")


def test_damaged_weights_are_named(folder: Path, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "network.weights.h5").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match=r"network.weights.h5 is damaged; .*: python -m training fit"):
        step_by_step(tmp_path, data, "quantize")


def test_a_fit_that_is_done_is_not_done_again_when_it_is_resumed(
    folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    before = (run / "network.weights.h5").read_bytes()
    step_by_step(tmp_path, data, "fit", more=(*SMALL, "--resume"))
    assert "Fitted already" in capsys.readouterr().out
    assert (run / "network.weights.h5").read_bytes() == before


def test_a_new_version_of_a_preset_can_be_published_without_fitting_again(folder: Path) -> None:
    preset = load_preset("cifar10", [change.removeprefix("--set=") for change in SMALL])
    renewed = dataclasses.replace(preset, version="9.9.9", description="Another.")
    assert open_run(folder / "run", renewed).preset.version == "9.9.9"


def test_all_steps_are_not_begun_on_a_backend_that_cannot_take_the_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.config.backend", lambda: "torch")
    with pytest.raises(SystemExit, match="needs Keras' tensorflow backend"):
        step_by_step(tmp_path, data, "all")
    assert not (tmp_path / "run").exists()


def test_a_folder_with_another_run_is_not_overwritten(folder: Path, data: Path) -> None:
    with pytest.raises(SystemExit, match="holds a run of another preset"):
        step_by_step(folder, data, "fit", more=(*SMALL, "--set=recipe.seed=9"))
    assert (folder / "run" / "metrics.json").is_file()


def test_a_model_no_better_than_chance_is_published_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(7)
    arrays = {
        f"{part}_{split}": generator.integers(0, 256 if part == "x" else 10, (count, *shape), dtype=np.uint8)
        for split, count in (("train", 60), ("test", 30))
        for part, shape in (("x", (32, 32, 3)), ("y", ()))
    }
    np.savez(tmp_path / "noise.npz", **arrays)
    step_by_step(tmp_path, tmp_path / "noise.npz", "all", more=(*SMALL, "--set=recipe.phases.0.epochs=1"))
    manifest = document(tmp_path / "models" / "small" / "manifest.json")
    (warning,) = manifest["warnings"]
    assert warning.startswith("The test images do not show that this model is better than chance: it classifies ")
    out = capsys.readouterr().out
    assert out.count(f"Warning: {warning} Do not rely on it: ") == 2
    assert f"Published with a warning: {tmp_path / 'models' / 'small'}" in out
    report = (tmp_path / "models" / "small" / "report.html").read_text()
    assert "Do not rely on this model." in report


def test_a_model_better_than_chance_is_published_without_a_warning(
    folder: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step_by_step(folder, data, "publish")
    assert capsys.readouterr().out.splitlines()[-1] == f"Published: {folder / 'models' / 'small'}"
    assert document(folder / "models" / "small" / "manifest.json")["warnings"] == []
    assert "Do not rely on this model." not in (folder / "run" / "report.html").read_text()


def test_a_network_that_was_not_pretrained_is_not_said_to_be(folder: Path) -> None:
    expected = "Classifies images into CIFAR-10's 10 classes. The network, cnn, was trained from random weights."
    bundle = folder / "models" / "small"
    assert document(bundle / "manifest.json")["description"] == expected
    assert document(bundle / "metrics.json")["description"] == expected
    report = (bundle / "report.html").read_text()
    assert expected.replace("'", "&#39;") in report
    assert "pretrained" not in report


def test_a_run_that_failed_before_its_first_epoch_is_started_anew(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = photos(tmp_path / "photos")
    where = ["--name=mine", f"--run={tmp_path / 'run'}", f"--models={tmp_path / 'models'}"]
    missing = f"--set=network.weights={tmp_path / 'missing.h5'}"
    with pytest.raises(SystemExit, match="there is no file"):
        main(["all", "folder", f"--data={photos(tmp_path / 'few', 10)}", *where, *PHOTOS[2:], missing])
    main(["all", "folder", f"--data={more}", *where, *PHOTOS])
    assert "Published" in capsys.readouterr().out
    training = document(tmp_path / "models" / "mine" / "manifest.json")["training"]
    assert (training["network"]["architecture"], training["network"]["weights"]) == ("cnn", "none")


@pytest.mark.parametrize("result", ["checkpoint", "teacher", "network.weights.h5", "model.tflite", "metrics.json"])
def test_a_run_with_anything_to_lose_is_not_started_anew(result: str, tmp_path: Path) -> None:
    preset, data = load_preset("folder"), DataFacts(("cat", "dog"), "digest")
    start_run(tmp_path, preset, data)
    (tmp_path / result).mkdir()
    other = load_preset("folder", ["network.weights=none"])
    with pytest.raises(RunError, match="holds a run of another preset"):
        start_run(tmp_path, other, data)
    with pytest.raises(RunError, match="was begun with other images"):
        start_run(tmp_path, preset, DataFacts(("cat", "dog"), "another digest"))


def test_an_unknown_preset_and_none_at_all_are_sentences() -> None:
    with pytest.raises(SystemExit, match="there is no preset 'nothing'"):
        main(["fit", "nothing"])
    with pytest.raises(SystemExit, match=r"Which preset\?"):
        main(["fit"])


def test_the_accelerators_recipe_runs_for_a_step(data: Path, tmp_path: Path) -> None:
    """The preset `cifar100` as it is, real network and precision, but for one epoch of one batch of eight images."""
    with np.load(data) as arrays:
        few = {name: array[:12] for name, array in arrays.items()}
    np.savez(tmp_path / "few.npz", **few)
    changes = ["--set=validation_share=0.3", "--set=recipe.batch_size=8", "--set=recipe.phases.0.epochs=1"]
    changes += ["--set=recipe.phases.0.warmup_epochs=0"]
    main(["fit", "cifar100", f"--data={tmp_path / 'few.npz'}", f"--run={tmp_path / 'run'}", *changes])
    with (tmp_path / "run" / "history.csv").open() as file:
        (epoch,) = csv.DictReader(file)
    assert 0 < float(epoch["loss"]) < 20


PHOTOS = (
    "--set=network.architecture=cnn",
    "--set=network.weights=none",
    "--set=preprocessing.height=32",
    "--set=preprocessing.width=32",
    "--set=recipe.phases.0.epochs=1",
    "--set=recipe.phases.1.epochs=1",
    "--set=quantization.calibration_images=[20]",
)


def photos(folder: Path, count: int = 20) -> Path:
    """Class folders of bright and dark images, one of which cannot be read."""
    generator = np.random.default_rng(4)
    for name, least in (("bright", 150), ("dark", 0)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(least, least + 100, (40, 50, 3), dtype=np.uint8)
            (folder / name / f"{index}.jpg").write_bytes(encoded(Image.fromarray(pixels), "JPEG"))
    (folder / "dark" / "broken.jpg").write_bytes((folder / "dark" / "0.jpg").read_bytes()[:200])
    return folder


def test_a_folder_of_photos_becomes_a_bundle_that_serves_by_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = photos(tmp_path / "photos")
    where = [f"--data={data}", f"--run={tmp_path / 'run'}", f"--models={tmp_path / 'models'}"]
    main(["all", "folder", "--name=mine", *where, *PHOTOS, "--set=recipe.phases.1.learning_rate=0.01"])
    assert "dark/broken.jpg: The image is truncated" in capsys.readouterr().out
    bundle = load_bundle(tmp_path / "models" / "mine")
    assert bundle.labels == ("bright", "dark")
    report = (bundle.folder / "report.html").read_text()
    assert "dark/broken.jpg" in report
    assert "data:image/png;base64," in report
    assert document(bundle.folder / "metrics.json")["skipped"]["images"] == 1


def test_the_report_leaves_test_images_out_when_it_is_told_to(folder: Path, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    with_examples = (run / "report.html").read_text()
    step_by_step(tmp_path, data, "report", more=(*SMALL, "--no-examples"))
    assert len((run / "report.html").read_text()) < len(with_examples)


def test_cats_vs_dogs_runs_through_on_real_photos(tmp_path: Path) -> None:
    require((DATA / "dogs-vs-cats").is_dir(), f"the photos of cats and dogs are not at {DATA}")
    for split, count in (("train", 40), ("test", 15)):
        for name in ("cat", "dog"):
            (tmp_path / "few" / split / name).mkdir(parents=True)
            for photo in sorted((DATA / "dogs-vs-cats" / split / name).iterdir())[:count]:
                shutil.copy(photo, tmp_path / "few" / split / name)
    where = [f"--data={tmp_path / 'few'}", f"--run={tmp_path / 'run'}", f"--models={tmp_path / 'models'}"]
    main(["all", "cats-vs-dogs", *where, *PHOTOS])
    metrics = document(tmp_path / "models" / "cats-vs-dogs" / "manifest.json")["metrics"]
    assert metrics["test_images"] + metrics["test_duplicates"] == 30
    assert (tmp_path / "models" / "cats-vs-dogs" / "report.html").read_text().count("data:image/png;base64,") > 2


def test_the_bundled_model_is_integers_only() -> None:
    check_integer_only((CIFAR_BUNDLE / "model.tflite").read_bytes())


def test_the_bundled_model_has_plain_operators_only() -> None:
    interpreter = Interpreter(
        model_path=str(CIFAR_BUNDLE / "model.tflite"),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert operators <= {"CONV_2D", "ADD", "MEAN", "PAD", "MAX_POOL_2D"}


def test_a_model_with_floats_is_refused() -> None:
    import keras
    import tensorflow as tf

    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    floats = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    with pytest.raises(QuantizationError, match="is float32, not int8"):
        check_integer_only(floats)
