"""Errors of calls to AWS. Messages are sentences for the person who sent the request and never quote AWS's own text.

ReportedError
├── StorageError                S3, DynamoDB, EventBridge or CodeDeploy
│   ├── BucketNotAllowed
│   ├── ObjectNotFound
│   ├── ObjectVersionNotFound
│   ├── ObjectAccessDenied
│   ├── StorageTimeout
│   └── StorageUnavailable
└── DescribeError               Bedrock
    ├── DescribeRefused
    ├── DescribeThrottled
    ├── DescribeTimeout
    └── DescribeUnavailable
LitelensError
└── VersionError                a published Lambda version under test
    ├── VersionFailed
    └── VersionUnavailable
"""

from http import HTTPStatus

from litelens.core.errors import LitelensError, ReportedError

_RETRY_SECONDS = 2


class StorageError(ReportedError):
    """A call to S3, DynamoDB, EventBridge or CodeDeploy failed."""

    code, status, title = "storage_unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "The storage is not available"


class BucketNotAllowed(StorageError):
    """This deployment is not allowed to read the bucket."""

    code, status, title = "bucket_not_allowed", HTTPStatus.FORBIDDEN, "Access to the bucket is not allowed"


class ObjectNotFound(StorageError):
    """The object does not exist."""

    code, status, title = "object_not_found", HTTPStatus.NOT_FOUND, "The object does not exist"


class ObjectVersionNotFound(StorageError):
    """The object exists, but not in this version or with this ETag."""

    code, status, title = "object_version_not_found", HTTPStatus.NOT_FOUND, "The object has no such version"


class ObjectAccessDenied(StorageError):
    """S3 denies access to the object."""

    code, status, title = "object_access_denied", HTTPStatus.FORBIDDEN, "Access to the object is denied"


class StorageTimeout(StorageError):
    """AWS did not answer before the deadline."""

    code, status, title = "storage_timeout", HTTPStatus.GATEWAY_TIMEOUT, "The storage took too long"


class StorageUnavailable(StorageError):
    """AWS failed in every attempt."""

    retry_after = _RETRY_SECONDS


class DescribeError(ReportedError):
    """The language model did not answer."""

    code, status, title = "describe_unavailable", HTTPStatus.BAD_GATEWAY, "The language model is not available"


class DescribeRefused(DescribeError):
    """The language model refuses to discuss the image or the question."""

    code, status, title = (
        "describe_refused",
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The language model refused to answer",
    )


class DescribeThrottled(DescribeError):
    """The language model receives too many requests."""

    code, status, title = (
        "describe_throttled",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The language model receives too many requests",
    )
    retry_after = _RETRY_SECONDS


class DescribeTimeout(DescribeError):
    """The language model did not answer before the deadline."""

    code, status, title = "describe_timeout", HTTPStatus.GATEWAY_TIMEOUT, "The language model took too long"


class DescribeUnavailable(DescribeError):
    """The language model does not exist, or this account is not allowed to use it."""


class VersionError(LitelensError):
    """A published version did not respond."""


class VersionFailed(VersionError):
    """The version was invoked and raised an error."""


class VersionUnavailable(VersionError):
    """The version could not be invoked, or did not answer before the deadline."""
