"""Errors of requests, and problem documents (RFC 9457) for all errors that a client can receive."""

from http import HTTPStatus

import msgspec
from aws_lambda_powertools.event_handler import Response

from litelens.api.response_schemas import Problem
from litelens.core.errors import InternalError, ReportedError


class RequestError(ReportedError):
    """The request is wrong, regardless of the image."""

    code, status, title = "invalid_request", HTTPStatus.BAD_REQUEST, "The request does not match the API's schema"


class InvalidJson(RequestError):
    """The content type is JSON, but the body is not."""

    code, status, title = "invalid_json", HTTPStatus.BAD_REQUEST, "The body is not valid JSON"


class InvalidMultipart(RequestError):
    """The content type is multipart/form-data, but the body is not."""

    code, status, title = "invalid_multipart", HTTPStatus.BAD_REQUEST, "The body is not a valid form"


class InvalidRequest(RequestError):
    """The JSON or the form does not have the documented fields."""


class InvalidBase64(RequestError):
    """The image is not valid base64."""

    code, status, title = "invalid_base64", HTTPStatus.BAD_REQUEST, "The image is not valid base64"


class RequestTooLarge(RequestError):
    """The image is larger than a request can carry."""

    code, status, title = "request_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large"


class UnsupportedMediaType(RequestError):
    """The content type is not supported."""

    code, status, title = (
        "unsupported_media_type",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The content type is not supported",
    )


class UnknownPath(RequestError):
    """No route has this path."""

    code, status, title = "not_found", HTTPStatus.NOT_FOUND, "The path does not exist"


class UnknownResult(RequestError):
    """No upload has this id, or the upload form expired unused."""

    code, status, title = "result_not_found", HTTPStatus.NOT_FOUND, "There is no such result"


class MethodNotAllowed(RequestError):
    """A route has this path, but not this method."""

    code, status, title = "method_not_allowed", HTTPStatus.METHOD_NOT_ALLOWED, "The path does not allow this method"

    def __init__(self, *allowed: str) -> None:
        """`allowed` are the methods that the path has."""
        self.allowed = ", ".join(allowed)
        super().__init__(f"This path accepts {self.allowed} only.")


class NotConfigured(RequestError):
    """This deployment does not offer the requested feature."""

    code, status, title = "not_configured", HTTPStatus.NOT_IMPLEMENTED, "This deployment does not have this feature"


class UnknownEvent(InternalError):
    """The function was invoked with an event that it does not process; the message says which, and what to do."""


class OutOfTime(RequestError):
    """The images before this one used up the time of the invocation."""

    code, status, title = "timeout", HTTPStatus.GATEWAY_TIMEOUT, "The time ran out"


# The next three are API Gateway's own responses, which template.yaml defines and `litelens serve` imitates.
class Forbidden(RequestError):
    """The API key is missing or wrong, or there is no such route."""

    code, status, title = "forbidden", HTTPStatus.FORBIDDEN, "The request is not allowed"


class TooManyRequests(RequestError):
    """The usage plan's rate limit is exceeded."""

    code, status, title = "too_many_requests", HTTPStatus.TOO_MANY_REQUESTS, "There are too many requests"
    retry_after = 1


class QuotaExceeded(RequestError):
    """The usage plan's quota is used up."""

    code, status, title = "quota_exceeded", HTTPStatus.TOO_MANY_REQUESTS, "The quota is used up"


def problem_document(error: ReportedError, request_id: str) -> Problem:
    """Return the problem document of an error."""
    return Problem(
        type=f"urn:litelens:problem:{error.code}",
        title=error.title,
        status=error.status.value,
        detail=str(error),
        code=error.code,
        request_id=request_id,
    )


def problem_response(error: ReportedError, request_id: str) -> Response[str]:
    """Return the response to a request that failed as a whole."""
    return Response(
        status_code=error.status.value,
        content_type="application/problem+json",
        body=msgspec.json.encode(problem_document(error, request_id)).decode(),
        headers=_headers(error),
    )


def _headers(error: ReportedError) -> dict[str, str]:
    retry_after = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return retry_after | ({"Allow": error.allowed} if isinstance(error, MethodNotAllowed) else {})
