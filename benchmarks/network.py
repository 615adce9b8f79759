"""Build the compared network in Keras from a published int8 bundle: its int8 weights times their scales."""

from typing import Any

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from keras import layers
from numpy.typing import NDArray

from litelens.core.bundle import FEATURES, IMAGE, LOGITS
from litelens.core.head import Head
from litelens_client.learning.tflite import channel_scales, parse_model, read_array
from training.head import add_head

_CONVOLUTION, _ADDITION = schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.ADD
_PADDINGS = {schema.Padding.SAME: "same", schema.Padding.VALID: "valid"}
_ACTIVATIONS = {schema.ActivationFunctionType.NONE: "linear", schema.ActivationFunctionType.RELU: "relu"}

_BATCH = 32

# Candidates for the ridge penalty, relative to the sum of the features' variances.
_PENALTIES = tuple(10.0**power for power in range(-6, 0))


def dequantized(model: bytes, side: int, *, pooled_stem: bool) -> keras.Model:
    """Return the float32 network of an int8 .tflite file whose features are computed by convolutions and additions.

    Input: "image", float32 `(n, side, side, 3)`. Output: the features, float32 `(n, h, w, channels)`.

    With `pooled_stem`, the first convolution has stride 2, and 3x3 max pooling of stride 2 follows it, as in ResNet-50
    (He et al. 2015, https://arxiv.org/abs/1512.03385): a network for small images then has ResNet-50's map sizes at 224
    pixels. Raises ValueError if the features need other operators.
    """
    parsed = parse_model(model)
    (graph,), (signature,) = parsed.subgraphs, parsed.signatureDefs
    features = {output.name.decode(): int(output.tensorIndex) for output in signature.outputs}[FEATURES]
    image = keras.Input((side, side, 3), name=IMAGE, dtype="float32")
    values = {int(graph.inputs[0]): image}
    for number, operator in enumerate(graph.operators):
        if features in values:
            break
        (made,) = operator.outputs
        if pooled_stem and number == 0:
            operator.builtinOptions.strideH = operator.builtinOptions.strideW = 2
        values[int(made)] = _apply(parsed, graph, operator, values, f"operator{number}")
        if pooled_stem and number == 0:
            values[int(made)] = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(values[int(made)])
    return keras.Model(image, values[features])


def with_head(body: keras.Model, head: Head) -> keras.Model:
    """Add a head with these weights to a network that ends in features; see `training.head.add_head`."""
    network = add_head(body, len(head.bias))
    network.get_layer(LOGITS).set_weights([head.weights.T, head.bias])
    return network


def pooled_features(body: keras.Model, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a network's features averaged over each image: float32 `(n, channels)`."""
    pooled = keras.Model(body.inputs, layers.GlobalAveragePooling2D()(body.outputs[0]))
    starts = range(0, len(inputs), _BATCH)
    return np.concatenate([pooled.predict_on_batch(inputs[start : start + _BATCH]) for start in starts])


def fit_head(features: NDArray[np.float32], classes: NDArray[np.int64]) -> Head:
    """Fit a linear classifier to pooled features.

    Ridge regression on one-hot classes. The penalty is chosen by leave-one-out accuracy, which follows from one fit
    (Golub, Heath and Wahba 1979, https://doi.org/10.1080/00401706.1979.10489751).
    """
    targets = np.eye(classes.max() + 1)[classes]
    means = features.mean(axis=0, dtype=np.float64)
    centred = features - means
    products = centred @ centred.T
    solutions = [ridge(products, targets, penalty * np.trace(products)) for penalty in _PENALTIES]
    right = [(left_out.argmax(axis=1) == classes).mean() for _, left_out in solutions]
    dual, _ = solutions[int(np.argmax(right))]
    weights = dual.T @ centred
    bias = targets.mean(axis=0) - weights @ means
    return Head(weights.astype(np.float32), bias.astype(np.float32))


def ridge(
    products: NDArray[np.float64], targets: NDArray[np.float64], penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the dual weights of a fit to `targets` and its leave-one-out predictions, both `(n, classes)`.

    `products`, `(n, n)`, are the dot products of the images' centred features; the fit has an intercept as well.
    """
    count = len(products)
    inverse = np.linalg.inv(products + penalty * np.eye(count))
    deviations = targets - targets.mean(axis=0)
    fitted = products @ inverse
    # The intercept adds 1/n to each image's leverage.
    leverage = fitted.diagonal() + 1 / count
    left_out = targets - (deviations - fitted @ deviations) / (1 - leverage)[:, np.newaxis]
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
    raise ValueError(f"the model has an operator of code {code}, which is neither a convolution nor an addition")


def _convolve(parsed: Any, graph: Any, operator: Any, value: keras.KerasTensor, name: str) -> keras.KerasTensor:
    options = operator.builtinOptions
    kernel, bias = (_dequantize(parsed, graph.tensors[tensor]) for tensor in operator.inputs[1:])
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


def _dequantize(parsed: Any, tensor: Any) -> NDArray[np.float32]:
    """Return a convolution's weights or biases as floats."""
    kind = np.int8 if tensor.type == schema.TensorType.INT8 else np.int32
    real: NDArray[np.float32] = read_array(parsed, tensor, kind) * channel_scales(tensor)
    return real.astype(np.float32)
