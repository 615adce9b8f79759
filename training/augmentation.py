"""Augmentation of training images.

Crops and mirror images ("views") are cut on the CPU, so that a teacher can classify the same views as the network.
Keras layers on the device do the rest.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.preset import Augmentation

_DEGREES_IN_A_TURN = 360


@dataclass(frozen=True)
class Views:
    """One view of each of n images: the offset of its crop, int64 `(n, 2)` from 0 to twice the padding, and `mirrored`,
    bool `(n,)`."""

    offsets: NDArray[np.int64]
    mirrored: NDArray[np.bool_]

    def take(self, indices: NDArray[np.int64]) -> "Views":
        return Views(self.offsets[indices], self.mirrored[indices])


def draw_views(images: int, augmentation: Augmentation, seed: int) -> Views:
    """Draw a view of each image by the seed: all crops, and with `flip` both orientations, are equally likely."""
    generator = np.random.default_rng(seed)
    offsets = generator.integers(0, 2 * augmentation.crop_padding, (images, 2), endpoint=True)
    mirrored = generator.random(images) < 0.5 if augmentation.flip else np.zeros(images, bool)
    return Views(offsets, mirrored)


def apply_views(pixels: NDArray[np.uint8], views: Views, padding: int) -> NDArray[np.uint8]:
    """Cut the views out of images, uint8 `(n, h, w, 3)`, after adding `padding` black pixels on each side."""
    _, height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    result = np.empty_like(pixels)
    for index, ((top, left), mirrored) in enumerate(zip(views.offsets, views.mirrored, strict=True)):
        crop = padded[index, top : top + height, left : left + width]
        result[index] = crop[:, ::-1] if mirrored else crop
    return result


def create_augmentation_layers(augmentation: Augmentation, seed: int) -> list[keras.Layer]:
    """Create Keras layers for the augmentations that are turned on, in the order in which they are applied.

    They take pixels from 0 to 255. Flips and crops have no layer: `apply_views` has done them.
    """
    rotation = augmentation.rotation / _DEGREES_IN_A_TURN
    zoom, shift, shear = augmentation.zoom, augmentation.shift, augmentation.shear
    choices: list[tuple[float, type[keras.Layer], dict[str, Any]]] = [
        (rotation, layers.RandomRotation, {"factor": rotation, "fill_mode": "reflect"}),
        (zoom, layers.RandomZoom, {"height_factor": zoom, "fill_mode": "reflect"}),
        (shift, layers.RandomTranslation, {"height_factor": shift, "width_factor": shift, "fill_mode": "reflect"}),
        (shear, layers.RandomShear, {"x_factor": shear, "y_factor": shear, "fill_mode": "reflect"}),
        (augmentation.randaugment, layers.RandAugment, {"factor": augmentation.randaugment, "value_range": (0, 255)}),
        (augmentation.mixup, layers.MixUp, {"alpha": augmentation.mixup}),
        (augmentation.cutmix, layers.CutMix, {"factor": augmentation.cutmix}),
    ]
    enabled = [(layer, options) for strength, layer, options in choices if strength]
    return [layer(**options, seed=seed + i, dtype="float32") for i, (layer, options) in enumerate(enabled)]


def apply_augmentation_layer(layer: keras.Layer, batch: dict[str, Any]) -> dict[str, Any]:
    """Augment a batch of `images` and `labels` with one layer; MixUp and CutMix change the labels too."""
    if isinstance(layer, layers.MixUp | layers.CutMix):
        mixed: dict[str, Any] = layer(batch, training=True)
        return mixed
    return {**batch, "images": layer(batch["images"], training=True)}
