"""The head of a network, from features to class scores, in the form that gives a class activation map.

This head is a 1x1 convolution followed by the mean over height and width: the same function as pooling followed by a
dense layer (Zhou et al. 2016, https://arxiv.org/abs/1512.04150).
"""

import keras
from keras import layers

from litelens.core.bundle import LOGITS, MAP


def is_head(layer: keras.Layer) -> bool:
    """Return True if the layer belongs to the head."""
    return layer.name in (MAP, LOGITS)


def add_head(
    body: keras.Model, classes: int, *, use_bias: bool = True, initializer: str = "glorot_uniform"
) -> keras.Model:
    """Add a head to a network that ends in features `(batch, h, w, channels)`; the head is float32."""
    (image,) = body.inputs
    (features,) = body.outputs
    class_activation_map = layers.Conv2D(
        classes, 1, use_bias=use_bias, kernel_initializer=initializer, dtype="float32", name=MAP
    )(features)
    logits = layers.GlobalAveragePooling2D(dtype="float32", name=LOGITS)(class_activation_map)
    return keras.Model(image, {LOGITS: logits, MAP: class_activation_map}, name=body.name)


def with_class_activation_map(model: keras.Model) -> keras.Model:
    """Convert a classifier with one output into one with a dict of outputs: `logits` and, if possible, their map.

    `model` is functional, has one output, logits `(batch, classes)`, and uses each layer once. If it ends in
    GlobalAveragePooling2D, any Dropout and a linear Dense, these become the head with the map; otherwise `logits` is
    the only output. Layers are shared with `model`; those whose names the outputs need are renamed.
    """
    (inputs,) = model.inputs
    (logits,) = model.outputs
    for layer in model.layers:
        if is_head(layer):
            layer.name = f"{layer.name}_inner"
    pooled = _find_pooled_head(model)
    if pooled is None:
        activation = layers.Activation("linear", dtype="float32", name=LOGITS)
        return keras.Model(inputs, {LOGITS: activation(logits)}, name=model.name)
    pooling, dense = pooled
    body = keras.Model(inputs, pooling.input, name=model.name)
    network = add_head(body, dense.units, use_bias=dense.use_bias)
    kernel, *bias = dense.get_weights()
    network.get_layer(MAP).set_weights([kernel[None, None], *bias])
    return network


def _find_pooled_head(model: keras.Model) -> tuple[keras.Layer, keras.Layer] | None:
    """Return the pooling and the dense layer that the model ends in, or None if it ends otherwise."""
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
