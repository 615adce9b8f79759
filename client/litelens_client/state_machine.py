"""The state machine of infra/backfill.yaml: start, watch and summarize its executions, each of which is a backfill."""

import hashlib
import itertools
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct, field

from litelens_client.aws import AwsError, S3Location, aws_errors, create_client

# AWS allows one DescribeMapRun per second, with bursts of 200:
# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
_POLL_SECONDS = 3.0

_SEE_OUTPUT = "the stack's output BackfillArn has the right ARN"

# The name of an execution has at most 80 characters.
_BUCKET_CHARACTERS = 40
_DIGEST_CHARACTERS = 12

_WATCH_PERMISSIONS = (
    "states:DescribeExecution, states:ListMapRuns, states:DescribeMapRun and states:DescribeStateMachineForExecution"
)

# Results that are larger in total are not downloaded, and their failures are not counted.
MAX_COUNTED_BYTES = 100_000_000

# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
_REASONS = {
    "States.ExceedToleratedFailureThreshold": "more images have no result than are tolerated",
    "States.ItemReaderFailed": "the objects or the inventory cannot be read",
    "States.Permissions": "its role lacks a permission",
    "States.ResultWriterFailed": "the results cannot be written",
}


@dataclass(frozen=True)
class Backfill:
    """The images under a prefix, or all images in the S3 `inventory` with this manifest.

    `tolerate` is the percentage of images that may have no result; None stands for the state machine's own.
    """

    images: S3Location
    tolerate: int | None = None
    inventory: S3Location | None = None


@dataclass(frozen=True)
class StateMachine:
    """A state machine that classifies `concurrency` batches at the same time, of up to `batch_size` images each."""

    arn: str
    batch_size: int
    concurrency: int


@dataclass(frozen=True)
class BackfillProgress:
    """The status of an execution, the number of images listed so far, and how many of them are finished.

    If all attempts of a batch fail, its images are unanswered: they have no result. An image that cannot be classified
    counts as answered: its result is a problem.
    """

    status: str
    images: int = 0
    answered: int = 0
    unanswered: int = 0

    @property
    def is_over(self) -> bool:
        return self.status not in ("RUNNING", "PENDING_REDRIVE")


@dataclass(frozen=True)
class Summary:
    """The outcome of a backfill.

    `failed` is the number of images whose result is a problem, None if they were not counted. `results` is the folder
    with the results, if there are any. `cause` is the reason if the backfill failed.
    """

    execution: str
    progress: BackfillProgress
    failed: int | None = None
    results: S3Location | None = None
    cause: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.progress.status == "SUCCEEDED"


class _Batcher(Struct):
    size: int = field(name="MaxItemsPerBatch")


class _Writer(Struct):
    parameters: dict[str, str] = field(name="Parameters")


class _Map(Struct):
    concurrency: int = field(name="MaxConcurrency")
    batcher: _Batcher = field(name="ItemBatcher")
    writer: _Writer = field(name="ResultWriter")


class _States(Struct):
    listing: _Map = field(name="Listing")


class _Definition(Struct):
    states: _States = field(name="States")


class _File(Struct):
    key: str = field(name="Key")
    size: int = field(name="Size")


class _Files(Struct):
    succeeded: list[_File] = field(name="SUCCEEDED")


class _Manifest(Struct):
    files: _Files = field(name="ResultFiles")


class _Outcome(Struct):
    status: str


class _Line(Struct):
    """The fields of litelens.api.response_schemas.BulkResult that are read here."""

    result: _Outcome


def find_state_machine(arn: str) -> StateMachine:
    """Return the state machine with this ARN; raises AwsError if there is none or if it is not one for backfills."""
    reasons = {"StateMachineDoesNotExist": f"The state machine {arn} does not exist; {_SEE_OUTPUT}."}
    with aws_errors(f"The state machine {arn} cannot be read", "states:DescribeStateMachine", reasons):
        definition = _client_for(arn).describe_state_machine(stateMachineArn=arn)["definition"]
    step = _map_state(definition, arn)
    return StateMachine(arn, step.batcher.size, step.concurrency)


def start(machine: StateMachine, backfill: Backfill) -> str:
    """Start a backfill and return the ARN of its execution, or that of the same backfill if it is running.

    Raises AwsError.
    """
    client, document = _client_for(machine.arn), msgspec.json.encode(_execution_input(backfill)).decode()
    digest = hashlib.sha256(document.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    number = 1
    with aws_errors("The backfill cannot be started", "states:StartExecution", {}):
        while True:
            name = f"{backfill.images.bucket[:_BUCKET_CHARACTERS]}-{digest}-{number}"
            try:
                # If an execution with this name and input is running, AWS returns that one.
                started = client.start_execution(stateMachineArn=machine.arn, name=name, input=document)
                return str(started["executionArn"])
            except client.exceptions.ExecutionAlreadyExists:
                # That execution has ended; its name cannot be used again for 90 days.
                number += 1


def watch(execution: str) -> Iterator[BackfillProgress]:
    """Yield the progress of a backfill every few seconds until it is over; raises AwsError."""
    client = _client_for(execution)
    while not (progress := _progress(client, execution)).is_over:
        yield progress
        time.sleep(_POLL_SECONDS)
    yield progress


def summarize(execution: str, progress: BackfillProgress) -> Summary:
    """Return the outcome of a backfill that is over; raises AwsError."""
    client = _client_for(execution)
    with _watch_errors(execution):
        described = client.describe_execution(executionArn=execution)
        run = _map_run(client, execution)
        definition = client.describe_state_machine_for_execution(executionArn=execution)["definition"]
    results = _results(_map_state(definition, described["stateMachineArn"]).writer, run) if run else None
    return Summary(
        execution=execution,
        progress=progress,
        failed=_count_failed(results) if results else None,
        results=results,
        cause=None if progress.status == "SUCCEEDED" else _cause(described),
    )


def _progress(client: Any, execution: str) -> BackfillProgress:
    with _watch_errors(execution):
        # The status comes first: if it says that the execution is over, the counts are final.
        status = client.describe_execution(executionArn=execution)["status"]
        run = _map_run(client, execution)
        if run is None:
            return BackfillProgress(status)
        counts = client.describe_map_run(mapRunArn=run)["itemCounts"]
    unanswered = counts["failed"] + counts["timedOut"] + counts["aborted"]
    return BackfillProgress(status, counts["total"], counts["succeeded"], unanswered)


def _map_run(client: Any, execution: str) -> str | None:
    """Return the ARN of the latest run of the Distributed Map, None before the first; a redrive starts another run."""
    runs = sorted(client.list_map_runs(executionArn=execution)["mapRuns"], key=lambda run: run["startDate"])
    return str(runs[-1]["mapRunArn"]) if runs else None


def _client_for(arn: str) -> Any:
    """Return a client for the region in the ARN."""
    return create_client("stepfunctions", arn.split(":")[3])


def _watch_errors(execution: str) -> AbstractContextManager[None]:
    missing = f"The execution {execution} does not exist; AWS deletes executions 90 days after their end."
    return aws_errors(f"{execution} cannot be followed", _WATCH_PERMISSIONS, {"ExecutionDoesNotExist": missing})


def _execution_input(backfill: Backfill) -> dict[str, Any]:
    document: dict[str, Any] = {"bucket": backfill.images.bucket, "prefix": backfill.images.key}
    if backfill.tolerate is not None:
        document["tolerate"] = backfill.tolerate
    if backfill.inventory is not None:
        document["inventory"] = {"bucket": backfill.inventory.bucket, "key": backfill.inventory.key}
    return document


def _map_state(definition: str, arn: str) -> _Map:
    try:
        return msgspec.json.decode(definition, type=_Definition).states.listing
    except ValueError as error:
        raise AwsError(f"{arn} is not a state machine for backfills; {_SEE_OUTPUT}.") from error


def _results(writer: _Writer, run: str) -> S3Location:
    """Return where Step Functions writes the results.

    See https://docs.aws.amazon.com/step-functions/latest/dg/input-output-resultwriter.html
    """
    return S3Location(writer.parameters["Bucket"], f"{writer.parameters['Prefix']}/{run.rpartition(':')[2]}/")


def _count_failed(results: S3Location) -> int | None:
    """Return how many results are failures, or None if the results are too large or cannot be read."""
    s3 = create_client("s3")
    try:
        with aws_errors(f"{results} cannot be read", "s3:GetObject", {}):
            manifest = s3.get_object(Bucket=results.bucket, Key=f"{results.key}manifest.json")["Body"].read()
            files = msgspec.json.decode(manifest, type=_Manifest).files.succeeded
            if sum(file.size for file in files) > MAX_COUNTED_BYTES:
                return None
            bodies = (s3.get_object(Bucket=results.bucket, Key=file.key)["Body"] for file in files)
            lines = itertools.chain.from_iterable(body.iter_lines() for body in bodies)
            return sum(msgspec.json.decode(line, type=_Line).result.status == "failed" for line in lines)
    except (AwsError, msgspec.DecodeError):
        # Someone who can start a backfill need not have permission to read its results, and they may have been deleted.
        return None


def _cause(described: dict[str, Any]) -> str:
    if described["status"] == "ABORTED":
        return "it was stopped"
    error, cause = described.get("error", described["status"]), described.get("cause")
    reason = _REASONS.get(error, error)
    return f"{reason}: {cause.rstrip('.')}" if cause else reason
