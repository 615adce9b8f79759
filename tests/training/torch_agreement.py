"""Measure differences between torch's kernels and Keras' layers, and print them as JSON. Needs Keras on torch.

A difference is the largest absolute difference divided by the largest value.
"""

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from keras import layers

from litelens.core.preprocessing import Preprocessing
from training.devices import build_forward_pass
from training.network import Network, build_network
from training.torch_forward import TorchForward, keep_freed_memory, use_channels_last

CLASSES = 5


def main() -> None:
    keras.utils.set_random_seed(3)
    print(json.dumps({name: measure() for name, measure in MEASURES.items()}), file=sys.stdout)


def built(architecture: str, height: int, width: int, precision: str = "float32") -> keras.Model:
    spec = Preprocessing(height, width, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return build_network(Network(architecture, "none", "new"), spec, CLASSES, precision)


def odd_layers() -> keras.Model:
    """A network of layers and options with a fast torch kernel and without one."""
    image = layers.Input((17, 14, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Conv2D(8, 3, groups=2, padding="same")(x)
    x = layers.Conv2D(8, 3, dilation_rate=2, padding="same")(x)
    x = layers.BatchNormalization(scale=False)(x)
    x = layers.ReLU(negative_slope=0.1)(x)
    y = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    y = layers.BatchNormalization(renorm=True)(layers.SeparableConv2D(8, 5, padding="same")(y))
    x = layers.Add()([x, y, layers.MaxPooling2D(3, strides=1, padding="same")(x)])
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Multiply()([x, layers.Conv2D(8, 1, activation="sigmoid")(gate)])
    x = layers.Concatenate()([layers.ZeroPadding2D(((0, 1), (1, 0)))(x), layers.ZeroPadding2D(((1, 0), (0, 1)))(x)])
    x = layers.DepthwiseConv2D((5, 3), strides=2, padding="valid", use_bias=True)(layers.UpSampling2D(2)(x))
    x = layers.LayerNormalization()(x)
    wide = layers.Flatten()(x)
    flat = layers.BatchNormalization(center=False)(layers.Dense(12)(wide))
    series = layers.BatchNormalization()(layers.Reshape((4, 3))(flat))
    logits = layers.Dense(CLASSES, name="logits")(layers.Flatten()(series))
    features = layers.Conv2D(CLASSES, 1, dtype="float32", name="features")(x)
    return keras.Model(image, {"logits": logits, "features": features})


def shared_layer() -> keras.Model:
    image = layers.Input((8, 8, 3), name="image")
    layer = layers.Conv2D(3, 3, padding="same")
    return keras.Model(image, {"logits": layers.GlobalAveragePooling2D()(layer(layer(image)))})


def operation() -> keras.Model:
    image = layers.Input((8, 8, 3), name="image")
    return keras.Model(image, {"logits": layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(image) * 2.0 + 1.0)})


def randomize(network: keras.Model) -> None:
    """Give every weight an effect: normalization starts from the identity, and some scales from zero."""
    generator = np.random.default_rng(1)
    for variable in network.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(generator.uniform(-0.3, 0.3, variable.shape))


def images_for(network: keras.Model, count: int = 4) -> torch.Tensor:
    _, height, width, _ = network.inputs[0].shape
    generator = np.random.default_rng(2)
    return torch.from_numpy(generator.normal(size=(count, height, width, 3)).astype(np.float32))


def record(network: keras.Model, forward: Callable[..., Any], images: torch.Tensor) -> dict[str, Any]:
    """Record the network's outputs, gradients and new statistics with this forward pass; its weights are restored."""
    before = network.get_weights()
    with torch.no_grad():
        inference = forward(images, training=False)
    parameters = [weight.value for weight in network.trainable_weights]
    for parameter in parameters:
        parameter.grad = None
    outputs = forward(images, training=True)
    targets = torch.arange(len(images)) % outputs["logits"].shape[-1]
    loss = torch.nn.functional.cross_entropy(outputs["logits"], targets)
    (loss + sum(output.square().mean() for output in outputs.values())).backward()
    found = {
        "inference": [plain(output) for _, output in sorted(inference.items())],
        "training": [plain(output) for _, output in sorted(outputs.items())],
        "statistics": [plain(weight.value) for weight in network.non_trainable_weights],
        "gradients": [plain(parameter.grad) for parameter in parameters],
        "types": [str(output.dtype) for _, output in sorted(outputs.items())],
        "shapes": [list(output.shape) for _, output in sorted(outputs.items())],
    }
    network.set_weights(before)
    return found


def plain(tensor: torch.Tensor) -> Any:
    return tensor.detach().double().numpy().copy()


def difference(found: list[Any], expected: list[Any]) -> float:
    pairs = zip(found, expected, strict=True)
    return max((float(np.abs(a - b).max() / (np.abs(b).max() + 1e-3)) for a, b in pairs), default=0.0)


def agreement(network: keras.Model, *, count: int = 4, deep: bool = False) -> dict[str, Any]:
    """Measure the differences between Keras' forward pass and torch's.

    The gradients of a `deep` network are compared with frozen normalization: with fresh weights and few images, its
    normalization makes a rounding error as large as a hundredth of a gradient.
    """
    randomize(network)
    images, forward = images_for(network, count), build_forward_pass(network)
    expected, found = record(network, network, images), record(network, forward, images)
    if deep:
        freeze_normalization(network)
        expected["gradients"] = record(network, network, images)["gradients"]
        found["gradients"] = record(network, forward, images)["gradients"]
    return {
        "fast": isinstance(forward, TorchForward),
        "same types": found["types"] == expected["types"] and found["shapes"] == expected["shapes"],
        **{name: difference(found[name], expected[name]) for name in ("inference", "training", "statistics")},
        "gradients": difference([joined(found["gradients"])], [joined(expected["gradients"])]),
    }


def freeze_normalization(network: keras.Model) -> None:
    for layer in network.layers:
        layer.trainable = not isinstance(layer, layers.BatchNormalization)


def joined(arrays: list[Any]) -> Any:
    return np.concatenate([array.ravel() for array in arrays])


def frozen() -> dict[str, Any]:
    """Measure the differences with frozen normalization, and check that training changes no statistics."""
    network = built("MobileNetV2", 32, 32)
    freeze_normalization(network)
    result, before = agreement(network), network.get_weights()
    TorchForward(network)(images_for(network), training=True)
    changed = any(not np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))
    return {**result, "changed": changed}


def bfloat16(architecture: str, size: int) -> dict[str, Any]:
    """Measure the errors of Keras and of torch's kernels in bfloat16, relative to float32."""
    exact = built(architecture, size, size)
    randomize(exact)
    mixed = built(architecture, size, size, "mixed_bfloat16")
    keras.config.set_dtype_policy("float32")
    mixed.set_weights(exact.get_weights())
    images = images_for(exact, 16)
    reference, own = record(exact, exact, images), record(mixed, mixed, images)
    fast = record(mixed, TorchForward(mixed), images)

    def error(of: dict[str, Any], name: str) -> float:
        a, b = (joined(parts[name]) for parts in (of, reference))
        return float(np.linalg.norm(a - b) / np.linalg.norm(b))

    names = ("inference", "training", "statistics", "gradients")
    return {
        "types": fast["types"],
        "own": {name: error(own, name) for name in names},
        "fast": {name: error(fast, name) for name in names},
    }


def saved() -> bool:
    """Return True if weights survive a change of their memory layout, a file, and a network with another layout."""
    network = built("resnet50-cifar", 16, 16)
    randomize(network)
    before = network.get_weights()
    use_channels_last(network.variables)
    with tempfile.TemporaryDirectory() as folder:
        network.save_weights(Path(folder) / "network.weights.h5")
        other = built("resnet50-cifar-stride2", 16, 16)
        use_channels_last(other.variables)
        other.load_weights(Path(folder) / "network.weights.h5")
        plain_order = built("resnet50-cifar", 16, 16)
        plain_order.set_weights(other.get_weights())
    networks = (network, other, plain_order)
    return all(np.array_equal(a, b) for each in networks for a, b in zip(before, each.get_weights(), strict=True))


def memory() -> list[str]:
    """Return the names of the C libraries with which `keep_freed_memory` raises no error."""
    import ctypes

    class Other:
        pass

    def raising(error: Exception) -> Callable[..., Any]:
        def load(*_: object) -> Any:
            raise error

        return load

    whole, done = ctypes.CDLL, []
    loaders: dict[str, Any] = {
        "this one": whole,
        "without mallopt": lambda *_: Other(),
        "that cannot be loaded": raising(OSError("no such library")),
        "that has no name": raising(TypeError("None is no name")),
    }
    for name, load in loaders.items():
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, ctypes, "CDLL", whole)
            ctypes.CDLL = load  # type: ignore[misc, assignment]
            keep_freed_memory()
            done.append(name)
    return done


MEASURES: dict[str, Callable[[], Any]] = {
    "resnet50-cifar": lambda: agreement(built("resnet50-cifar", 16, 16), deep=True),
    "EfficientNetLite0": lambda: agreement(built("EfficientNetLite0", 65, 65), count=2, deep=True),
    "MobileNetV2": lambda: agreement(built("MobileNetV2", 40, 33), deep=True),
    "cnn": lambda: agreement(built("cnn", 16, 16)),
    "layers without a fast kernel": lambda: agreement(odd_layers()),
    "a single pixel of a single image": lambda: agreement(built("cnn", 8, 8), count=1),
    "a layer that is used twice": lambda: agreement(shared_layer()),
    "operations between layers": lambda: agreement(operation()),
    "frozen normalization": frozen,
    "cnn in bfloat16": lambda: bfloat16("cnn", 16),
    "MobileNetV2 in bfloat16": lambda: bfloat16("MobileNetV2", 32),
    "saved": saved,
    "memory": memory,
}

if __name__ == "__main__":
    main()
