"""From decoded RGB to what the model was trained on: the one specification, used by training and serving."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes model input.

    The centre of the photo, of the input's aspect ratio and `crop` (0 to 1] of the largest such size, is resized
    to `height` x `width` pixels; then each channel becomes `(value / 255 - mean) / std`.
    """

    height: int
    width: int
    crop: float
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """The input's pixels, uint8 `(height, width, 3)`, from an RGB image of any size."""
        size = (self.width, self.height)
        box = self._crop_box(image.width, image.height)
        if image.size != size or box != (0, 0, *size):
            image = image.resize(size, Image.Resampling[self.interpolation.upper()], box=box)
        return np.asarray(image)

    def values(self) -> NDArray[np.float32]:
        """The normalized value of each of the 256 levels in each channel, float32 `(256, 3)`."""
        levels = np.arange(256)[:, np.newaxis] / 255
        values: NDArray[np.float32] = ((levels - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        return values

    def _crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        scale = self.crop * min(width / self.width, height / self.height)
        left = (width - scale * self.width) / 2
        top = (height - scale * self.height) / 2
        return (left, top, left + scale * self.width, top + scale * self.height)
