"""Reduce photos to the pixels that a model needs, so that requests are smaller and can have more of them."""

from dataclasses import dataclass
from io import BytesIO

from litelens.api.response_schemas import Photo
from litelens.core.errors import ReportedError
from litelens.core.images import MIN_PIXELS_PER_INPUT_PIXEL, Limits, decode, read_size
from litelens.core.preprocessing import Preprocessing
from litelens.settings import DEFAULT_MAX_UPLOAD_BYTES, MAX_IMAGES
from litelens_client.batches import MAX_BATCH_BYTES

# The sizes of the files that are reduced. A request can be filled with as many smaller ones as it can have; larger ones
# are not read.
MIN_BYTES = MAX_BATCH_BYTES // MAX_IMAGES
MAX_BYTES = DEFAULT_MAX_UPLOAD_BYTES

# A photo whose shorter side has fewer pixels is not reduced.
MIN_SIDE = 1000

# Other threads may allocate memory while an image is decoded here.
_LIMITS = Limits(bytes=MAX_BYTES, spare=2_000_000_000)

_QUALITY = 90


@dataclass(frozen=True)
class ReducedPhoto:
    """A JPEG with fewer pixels than the photo, upright and in sRGB, and the photo's own format and size."""

    data: bytes
    original: Photo


def has_many_pixels(data: bytes) -> bool:
    """Return whether this is an image that may have far more pixels than a model needs, by its header."""
    size = read_size(data, _LIMITS)
    return size is not None and min(size) >= MIN_SIDE


def reduce_photo(data: bytes, spec: Preprocessing) -> ReducedPhoto | None:
    """Reduce a photo for this model input; None if it has no more pixels than needed, or cannot be decoded here.

    Its sides are divided by a whole number, as the service would do while it decodes the photo. At least
    MIN_PIXELS_PER_INPUT_PIXEL pixels remain for each pixel of the input, along each side.
    """
    if spec.interpolation == "nearest":
        # It selects single pixels, and a reduction averages several.
        return None
    try:
        decoded = decode(data, _LIMITS, spec)
    except ReportedError:
        # The service will say why.
        return None
    image = decoded.rgb
    left, _, right, _ = spec.crop_box(*image.size)
    factor = int((right - left) / spec.width / MIN_PIXELS_PER_INPUT_PIXEL)
    if factor > 1:
        image = image.reduce(factor)
    if image.size == (decoded.width, decoded.height):
        return None
    if decoded.transform is not None:
        image = decoded.transform.apply(image)
    jpeg = BytesIO()
    image.save(jpeg, "JPEG", quality=_QUALITY)
    if jpeg.tell() >= len(data):
        return None
    return ReducedPhoto(jpeg.getvalue(), Photo(decoded.format, decoded.width, decoded.height))
