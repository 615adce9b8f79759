"""Views of images: random crops and mirror images, the same for a network and its teacher."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.preset import Augmentation


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


def show(pixels: NDArray[np.uint8], views: Views, padding: int) -> NDArray[np.uint8]:
    """Cut the views out of images, uint8 `(n, h, w, 3)`, after adding `padding` black pixels on each side."""
    _, height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    shown = np.empty_like(pixels)
    for index, ((down, across), mirrored) in enumerate(zip(views.offsets, views.mirrored, strict=True)):
        crop = padded[index, down : down + height, across : across + width]
        shown[index] = crop[:, ::-1] if mirrored else crop
    return shown
