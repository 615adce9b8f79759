"""The networks: their outputs and initial weights. Random weights replace the published ones."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from litelens.core.preprocessing import Preprocessing
from training.errors import NetworkError
from training.head import is_head, read_head, with_features
from training.network import Network, build_network

LABELS = Path(__file__).parents[2] / "training" / "labels" / "imagenet.txt"
CENTRED = Preprocessing(32, 32, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLAIN = replace(CENTRED, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
CAFFE = replace(PLAIN, mean=(123.68 / 255, 116.779 / 255, 103.939 / 255))


@pytest.fixture
def pixels(noise: np.random.Generator) -> NDArray[np.uint8]:
    return noise.integers(0, 256, size=(2, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def float32_afterwards() -> Iterator[None]:
    """Restore the global precision, which `build_network` sets."""
    yield
    keras.config.set_dtype_policy("float32")


def answer(model: keras.Model, images: NDArray[np.float32]) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(images))


def features(network: keras.Model) -> keras.Model:
    return keras.Model(network.input, network.output["features"])


def stem(network: keras.Model) -> keras.Model:
    return keras.Model(network.input, network.get_layer("stem_conv").output)


def save_published_weights(architecture: str, folder: Path, *, top: bool = False, size: int = 32) -> Path:
    """Save random weights in a file like those that Keras publishes."""
    path = folder / f"{architecture}.h5"
    function = getattr(keras.applications, architecture)
    function(include_top=top, weights=None, input_shape=(size, size, 3)).save(path)
    return path


def original(architecture: str, weights: Path | str, **settings: Any) -> keras.Model:
    """Build the network with Keras' own function."""
    return getattr(keras.applications, architecture)(weights=weights, input_shape=(32, 32, 3), **settings)


def preprocessed(pixels: NDArray[np.uint8], architecture: str) -> Any:
    """Normalize pixels for Keras' own network."""
    function = getattr(keras.applications, architecture)
    return sys.modules[function.__module__].preprocess_input(pixels.astype(np.float32))


def difference(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Return the largest difference as a fraction of the range of the expected values."""
    return float(np.abs(ours - theirs).max() / np.ptp(theirs))


@pytest.mark.parametrize(
    ("architecture", "size", "grid"),
    [
        ("resnet50-cifar", 32, 4),
        ("resnet50-cifar-stride2", 32, 2),
        ("cnn", 16, 2),
        ("cnn", 64, 8),
        ("MobileNetV2", 64, 2),
    ],
)
def test_the_head_computes_the_logits_from_the_mean_of_the_features(
    architecture: str, size: int, grid: int, noise: np.random.Generator
) -> None:
    spec = replace(CENTRED, height=size, width=size)
    network = build_network(Network(architecture, "none", "new"), spec, 10)
    outputs = answer(network, noise.normal(size=(2, size, size, 3)).astype(np.float32))
    assert outputs["features"].shape[:3] == (2, grid, grid)
    head = read_head(network)
    assert head
    for logits, grid_features in zip(outputs["logits"], outputs["features"], strict=True):
        assert head.logits(grid_features.mean(axis=(0, 1))) == pytest.approx(logits, abs=1e-4)


def test_resnet50_cifar_has_the_size_of_a_resnet50() -> None:
    # Torchvision's resnet50 has 25,557,032 parameters; a 3x3 stem has 64 * 3 * (49 - 9) fewer than its 7x7.
    network = build_network(Network("resnet50-cifar", "none", "new"), CENTRED, 1000)
    assert sum(int(np.prod(w.shape)) for w in network.trainable_weights) == 25_557_032 - 7_680


@pytest.mark.usefixtures("float32_afterwards")
@pytest.mark.parametrize("architecture", ["cnn", "MobileNetV2"])
def test_input_and_head_stay_float32_in_mixed_precision(architecture: str) -> None:
    network = build_network(Network(architecture, "none", "new"), CENTRED, 3, "mixed_bfloat16")
    (image,) = network.inputs
    assert (image.name, image.dtype) == ("image", "float32")
    assert features(network).output.dtype == "bfloat16"
    assert network.output["logits"].dtype == "float32"
    assert {layer.compute_dtype for layer in network.layers if is_head(layer)} == {"float32"}


def test_the_head_has_a_weight_for_each_class_and_channel_and_a_bias_for_each_class() -> None:
    network = build_network(Network("MobileNetV2", "none", "new"), CENTRED, 3)
    weights = [weight.shape for layer in network.layers if is_head(layer) for weight in layer.weights]
    assert weights == [(1280, 3), (3,)]


@pytest.mark.parametrize(
    ("architecture", "suggestion"),
    [
        ("resnet50", "did you mean ResNet50 "),
        ("mobilenet_v2", "did you mean MobileNetV2 "),
        ("resnet50_cifar", "did you mean resnet50-cifar "),
        ("imagenet_utils", "such as ResNet50 or MobileNetV2"),
    ],
)
def test_an_unknown_architecture_gets_a_suggestion(architecture: str, suggestion: str) -> None:
    with pytest.raises(ValueError, match=f"^architecture.*'{architecture}'.*{suggestion}"):
        Network(architecture, "none", "new")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (("cnn", "none", "published"), "head"),
        (("MobileNetV2", "none", "published"), "head"),
        (("cnn", "imagenet", "new"), "weights"),
        (("cnn", "cnn.h5", "new"), "weights"),
        (("MobileNetV2", "weights.npz", "new"), "weights"),
    ],
)
def test_contradictory_settings_are_refused(settings: tuple[str, str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be"):
        Network(*settings)


def test_images_too_small_for_the_architecture_are_refused() -> None:
    small = replace(CENTRED, height=16, width=16)
    with pytest.raises(NetworkError, match=r"MobileNetV2 cannot be built for images of 16x16: .*32"):
        build_network(Network("MobileNetV2", "none", "new"), small, 10)


def test_a_network_trained_on_bgr_accepts_rgb(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    path = save_published_weights("VGG16", tmp_path)
    ours = answer(features(build_network(Network("VGG16", str(path), "new"), CAFFE, 3)), CAFFE.normalize(pixels))
    theirs = original("VGG16", path, include_top=False)
    assert difference(ours, answer(theirs, preprocessed(pixels, "VGG16"))) < 1e-4
    assert difference(ours, answer(theirs, preprocessed(pixels[..., ::-1], "VGG16"))) > 0.01


def test_efficientnet_is_the_one_that_keras_downloads(
    tmp_path: Path, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_published_weights("EfficientNetB0", tmp_path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: path)
    theirs = answer(stem(original("EfficientNetB0", "imagenet", include_top=False)), pixels)
    for weights in ("imagenet", str(path)):
        ours = build_network(Network("EfficientNetB0", weights, "new"), PLAIN, 3)
        assert difference(answer(stem(ours), PLAIN.normalize(pixels)), theirs) < 1e-4
    assert difference(answer(stem(original("EfficientNetB0", path, include_top=False)), pixels), theirs) > 0.01


@pytest.mark.parametrize("source", ["imagenet", "file"])
def test_the_published_head_gives_the_published_logits_and_features(
    source: str, tmp_path: Path, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_published_weights("MobileNetV2", tmp_path, top=True)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: path)
    weights = "imagenet" if source == "imagenet" else str(path)
    network = build_network(Network("MobileNetV2", weights, "published"), CENTRED, 1000)
    outputs = answer(network, CENTRED.normalize(pixels))
    theirs = answer(original("MobileNetV2", path, classifier_activation=None), preprocessed(pixels, "MobileNetV2"))
    assert difference(outputs["logits"], theirs) < 1e-3
    assert outputs["features"].shape == (2, 1, 1, 1280)


def test_the_published_head_requires_a_thousand_classes() -> None:
    with pytest.raises(NetworkError, match=r"1000 classes, but there are 10 labels;.*head=new"):
        build_network(Network("MobileNetV2", "imagenet", "published"), CENTRED, 10)


def test_a_network_whose_published_head_is_not_pooling_and_a_dense_layer_has_no_features() -> None:
    settings = Network("MobileNetV3Small", "imagenet", "published")
    network = build_network(settings, PLAIN, 1000, pretrained=False)
    assert network.output.keys() == {"logits"}
    assert network.output["logits"].shape == (None, 1000)
    assert read_head(network) is None


@pytest.mark.parametrize(
    ("architecture", "weights", "spec", "mean", "std"),
    [
        ("ResNet50", "imagenet", CENTRED, "0.48502, 0.457957, 0.407604", "0.003922, 0.003922, 0.003922"),
        ("DenseNet121", "published.h5", CENTRED, "0.485, 0.456, 0.406", "0.229, 0.224, 0.225"),
        ("MobileNetV2", "imagenet", PLAIN, "0.5, 0.5, 0.5", "0.5, 0.5, 0.5"),
        ("MobileNetV3Small", "none", CENTRED, "0, 0, 0", "0.003922, 0.003922, 0.003922"),
    ],
)
def test_the_mean_and_std_that_the_weights_need_are_named(
    architecture: str, weights: str, spec: Preprocessing, mean: str, std: str
) -> None:
    with pytest.raises(NetworkError) as refusal:
        build_network(Network(architecture, weights, "new"), spec, 10)
    assert f"mean to [{mean}]" in str(refusal.value)
    assert f"std to [{std}]" in str(refusal.value)


def test_a_failed_download_of_weights_suggests_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("URL fetch failure")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
    with pytest.raises(NetworkError, match=r"MobileNetV2 cannot be loaded \(URL fetch failure\).*weights=FILE"):
        build_network(Network("MobileNetV2", "imagenet", "new"), CENTRED, 10)


def test_the_weights_of_a_run_restore_the_same_network(tmp_path: Path, noise: np.random.Generator) -> None:
    path = tmp_path / "run.weights.h5"
    first = build_network(Network("cnn", "none", "new"), CENTRED, 10)
    first.save_weights(path)
    second = build_network(Network("cnn", str(path), "new"), CENTRED, 10)
    images = noise.normal(size=(2, 32, 32, 3)).astype(np.float32)
    assert np.array_equal(answer(first, images)["logits"], answer(second, images)["logits"])


@pytest.mark.parametrize("architecture", ["cnn", "MobileNetV2"])
def test_all_weights_but_the_heads_are_loaded_from_a_run_with_other_classes(
    architecture: str, tmp_path: Path, noise: np.random.Generator
) -> None:
    path = tmp_path / "run.weights.h5"
    first = build_network(Network(architecture, "none", "new"), CENTRED, 10)
    first.save_weights(path)
    second = build_network(Network(architecture, str(path), "new"), CENTRED, 7)
    images = noise.normal(size=(2, 32, 32, 3)).astype(np.float32)
    assert np.array_equal(answer(features(first), images), answer(features(second), images))
    assert second.output["logits"].shape == (None, 7)


def test_a_network_built_without_weights_can_load_those_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "run.weights.h5"
    settings = Network("MobileNetV2", "missing.h5", "published")
    first = build_network(settings, CENTRED, 1000, pretrained=False)
    first.save_weights(path)
    second = build_network(settings, CENTRED, 1000, pretrained=False)
    second.load_weights(path)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
@pytest.mark.parametrize("name", ["run.weights.h5", "published.h5"])
@pytest.mark.parametrize("state", ["missing", "damaged", "of another network"])
def test_a_file_without_suitable_weights_is_named(name: str, state: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if state == "damaged":
        path.write_bytes(b"not HDF5")
    if state == "of another network":
        other = build_network(Network("cnn", "none", "new"), CENTRED, 10)
        other.save_weights(path) if name.endswith(".weights.h5") else other.save(path)
    with pytest.raises(NetworkError, match=f"^network.weights: .*{name}"):
        build_network(Network("MobileNetV2", str(path), "new"), CENTRED, 10)


def test_pooling_dropout_and_a_dense_layer_become_a_head_with_the_same_logits(noise: np.random.Generator) -> None:
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(image))
    logits = keras.layers.Dense(5, bias_initializer="normal", name="logits")(keras.layers.Dropout(0.5)(x))
    model = keras.Model(image, logits)
    images = noise.normal(size=(2, 32, 32, 3)).astype(np.float32)
    network = with_features(model)
    outputs = answer(network, images)
    assert outputs["logits"] == pytest.approx(answer(model, images), abs=1e-5)
    assert outputs["features"].shape == (2, 30, 30, 8)
    head = read_head(network)
    assert head
    assert head.logits(outputs["features"][0].mean(axis=(0, 1))) == pytest.approx(outputs["logits"][0], abs=1e-5)


def test_a_head_without_a_bias_has_a_bias_of_zeros() -> None:
    image = keras.Input((8, 8, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(keras.layers.Conv2D(4, 3)(image))
    head = read_head(with_features(keras.Model(image, keras.layers.Dense(5, use_bias=False)(pooled))))
    assert head
    assert (head.weights.shape, head.bias.tolist()) == ((5, 4), [0] * 5)


def test_flattening_and_a_dense_layer_have_no_features(noise: np.random.Generator) -> None:
    image = keras.Input((8, 8, 3), name="image")
    model = keras.Model(image, keras.layers.Dense(5)(keras.layers.Flatten()(image)))
    images = noise.normal(size=(2, 8, 8, 3)).astype(np.float32)
    outputs = answer(with_features(model), images)
    assert outputs.keys() == {"logits"}
    assert np.array_equal(outputs["logits"], answer(model, images))


def test_imagenet_has_a_thousand_distinct_labels_in_the_published_order() -> None:
    names = LABELS.read_text(encoding="utf-8").splitlines()
    assert len({name.lower() for name in names}) == len(names) == 1000
    assert all(name == name.strip() != "" for name in names)
    assert {index: names[index] for index in (0, 1, 281, 812, 999)} == {
        0: "tench",
        1: "goldfish",
        281: "tabby",
        812: "space shuttle",
        999: "toilet tissue",
    }


def test_a_new_head_on_published_weights_starts_from_zeros() -> None:
    spec = replace(CENTRED, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    network = build_network(Network("EfficientNetLite0", "imagenet", "new"), spec, 3)
    kernel, bias = network.get_layer("logits").get_weights()
    assert not kernel.any()
    assert not bias.any()
    random = build_network(Network("cnn", "none", "new"), spec, 3)
    assert random.get_layer("logits").get_weights()[0].any()
