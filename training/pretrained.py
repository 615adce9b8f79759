"""Networks with published ImageNet weights, of keras.applications and EfficientNet-Lite, that take RGB pixels."""

import inspect
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers

from litelens.core.preprocessing import Preprocessing
from training import efficientnet_lite
from training.errors import NetworkError, first_line

IMAGENET_CLASSES = 1000

Channels = tuple[float, float, float]

# Only for 'imagenet' weights, keras.applications divides EfficientNet's normalized pixels by these roots once more:
# https://github.com/tensorflow/tensorflow/issues/49930. The division is folded into the first convolution instead, so
# that the network is the same whichever weights it was built for.
_EFFICIENTNET_SCALE = np.array([1 / math.sqrt(deviation) for deviation in (0.229, 0.224, 0.225)])

# Half a grey level, and the error of rounding 1/255 to 0.0039.
_MEAN_TOLERANCE = 0.5 / 255
_STD_TOLERANCE = 0.01


def pretrained_architectures() -> dict[str, Callable[..., keras.Model]]:
    """Return the functions that build networks, by name; all have the signature of those in keras.applications."""
    return {
        name: member
        for name, member in (*vars(keras.applications).items(), *vars(efficientnet_lite).items())
        if name[0].isupper() and inspect.isfunction(member) and "include_top" in inspect.signature(member).parameters
    }


def build_pretrained(architecture: str, weights: str | None, spec: Preprocessing, *, top: bool) -> keras.Model:
    """Build a network from normalized RGB, float32 `(batch, height, width, 3)`, named "image".

    It computes the logits of ImageNet's 1000 classes if `top` is true, and feature maps otherwise.
    `weights` is 'imagenet' (downloaded by Keras), Keras' published .h5 file of the network, with its top if `top` is
    true and without it otherwise, or None for random weights. Random weights work with any `mean` and `std`, unless
    the network normalizes pixels itself.

    Raises NetworkError if the network cannot have this size, `mean` and `std` are not those that it was trained with,
    or the weights cannot be loaded.
    """
    trained = _training_input(architecture)
    if weights is not None or trained.normalized_inside:
        _check_normalization(architecture, trained, spec)
    network = _build_untrained(architecture, spec, top)
    if weights is None:
        return network
    if weights == "imagenet":
        _load_imagenet(architecture, network, spec, top)
    else:
        _load_file(architecture, network, Path(weights), top)
    _fold_pixel_conversion(network, architecture, trained)
    return network


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy all weights and states of `source` to `target`; raises ValueError unless both have the same layers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copied.weights.h5"
        source.save_weights(path)
        target.load_weights(path)


@dataclass(frozen=True)
class _TrainingInput:
    """The input that a network was trained with: `(value / 255 - mean) / std` of each channel, here in RGB order."""

    mean: Channels
    std: Channels
    bgr: bool

    @property
    def normalized_inside(self) -> bool:
        """True if the network takes pixels from 0 to 255 and normalizes them itself."""
        return np.allclose(self.mean, 0) and np.allclose(self.std, 1 / 255)

    def agrees_with(self, spec: Preprocessing) -> bool:
        return np.allclose(spec.mean, self.mean, rtol=0, atol=_MEAN_TOLERANCE) and np.allclose(
            spec.std, self.std, rtol=_STD_TOLERANCE, atol=0
        )


def _training_input(architecture: str) -> _TrainingInput:
    """Measure a network's normalization on four pixels, because Keras has it as a function and not as numbers."""
    preprocess = sys.modules[pretrained_architectures()[architecture].__module__].preprocess_input
    pixels = np.zeros((4, 1, 1, 3), np.float32)
    pixels[[1, 2, 3], :, :, [0, 1, 2]] = 255
    black, *full = np.asarray(preprocess(pixels, data_format="channels_last"), np.float64).reshape(4, 3)
    gains = np.array(full) - black
    bgr = bool(gains[0, 0] == 0)
    order = [2, 1, 0] if bgr else [0, 1, 2]
    std = 1 / gains[[0, 1, 2], order]
    red, green, blue = -black[order] * std
    return _TrainingInput((red, green, blue), (std[0], std[1], std[2]), bgr)


def _check_normalization(architecture: str, trained: _TrainingInput, spec: Preprocessing) -> None:
    if trained.agrees_with(spec):
        return
    why = "normalizes pixels itself" if trained.normalized_inside else "was trained with another normalization"
    raise NetworkError(
        f"{architecture} {why}: set preprocessing.mean to {_numbers(trained.mean)} and preprocessing.std to "
        f"{_numbers(trained.std)}, not {_numbers(spec.mean)} and {_numbers(spec.std)}"
    )


def _numbers(channels: Channels) -> str:
    return "[" + ", ".join(f"{round(value, 6) + 0.0:.6g}" for value in channels) + "]"


def _build_untrained(architecture: str, spec: Preprocessing, top: bool) -> keras.Model:
    shape = (spec.height, spec.width, 3)
    head = {"classes": IMAGENET_CLASSES, "classifier_activation": None} if top else {}
    try:
        network = pretrained_architectures()[architecture](
            include_top=top,
            weights=None,
            input_tensor=keras.Input(shape, name="image", dtype="float32"),
            input_shape=shape,
            **head,
        )
    except ValueError as error:
        raise NetworkError(
            f"{architecture} cannot be built for images of {spec.height}x{spec.width}: {first_line(error)}"
        ) from error
    return network


def _load_imagenet(architecture: str, network: keras.Model, spec: Preprocessing, top: bool) -> None:
    # With their top, Keras has these weights for the published size only.
    shape = None if top else (spec.height, spec.width, 3)
    try:
        published = pretrained_architectures()[architecture](include_top=top, weights="imagenet", input_shape=shape)
    except ModuleNotFoundError as error:
        raise NetworkError(f"{architecture}: {error}, or give --set network.weights=none") from error
    except Exception as error:
        raise NetworkError(
            f"the ImageNet weights of {architecture} cannot be loaded ({first_line(error)}); give "
            "--set network.weights=FILE with Keras' published weights, or --set network.weights=none"
        ) from error
    try:
        copy_weights(published, network)
    except ValueError as error:
        height, width = published.inputs[0].shape[1:3]
        raise NetworkError(
            f"the published head of {architecture} fits images of {height}x{width} only, not {spec.height}x{spec.width}"
        ) from error


def _load_file(architecture: str, network: keras.Model, path: Path, top: bool) -> None:
    if not path.is_file():
        raise NetworkError(f"network.weights: there is no file {path}")
    try:
        network.load_weights(path)
    # A file that is damaged or of another network fails anywhere inside h5py or Keras.
    except Exception as error:
        head = "with its 1000-class head" if top else "without a head ('notop')"
        raise NetworkError(
            f"network.weights: {path} does not contain Keras' published weights of {architecture} {head} "
            f"for images of this size: {first_line(error)}"
        ) from error


def _fold_pixel_conversion(network: keras.Model, architecture: str, trained: _TrainingInput) -> None:
    """Fold into the first convolution the conversion of pixels that Keras does outside of the published weights."""
    if not trained.bgr and not architecture.startswith("EfficientNetB"):
        return
    first = next(layer for layer in network.layers if isinstance(layer, layers.Conv2D))
    kernel, *bias = first.get_weights()
    folded = kernel[:, :, ::-1] if trained.bgr else kernel * _EFFICIENTNET_SCALE[:, np.newaxis]
    first.set_weights([folded, *bias])
