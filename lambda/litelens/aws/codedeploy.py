"""Invoke a published version of a function before it gets traffic, and report the result to CodeDeploy."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from litelens.aws.clients import (
    CONNECT_SECONDS,
    Deadline,
    aws_client,
    call_with_retry,
    error_code,
    is_timeout,
    is_transient,
    new_client,
    new_session,
    retry,
)
from litelens.aws.errors import VersionFailed, VersionUnavailable

if TYPE_CHECKING:
    from boto3.session import Session

# A version is invoked only if at least this many seconds remain.
_MIN_SECONDS = 2.0

# The maximum number of characters of a function's error in a finding.
_QUOTED = 300

# Lambda's codes while a version is still being prepared.
_NOT_READY = {"ResourceConflictException", "SnapStartNotReadyException", "SnapStartTimeoutException"}


@dataclass(frozen=True)
class Version:
    """A published version of a function, by its ARN."""

    arn: str

    def invoke(self, event: Mapping[str, Any], deadline: Deadline) -> Any:
        """Return the version's response to an event, as JSON values; retried while the version is not ready.

        Raises VersionFailed or VersionUnavailable.
        """
        payload = json.dumps(event).encode()
        try:
            response = retry(lambda: self._invoke(payload, deadline), _is_transient, deadline, _MIN_SECONDS)
            return json.loads(response)
        except VersionFailed:
            raise
        except Exception as error:
            # For a malformed response, botocore's parsers can raise errors of any type.
            raise _unavailable(error) from error

    def _invoke(self, payload: bytes, deadline: Deadline) -> bytes:
        # A new client, because a cold start takes longer than any other call and a client's timeouts are fixed. Further
        # clients of a session take only milliseconds to create.
        with closing(new_client(self._session, "lambda", deadline.remaining() - CONNECT_SECONDS)) as client:
            response = client.invoke(FunctionName=self.arn, Payload=payload)
            body: bytes = response["Payload"].read()
        if "FunctionError" in response:
            raise VersionFailed(f"The version raised an error: {_error_text(body)}.")
        return body

    @cached_property
    def _session(self) -> "Session":
        return new_session()


def report_hook_result(deployment: str, execution: str, *, succeeded: bool, deadline: Deadline) -> None:
    """Report the result of a deployment's hook: the deployment continues or is rolled back. Raises StorageError."""
    client = aws_client("codedeploy")

    def attempt() -> None:
        try:
            client.put_lifecycle_event_hook_execution_status(
                deploymentId=deployment,
                lifecycleEventHookExecutionId=execution,
                status="Succeeded" if succeeded else "Failed",
            )
        except client.exceptions.LifecycleEventAlreadyCompletedException:
            # An earlier attempt reported it, and its response was lost.
            return

    call_with_retry(attempt, deadline, "CodeDeploy")


def _error_text(body: bytes) -> str:
    """Return the type and message of a function's error from Lambda's response."""
    try:
        error = json.loads(body)
        text = f"{error['errorType']}: {error['errorMessage']}"
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace")
    return text[:_QUOTED]


def _is_transient(error: Exception) -> bool:
    return is_transient(error) or error_code(error) in _NOT_READY


def _unavailable(error: Exception) -> VersionUnavailable:
    if is_timeout(error):
        return VersionUnavailable("The version did not answer in time.")
    return VersionUnavailable(f"Lambda could not invoke the version: {error_code(error) or type(error).__name__}.")
