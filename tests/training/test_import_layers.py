"""Import of Keras models as tutorials build them: augmentation inside, mixed precision, one output, BGR, .h5 files."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

from litelens.core.preprocessing import Preprocessing
from training.candidates import Candidate
from training.errors import NetworkError
from training.keras_import import import_classifier, read_input_size
from training.quantize import quantize

SIZE, CLASSES = 24, 5
SPEC = Preprocessing(SIZE, SIZE, 1.0, "bilinear", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
PIXELS = np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), np.uint8)
IMAGES = SPEC.normalize(PIXELS)


@pytest.fixture(autouse=True)
def float32_afterwards() -> Iterator[None]:
    keras.utils.set_random_seed(3)
    yield
    keras.config.set_dtype_policy("float32")


def scratch(units: int = CLASSES) -> keras.Model:
    """TensorFlow's tutorial "Image classification from scratch", smaller."""
    augmentation = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])
    normalization = layers.Normalization()
    normalization.adapt(IMAGES)
    image = keras.Input((SIZE, SIZE, 3))
    x = normalization(augmentation(image))
    x = previous = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2)(x)))
    x = layers.SeparableConv2D(8, 3, padding="same")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.add([x, layers.Conv2D(8, 1, strides=2, padding="same")(previous)])
    x = layers.Dropout(0.25)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(units)(x))


def transfer(units: int = CLASSES) -> keras.Model:
    """TensorFlow's tutorial on transfer learning with data augmentation, smaller: a frozen base in the model."""
    inner = keras.Input((SIZE, SIZE, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2)(inner)))
    base = keras.Model(inner, layers.DepthwiseConv2D(3)(x), name="base")
    base.trainable = False
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.RandomZoom(0.2)(layers.RandomContrast(0.2)(layers.RandomTranslation(0.1, 0.1)(image)))
    x = keras.applications.mobilenet_v2.preprocess_input(x)
    x = layers.GlobalAveragePooling2D()(base(x, training=False))
    return keras.Model(image, layers.Dense(units)(layers.Dropout(0.2)(x)))


def sequential(units: int = CLASSES) -> keras.Model:
    """TensorFlow's tutorial "Image classification", smaller: augmentation first in a Sequential model."""
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomZoom(0.1)]),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(units, name="outputs"),
        ]
    )


def imported(model: keras.Model, folder: Path, classes: int = CLASSES, name: str = "model.keras") -> keras.Model:
    model.save(folder / name)
    keras.config.set_dtype_policy("float32")
    return import_classifier(folder / name, classes, SPEC)


def answers(model: keras.Model) -> NDArray[np.float32]:
    found: NDArray[np.float32] = model.predict(IMAGES, verbose=0)
    return found


def logits(network: keras.Model) -> NDArray[np.float32]:
    found: NDArray[np.float32] = network.predict(IMAGES, verbose=0)["logits"]
    return found


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return result


@pytest.mark.parametrize("build", [scratch, transfer, sequential])
def test_a_tutorials_model_with_augmentation_inside_becomes_an_int8_model_that_agrees(
    build: Callable[[], keras.Model], tmp_path: Path
) -> None:
    model = build()
    network = imported(model, tmp_path)
    assert logits(network) == pytest.approx(answers(model), rel=1e-3, abs=1e-3)
    _, (score,) = quantize(network, (Candidate("TFLiteConverter", 7, 12),), IMAGES, PIXELS, SPEC, None)
    assert score.error is None
    assert score.divergence is not None
    assert score.divergence < 0.05


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_of_mixed_precision_computes_in_float32(policy: str, tmp_path: Path) -> None:
    keras.config.set_dtype_policy(policy)
    image = keras.Input((SIZE, SIZE, 3))
    inner = keras.Sequential([layers.Conv2D(8, 3, strides=2), layers.BatchNormalization(), layers.ReLU()])
    x = layers.GlobalAveragePooling2D()(inner(layers.Rescaling(1 / 255)(image)))
    model = keras.Model(image, layers.Activation("softmax", dtype="float32")(layers.Dense(CLASSES)(x)))
    network = imported(model, tmp_path)
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    assert set(network.output) == {"logits", "features"}
    assert softmax(logits(network)) == pytest.approx(answers(model), abs=0.02)


@pytest.mark.parametrize("activation", ["sigmoid", None])
@pytest.mark.parametrize("build", [scratch, sequential])
def test_one_output_with_two_labels_is_the_probability_of_the_second(
    build: Callable[[int], keras.Model], activation: str | None, tmp_path: Path
) -> None:
    model = build(1)
    model.layers[-1].activation = keras.activations.get(activation)
    network = imported(model, tmp_path, classes=2)
    expected = answers(model)[:, 0]
    probability = expected if activation else 1 / (1 + np.exp(-expected))
    assert softmax(logits(network))[:, 1] == pytest.approx(probability, abs=1e-4)
    assert ("features" in network.output) == (build is scratch)


def test_one_output_with_a_separate_sigmoid_keeps_its_features(tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    model = keras.Model(image, layers.Activation("sigmoid")(layers.Dense(1)(x)))
    network = imported(model, tmp_path, classes=2)
    assert softmax(logits(network))[:, 1] == pytest.approx(answers(model)[:, 0], abs=1e-4)
    assert "features" in network.output


def test_one_output_with_other_than_two_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"1 classes.* 3 labels"):
        imported(scratch(1), tmp_path, classes=3)


@pytest.mark.parametrize("channels", [(..., slice(None, None, -1)), (*[slice(None)] * 3, slice(None, None, -1))])
def test_a_network_that_turns_rgb_into_bgr_becomes_an_int8_model(channels: tuple[Any, ...], tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    x = image[channels] - np.array([103.939, 116.779, 123.68], np.float32)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(x / 64))
    model = keras.Model(image, layers.Dense(CLASSES)(x))
    network = imported(model, tmp_path)
    assert logits(network) == pytest.approx(answers(model), rel=1e-3, abs=1e-3)
    _, (score,) = quantize(network, (Candidate("TFLiteConverter", 7, 12),), IMAGES, PIXELS, SPEC, None)
    assert score.error is None


@pytest.mark.parametrize("name", ["model.h5", "model.hdf5", "model.keras"])
def test_every_format_of_keras_3_gives_the_same_answers(name: str, tmp_path: Path) -> None:
    model = scratch()
    network = imported(model, tmp_path, name=name)
    assert logits(network) == pytest.approx(answers(model), rel=1e-3, abs=1e-3)
    assert read_input_size(tmp_path / name) == (SIZE, SIZE)


def test_a_model_of_any_size_has_no_size_to_read(tmp_path: Path) -> None:
    image = keras.Input((None, None, 3))
    keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(CLASSES, 3)(image))).save(tmp_path / "m.keras")
    assert read_input_size(tmp_path / "m.keras") is None


def test_a_lambda_layer_in_an_h5_file_is_named_and_not_run(tmp_path: Path) -> None:
    bait = str(tmp_path / "run")
    image = keras.Input((SIZE, SIZE, 3))
    touched = layers.Lambda(lambda x: [x, open(bait, "w").close()][0], output_shape=(SIZE, SIZE, 3), name="scaling")
    model = keras.Model(image, layers.Dense(CLASSES)(layers.Flatten()(touched(image))))
    model.save(tmp_path / "model.h5")
    Path(bait).unlink(missing_ok=True)
    with pytest.raises(NetworkError, match="'scaling' is a Lambda layer"):
        import_classifier(tmp_path / "model.h5", CLASSES, SPEC)
    assert not Path(bait).exists()


def test_a_function_of_another_package_as_an_activation_is_named(tmp_path: Path) -> None:
    def doubled(x: keras.KerasTensor) -> keras.KerasTensor:
        return x * 2

    image = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(image, layers.Dense(CLASSES, activation=doubled)(layers.Flatten()(image)))
    with pytest.raises(NetworkError, match=r"not in Keras .*doubled"):
        imported(model, tmp_path)


def test_a_model_that_keras_quantized_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Flatten(), layers.Dense(CLASSES)])
    model.quantize("int8")
    with pytest.raises(NetworkError, match=r"model\.quantize"):
        imported(model, tmp_path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("m.onnx", "onnx2tf"),
        ("m.tflite", "litelens import"),
        ("m.pth", "ONNX"),
        ("m.safetensors", "weights only"),
        ("saved_model.pb", "folder"),
    ],
)
def test_another_format_is_refused_with_what_to_do(name: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(NetworkError, match=advice):
        import_classifier(tmp_path / name, CLASSES, SPEC)


def test_a_folder_that_is_not_a_saved_model_is_called_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"is a folder without saved_model\.pb"):
        import_classifier(tmp_path, CLASSES, SPEC)


def test_a_file_that_unpacks_to_more_than_its_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.keras_import._MAX_BYTES", 1000)
    with pytest.raises(NetworkError, match="GiB"):
        imported(scratch(), tmp_path)


def test_a_deeply_nested_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.0.0"}')
        archive.writestr("config.json", "[" * 900 + "]" * 900)
    with pytest.raises(NetworkError, match=r"deep\.keras"):
        import_classifier(path, CLASSES, SPEC)
