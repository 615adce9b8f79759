"""Preprocessing from decoded RGB to model input, shared by training and serving."""

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray
from PIL import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

_Side = Annotated[int, Meta(ge=1, le=4096)]
_Mean = Annotated[float, Meta(ge=-100, le=100)]
_Std = Annotated[float, Meta(ge=0.001, le=1000)]


class Preprocessing(Struct, frozen=True, forbid_unknown_fields=True):
    """The steps from a photo to model input: crop, resize, normalize.

    The crop is the largest centred part of the photo with the input's aspect ratio, its sides multiplied by `crop`
    (above 0, at most 1). It is resized to `height` x `width` pixels. Then each channel becomes
    `(value / 255 - mean) / std`.
    """

    height: _Side
    width: _Side
    crop: Annotated[float, Meta(gt=0, le=1)]
    interpolation: Interpolation
    mean: tuple[_Mean, _Mean, _Mean]
    std: tuple[_Std, _Std, _Std]

    def pixels(self, image: Image.Image, box: tuple[float, float, float, float] | None = None) -> NDArray[np.uint8]:
        """Crop and resize an RGB image of any size to the input's pixels, uint8 `(height, width, 3)`.

        `box` (left, top, right, bottom) replaces the crop, for an image that is not the photo at its full size.
        """
        size = (self.width, self.height)
        box = box or self.crop_box(image.width, image.height)
        if image.size != size or box != (0, 0, *size):
            image = image.resize(size, Image.Resampling[self.interpolation.upper()], box=box)
        return np.asarray(image)

    def normalization_table(self) -> NDArray[np.float32]:
        """Return the normalized value of each of the 256 levels in each channel, float32 `(256, 3)`."""
        levels = np.arange(256)[:, np.newaxis] / 255
        table: NDArray[np.float32] = ((levels - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        return table

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Normalize pixels, uint8 `(..., 3)`, for a float network; returns float32 of the same shape."""
        normalized: NDArray[np.float32] = self.normalization_table()[pixels, np.arange(3)]
        return normalized

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the crop of a photo of this size: left, top, right and bottom, in the photo's pixels."""
        scale = self.crop * min(width / self.width, height / self.height)
        # Rounding can make a side longer than the photo's, and Pillow refuses a box that extends beyond the image.
        across, down = min(scale * self.width, width), min(scale * self.height, height)
        left, top = (width - across) / 2, (height - down) / 2
        return (left, top, left + across, top + down)
