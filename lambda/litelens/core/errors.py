"""Errors that litelens raises. Messages are sentences for the person who sent the image or deployed the model.

LitelensError
├── BundleError            a bundle's folder is incomplete, damaged or inconsistent
└── ReportedError          reported to the client as a problem document
    ├── InternalError      any other exception
    ├── ModelUnusable      the requested model's bundle cannot be served
    └── InputError         the image or an option cannot be used
        ├── InvalidOption
        ├── ModelNotFound
        └── ImageError
            ├── ImageMissing
            ├── NotAnImage
            ├── CorruptImage
            └── ImageTooLarge

litelens.aws.errors and litelens.api.problems define further subclasses of ReportedError.
"""

from http import HTTPStatus
from typing import ClassVar


class LitelensError(Exception):
    """Base class of all errors that litelens raises on purpose."""


class BundleError(LitelensError):
    """A bundle's folder is incomplete, damaged or inconsistent; the message names the file."""


class ReportedError(LitelensError):
    """An error that a client receives as a problem document (RFC 9457); the message is its `detail`.

    A subclass sets the machine-readable `code`, the HTTP `status`, the `title`, and, if the client should send the
    request again, after how many seconds. Subclasses inherit what they do not set.
    """

    code: ClassVar[str]
    status: ClassVar[HTTPStatus]
    title: ClassVar[str]
    retry_after: ClassVar[int | None] = None


class InternalError(ReportedError):
    """The service failed in a way that no other error describes."""

    code, status, title = "internal_error", HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong on our side"


class ModelUnusable(ReportedError):
    """The requested model's bundle cannot be served; other models are not affected."""

    code, status, title = "model_unusable", HTTPStatus.INTERNAL_SERVER_ERROR, "The model cannot be used"


class InputError(ReportedError):
    """The image or an option cannot be used."""


class InvalidOption(InputError):
    """An option is out of range."""

    code, status, title = "invalid_option", HTTPStatus.BAD_REQUEST, "An option is out of its range"


class ModelNotFound(InputError):
    """No model has the requested name."""

    code, status, title = "model_not_found", HTTPStatus.NOT_FOUND, "There is no such model"


class ImageError(InputError):
    """The image cannot be classified."""


class ImageMissing(ImageError):
    """There are no bytes."""

    code, status, title = "image_missing", HTTPStatus.BAD_REQUEST, "There is no image"


class NotAnImage(ImageError):
    """The bytes are not in a supported image format."""

    code, status, title = "not_an_image", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The bytes are not an image"


class CorruptImage(ImageError):
    """The format is supported, but the image cannot be decoded."""

    code, status, title = "corrupt_image", HTTPStatus.UNPROCESSABLE_ENTITY, "The image cannot be decoded"


class ImageTooLarge(ImageError):
    """The image has too many bytes or pixels, or decoding it would take too much memory or time."""

    code, status, title = "image_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The image is too large"
