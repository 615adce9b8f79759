"""Find images whose data end before their last row, although their file seems whole.

Decoders report no error if the compressed data end properly: with an end marker after half of a JPEG, or with a
compressed stream of one row in a PNG. The pixels that are missing then have a level that the decoder chooses. Only an
image whose last rows have exactly that level is decoded again, to see whether they are in the file.
"""

import math
from io import BytesIO

import numpy as np
from PIL import Image

from litelens.core.errors import CorruptImage
from litelens.core.formats import JPEG, PNG
from litelens.core.metadata import JPEG_END_MARKER
from litelens.core.png import missing_share
from litelens.core.stripped import StrippedImage

# The maximum share of rows that may be missing. A crop of 0.875, which most models use, omits more at each edge.
MAX_MISSING_ROWS = 0.05

# The levels of a JPEG's missing pixels: grey, also after the inversion of inks.
_JPEG_GREY = {127, 128}
# The maximum number of rows of a JPEG above those that have only missing pixels: the row of blocks where the data end,
# the rounding to whole blocks, and two more rows of colour blocks, which a decoder smooths.
_JPEG_BORDER = 64
# Data for pixels that are missing, also after any restart marker. A decoder ignores them if no pixels are missing.
_JUNK = b"".join(bytes(range(7, 0xF7, 3)) + bytes([0xFF, marker]) for marker in range(0xD0, 0xD8))


def refuse_incomplete(image: Image.Image, stripped: StrippedImage, reduction: int) -> None:
    """Raise CorruptImage if more than a small share of the rows are missing from a decoded image.

    `reduction` is the factor by which a JPEG's sides were reduced. Only JPEG and PNG can miss rows. For all other
    formats and for interlaced PNG, Pillow reports an error.
    """
    if image.format == JPEG.name:
        is_missing = _ends_grey(image, reduction) and _jpeg_share(stripped) > MAX_MISSING_ROWS
    elif image.format == PNG.name:
        is_missing = _ends_empty(image) and missing_share(stripped, *image.size) > MAX_MISSING_ROWS
    else:
        return
    if is_missing:
        raise CorruptImage(f"More than {MAX_MISSING_ROWS:.0%} of the image's rows are missing. Send the complete file.")


def _ends_grey(image: Image.Image, reduction: int) -> bool:
    """Return whether a JPEG ends as if rows were missing: the last pixel has their level, and the last rows are flat.

    `reduction` is the factor by which its sides were reduced.
    """
    width, height = image.size
    last = image.getpixel((width - 1, height - 1))
    if not set(last if isinstance(last, tuple) else [last]) <= _JPEG_GREY:
        return False
    rows = int(height * MAX_MISSING_ROWS) - math.ceil(_JPEG_BORDER / reduction)
    if rows <= 0:
        return True
    end = image.crop((0, height - rows, width, height))
    return all(low == high for low, high in (channel.getextrema() for channel in end.split()))


def _jpeg_share(stripped: StrippedImage) -> float:
    """Return the share of a JPEG's rows, 0 to 1, from the first that has not all its data.

    Decodes an eighth of the width and height twice. The results differ where the JPEG's data end.
    """
    pixels = []
    for added in (b"", _JUNK):
        data = stripped.data.removesuffix(JPEG_END_MARKER) + added + JPEG_END_MARKER
        with Image.open(BytesIO(data), formats=[JPEG.name]) as image:
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
            pixels.append(np.asarray(image))
    differs = (pixels[0] != pixels[1]).reshape(len(pixels[0]), -1).any(axis=1)
    return 1 - int(differs.argmax()) / len(differs) if differs.any() else 0.0


def _ends_empty(image: Image.Image) -> bool:
    """Return whether the last rows of a PNG are 0 in all channels, as missing pixels are."""
    width, height = image.size
    rows = max(1, int(height * MAX_MISSING_ROWS))
    levels = image.crop((0, height - rows, width, height)).tobytes()
    return levels.count(0) == len(levels)
