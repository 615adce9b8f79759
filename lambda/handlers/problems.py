"""Every error a client can meet, as a problem document (RFC 9457)."""

import json
from dataclasses import dataclass
from http import HTTPStatus

from aws_lambda_powertools.event_handler import Response

from litelens.errors import CorruptImage, ImageMissing, ImageTooLarge, InvalidOption, NotAnImage


class RequestError(Exception):
    """The request itself is wrong, whatever image it carries."""


class InvalidJson(RequestError):
    """The body says it is JSON but is not."""


class InvalidRequest(RequestError):
    """The JSON is not of the documented form."""


class InvalidBase64(RequestError):
    """The image is not valid base64."""


class UnsupportedMediaType(RequestError):
    """The content type is not one that is read here."""


class UnknownPath(RequestError):
    """There is nothing at this path."""


class MethodNotAllowed(RequestError):
    """There is something at this path, but not for this method."""


@dataclass(frozen=True)
class Kind:
    """What all problems of one code share."""

    code: str
    status: HTTPStatus
    title: str


KINDS: dict[type[Exception], Kind] = {
    InvalidJson: Kind("invalid_json", HTTPStatus.BAD_REQUEST, "The body is not valid JSON"),
    InvalidRequest: Kind("invalid_request", HTTPStatus.BAD_REQUEST, "The request is not of the documented form"),
    InvalidBase64: Kind("invalid_base64", HTTPStatus.BAD_REQUEST, "The image is not valid base64"),
    InvalidOption: Kind("invalid_option", HTTPStatus.BAD_REQUEST, "An option is out of its range"),
    ImageMissing: Kind("image_missing", HTTPStatus.BAD_REQUEST, "There is no image"),
    UnknownPath: Kind("not_found", HTTPStatus.NOT_FOUND, "There is nothing here"),
    MethodNotAllowed: Kind("method_not_allowed", HTTPStatus.METHOD_NOT_ALLOWED, "The method is not allowed here"),
    ImageTooLarge: Kind("image_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The image is too large"),
    UnsupportedMediaType: Kind(
        "unsupported_media_type", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The content type is not supported"
    ),
    NotAnImage: Kind("not_an_image", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The bytes are not an image"),
    CorruptImage: Kind("corrupt_image", HTTPStatus.UNPROCESSABLE_ENTITY, "The image cannot be decoded"),
}

INTERNAL = Kind("internal_error", HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong on our side")


def problem(kind: Kind, detail: str, request_id: str) -> Response[str]:
    """The answer for this problem."""
    document = {
        "type": f"urn:litelens:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": kind.code,
        "request_id": request_id,
    }
    return Response(
        status_code=kind.status,
        content_type="application/problem+json",
        body=json.dumps(document),
    )
