"""AWS for the command: boto3's usual credentials, region and endpoint, and failures as sentences."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# A backfill is followed for hours, in which AWS may be out of reach for a while.
_ATTEMPTS = 10

_DENIED = ("AccessDenied", "AccessDeniedException", "AccessDeniedFault", "AllAccessDisabled", "403")

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and, for the others,
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/CommonErrors.html
_REJECTED = (
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)

_NO_REGION = "There is no AWS region; give one as to the AWS CLI, for example by AWS_DEFAULT_REGION."
NO_CREDENTIALS = "There are no AWS credentials; give some as to the AWS CLI, for example by AWS_PROFILE."


class AwsError(Exception):
    """AWS refused or failed; the message is a sentence for whoever gave the command."""


def client(service: str, region: str | None = None, *, attempts: int = _ATTEMPTS, connections: int = 10) -> Any:
    """A client of boto3's for as many threads as `connections`, by default for boto3's usual region.

    Raises AwsError when there is none.
    """
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import NoRegionError

    try:
        retries: Any = {"total_max_attempts": attempts, "mode": "standard"}
        config = Config(retries=retries, max_pool_connections=connections)
        return Session().client(service, region_name=region, config=config)  # type: ignore[call-overload]
    except NoRegionError as error:
        raise AwsError(_NO_REGION) from error


@contextmanager
def explained(failure: str, permission: str, reasons: Mapping[str, str]) -> Iterator[None]:
    """Makes AwsError of boto3's errors.

    `reasons` are sentences by AWS's code; `failure` is the first half of the sentence for any other, and `permission`
    is what the call needs.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

    try:
        yield
    except ClientError as error:
        raise AwsError(_sentence(error.response["Error"]["Code"], failure, permission, reasons)) from error
    except NoCredentialsError as error:
        raise AwsError(NO_CREDENTIALS) from error
    except NoRegionError as error:
        raise AwsError(_NO_REGION) from error
    except BotoCoreError as error:
        raise AwsError(f"{failure}: {_reason(error)}.") from error


def _sentence(code: str, failure: str, permission: str, reasons: Mapping[str, str]) -> str:
    if code in reasons:
        return reasons[code]
    if code in _DENIED:
        return f"{failure}; you need the permission {permission}."
    if code in _REJECTED:
        return f"{failure}: AWS does not take the credentials, which are wrong or have expired."
    return f"{failure}: {code}."


def _reason(error: Exception) -> str:
    """What boto3 itself, rather than AWS, has to say against a call."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ConnectionError | boto.HTTPClientError):
        return "AWS cannot be reached from here, or not in this region"
    if isinstance(error, boto.ProfileNotFound):
        return "there is no AWS profile of the name that AWS_PROFILE has"
    if isinstance(error, boto.SSOError | boto.TokenRetrievalError | boto.LoginError):
        return "the AWS login has expired; log in again as for the AWS CLI"
    if isinstance(error, boto.ParamValidationError):
        return "AWS has nothing of such a name"
    return type(error).__name__
