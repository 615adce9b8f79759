"""The forward pass of a Keras network with torch's own CPU kernels, about twice as fast as Keras on torch.

Keras on torch keeps images as NHWC and kernels as HWIO, permutes both around every convolution and computes batch
normalization in several steps. Here images and kernels have the memory layout that torch's kernels need
(channels_last), and batch normalization is one call. The result is the same function of the same variables.
"""

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import torch
import torch.nn.functional as functional
from keras import layers

LayerFunction = Callable[..., Any]

# mallopt's parameters, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


class TorchForward:
    """The forward pass of a functional Keras network for which `is_supported` is true, on torch's CPU backend.

    Keras calls the layers that have no faster torch kernel. The constructor changes the memory layout of the kernels;
    call `use_channels_last` on an optimizer's variables to give them the same layout.
    """

    def __init__(self, network: keras.Model) -> None:
        use_channels_last(network.variables)
        self._image = id(network.inputs[0])
        self._steps = tuple(_steps(network))
        self._outputs = {name: id(tensor) for name, tensor in network.output.items()}

    def __call__(self, images: torch.Tensor, training: bool = False) -> dict[str, torch.Tensor]:
        """Compute the network's outputs by name from images `(n, height, width, 3)`."""
        values = {self._image: images.permute(0, 3, 1, 2)}
        for step in self._steps:
            inputs = [values[key] for key in step.inputs]
            for key in step.last_used:
                del values[key]
            with torch.autocast("cpu", torch.bfloat16, enabled=step.bfloat16):
                values[step.output] = step.run(*inputs, training=training)
        return {name: _to_nhwc(values[key]) for name, key in self._outputs.items()}


@dataclass(frozen=True)
class _Step:
    """A layer's call. Integer keys identify tensors; no later step needs those in `last_used`."""

    run: LayerFunction
    inputs: tuple[int, ...]
    output: int
    last_used: tuple[int, ...]
    bfloat16: bool


def is_supported(network: keras.Model) -> bool:
    """Return True if the network has one input and consists of layers that are called once each, with tensors only."""
    operations = [operation for operation in network.operations if not isinstance(operation, layers.InputLayer)]
    return len(network.inputs) == 1 and isinstance(network.output, dict) and all(map(_is_plain_layer, operations))


def _is_plain_layer(operation: Any) -> bool:
    nodes = operation._inbound_nodes
    if not isinstance(operation, keras.Layer) or len(nodes) != 1 or not isinstance(operation.output, keras.KerasTensor):
        return False
    arguments, options = nodes[0].arguments.args, nodes[0].arguments.kwargs
    return (
        len(arguments) == 1
        and all(isinstance(tensor, keras.KerasTensor) for tensor in _as_list(arguments[0]))
        and all(name == "training" or value is None for name, value in options.items())
    )


def use_channels_last(variables: Iterable[keras.Variable]) -> None:
    """Give convolution kernels, HWIO, and an optimizer's variables for them torch's layout; values do not change."""
    for variable in variables:
        parameter = variable.value
        if parameter.ndim == 4:
            with torch.no_grad():
                moved = parameter.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
                parameter.data = moved.permute(2, 3, 1, 0)


def keep_freed_memory() -> None:
    """Make glibc keep the memory of freed tensors: to return it and request it again can cost a tenth of a step.

    Does nothing with another C library.
    """
    # CDLL(None) has the symbols of the C library. Only glibc has mallopt; on Windows CDLL needs a name.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**29), (_ARENA_MAX, 1)):
            mallopt(parameter, value)


def _steps(network: keras.Model) -> Iterator[_Step]:
    called = [layer for layer in network.layers if not isinstance(layer, layers.InputLayer)]
    inputs = [_keys(layer.input) for layer in called]
    kept = {id(tensor) for tensor in network.output.values()}
    last_use = {key: place for place, keys in enumerate(inputs) for key in keys}
    for place, layer in enumerate(called):
        yield _Step(
            run=_layer_function(layer),
            inputs=inputs[place],
            output=id(layer.output),
            last_used=tuple(key for key in set(inputs[place]) if last_use[key] == place and key not in kept),
            bfloat16=layer.compute_dtype == "bfloat16",
        )


def _keys(tensors: Any) -> tuple[int, ...]:
    return tuple(id(tensor) for tensor in _as_list(tensors))


def _as_list(tensors: Any) -> Sequence[Any]:
    return tensors if isinstance(tensors, list | tuple) else [tensors]


def _layer_function(layer: keras.Layer) -> LayerFunction:
    """Return the layer as a function of NCHW tensors instead of NHWC ones."""
    # Exact types, because a derived class may compute something else.
    factory, dtype = _FACTORIES.get(type(layer)), _DTYPES.get(layer.compute_dtype)
    run = factory(layer) if factory and dtype else None
    if run is None:
        return _keras_function(layer)
    return lambda *inputs, training: run(*(value.to(dtype) for value in inputs), training=training)


def _keras_function(layer: keras.Layer) -> LayerFunction:
    takes_training = layer._call_has_training_arg

    def run(*inputs: torch.Tensor, training: bool) -> torch.Tensor:
        nhwc = [_to_nhwc(value) for value in inputs]
        options = {"training": training} if takes_training else {}
        result = layer(nhwc[0] if len(nhwc) == 1 else nhwc, **options)
        return result.permute(0, 3, 1, 2) if result.ndim == 4 else result

    return run


def _to_nhwc(value: torch.Tensor) -> torch.Tensor:
    return value.permute(0, 2, 3, 1) if value.ndim == 4 else value


def _convolution(layer: keras.Layer) -> LayerFunction | None:
    if layer.groups != 1 or not _is_plain_convolution(layer):
        return None
    return _convolve(layer, (3, 2, 0, 1), groups=1)


def _depthwise(layer: keras.Layer) -> LayerFunction | None:
    if layer.depth_multiplier != 1 or not _is_plain_convolution(layer):
        return None
    return _convolve(layer, (2, 3, 0, 1), groups=layer.kernel.shape[2])


def _is_plain_convolution(layer: keras.Layer) -> bool:
    return (
        layer.padding in ("same", "valid")
        and layer.data_format == "channels_last"
        and layer.activation is _LINEAR
        and layer.activity_regularizer is None
    )


def _convolve(layer: keras.Layer, order: Sequence[int], groups: int) -> LayerFunction:
    def run(x: torch.Tensor, training: bool) -> torch.Tensor:
        padding, x = _pad(layer, x)
        bias = layer.bias.value if layer.use_bias else None
        kernel = layer.kernel.value.permute(*order)
        return functional.conv2d(x, kernel, bias, layer.strides, padding, layer.dilation_rate, groups)

    return run


def _pad(layer: keras.Layer, x: torch.Tensor) -> tuple[tuple[int, int], torch.Tensor]:
    """Return the padding for the convolution to add on both sides, and the image, padded here if the sides differ."""
    if layer.padding == "valid":
        return (0, 0), x
    sides = [
        max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        for size, kernel, stride, dilation in zip(
            x.shape[2:], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
        )
    ]
    if all(total % 2 == 0 for total in sides):
        return (sides[0] // 2, sides[1] // 2), x
    (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in sides)
    return (0, 0), functional.pad(x, (left, right, top, bottom))


def _batch_normalization(layer: keras.Layer) -> LayerFunction | None:
    rank = len(layer.input.shape)
    if rank not in (2, 4) or layer.axis not in (-1, rank - 1) or layer.renorm:
        return None
    keras_call, new = _keras_function(layer), 1 - layer.momentum

    def run(x: torch.Tensor, training: bool) -> torch.Tensor:
        scale, center = layer.gamma.value if layer.scale else None, layer.beta.value if layer.center else None
        mean, variance = layer.moving_mean.value, layer.moving_variance.value
        if not (training and layer.trainable):
            return functional.batch_norm(x, mean, variance, scale, center, eps=layer.epsilon)
        count = x.numel() // x.shape[1]
        if count == 1:  # torch refuses a single value, because its variance divides by count - 1
            return keras_call(x, training=True)
        batch_mean, batch_variance = torch.zeros_like(mean), torch.zeros_like(variance)
        result = functional.batch_norm(
            x, batch_mean, batch_variance, scale, center, training=True, momentum=1.0, eps=layer.epsilon
        )
        mean.lerp_(batch_mean, new)
        variance.lerp_(batch_variance * ((count - 1) / count), new)
        return result

    return run


def _relu(layer: keras.Layer) -> LayerFunction | None:
    if layer.negative_slope or layer.threshold or layer.max_value not in (None, 6):
        return None
    function = functional.relu if layer.max_value is None else functional.relu6
    return lambda x, training: function(x)


def _add(layer: keras.Layer) -> LayerFunction | None:
    ranks = [len(tensor.shape) for tensor in layer.input]
    return (lambda a, b, training: a + b) if ranks in ([2, 2], [4, 4]) else None


def _average(layer: keras.Layer) -> LayerFunction | None:
    return None if layer.keepdims or layer.data_format != "channels_last" else (lambda x, training: x.mean(dim=(2, 3)))


_LINEAR = keras.activations.linear

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}

# A factory returns None if torch's kernel lacks one of the layer's options.
_FACTORIES: dict[type, Callable[[keras.Layer], LayerFunction | None]] = {
    layers.Conv2D: _convolution,
    layers.DepthwiseConv2D: _depthwise,
    layers.BatchNormalization: _batch_normalization,
    layers.ReLU: _relu,
    layers.Add: _add,
    layers.GlobalAveragePooling2D: _average,
}
