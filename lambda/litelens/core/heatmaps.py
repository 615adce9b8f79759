"""Draw heat maps as PNGs to lay over the photo."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Pixels of the PNG's longer side: enough to look smooth over a photo, and only a few kilobytes.
_SIDE = 256


def to_png(scores: NDArray[np.float32], aspect: float) -> bytes:
    """Draw scores, float32 `(h, w)`, as a PNG for a region whose width is `aspect` times its height.

    The highest score is red and the lowest transparent. If all scores are the same, the whole PNG is transparent.
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
