"""`litelens import` with TensorFlow and litert-quantizer: Keras files, SavedModel folders, and real int8 models."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from small_models import LABELS, SIDE, small_model

from litelens.core.bundle import IMAGE, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.images import Limits
from litelens_client.__main__ import main
from training.errors import NetworkError
from training.keras_import import import_classifier
from training.preset import load_preset

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with labels and photos of each label."""
    monkeypatch.delenv("LITELENS_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    random = np.random.default_rng(5)
    for label, colour in COLOURS.items():
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(12):
            pixels = np.array(colour) * 0.5 + random.integers(0, 120, (SIDE, SIDE, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path


def colour_classifier() -> keras.Model:
    """A classifier of the mean colour of pixels from 0 to 255."""
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(3, 1, activation="relu", name="conv")(layers.Rescaling(1 / 255)(image))
    outputs = layers.Dense(3, activation="softmax", name="scores")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, outputs)
    model.get_layer("conv").set_weights([np.eye(3, dtype=np.float32)[np.newaxis, np.newaxis], np.zeros(3)])
    model.get_layer("scores").set_weights([8 * np.eye(3, dtype=np.float32), np.zeros(3)])
    return model


def assert_tells_the_colours_apart(bundle: Path) -> None:
    classifier = Classifier(load_bundle(bundle), Limits(), threads=1)
    for index, colour in enumerate(COLOURS.values()):
        assert classifier.logits(np.full((SIDE, SIDE, 3), colour, np.uint8)).argmax() == index


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Import a model as models/mine; return the JSON object."""
    assert main(["import", *arguments, "--name", "mine", "--json"]) == 0
    document: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert_tells_the_colours_apart(Path("models/mine"))
    return document


def test_a_keras_file_becomes_an_int8_bundle_with_heat_maps(capfd: pytest.CaptureFixture[str]) -> None:
    colour_classifier().save("classifier.keras")
    found = run(capfd, "classifier.keras", "--quantize", "photos")
    bundle = load_bundle(Path("models/mine"))
    assert found["labels"] == list(LABELS)
    assert found["input"] == {"width": SIDE, "height": SIDE, "dtype": "int8"}
    assert found["quantization"]["scheme"] == "int8"
    assert found["metrics"]["int8_top1"] is None
    assert bundle.head is not None
    assert not Path("runs").exists()


def test_a_saved_model_is_measured_on_labelled_photos_and_replaced(
    capfd: pytest.CaptureFixture[str],
) -> None:
    colour_classifier().export("saved", verbose=False)
    assert run(capfd, "saved", "--data", "photos")["metrics"]["int8_top1"] == 1.0
    run(capfd, "saved", "--data", "photos", "--quantize", "photos")


@pytest.mark.parametrize("kind", ["float32", "float16 weights"])
def test_a_float_tflite_file_becomes_int8_with_the_real_quantizer(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("model.tflite").write_bytes(small_model(kind))
    found = run(capfd, "model.tflite", "--mean", "0.5", "--std", "0.5", "--quantize", "photos")
    assert found["quantized"]["rejected"] == ""
    assert found["quantized"]["agreement"] == 1.0
    bundle = load_bundle(Path("models/mine"))
    assert (bundle.weight_bits, bundle.tensors[IMAGE].dtype) == (7, "int8")


def test_a_refusal_of_the_steps_is_a_failure_and_leaves_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    colour_classifier().save("classifier.keras")
    Path("labels.txt").write_text("red\ngreen\n")
    with pytest.raises(SystemExit, match=r"classifier\.keras"):
        main(["import", "classifier.keras", "--name", "mine", "--quantize", "photos"])
    assert "label mismatch" in capfd.readouterr().err
    assert not Path("models/mine").exists()


@pytest.mark.parametrize("layer", [layers.LSTM(4, name="memory"), layers.Bidirectional(layers.GRU(4), name="memory")])
def test_a_recurrent_layer_is_named_before_the_converter_ends_the_process(layer: layers.Layer, work: Path) -> None:
    image = keras.Input((SIDE, SIDE, 3))
    x = layer(layers.Reshape((SIDE, 3 * SIDE))(image))
    keras.Model(image, layers.Dense(3)(x)).save("recurrent.keras")
    with pytest.raises(NetworkError, match="memory"):
        import_classifier(work / "recurrent.keras", 3, load_preset("imported").preprocessing)
