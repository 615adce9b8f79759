"""AWS for the command: boto3's usual credentials, region and endpoint, and errors as sentences.

Functions import boto3 when they are called: the import takes as long as the rest of a start, and `litelens classify`
does not need it for files.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from litelens.aws.s3 import UPLOADS_PREFIX

# `litelens backfill` runs for hours and should survive a few minutes without a network.
_ATTEMPTS = 10

_ACCESS_DENIED = ("AccessDenied", "AccessDeniedException", "AccessDeniedFault", "AllAccessDisabled", "403")

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and, for other services,
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/CommonErrors.html
_CREDENTIALS_REJECTED = (
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)

NO_CREDENTIALS = "There are no AWS credentials; set them as for the AWS CLI, for example with AWS_PROFILE."
_NO_REGION = "There is no AWS region; set one as for the AWS CLI, for example with AWS_DEFAULT_REGION."


class AwsError(Exception):
    """A call to AWS failed; the message is a sentence for the person who runs the command."""


@dataclass(frozen=True)
class S3Location:
    """A bucket and a key or a prefix in it, which may be empty."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def create_client(service: str, region: str | None = None, *, attempts: int = _ATTEMPTS, connections: int = 10) -> Any:
    """Return a boto3 client that `connections` threads can share, by default for boto3's usual region.

    Raises AwsError if there is no region.
    """
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import NoRegionError

    retries: Any = {"total_max_attempts": attempts, "mode": "standard"}
    config = Config(retries=retries, max_pool_connections=connections)
    try:
        return Session().client(service, region_name=region, config=config)  # type: ignore[call-overload]
    except NoRegionError as error:
        raise AwsError(_NO_REGION) from error


@contextmanager
def aws_errors(failure: str, permission: str, reasons: Mapping[str, str]) -> Iterator[None]:
    """Raise AwsError in place of boto3's errors.

    `reasons` maps AWS's error codes to sentences. For other codes the sentence begins with `failure`; if access is
    denied, it names the `permission` that the call needs.
    """
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        raise AwsError(_sentence(error.response["Error"]["Code"], failure, permission, reasons)) from error
    except boto.NoCredentialsError as error:
        raise AwsError(NO_CREDENTIALS) from error
    except boto.NoRegionError as error:
        raise AwsError(_NO_REGION) from error
    except boto.BotoCoreError as error:
        raise AwsError(f"{failure}: {_reason(error)}.") from error


def uploads_prefix(prefix: str) -> str:
    """Return the prefix under uploads/, whose images are classified; prepends uploads/ if it is missing."""
    prefix = prefix.lstrip("/")
    return prefix if f"{prefix}/".startswith(UPLOADS_PREFIX) else UPLOADS_PREFIX + prefix


def _sentence(code: str, failure: str, permission: str, reasons: Mapping[str, str]) -> str:
    if code in reasons:
        return reasons[code]
    if code in _ACCESS_DENIED:
        return f"{failure}; you need the permission {permission}."
    if code in _CREDENTIALS_REJECTED:
        return f"{failure}: AWS rejects the credentials; they are wrong or have expired."
    return f"{failure}: {code}."


def _reason(error: Exception) -> str:
    """Return the reason why boto3 could not make a call."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ConnectionError | boto.HTTPClientError):
        return "AWS cannot be reached, or does not have this service in the region"
    if isinstance(error, boto.ProfileNotFound):
        return "AWS_PROFILE names a profile that does not exist"
    if isinstance(error, boto.SSOError | boto.TokenRetrievalError | boto.LoginError):
        return "the AWS login has expired; log in again as for the AWS CLI"
    if isinstance(error, boto.ParamValidationError):
        return "AWS does not allow such a name"
    return type(error).__name__
