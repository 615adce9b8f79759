"""From decoded RGB to what the model was trained on: the one specification, used by training and serving."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes model input.

    The centre of the photo, of the input's aspect ratio and `crop` (0 to 1] of the largest such size, is resized
    to `height` x `width` pixels; then each channel becomes `(value / 255 - mean) / std`.
    Raises ValueError when a field cannot be so.
    """

    height: int
    width: int
    crop: float
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not all(type(side) is int and 1 <= side <= 4096 for side in (self.height, self.width)):
            raise ValueError("height and width must be whole numbers from 1 to 4096")
        if not _is_number(self.crop) or not 0 < self.crop <= 1:
            raise ValueError("crop must be above 0 and at most 1")
        if self.interpolation not in get_args(Interpolation):
            raise ValueError(f"interpolation must be one of {', '.join(get_args(Interpolation))}")
        if len(self.mean) != 3 or not all(_is_number(mean) and abs(mean) <= 100 for mean in self.mean):
            raise ValueError("mean must be three numbers from -100 to 100")
        if len(self.std) != 3 or not all(_is_number(std) and 0.001 <= std <= 1000 for std in self.std):
            raise ValueError("std must be three numbers from 0.001 to 1000")

    def pixels(self, image: Image.Image, box: tuple[float, float, float, float] | None = None) -> NDArray[np.uint8]:
        """The input's pixels, uint8 `(height, width, 3)`, from an RGB image of any size.

        They are those of the box (left, top, right, bottom), where the image is not the whole photo as it came.
        """
        size = (self.width, self.height)
        box = box or self.box(image.width, image.height)
        if image.size != size or box != (0, 0, *size):
            image = image.resize(size, Image.Resampling[self.interpolation.upper()], box=box)
        return np.asarray(image)

    def values(self) -> NDArray[np.float32]:
        """The normalized value of each of the 256 levels in each channel, float32 `(256, 3)`."""
        levels = np.arange(256)[:, np.newaxis] / 255
        values: NDArray[np.float32] = ((levels - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        return values

    def normalized(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What a float network takes of pixels, uint8 `(..., 3)`: float32 of the same shape."""
        values: NDArray[np.float32] = self.values()[pixels, np.arange(3)]
        return values

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a photo of this size that becomes the input: left, top, right and bottom, in its pixels."""
        scale = self.crop * min(width / self.width, height / self.height)
        # Rounding may make a side longer than the photo's, and beyond that Pillow has nothing.
        across, down = min(scale * self.width, width), min(scale * self.height, height)
        left, top = (width - across) / 2, (height - down) / 2
        return (left, top, left + across, top + down)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
