"""The head of a network, from features to class scores: their mean over height and width, and a linear layer.

litelens.core.head is the same function with NumPy, for serving.
"""

import keras
import numpy as np
from keras import layers

from litelens.core.bundle import FEATURES, LOGITS
from litelens.core.head import Head

_POOLED = "pooled"


def is_head(layer: keras.Layer) -> bool:
    """Return True if the layer belongs to the head."""
    return layer.name in (_POOLED, LOGITS)


def add_head(
    body: keras.Model, classes: int, *, use_bias: bool = True, initializer: str = "glorot_uniform"
) -> keras.Model:
    """Add a head to a network that ends in features `(batch, h, w, channels)`; the head is float32."""
    (image,) = body.inputs
    (features,) = body.outputs
    pooled = layers.GlobalAveragePooling2D(dtype="float32", name=_POOLED)(features)
    linear = layers.Dense(classes, use_bias=use_bias, kernel_initializer=initializer, dtype="float32", name=LOGITS)
    return keras.Model(image, {LOGITS: linear(pooled), FEATURES: features}, name=body.name)


def with_features(model: keras.Model) -> keras.Model:
    """Convert a classifier with one output into one with a dict of outputs: `logits` and, if possible, `features`.

    `model` is functional, has one output, logits `(batch, classes)`, and uses each layer once. If it ends in
    GlobalAveragePooling2D, any Dropout and a linear Dense, these become the head, and the pooling's input becomes the
    features; otherwise `logits` is the only output. Layers are shared with `model`; those whose names the head needs
    are renamed.
    """
    (inputs,) = model.inputs
    (logits,) = model.outputs
    for layer in model.layers:
        if is_head(layer):
            layer.name = f"{layer.name}_inner"
    found = _find_head(model)
    if found is None:
        activation = layers.Activation("linear", dtype="float32", name=LOGITS)
        return keras.Model(inputs, {LOGITS: activation(logits)}, name=model.name)
    pooling, linear = found
    body = keras.Model(inputs, pooling.input, name=model.name)
    network = add_head(body, linear.units, use_bias=linear.use_bias)
    network.get_layer(LOGITS).set_weights(linear.get_weights())
    return network


def read_head(network: keras.Model) -> Head | None:
    """Return the head's weights, or None if the network has no output `features`."""
    if FEATURES not in network.output:
        return None
    kernel, *bias = network.get_layer(LOGITS).get_weights()
    return Head(np.ascontiguousarray(kernel.T), bias[0] if bias else np.zeros(kernel.shape[1], np.float32))


def _find_head(model: keras.Model) -> tuple[keras.Layer, keras.Layer] | None:
    """Return the pooling and the linear layer that the model ends in, or None if it ends otherwise."""
    *body, linear = model.layers
    if not isinstance(linear, layers.Dense) or linear.activation is not keras.activations.linear:
        return None
    pooled = linear.input
    while body and isinstance(body[-1], layers.Dropout) and body[-1].output is pooled:
        pooled = body.pop().input
    pooling = body[-1] if body else None
    if not isinstance(pooling, layers.GlobalAveragePooling2D) or pooling.keepdims or pooling.output is not pooled:
        return None
    return pooling, linear
