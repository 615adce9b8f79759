"""The networks that can be trained, as Keras models with the head that serving expects."""

from typing import Literal

import keras
from keras import layers

Stem = Literal["imagenet", "cifar", "cifar-stride2"]

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
_EXPANSION = 4


def resnet50(height: int, width: int, classes: int, stem: Stem) -> keras.Model:
    """ResNet-50 v1.5 (stride in the 3x3 convolution), from float RGB to class scores.

    Input: float32 `(batch, height, width, 3)`, normalized as the preprocessing spec says.
    Outputs, by name: `logits`, float32 `(batch, classes)`, and `class_activation_map`, float32
    `(batch, h, w, classes)`, whose mean over h and w is `logits`: the head is a 1x1 convolution
    followed by the mean, the same function as pooling followed by a dense layer
    (Zhou et al. 2016, https://arxiv.org/abs/1512.04150).

    Stems: `imagenet` is 7x7 stride 2 and max pooling (features are 1/32 of the input's size), `cifar` a 3x3
    convolution at full resolution (1/8), `cifar-stride2` the same at stride 2 (1/16, a quarter of the work).

    Architecture: He et al. 2015, https://arxiv.org/abs/1512.03385. The last normalization of each block starts
    at zero, so that training starts from the identity (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).
    """
    inputs = keras.Input((height, width, 3), name="image")
    x = _stem(inputs, stem)
    for stage, (filters, blocks, stride) in enumerate(_STAGES, start=1):
        for block in range(blocks):
            x = _bottleneck(x, filters, stride if block == 0 else 1, f"stage{stage}_block{block + 1}")
    class_activation_map = layers.Conv2D(classes, 1, dtype="float32", name="class_activation_map")(x)
    logits = layers.GlobalAveragePooling2D(dtype="float32", name="logits")(class_activation_map)
    return keras.Model(
        inputs, {"logits": logits, "class_activation_map": class_activation_map}, name=f"resnet50_{stem}"
    )


def _stem(x: keras.KerasTensor, stem: Stem) -> keras.KerasTensor:
    if stem == "imagenet":
        x = _convolve(x, 64, 7, 2, "stem")
        return layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    return _convolve(x, 64, 3, 2 if stem == "cifar-stride2" else 1, "stem")


def _bottleneck(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    shortcut = x
    if stride != 1 or x.shape[-1] != filters * _EXPANSION:
        shortcut = _convolve(x, filters * _EXPANSION, 1, stride, f"{name}_shortcut", activate=False)
    y = _convolve(x, filters, 1, 1, f"{name}_reduce")
    y = _convolve(y, filters, 3, stride, f"{name}_spatial")
    y = _convolve(y, filters * _EXPANSION, 1, 1, f"{name}_expand", activate=False, gamma="zeros")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([shortcut, y]))


def _convolve(
    x: keras.KerasTensor,
    filters: int,
    kernel: int,
    stride: int,
    name: str,
    *,
    activate: bool = True,
    gamma: str = "ones",
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if activate else x
