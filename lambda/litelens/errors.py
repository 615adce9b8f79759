"""Everything litelens raises on purpose. Messages are sentences for whoever sent the image or deployed the model.

LitelensError
├── BundleError           the model's folder is incomplete, damaged or inconsistent
└── InputError            what was sent cannot be classified
    ├── InvalidOption     an option is out of its range
    └── ImageError
        ├── ImageMissing  there are no bytes
        ├── NotAnImage    the bytes are not of a format that is read here
        ├── CorruptImage  the format is known, but the image cannot be decoded
        └── ImageTooLarge too many bytes or pixels, or too much memory or time to decode it
"""

__all__ = [
    "BundleError",
    "CorruptImage",
    "ImageError",
    "ImageMissing",
    "ImageTooLarge",
    "InputError",
    "InvalidOption",
    "LitelensError",
    "NotAnImage",
]


class LitelensError(Exception):
    """Base of all errors raised on purpose."""


class BundleError(LitelensError):
    """The model's folder is incomplete, damaged or inconsistent; the message names the file."""


class InputError(LitelensError):
    """What was sent cannot be classified."""


class InvalidOption(InputError):
    """An option is out of its range."""


class ImageError(InputError):
    """The image cannot be classified."""


class ImageMissing(ImageError):
    """There are no bytes."""


class NotAnImage(ImageError):
    """The bytes are not of a format that is read here."""


class CorruptImage(ImageError):
    """The format is known, but the image cannot be decoded."""


class ImageTooLarge(ImageError):
    """Too many bytes or pixels, or too much memory or time to decode it."""
