"""Limits of the whole process while an image is decoded. Only one thread at a time may use them."""

import mmap
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from litelens.core.errors import CorruptImage, ImageTooLarge, InputError
from litelens.core.unsupported import explain_text

TOO_MUCH_MEMORY = (
    "Decoding the image would take more than {:,} bytes of memory. Send a smaller image, or a baseline JPEG."
)


@contextmanager
def pillow_limits(data: bytes, pixels: int, memory: int) -> Iterator[None]:
    """Apply a limit of pixels to Pillow, and turn its errors into InputErrors.

    Pillow checks its own limit, which is process-wide, before it allocates memory. `data` is the file, and `memory` the
    limit that the error names.
    """
    original = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageTooLarge(f"The image has more than {pixels:,} pixels, which is the maximum.") from error
    except MemoryError as error:
        raise ImageTooLarge(TOO_MUCH_MEMORY.format(memory)) from error
    except InputError:
        raise
    except Exception as error:
        # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others.
        message = explain_text(data) or "The image is truncated or corrupt and cannot be decoded."
        raise CorruptImage(message) from error
    finally:
        Image.MAX_IMAGE_PIXELS = original


def data_size() -> int:
    """Return the size of the process's data segment in bytes, used or not; 0 on systems other than Linux."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read().split()[5]) * mmap.PAGESIZE


@contextmanager
def data_limit(memory: int) -> Iterator[None]:
    """Limit the process's data segment to this many bytes; does nothing on systems other than Linux.

    A lossless WebP of 300 kB can make libwebp allocate hundreds of MB for prefix codes, which cannot be computed from
    the header. With the limit, such an image is reported as corrupt.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (memory if hard == resource.RLIM_INFINITY else min(memory, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
