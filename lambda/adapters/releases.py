"""Releases: a function's version that gets no traffic yet, and CodeDeploy, which waits to be told whether it may."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adapters.calls import CONNECT_SECONDS, ask, aws_client, new_client, new_session
from adapters.deadline import Deadline
from adapters.errors import VersionFailed, VersionUnavailable
from adapters.retries import is_timeout, is_transient, retry

if TYPE_CHECKING:
    from boto3.session import Session

# Seconds without which a version is not asked.
_LEAST_SECONDS = 2.0

# Of what a function says when it fails.
_QUOTED = 300

# What Lambda says while a version is still being made ready.
_NOT_READY = {"ResourceConflictException", "SnapStartNotReadyException", "SnapStartTimeoutException"}


@dataclass(frozen=True)
class Version:
    """A function's version, by its ARN."""

    arn: str

    def invoke(self, event: Mapping[str, Any], deadline: Deadline) -> Any:
        """What it answers to the event, as JSON values; asked again while it is not ready.

        Raises VersionFailed or VersionUnavailable.
        """
        payload = json.dumps(event).encode()
        try:
            answer = retry(lambda: self._invoke(payload, deadline), _is_transient, deadline, _LEAST_SECONDS)
            return json.loads(answer)
        except VersionFailed:
            raise
        except Exception as error:
            # botocore's parsers raise whatever a malformed answer makes them meet, beside botocore's own errors.
            raise _unavailable(error) from error

    def _invoke(self, payload: bytes, deadline: Deadline) -> bytes:
        # A cold start takes longer than any other answer, and a client's timeouts are fixed. After a session's first
        # client, the next ones take milliseconds.
        with closing(new_client(self._session, "lambda", deadline.remaining() - CONNECT_SECONDS)) as client:
            answer = client.invoke(FunctionName=self.arn, Payload=payload)
            body: bytes = answer["Payload"].read()
        if "FunctionError" in answer:
            raise VersionFailed(f"The version ended with an error instead of an answer: {_told(body)}.")
        return body

    @cached_property
    def _session(self) -> "Session":
        return new_session()


def tell_codedeploy(deployment: str, execution: str, *, succeeded: bool, deadline: Deadline) -> None:
    """Have a deployment go on, or end and be rolled back, after this execution of its hook; raises StorageError."""
    client = aws_client("codedeploy")

    def attempt() -> None:
        try:
            client.put_lifecycle_event_hook_execution_status(
                deploymentId=deployment,
                lifecycleEventHookExecutionId=execution,
                status="Succeeded" if succeeded else "Failed",
            )
        except client.exceptions.LifecycleEventAlreadyCompletedException:
            # Told before, by an attempt whose answer was lost.
            return

    ask(attempt, deadline, "CodeDeploy")


def _told(body: bytes) -> str:
    """What Lambda says of the error that a function ended with."""
    try:
        said = json.loads(body)
        text = f"{said['errorType']}: {said['errorMessage']}"
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace")
    return text[:_QUOTED]


def _is_transient(error: Exception) -> bool:
    return is_transient(error) or _code(error) in _NOT_READY


def _unavailable(error: Exception) -> VersionUnavailable:
    if is_timeout(error):
        return VersionUnavailable("The version did not answer in time.")
    return VersionUnavailable(f"Lambda could not have the version answer: {_code(error) or type(error).__name__}.")


def _code(error: Exception) -> str:
    """The name of AWS's exception; empty for errors that are none."""
    from botocore.exceptions import ClientError

    return error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
