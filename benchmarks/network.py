"""The network of the contest, in Keras: that of a published int8 bundle with float32 weights, in two sizes.

A bundle has no float weights: they are its int8 weights times their scales here. Quantizing these again rounds them
less than the weights of a network as it was trained, so that int8 models are nearer to this fp32 than to that.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from keras import layers
from numpy.typing import NDArray

from litelens.bundle import IMAGE, LOGITS, MAP
from training.progress import progress

_CONVOLUTION, _ADDITION, _MEAN = (
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.ADD,
    schema.BuiltinOperator.MEAN,
)
_PADDINGS = {schema.Padding.SAME: "same", schema.Padding.VALID: "valid"}
_ACTIVATIONS = {schema.ActivationFunctionType.NONE: "linear", schema.ActivationFunctionType.RELU: "relu"}

_AT_ONCE = 32

# From hardly any shrinking of the weights to nearly all of it, relative to the sum of the features' variances.
_PENALTIES = tuple(10.0**power for power in range(-6, 0))


def dequantized(model: bytes, side: int, *, pooled_stem: bool) -> keras.Model:
    """The float32 network of an int8 .tflite file made of convolutions, additions and a mean.

    Input: "image", float32 `(n, side, side, 3)`. Outputs by name: `logits`, float32 `(n, classes)`, and
    `class_activation_map`, float32 `(n, h, w, classes)`, whose mean over h and w is `logits`.

    With `pooled_stem`, 3x3 max pooling of stride 2 follows the first convolution, as in ResNet-50 (He et al. 2015,
    https://arxiv.org/abs/1512.03385), so that a network for small images has its maps' sizes at 224 pixels.
    Raises ValueError when the file has other operators.
    """
    parsed = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    (graph,), (signature,) = parsed.subgraphs, parsed.signatureDefs
    names = {output.tensorIndex: output.name.decode() for output in signature.outputs}
    image = keras.Input((side, side, 3), name=IMAGE, dtype="float32")
    values = {int(graph.inputs[0]): image}
    for number, operator in enumerate(graph.operators):
        (made,) = operator.outputs
        name = names.get(made, f"operator{number}")
        values[int(made)] = _apply(parsed, graph, operator, values, name)
        if pooled_stem and number == 0:
            values[int(made)] = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(values[int(made)])
    return keras.Model(image, {name: values[tensor] for tensor, name in names.items()})


def with_head(network: keras.Model, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> keras.Model:
    """The network with another linear head: `kernel`, float32 `(features, classes)`, and `bias`, `(classes,)`."""
    head = layers.Conv2D(len(bias), 1, name=MAP)
    maps = head(network.get_layer(MAP).input)
    head.set_weights([kernel[np.newaxis, np.newaxis], bias])
    return keras.Model(network.inputs, {LOGITS: layers.GlobalAveragePooling2D(name=LOGITS)(maps), MAP: maps})


def multiply_adds(network: keras.Model) -> int:
    """How many products its convolutions add up for one image."""
    return sum(
        math.prod(layer.output.shape[1:]) * math.prod(layer.kernel.shape[:3])
        for layer in network.layers
        if isinstance(layer, layers.Conv2D)
    )


def pooled_features(network: keras.Model, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the head sees of each input, averaged over the image: float32 `(n, features)`."""
    pooled = layers.GlobalAveragePooling2D()(network.get_layer(MAP).input)
    body = keras.Model(network.inputs, pooled)
    starts = range(0, len(inputs), _AT_ONCE)
    parts = (body.predict_on_batch(inputs[start : start + _AT_ONCE]) for start in starts)
    return np.concatenate(list(progress(parts, len(starts), "Reading features, batches")))


def fit_head(
    features: NDArray[np.float32], classes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The linear head that tells the classes apart: kernel, float32 `(features, classes)`, and bias, `(classes,)`.

    Ridge regression on the classes as 0 and 1, whose penalty is the one that is right most often about each image when
    it is left out of the fit, which follows from one fit to all (Golub, Heath and Wahba 1979,
    https://doi.org/10.1080/00401706.1979.10489751).
    """
    targets = np.eye(classes.max() + 1)[classes]
    means = features.mean(axis=0, dtype=np.float64)
    centred = features - means
    products = centred @ centred.T
    solutions = [ridge(products, targets, penalty * np.trace(products)) for penalty in _PENALTIES]
    right = [(left_out.argmax(axis=1) == classes).mean() for _, left_out in solutions]
    dual, _ = solutions[int(np.argmax(right))]
    kernel = centred.T @ dual
    bias = targets.mean(axis=0) - means @ kernel
    return kernel.astype(np.float32), bias.astype(np.float32)


def ridge(
    products: NDArray[np.float64], targets: NDArray[np.float64], penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The weight of each image in a fit to `targets`, and what the fit without it says of it, both `(n, classes)`.

    `products`, `(n, n)`, are those of the images' centred features; the fit has a constant beside them.
    """
    count = len(products)
    inverse = np.linalg.inv(products + penalty * np.eye(count))
    deviations = targets - targets.mean(axis=0)
    fitted = products @ inverse
    # The mean is fitted too, which takes 1/n of an image's own weight.
    own = fitted.diagonal() + 1 / count
    left_out = targets - (deviations - fitted @ deviations) / (1 - own)[:, np.newaxis]
    return inverse @ deviations, left_out


def _apply(
    parsed: Any, graph: Any, operator: Any, values: dict[int, keras.KerasTensor], name: str
) -> keras.KerasTensor:
    code = flatbuffer_utils.get_builtin_code_from_operator_code(parsed.operatorCodes[operator.opcodeIndex])
    inputs = [values[tensor] for tensor in operator.inputs if tensor in values]
    if code == _CONVOLUTION:
        return _convolve(parsed, graph, operator, inputs[0], name)
    if code == _ADDITION:
        activation = _ACTIVATIONS[operator.builtinOptions.fusedActivationFunction]
        return layers.Activation(activation, name=f"{name}_{activation}")(layers.Add(name=name)(inputs))
    if code == _MEAN:
        return layers.GlobalAveragePooling2D(name=name)(inputs[0])
    raise ValueError(f"the model has an operator of code {code}, which is no convolution, addition or mean")


def _convolve(parsed: Any, graph: Any, operator: Any, value: keras.KerasTensor, name: str) -> keras.KerasTensor:
    options = operator.builtinOptions
    kernel, bias = (_real(parsed, graph.tensors[tensor]) for tensor in operator.inputs[1:])
    layer = layers.Conv2D(
        len(kernel),
        kernel.shape[1:3],
        strides=(options.strideH, options.strideW),
        padding=_PADDINGS[options.padding],
        activation=_ACTIVATIONS[options.fusedActivationFunction],
        name=name,
    )
    convolved = layer(value)
    layer.set_weights([kernel.transpose(1, 2, 3, 0), bias])
    return convolved


def _real(parsed: Any, tensor: Any) -> NDArray[np.float32]:
    """A convolution's weights or biases, whose scales run along the first axis."""
    kind = np.int8 if tensor.type == schema.TensorType.INT8 else np.int32
    levels = np.frombuffer(bytes(parsed.buffers[tensor.buffer].data), kind).reshape(tensor.shape)
    scales: Sequence[float] = tensor.quantization.scale
    real: NDArray[np.float32] = levels * np.array(scales, np.float32).reshape(-1, *[1] * (levels.ndim - 1))
    return real.astype(np.float32)
