"""Presets that fit nothing: published and imported networks become bundles that serve."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from test_network import save_published_weights

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier, Options
from litelens.core.images import Limits
from training.__main__ import main

LABELS = ("black", "grey", "white")
FILES = ["manifest.json", "metrics.json", "model.tflite", "report.html"]
SMALL = ("--set=preprocessing.height=32", "--set=preprocessing.width=32", "--set=quantization.weight_bits=[8]")
CONVERTER = "--set=quantization.converters=['TFLiteConverter']"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier of three shades, its labels, and photos, in class folders and without."""
    folder = tmp_path_factory.mktemp("imported")
    classifier().save(folder / "shades.keras")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    generator = np.random.default_rng(5)
    for label, level in zip(LABELS, (20, 128, 235), strict=True):
        for kind in (f"labelled/{label}", "photos"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for index in range(12):
                pixels = generator.integers(level - 20, level + 20, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / kind / f"{label}-{index}.png")
    return folder


def classifier() -> keras.Model:
    """Classify by the mean of the pixels from 0 to 255: the nearest shade has the highest score."""
    inputs = keras.Input((32, 32, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu", name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="last")(pooled))
    kernel = np.zeros((3, 3, 3, 4), np.float32)
    kernel[1, 1, :, 0] = 1 / 3 / 255
    model.get_layer("first").set_weights([kernel, np.zeros(4, np.float32)])
    weights = np.zeros((4, 3), np.float32)
    weights[0] = [-20, 0, 20]
    model.get_layer("last").set_weights([weights, np.array([5, 0, -15], np.float32)])
    return model


def run_step(work: Path, folder: Path, step: str, *more: str, model: Path | None = None) -> None:
    where = [f"--run={folder / 'run'}", f"--models={folder / 'models'}", "--name=shades"]
    given = [f"--model={model or work / 'shades.keras'}", f"--labels={work / 'labels.txt'}"]
    main([step, *given, *where, *SMALL, CONVERTER, *more])


def document(path: Path) -> Any:
    return json.loads(path.read_text())


def test_an_imported_model_becomes_a_bundle_with_unlabelled_photos(work: Path, tmp_path: Path) -> None:
    run_step(work, tmp_path, "all", f"--calibration={work / 'photos'}")
    bundle = load_bundle(tmp_path / "models" / "shades")
    served = Classifier(bundle, Limits(), threads=1)
    for label in LABELS:
        photo = (work / "labelled" / label / f"{label}-3.png").read_bytes()
        assert served.classify(photo, Options(top_k=3)).candidates[0].label == label
    metrics = bundle.manifest["metrics"]
    assert metrics["int8_top1"] is None
    assert metrics["agreement"] > 0.9
    assert bundle.manifest["training"]["fit"] is None
    assert bundle.manifest["training"]["network"]["weights"] == "shades.keras"


def test_an_imported_model_without_features_becomes_a_bundle_without_a_head(work: Path, tmp_path: Path) -> None:
    inputs = keras.Input((32, 32, 3))
    flat = layers.Flatten()(layers.MaxPooling2D(8)(inputs))
    keras.Model(inputs, layers.Dense(3)(flat)).save(tmp_path / "flat.keras")
    run_step(work, tmp_path, "all", f"--calibration={work / 'photos'}", model=tmp_path / "flat.keras")
    bundle = load_bundle(tmp_path / "models" / "shades")
    assert bundle.head is None
    assert sorted(path.name for path in bundle.folder.glob("*.*")) == FILES


def test_an_imported_model_is_measured_with_labelled_photos(work: Path, tmp_path: Path) -> None:
    run_step(work, tmp_path, "all", f"--data={work / 'labelled'}", f"--calibration={work / 'photos'}")
    metrics = document(tmp_path / "models" / "shades" / "manifest.json")["metrics"]
    assert metrics["int8_top1"] == 1.0
    assert metrics["test_images"] > 10


def test_each_step_for_an_imported_model_runs_separately(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibration = f"--calibration={work / 'photos'}"
    run_step(work, tmp_path, "fit", calibration)
    assert "There is nothing to fit" in capsys.readouterr().out
    for step in ("quantize", "evaluate", "report", "publish"):
        run_step(work, tmp_path, step, calibration)
    assert load_bundle(tmp_path / "models" / "shades").labels == LABELS


def test_quantize_starts_again_with_other_photos(work: Path, tmp_path: Path) -> None:
    run_step(work, tmp_path, "quantize", f"--calibration={work / 'photos'}")
    run_step(work, tmp_path, "quantize", f"--calibration={work / 'labelled'}", f"--data={work / 'labelled'}")
    with pytest.raises(SystemExit, match="was started with other images"):
        run_step(work, tmp_path, "evaluate", f"--calibration={work / 'photos'}")


def test_an_imported_model_with_another_number_of_classes_is_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("black\nwhite\n")
    with pytest.raises(SystemExit, match=r"3 .*2|2 .*3"):
        run_step(work, tmp_path, "all", f"--calibration={work / 'photos'}", f"--set=labels={tmp_path / 'two.txt'}")
    assert not (tmp_path / "models").exists()


def test_an_imported_model_without_photos_is_refused(work: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="give --data FOLDER"):
        run_step(work, tmp_path, "all")


def test_published_weights_become_a_report_of_a_thousand_classes(work: Path, tmp_path: Path) -> None:
    """The preset `imagenet` as it is, but small and with a file of random weights in the published form."""
    weights = save_published_weights("MobileNetV2", tmp_path, top=True)
    for label, shade in (("tench", "black"), ("space shuttle", "grey"), ("toilet tissue", "white")):
        (tmp_path / "data" / label).mkdir(parents=True)
        for photo in (work / "labelled" / shade).iterdir():
            (tmp_path / "data" / label / photo.name).write_bytes(photo.read_bytes())
    changes = ["network.architecture=MobileNetV2", f"network.weights={weights}"]
    changes += ["preprocessing.mean=[0.5, 0.5, 0.5]", "preprocessing.std=[0.5, 0.5, 0.5]"]
    for step in ("quantize", "evaluate", "report"):
        where = [f"--data={tmp_path / 'data'}", f"--run={tmp_path / 'run'}"]
        main([step, "imagenet", *where, *SMALL, CONVERTER, *(f"--set={change}" for change in changes)])
    measured = document(tmp_path / "run" / "metrics.json")
    assert len(measured["classes"]) == 1000
    assert measured["metrics"]["test_images"] + measured["metrics"]["test_duplicates"] == round(0.6 * 36)
    assert "space shuttle" in (tmp_path / "run" / "report.html").read_text()
