"""Models with layers that have no int8 form are served in float32; the gate's refusals name the option to try."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray
from PIL import Image

from litelens.core.bundle import FLOAT_BITS, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.images import Limits
from litelens.core.preprocessing import Preprocessing
from litelens_client.quantizing.int8 import count_weight_bits
from training.__main__ import main
from training.candidates import FLOAT, Candidate
from training.errors import GateError, QuantizationError
from training.head import with_features
from training.keras_import import import_classifier
from training.preset import Quantization
from training.publish import check_gate
from training.quantize import describe_layers, name_layers, quantize
from training.run import Metrics
from training.steps import STEPS, Options

SIZE, CLASSES = 24, 5
SPEC = Preprocessing(SIZE, SIZE, 1.0, "bilinear", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
PIXELS = np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), np.uint8)
IMAGES = SPEC.normalize(PIXELS)
INT8 = (Candidate("TFLiteConverter", 7, 12), Candidate("litert-quantizer", 7, 12))


def classifier(*inner: layers.Layer) -> keras.Model:
    """A classifier with layers between its convolutions."""
    keras.utils.set_random_seed(3)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, name="stem")(layers.Rescaling(1 / 255)(image))
    for layer in inner:
        x = layer(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu", name="last")(x))
    return keras.Model(image, layers.Dense(CLASSES)(x))


@pytest.fixture(scope="module")
def normalized() -> keras.Model:
    return classifier(layers.LayerNormalization(name="norm"), layers.ELU(name="elu"))


def logits(network: keras.Model) -> NDArray[np.float32]:
    found: NDArray[np.float32] = network.predict(IMAGES, verbose=0)["logits"]
    return found


def test_a_network_with_layers_without_an_int8_form_becomes_a_float_model_and_the_layers_are_named(
    normalized: keras.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    model, scores = quantize(with_features(normalized), INT8, IMAGES, PIXELS, SPEC, None)
    assert count_weight_bits(model) == FLOAT_BITS
    assert [score.chosen for score in scores] == [False, False, True]
    chosen = scores[-1]
    assert chosen.agreement == 1
    assert chosen.divergence == pytest.approx(0, abs=1e-6)
    assert set(chosen.float_layers) == {"LayerNormalization 'norm'", "ELU 'elu'"}
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "'norm'" in line and "'elu'" in line]
    assert "'stem'" not in line


def test_layers_inside_a_saved_model_are_named(
    normalized: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normalized.export(tmp_path / "saved", verbose=False)
    network = import_classifier(tmp_path / "saved", CLASSES, SPEC)
    _, scores = quantize(network, INT8[1:], IMAGES, PIXELS, SPEC, None)
    assert any("norm" in layer for layer in scores[-1].float_layers)


def test_a_network_that_can_become_int8_does_not_become_float() -> None:
    model, scores = quantize(with_features(classifier()), INT8[:1], IMAGES, PIXELS, SPEC, None)
    assert count_weight_bits(model) == 7
    assert len(scores) == 1


def test_a_network_is_not_quantized_if_the_options_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    network = with_features(classifier())
    candidates = Quantization(("none",), (7,), (200,)).candidates()
    model, (score,) = quantize(network, candidates, IMAGES, PIXELS, SPEC, None)
    assert count_weight_bits(model) == FLOAT_BITS
    assert (score.converter, score.weight_bits, score.float_layers) == ("none", FLOAT_BITS, ())
    assert str(FLOAT) in capsys.readouterr().out


def test_layers_are_found_by_the_names_of_their_tensors() -> None:
    network = classifier(layers.LayerNormalization(name="norm"))
    tensors = ["functional_1/norm_1/Neg", "functional_1/stem_1/convolution_dequant", "tfl.dequantize1", "elsewhere/a/b"]
    assert name_layers(tensors, network) == ("LayerNormalization 'norm'", "'a'")
    assert describe_layers(["a", "b", "c", "d", "e", "f", "g"]).endswith("e and 2 more")


def metrics(**changes: Any) -> Metrics:
    measured = dict.fromkeys(Metrics.__annotations__)
    return Metrics(**{**measured, "test_images": 1000, "test_duplicates": 0, "agreement": 1.0, **changes})


LOST = {"fp32_top1": 0.6, "int8_top1": 0.5}


@pytest.fixture(scope="module")
def models(normalized: keras.Model) -> dict[str, bytes]:
    """An int8 model and a float model."""
    int8, _ = quantize(with_features(classifier()), INT8[:1], IMAGES, PIXELS, SPEC, None)
    floats, _ = quantize(with_features(normalized), (FLOAT,), IMAGES, PIXELS, SPEC, None)
    return {"int8": int8, "float32": floats}


@pytest.mark.parametrize("changes", [{"agreement": 0.8}, LOST])
def test_a_refused_int8_model_names_the_options_to_try(models: dict[str, bytes], changes: dict[str, float]) -> None:
    with pytest.raises(GateError) as raised:
        check_gate(metrics(**changes), (), models["int8"])
    for option in ("quantization.calibration_images", "--calibration", "--float32"):
        assert option in str(raised.value)


@pytest.mark.parametrize("changes", [{"agreement": 0.8}, LOST])
def test_a_refused_float_model_names_no_option_of_quantization(
    models: dict[str, bytes], changes: dict[str, float]
) -> None:
    with pytest.raises(GateError) as raised:
        check_gate(metrics(**changes), (), models["float32"])
    assert "float32" in str(raised.value)
    assert "--" not in str(raised.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"openvino_agreement": 0.9},
        {"openvino_agreement": 0.99, "openvino_top1": 0.4, "int8_top1": 0.5, "fp32_top1": 0.5},
    ],
)
def test_engines_that_differ_name_the_option_to_try(models: dict[str, bytes], changes: dict[str, float]) -> None:
    with pytest.raises(GateError, match=r"quantization\.weight_bits"):
        check_gate(metrics(**changes), (), models["int8"])


def test_a_good_model_passes_the_gate_whether_float_or_int8(models: dict[str, bytes]) -> None:
    for model in models.values():
        check_gate(metrics(), (), model)


def test_a_damaged_model_does_not_pass_the_gate() -> None:
    with pytest.raises(QuantizationError):
        check_gate(metrics(), (), b"damaged")


@pytest.fixture(scope="module")
def folder(normalized: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle that was imported from a .keras file, its photos and its labels."""
    folder = tmp_path_factory.mktemp("imported")
    normalized.save(folder / "mine.keras")
    (folder / "labels.txt").write_text("\n".join("abcde"))
    (folder / "photos").mkdir()
    generator = np.random.default_rng(1)
    for index in range(30):
        pixels = np.kron(generator.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{index}.png")
    main(
        [
            *("all", f"--model={folder / 'mine.keras'}", f"--labels={folder / 'labels.txt'}", "--name=mine"),
            *(f"--calibration={folder / 'photos'}", f"--run={folder / 'run'}", f"--models={folder / 'models'}"),
        ]
    )
    return folder


def test_a_float_bundle_says_so_and_is_served_like_any_other(normalized: keras.Model, folder: Path) -> None:
    bundle = load_bundle(folder / "models" / "mine")
    assert {tensor.dtype for tensor in bundle.tensors.values()} == {"float32"}
    assert bundle.manifest["quantization"]["scheme"] == "float32"
    assert "weight_bits" not in bundle.manifest["quantization"]
    assert "LayerNormalization 'norm'" in bundle.manifest["quantization"]["float_layers"]
    expected = normalized.predict(IMAGES, verbose=0)
    served = Classifier(bundle, Limits(), threads=1)
    assert np.stack([served.logits(pixels) for pixels in PIXELS]) == pytest.approx(expected, abs=1e-5)
    assert served.heat_map(PIXELS[0], 0) is not None


def test_the_size_of_the_images_is_that_of_the_model(folder: Path) -> None:
    preprocessing = load_bundle(folder / "models" / "mine").preprocessing
    assert (preprocessing.height, preprocessing.width) == (SIZE, SIZE)


def test_the_option_float32_turns_quantization_off_and_is_repeated_by_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Options] = []
    monkeypatch.setitem(STEPS, "all", given.append)
    model, labels = f"--model={folder / 'mine.keras'}", f"--labels={folder / 'labels.txt'}"
    main(["all", model, labels])
    main(["all", model, labels, "--float32"])
    quantized, not_quantized = given
    assert "none" not in quantized.preset.quantization.converters
    assert "--float32" not in quantized.command
    assert not_quantized.preset.quantization.converters == ("none",)
    assert "--float32" in not_quantized.command


def test_a_model_that_does_not_exist_is_named_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"absent\.keras"):
        main(["all", f"--model={tmp_path / 'absent.keras'}", "--labels=labels.txt"])
