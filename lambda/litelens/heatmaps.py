"""A heat map as a picture to lay over the photo."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Pixels of the picture's longer side: smooth when it is stretched over a photo, and a few kilobytes.
_SIDE = 256


def to_png(scores: NDArray[np.float32], aspect: float) -> bytes:
    """A PNG of these scores, float32 `(h, w)`, for a region that is `aspect` times as wide as high.

    Red where they are highest and transparent where they are lowest; all transparent when they are all the same.
    """
    low, high = float(scores.min()), float(scores.max())
    strength = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    levels = Image.fromarray((strength * 255).round().astype(np.uint8))
    size = (_SIDE, max(1, round(_SIDE / aspect))) if aspect >= 1 else (max(1, round(_SIDE * aspect)), _SIDE)
    alpha = levels.resize(size, Image.Resampling.BICUBIC)
    yellow_to_red = alpha.point(lambda level: 255 - level)
    opaque = Image.new("L", size, 255)
    file = BytesIO()
    Image.merge("RGBA", (opaque, yellow_to_red, Image.new("L", size), alpha)).save(file, "PNG")
    return file.getvalue()
