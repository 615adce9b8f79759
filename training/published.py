"""Networks with published ImageNet weights that take RGB pixels: those of keras.applications and EfficientNet-Lite."""

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

from litelens.preprocessing import Preprocessing
from training import efficientnet_lite
from training.errors import NetworkError

PUBLISHED_CLASSES = 1000

Channels = tuple[float, float, float]

# For 'imagenet' weights alone, keras.applications divides what EfficientNet's normalization gives by these roots
# once more: https://github.com/tensorflow/tensorflow/issues/49930. Folded into the first convolution, the network
# is the same whatever weights it was built for.
_EFFICIENTNET_SCALE = np.array([1 / math.sqrt(deviation) for deviation in (0.229, 0.224, 0.225)])

# Half a grey level, and what rounding 1/255 to 0.0039 costs.
_MEAN_TOLERANCE = 0.5 / 255
_STD_TOLERANCE = 0.01


def published_architectures() -> dict[str, Callable[..., keras.Model]]:
    """The functions that build networks, by name; all have the signature of those in keras.applications."""
    return {
        name: member
        for name, member in (*vars(keras.applications).items(), *vars(efficientnet_lite).items())
        if name[0].isupper() and inspect.isfunction(member) and "include_top" in inspect.signature(member).parameters
    }


def published_network(architecture: str, weights: str | None, spec: Preprocessing, *, top: bool) -> keras.Model:
    """A network of keras.applications from normalized RGB float32 `(batch, height, width, 3)` named "image".

    It gives the logits of the published 1000 classes with `top`, feature maps without.
    `weights` is 'imagenet' (downloaded by Keras), Keras' published .h5 file of the network with or without its top as
    asked for here, or None for fresh ones. Fresh weights take any `mean` and `std`, except where the network
    normalizes its pixels itself.

    Raises NetworkError when the network cannot have this size, `mean` and `std` are not what it was trained with, or
    the weights cannot be had.
    """
    trained = _training_input(architecture)
    if weights is not None or trained.normalized_inside:
        _check_normalization(architecture, trained, spec)
    network = _untrained(architecture, spec, top)
    if weights is None:
        return network
    if weights == "imagenet":
        _download(architecture, network, spec, top)
    else:
        _read(architecture, network, Path(weights), top)
    _take_rgb(network, architecture, trained)
    return network


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Give `target` all weights and states of `source`, which has the same layers with weights.

    Raises ValueError when it has not.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copied.weights.h5"
        source.save_weights(path)
        target.load_weights(path)


def reason(error: Exception) -> str:
    """What an error of Keras says, without the lines of detail that follow."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__


@dataclass(frozen=True)
class _TrainingInput:
    """What a published network was trained on: `(value / 255 - mean) / std` of each channel, given in RGB order."""

    mean: Channels
    std: Channels
    bgr: bool

    @property
    def normalized_inside(self) -> bool:
        """Whether the network takes plain pixels from 0 to 255."""
        return np.allclose(self.mean, 0) and np.allclose(self.std, 1 / 255)

    def is_that_of(self, spec: Preprocessing) -> bool:
        return np.allclose(spec.mean, self.mean, rtol=0, atol=_MEAN_TOLERANCE) and np.allclose(
            spec.std, self.std, rtol=_STD_TOLERANCE, atol=0
        )


def _training_input(architecture: str) -> _TrainingInput:
    """Measured on a black pixel and one of each full channel, since Keras gives a function and no numbers."""
    preprocess = sys.modules[published_architectures()[architecture].__module__].preprocess_input
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
    if trained.is_that_of(spec):
        return
    why = "normalizes pixels itself" if trained.normalized_inside else "was trained with another normalization"
    raise NetworkError(
        f"{architecture} {why}: set preprocessing.mean to {_numbers(trained.mean)} and preprocessing.std to "
        f"{_numbers(trained.std)}, not {_numbers(spec.mean)} and {_numbers(spec.std)}"
    )


def _numbers(channels: Channels) -> str:
    return "[" + ", ".join(f"{round(value, 6) + 0.0:.6g}" for value in channels) + "]"


def _untrained(architecture: str, spec: Preprocessing, top: bool) -> keras.Model:
    shape = (spec.height, spec.width, 3)
    head = {"classes": PUBLISHED_CLASSES, "classifier_activation": None} if top else {}
    try:
        network = published_architectures()[architecture](
            include_top=top,
            weights=None,
            input_tensor=keras.Input(shape, name="image", dtype="float32"),
            input_shape=shape,
            **head,
        )
    except ValueError as error:
        raise NetworkError(
            f"{architecture} cannot be built for images of {spec.height}x{spec.width}: {reason(error)}"
        ) from error
    return network


def _download(architecture: str, network: keras.Model, spec: Preprocessing, top: bool) -> None:
    # With their top Keras gives these weights at the published size only.
    shape = None if top else (spec.height, spec.width, 3)
    try:
        published = published_architectures()[architecture](include_top=top, weights="imagenet", input_shape=shape)
    except ModuleNotFoundError as error:
        raise NetworkError(f"{architecture}: {error}, or give --set network.weights=none") from error
    except Exception as error:
        raise NetworkError(
            f"the ImageNet weights of {architecture} cannot be had ({reason(error)}); give "
            "--set network.weights=FILE with Keras' published weights, or --set network.weights=none"
        ) from error
    try:
        copy_weights(published, network)
    except ValueError as error:
        height, width = published.inputs[0].shape[1:3]
        raise NetworkError(
            f"the published head of {architecture} fits images of {height}x{width} only, not {spec.height}x{spec.width}"
        ) from error


def _read(architecture: str, network: keras.Model, path: Path, top: bool) -> None:
    if not path.is_file():
        raise NetworkError(f"network.weights: there is no file {path}")
    try:
        network.load_weights(path)
    # A file that is damaged or of another network fails anywhere inside h5py or Keras.
    except Exception as error:
        head = "with its 1000-class head" if top else "without a head ('notop')"
        raise NetworkError(
            f"network.weights: {path} does not hold Keras' published weights of {architecture} {head} "
            f"for images of this size: {reason(error)}"
        ) from error


def _take_rgb(network: keras.Model, architecture: str, trained: _TrainingInput) -> None:
    """Fold into the first convolution what Keras does to the pixels outside of the published weights."""
    if not trained.bgr and not architecture.startswith("EfficientNetB"):
        return
    first = next(layer for layer in network.layers if isinstance(layer, layers.Conv2D))
    kernel, *bias = first.get_weights()
    folded = kernel[:, :, ::-1] if trained.bgr else kernel * _EFFICIENTNET_SCALE[:, np.newaxis]
    first.set_weights([folded, *bias])
