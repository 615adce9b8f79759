"""Every error a client can meet, as a problem document (RFC 9457)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec
from aws_lambda_powertools.event_handler import Response

from adapters import errors as aws
from handlers.answers import Problem
from litelens.errors import CorruptImage, ImageMissing, ImageTooLarge, InvalidOption, NotAnImage


class RequestError(Exception):
    """The request itself is wrong, whatever image it carries."""


class InvalidJson(RequestError):
    """The body says it is JSON but is not."""


class InvalidMultipart(RequestError):
    """The body says it is multipart/form-data but is not."""


class InvalidRequest(RequestError):
    """The JSON or the form is not of the documented form."""


class InvalidBase64(RequestError):
    """The image is not valid base64."""


class RequestTooLarge(RequestError):
    """The request is larger than what a single call can carry."""


class UnsupportedMediaType(RequestError):
    """The content type is not one that is read here."""


class UnknownPath(RequestError):
    """There is nothing at this path."""


class UnknownResult(RequestError):
    """No upload has this id, or it expired unused."""


class MethodNotAllowed(RequestError):
    """There is something at this path, but not for this method."""


class NotConfigured(RequestError):
    """This deployment leaves out what was asked for."""


class OutOfTime(RequestError):
    """The images before this one took all the time that a request has."""


@dataclass(frozen=True)
class Kind:
    """What all problems of one code share."""

    code: str
    status: HTTPStatus
    title: str
    headers: Mapping[str, str] = field(default_factory=dict)


_AGAIN_SOON = {"Retry-After": "2"}

KINDS: dict[type[Exception], Kind] = {
    InvalidJson: Kind("invalid_json", HTTPStatus.BAD_REQUEST, "The body is not valid JSON"),
    InvalidMultipart: Kind("invalid_multipart", HTTPStatus.BAD_REQUEST, "The body is not a valid form"),
    InvalidRequest: Kind("invalid_request", HTTPStatus.BAD_REQUEST, "The request is not of the documented form"),
    InvalidBase64: Kind("invalid_base64", HTTPStatus.BAD_REQUEST, "The image is not valid base64"),
    InvalidOption: Kind("invalid_option", HTTPStatus.BAD_REQUEST, "An option is out of its range"),
    ImageMissing: Kind("image_missing", HTTPStatus.BAD_REQUEST, "There is no image"),
    aws.BucketNotAllowed: Kind("bucket_not_allowed", HTTPStatus.FORBIDDEN, "The bucket may not be read"),
    aws.ObjectAccessDenied: Kind("object_access_denied", HTTPStatus.FORBIDDEN, "The object may not be read"),
    UnknownPath: Kind("not_found", HTTPStatus.NOT_FOUND, "There is nothing here"),
    UnknownResult: Kind("result_not_found", HTTPStatus.NOT_FOUND, "There is no such result"),
    aws.ObjectNotFound: Kind("object_not_found", HTTPStatus.NOT_FOUND, "There is no such object"),
    aws.ObjectVersionNotFound: Kind("object_version_not_found", HTTPStatus.NOT_FOUND, "The object has no such version"),
    MethodNotAllowed: Kind("method_not_allowed", HTTPStatus.METHOD_NOT_ALLOWED, "The method is not allowed here"),
    RequestTooLarge: Kind("request_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large"),
    ImageTooLarge: Kind("image_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The image is too large"),
    UnsupportedMediaType: Kind(
        "unsupported_media_type", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The content type is not supported"
    ),
    NotAnImage: Kind("not_an_image", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The bytes are not an image"),
    CorruptImage: Kind("corrupt_image", HTTPStatus.UNPROCESSABLE_ENTITY, "The image cannot be decoded"),
    aws.DescribeRefused: Kind(
        "describe_refused", HTTPStatus.UNPROCESSABLE_ENTITY, "The language model will not answer this"
    ),
    NotConfigured: Kind("not_configured", HTTPStatus.NOT_IMPLEMENTED, "This deployment leaves it out"),
    aws.DescribeUnavailable: Kind("describe_unavailable", HTTPStatus.BAD_GATEWAY, "The language model cannot be asked"),
    aws.StorageUnavailable: Kind(
        "storage_unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "The storage failed", _AGAIN_SOON
    ),
    aws.DescribeThrottled: Kind(
        "describe_throttled", HTTPStatus.SERVICE_UNAVAILABLE, "The language model is asked too often", _AGAIN_SOON
    ),
    OutOfTime: Kind("timeout", HTTPStatus.GATEWAY_TIMEOUT, "There was no time left"),
    aws.StorageTimeout: Kind("storage_timeout", HTTPStatus.GATEWAY_TIMEOUT, "The storage took too long"),
    aws.DescribeTimeout: Kind("describe_timeout", HTTPStatus.GATEWAY_TIMEOUT, "The language model took too long"),
}

# What API Gateway answers before the function is asked.
FORBIDDEN = Kind("forbidden", HTTPStatus.FORBIDDEN, "The request is not allowed")
TOO_MANY_REQUESTS = Kind(
    "too_many_requests", HTTPStatus.TOO_MANY_REQUESTS, "There are too many requests", {"Retry-After": "1"}
)
QUOTA_EXCEEDED = Kind("quota_exceeded", HTTPStatus.TOO_MANY_REQUESTS, "The quota is used up")

INTERNAL = Kind("internal_error", HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong on our side")


def document(kind: Kind, detail: str, request_id: str) -> Problem:
    """The problem as it is told."""
    return Problem(
        type=f"urn:litelens:problem:{kind.code}",
        title=kind.title,
        status=kind.status.value,
        detail=detail,
        code=kind.code,
        request_id=request_id,
    )


def problem(kind: Kind, detail: str, request_id: str) -> Response[str]:
    """The answer to a request that failed as a whole."""
    return Response(
        status_code=kind.status.value,
        content_type="application/problem+json",
        body=msgspec.json.encode(document(kind, detail, request_id)).decode(),
        headers=dict(kind.headers),
    )
