"""The command `python -m training`, from images to a bundle that serves, with few images and small networks."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from PIL import Image
from support import CIFAR_BUNDLE, DATA, DEFAULT_BUNDLE, ROCKET, ROOT, encoded, require

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.formats import IMAGE_FORMATS
from litelens.core.images import Limits
from training.__main__ import main
from training.dataset import load_dataset
from training.errors import QuantizationError, RunError
from training.preset import load_preset
from training.quantize import check_integer_only
from training.run import DataSummary, load_fitted_network, open_run, start_run

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
# The first words of all lines that a training prints, except Keras' line for each epoch.
FIRST_WORDS = (
    *("Data: ", "Fitted: ", "Quantizing: ", "TFLiteConverter, ", "litert-quantizer, ", "Quantized: ", "Evaluating ..."),
    *("Evaluated on ", "Report: ", "No golden image has a label", "Golden images omitted", "Published"),
    *("Warning: ", "This CPU has no bfloat16 ", "Fitting "),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrays of cifar10's shape: ten distinguishable shades, with noise."""
    generator = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("data") / "small.npz"
    classes = np.arange(160) % 10
    noise = generator.integers(0, 20, (160, 32, 32, 3))
    images = (classes[:, None, None, None] * 23 + noise).astype(np.uint8)
    np.savez(path, x_train=images[:120], y_train=classes[:120], x_test=images[120:], y_test=classes[120:])
    return path


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and models/, in which every step has run from the command line."""
    folder = tmp_path_factory.mktemp("trained")
    run_steps(folder, data, *STEPS)
    return folder


def run_steps(folder: Path, data: Path, *steps: str, more: tuple[str, ...] = SMALL) -> None:
    for step in steps:
        main([step, "cifar10", f"--data={data}", f"--run={folder / 'run'}", f"--models={folder / 'models'}", *more])


def document(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_published_bundle_can_be_served(folder: Path) -> None:
    classifier = Classifier(load_bundle(folder / "models" / "small"), Limits(), threads=1)
    assert len(classifier.classify(ROCKET.read_bytes()).candidates) == 5


def test_the_bundle_contains_model_head_manifest_metrics_and_report(folder: Path) -> None:
    bundle = folder / "models" / "small"
    files = ["golden", "head.npz", "manifest.json", "metrics.json", "model.tflite", "report.html"]
    assert sorted(p.name for p in bundle.iterdir()) == files
    metrics = document(bundle / "metrics.json")
    assert metrics["metrics"] == document(bundle / "manifest.json")["metrics"]
    assert f"{metrics['metrics']['int8_top1']:.1%}" in (bundle / "report.html").read_text()


def test_the_bundle_contains_golden_images_of_each_format(folder: Path) -> None:
    bundle = load_bundle(folder / "models" / "small")
    assert {image.media_type for image in bundle.golden} == {each.media_type for each in IMAGE_FORMATS}
    assert sorted(p.name for p in (bundle.folder / "golden").iterdir()) == sorted(image.file for image in bundle.golden)


def test_the_manifest_has_the_settings_and_metrics_of_the_training(folder: Path) -> None:
    manifest = document(folder / "models" / "small" / "manifest.json")
    assert manifest["training"]["fit"]["images"] == 90
    assert manifest["training"]["fit"]["epochs"] == 2
    assert manifest["training"]["fit"]["backend"] == "tensorflow"
    assert manifest["metrics"]["test_images"] == 40
    assert 0 <= manifest["metrics"]["int8_top1"] <= manifest["metrics"]["int8_top5"] <= 1
    assert manifest["threshold"] == manifest["metrics"]["threshold"]
    assert manifest["quantization"]["converter"] == "TFLiteConverter"
    assert manifest["files"].keys() == {"model.tflite", "head.npz"}
    assert [field for field in manifest if field != "warnings"] == [
        field for field in document(DEFAULT_BUNDLE / "manifest.json") if field != "warnings"
    ]


def test_the_metrics_document_has_the_details_behind_the_metrics(folder: Path) -> None:
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


def test_the_command_in_the_metrics_document_repeats_the_run(folder: Path, data: Path, tmp_path: Path) -> None:
    command = document(folder / "run" / "metrics.json")["command"]
    assert command.startswith("python -m training all cifar10 --data small.npz --set name=small --set ")
    shutil.copy(data, tmp_path)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'lambda'}"}
    repeated = command.replace("python", sys.executable, 1)
    subprocess.run(repeated, shell=True, check=True, cwd=tmp_path, env=environment, capture_output=True)
    again = document(tmp_path / "models" / "small" / "metrics.json")
    assert again["metrics"] == document(folder / "run" / "metrics.json")["metrics"]


def test_messages_of_libraries_are_hidden(data: Path, tmp_path: Path) -> None:
    """Build all candidates with both converters, as `make train` does, and measure them with both engines."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'lambda'}"
    arguments = [change for change in SMALL if "quantization" not in change]
    arguments += ["--set=recipe.phases.0.epochs=1", "--set=quantization.calibration_images=[20]"]
    command = [sys.executable, "-m", "training", "all", "cifar10", f"--data={data}", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    epoch, *lines = [line for line in done.stdout.splitlines() if not line.startswith(FIRST_WORDS)]
    assert "val_accuracy" in epoch
    assert lines == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fp32_top1": 0.506, "int8_top1": 0.5, "test_images": 1000},
            r"int8 loses 0.60% top-1 to fp32 on 1000 test images; the limit is 0.50%",
        ),
        (
            {"fp32_top1": 0.5, "int8_top1": 0.5, "test_images": 1000, "test_duplicates": 6},
            r"0.60% of the test images also occur for training or validation; the limit is 0.50%",
        ),
        ({"fp32_top1": None, "agreement": 0.89}, r"int8 agrees with fp32 on only 89.00% of the images"),
        (
            {"fp32_top1": 0.5, "int8_top1": 0.5, "openvino_agreement": 0.965, "test_images": 1000},
            r"OpenVINO and LiteRT agree on only 96.50% of the test images; 97% are required",
        ),
        (
            {
                "fp32_top1": 0.5,
                "int8_top1": 0.5,
                "openvino_top1": 0.494,
                "openvino_agreement": 0.98,
                "test_images": 1000,
            },
            r"the top-1 of OpenVINO and LiteRT differs by 0.60% on 1000 test images; the limit is 0.30%",
        ),
    ],
)
def test_a_model_that_is_not_good_enough_is_not_published(
    folder: Path, tmp_path: Path, changes: dict[str, float], message: str
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    measured = document(run / "metrics.json")
    measured["metrics"] |= changes
    (run / "metrics.json").write_text(json.dumps(measured))
    with pytest.raises(SystemExit, match=message):
        run_steps(tmp_path, tmp_path, "publish")
    assert not (tmp_path / "models").exists()


def test_a_loss_of_a_few_images_is_treated_as_chance(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    measured = document(run / "metrics.json")
    measured["metrics"] |= {"fp32_top1": 0.6, "int8_top1": 0.5, "test_images": 40}
    (run / "metrics.json").write_text(json.dumps(measured))
    run_steps(tmp_path, tmp_path, "publish")
    assert load_bundle(tmp_path / "models" / "small").labels


def test_a_preset_can_raise_a_limit_and_the_manifest_has_the_reason(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    measured = document(run / "metrics.json")
    measured["metrics"] |= {"fp32_top1": 0.506, "int8_top1": 0.5, "test_images": 1000}
    (run / "metrics.json").write_text(json.dumps(measured))
    run_steps(tmp_path, tmp_path, "publish", more=(*SMALL, "--set=gate.most_lost=0.01", "--set=gate.reason=small"))
    gate = document(tmp_path / "models" / "small" / "manifest.json")["gate"]
    assert (gate["most_lost"], gate["reason"]) == (0.01, "small")


def test_labels_that_do_not_match_the_outputs_are_not_published(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "data.json").write_text(json.dumps({"labels": ["cat", "dog"], "digest": ""}))
    with pytest.raises(SystemExit, match=r"tensors.logits has the shape \(1, 10\), but there are 2 labels"):
        run_steps(tmp_path, tmp_path, "publish")
    assert list((tmp_path / "models").iterdir()) == []


def test_every_step_refuses_data_with_other_labels(folder: Path, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "data.json").write_text(json.dumps({"labels": ["cat", "dog"], "digest": ""}))
    for step in ("fit", "quantize", "evaluate", "report"):
        with pytest.raises(
            SystemExit, match="was started with 2 labels, 'cat', 'dog', but the data has 10, 'airplane'"
        ):
            run_steps(tmp_path, data, step)


def test_every_step_refuses_other_images_than_those_of_the_run(folder: Path, data: Path, tmp_path: Path) -> None:
    """A test split that is drawn from other images may contain images that were trained on."""
    shutil.copytree(folder / "run", tmp_path / "run")
    with np.load(data) as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "x_train": arrays["x_train"][::-1]})
    for step in ("fit", "quantize", "evaluate", "report"):
        with pytest.raises(
            SystemExit, match="was started with other images, so that test images may have been trained"
        ):
            run_steps(tmp_path, tmp_path / "other.npz", step)


def test_the_head_of_the_bundle_has_the_weights_of_the_network(folder: Path) -> None:
    preset = load_preset("cifar10", [change.removeprefix("--set=") for change in SMALL])
    kernel, bias = load_fitted_network(open_run(folder / "run", preset)).get_layer("logits").get_weights()
    head = load_bundle(folder / "models" / "small").head
    assert head
    assert np.array_equal(head.weights, kernel.T)
    assert np.array_equal(head.bias, bias)


def test_fitting_again_removes_the_model_and_its_head(folder: Path, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    run_steps(tmp_path, data, "fit")
    assert not {"model.tflite", "head.npz"} & {path.name for path in run.iterdir()}


def test_another_candidate_can_be_quantized_without_fitting_again(folder: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    run_steps(tmp_path, data, "quantize", more=(*SMALL, "--set=quantization.weight_bits=[7]"))
    (candidate,) = document(tmp_path / "run" / "candidates.json")["candidates"]
    assert candidate["weight_bits"] == 7


def test_a_version_that_was_not_evaluated_is_not_published(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    with pytest.raises(SystemExit, match=r"has the version '1.0.0', but the preset has '2.0.0'; run: .* evaluate"):
        run_steps(tmp_path, tmp_path, "publish", more=(*SMALL, '--set=version="2.0.0"'))


def test_a_folder_that_is_not_a_bundle_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "models" / "small").mkdir(parents=True)
    (tmp_path / "models" / "small" / "thesis.txt").write_text("the only copy")
    with pytest.raises(SystemExit, match=r"small exists but is not a bundle, so it is not replaced"):
        run_steps(tmp_path, tmp_path, "publish")
    assert (tmp_path / "models" / "small" / "thesis.txt").read_text() == "the only copy"


def test_test_images_that_all_occur_in_training_are_refused(data: Path, tmp_path: Path) -> None:
    with np.load(data) as arrays:
        same = {**arrays, "x_test": arrays["x_train"][:40], "y_test": arrays["y_train"][:40]}
    np.savez(tmp_path / "same.npz", **same)
    run_steps(tmp_path, tmp_path / "same.npz", "fit", "quantize")
    with pytest.raises(SystemExit, match="every test image also occurs for training or validation"):
        run_steps(tmp_path, tmp_path / "same.npz", "evaluate")


def test_a_full_disk_during_the_export_is_reported_in_a_sentence(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("No space left on device; while writing saved_model.pb")

    shutil.copytree(folder / "run", tmp_path / "run")
    monkeypatch.setattr(keras.Model, "export", full)
    with pytest.raises(SystemExit, match="the network cannot be exported: No space left on device"):
        run_steps(tmp_path, data, "quantize")


def test_the_int8_model_approximates_the_network(folder: Path, data: Path) -> None:
    preset = load_preset("cifar10", [change.removeprefix("--set=") for change in SMALL])
    run = open_run(folder / "run", preset)
    network = load_fitted_network(run)
    with np.load(data) as arrays:
        images = arrays["x_test"]
    expected = network.predict(run.preset.preprocessing.normalize(images), verbose=0)["logits"]
    classifier = Classifier(load_bundle(folder / "models" / "small"), Limits(), threads=1)
    found = np.stack([classifier.logits(image) for image in images])
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.95


def test_publishing_again_replaces_the_whole_bundle(folder: Path, data: Path) -> None:
    stale = folder / "models" / "small" / "stale"
    stale.write_text("left over")
    run_steps(folder, data, "publish")
    assert not stale.exists()
    assert sorted(p.name for p in (folder / "models").iterdir()) == ["small"]


def test_a_model_that_was_not_evaluated_or_cannot_be_served_is_not_published(folder: Path, tmp_path: Path) -> None:
    def publish(run: Path) -> None:
        main(["publish", "cifar10", f"--run={run}", f"--models={folder / 'models'}", *SMALL])

    run = shutil.copytree(folder / "run", tmp_path / "run")
    published = (folder / "models" / "small" / "model.tflite").read_bytes()
    (run / "model.tflite").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match=r"metrics.json describes another model than .*model.tflite"):
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
def test_a_failure_during_publishing_keeps_the_published_bundle(
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
            run_steps(folder, data, "publish")
    assert load_bundle(folder / "models" / "small").name == "small"
    assert sorted(p.name for p in (folder / "models").iterdir()) == ["small"]


def test_a_checkpoint_that_cannot_be_written_is_reported_in_a_sentence(data: Path, tmp_path: Path) -> None:
    """The process may only write files of up to 300 kB; a checkpoint is larger."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); "
    call = "from training.__main__ import main; main(sys.argv[1:])"
    arguments = ["fit", "cifar10", f"--data={data}", f"--run={tmp_path / 'run'}", *SMALL]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'lambda'}"}
    done = subprocess.run(
        [sys.executable, "-c", limited + call, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("fix this and run the same command again with --resume.")


def test_quantizing_again_discards_the_measurements(folder: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    run_steps(tmp_path, data, "quantize")
    with pytest.raises(SystemExit, match=r"metrics.json is missing; .*: python -m training evaluate"):
        run_steps(tmp_path, data, "publish")


def test_evaluating_again_discards_the_report(folder: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    run_steps(tmp_path, data, "evaluate")
    with pytest.raises(SystemExit, match=r"report.html is missing; .*: python -m training report"):
        run_steps(tmp_path, data, "publish")


@pytest.mark.parametrize("step", ["quantize", "evaluate", "report", "publish"])
def test_a_step_names_the_missing_step_before_it(step: str, tmp_path: Path, data: Path) -> None:
    with pytest.raises(SystemExit, match=r"preset.json is missing; .*: python -m training fit"):
        run_steps(tmp_path, data, step)
    preset = load_preset("cifar10", [change.removeprefix("--set=") for change in SMALL])
    start_run(tmp_path / "run", preset, DataSummary(preset.label_names(), load_dataset(preset, data).digest()))
    with pytest.raises(SystemExit, match=r"is missing; the step that writes it is: python -m training \w+"):
        run_steps(tmp_path, data, step)


@pytest.mark.parametrize("content", ["{", "[]", '{"images": 3}'])
def test_a_fit_summary_that_is_damaged_or_of_another_version_is_named(
    folder: Path, tmp_path: Path, content: str
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "fit.json").write_text(content)
    with pytest.raises(SystemExit, match=r"fit.json (is damaged|does not fit)"):
        run_steps(tmp_path, tmp_path, "publish")


def test_damaged_weights_are_named(folder: Path, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "network.weights.h5").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match=r"network.weights.h5 is damaged; .*: python -m training fit"):
        run_steps(tmp_path, data, "quantize")


def test_a_complete_fit_is_not_repeated_by_resume(
    folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    before = (run / "network.weights.h5").read_bytes()
    run_steps(tmp_path, data, "fit", more=(*SMALL, "--resume"))
    assert "Fitted already" in capsys.readouterr().out
    assert (run / "network.weights.h5").read_bytes() == before


def test_a_new_version_of_a_preset_can_be_published_without_fitting_again(folder: Path) -> None:
    preset = load_preset("cifar10", [change.removeprefix("--set=") for change in SMALL])
    renewed = msgspec.structs.replace(preset, version="9.9.9", description="Another.")
    assert open_run(folder / "run", renewed).preset.version == "9.9.9"


def test_all_steps_are_refused_on_a_backend_that_cannot_export(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.config.backend", lambda: "torch")
    with pytest.raises(SystemExit, match="needs Keras' tensorflow backend"):
        run_steps(tmp_path, data, "all")
    assert not (tmp_path / "run").exists()


def test_a_folder_with_another_run_is_not_overwritten(folder: Path, data: Path) -> None:
    with pytest.raises(SystemExit, match="contains a run of another preset"):
        run_steps(folder, data, "fit", more=(*SMALL, "--set=recipe.seed=9"))
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
    run_steps(tmp_path, tmp_path / "noise.npz", "all", more=(*SMALL, "--set=recipe.phases.0.epochs=1"))
    manifest = document(tmp_path / "models" / "small" / "manifest.json")
    (warning,) = manifest["warnings"]
    assert "do not show that this model is better than chance" in warning
    out = capsys.readouterr().out
    assert out.count(f"Warning: {warning} Do not rely on it: ") == 2
    assert f"Published with a warning: {tmp_path / 'models' / 'small'}" in out
    report = (tmp_path / "models" / "small" / "report.html").read_text()
    assert "Do not rely on this model." in report


def test_a_model_better_than_chance_is_published_without_a_warning(
    folder: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_steps(folder, data, "publish")
    assert capsys.readouterr().out.splitlines()[-1] == f"Published: {folder / 'models' / 'small'}"
    assert document(folder / "models" / "small" / "manifest.json")["warnings"] == []
    assert "Do not rely on this model." not in (folder / "run" / "report.html").read_text()


def test_the_description_of_a_network_with_random_weights_says_so(folder: Path) -> None:
    expected = "Classifies images into CIFAR-10's 10 classes. The network, cnn, was trained from random weights."
    bundle = folder / "models" / "small"
    assert document(bundle / "manifest.json")["description"] == expected
    assert document(bundle / "metrics.json")["description"] == expected
    report = (bundle / "report.html").read_text()
    assert expected.replace("'", "&#39;") in report
    assert "pretrained" not in report


def test_a_run_that_failed_before_its_first_epoch_can_be_started_again(
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
def test_a_run_with_results_is_not_replaced(result: str, tmp_path: Path) -> None:
    preset, data = load_preset("folder"), DataSummary(("cat", "dog"), "digest")
    start_run(tmp_path, preset, data)
    (tmp_path / result).mkdir()
    other = load_preset("folder", ["network.weights=none"])
    with pytest.raises(RunError, match="contains a run of another preset"):
        start_run(tmp_path, other, data)
    with pytest.raises(RunError, match="was started with other images"):
        start_run(tmp_path, preset, DataSummary(("cat", "dog"), "another digest"))


def test_an_unknown_or_missing_preset_is_reported_in_a_sentence() -> None:
    with pytest.raises(SystemExit, match="there is no preset 'nothing'"):
        main(["fit", "nothing"])
    with pytest.raises(SystemExit, match="Give a preset from training/presets"):
        main(["fit"])


def test_the_accelerators_recipe_runs_for_a_step(data: Path, tmp_path: Path) -> None:
    """The preset `cifar100` with its network and precision, but only one epoch of one batch of eight images."""
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
    """Write class folders of bright and dark images, one of which cannot be read."""
    generator = np.random.default_rng(4)
    for name, least in (("bright", 150), ("dark", 0)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(least, least + 100, (40, 50, 3), dtype=np.uint8)
            (folder / name / f"{index}.jpg").write_bytes(encoded(Image.fromarray(pixels), "JPEG"))
    (folder / "dark" / "broken.jpg").write_bytes((folder / "dark" / "0.jpg").read_bytes()[:200])
    return folder


def test_one_command_makes_a_bundle_of_a_folder_of_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_the_report_can_omit_test_images(folder: Path, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    with_examples = (run / "report.html").read_text()
    run_steps(tmp_path, data, "report", more=(*SMALL, "--no-examples"))
    assert len((run / "report.html").read_text()) < len(with_examples)


def test_cats_vs_dogs_runs_on_real_photos(tmp_path: Path) -> None:
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


def test_the_bundled_model_has_integer_tensors_only() -> None:
    check_integer_only((CIFAR_BUNDLE / "model.tflite").read_bytes())


def test_the_bundled_model_has_plain_operators_only() -> None:
    interpreter = Interpreter(
        model_path=str(CIFAR_BUNDLE / "model.tflite"),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert operators <= {"CONV_2D", "FULLY_CONNECTED", "ADD", "MEAN", "PAD", "MAX_POOL_2D"}


def test_a_model_with_floats_is_refused() -> None:
    import keras
    import tensorflow as tf

    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    floats = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    with pytest.raises(QuantizationError, match="is float32, not int8"):
        check_integer_only(floats)
