"""Backfills as executions of their state machine, infra/backfill.yaml: started, followed and summed up."""

import hashlib
import itertools
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct, field

from client.aws import AwsError, client, explained
from client.estimate import Location

STATE_MACHINE = re.compile(r"arn:[a-z-]+:states:[a-z0-9-]+:[0-9]{12}:stateMachine:[^:/\s]+(:[^:/\s]+)?")
EXECUTION = re.compile(r"arn:[a-z-]+:states:[a-z0-9-]+:[0-9]{12}:execution:[^:/\s]+:[^:/\s]+")

# Seconds between looks; AWS allows one DescribeMapRun a second, after 200 at once:
# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
_PAUSE = 3.0

_NAMED = "the stack's output BackfillArn names the one that there is"

# Names have at most 80 letters.
_BUCKET_IN_NAME = 40
_DIGEST_IN_NAME = 12

_TO_FOLLOW = (
    "states:DescribeExecution, states:ListMapRuns, states:DescribeMapRun and states:DescribeStateMachineForExecution"
)

# Bytes. Larger results are not fetched only to count the failures among them.
LARGEST_COUNTED = 100_000_000

# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
_CAUSES = {
    "States.ExceedToleratedFailureThreshold": "more images got no answer than are tolerated",
    "States.ItemReaderFailed": "the objects or the inventory cannot be read",
    "States.Permissions": "its role may not do what it must",
    "States.ResultWriterFailed": "the results cannot be written",
}


@dataclass(frozen=True)
class Backfill:
    """The images below a prefix, or all in a bucket that an inventory names by its manifest.

    At most `tolerate` percent of them may get no answer; None leaves that to the state machine.
    """

    images: Location
    tolerate: int | None = None
    inventory: Location | None = None


@dataclass(frozen=True)
class StateMachine:
    """Where batches of so many images are classified, so many batches at a time."""

    arn: str
    batch_size: int
    concurrency: int


@dataclass(frozen=True)
class Progress:
    """How many images there are, as far as they were listed, and what became of them.

    A batch that failed, however often it was tried, leaves its images unanswered; an image that cannot be classified
    is answered by its problem.
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
    """What a backfill came to. `failed` are the images answered by a problem, None where those were not counted.

    `results` is the folder with the results, if there are any, and `cause` why the backfill failed, if it did.
    """

    execution: str
    progress: Progress
    failed: int | None = None
    results: Location | None = None
    cause: str | None = None

    @property
    def is_done(self) -> bool:
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


class _Result(Struct):
    status: str


class _Line(Struct):
    """A result, as far as it is read here; see BulkResult in lambda/handlers/answers.py."""

    result: _Result


def find_state_machine(arn: str) -> StateMachine:
    """The state machine; raises AwsError when there is none, or when it is not one for backfills."""
    reasons = {"StateMachineDoesNotExist": f"There is no state machine {arn}; {_NAMED}."}
    with explained(f"The state machine {arn} cannot be looked up", "states:DescribeStateMachine", reasons):
        found = _states(arn).describe_state_machine(stateMachineArn=arn)
    listing = _listing(found["definition"], arn)
    return StateMachine(arn, listing.batcher.size, listing.concurrency)


def start(machine: StateMachine, backfill: Backfill) -> str:
    """Start the backfill, unless the same one is running; returns its execution's ARN. Raises AwsError."""
    states, document = _states(machine.arn), msgspec.json.encode(_input(backfill)).decode()
    digest = hashlib.sha256(document.encode()).hexdigest()[:_DIGEST_IN_NAME]
    number = 1
    with explained("The backfill cannot be started", "states:StartExecution", {}):
        while True:
            name = f"{backfill.images.bucket[:_BUCKET_IN_NAME]}-{digest}-{number}"
            try:
                # With the name and the input of an execution that runs, AWS answers with that one.
                started = states.start_execution(stateMachineArn=machine.arn, name=name, input=document)
                return str(started["executionArn"])
            except states.exceptions.ExecutionAlreadyExists:
                # It is over, and keeps its name for 90 days.
                number += 1


def watch(execution: str) -> Iterator[Progress]:
    """How far the backfill is, again and again until it is over; raises AwsError."""
    states = _states(execution)
    while not (progress := _progress(states, execution)).is_over:
        yield progress
        time.sleep(_PAUSE)
    yield progress


def sum_up(execution: str, progress: Progress) -> Summary:
    """What a backfill that is over came to; raises AwsError."""
    states = _states(execution)
    with _explained(execution):
        described = states.describe_execution(executionArn=execution)
        run = _map_run(states, execution)
        definition = states.describe_state_machine_for_execution(executionArn=execution)["definition"]
    results = _results(_listing(definition, described["stateMachineArn"]).writer, run) if run else None
    return Summary(
        execution=execution,
        progress=progress,
        failed=_count_failed(results) if results else None,
        results=results,
        cause=None if progress.status == "SUCCEEDED" else _cause(described),
    )


def _progress(states: Any, execution: str) -> Progress:
    with _explained(execution):
        # Asked first: what is counted after the end does not change any more.
        status = states.describe_execution(executionArn=execution)["status"]
        run = _map_run(states, execution)
        if run is None:
            return Progress(status)
        counts = states.describe_map_run(mapRunArn=run)["itemCounts"]
    unanswered = counts["failed"] + counts["timedOut"] + counts["aborted"]
    return Progress(status, counts["total"], counts["succeeded"], unanswered)


def _map_run(states: Any, execution: str) -> str | None:
    """The run of the execution's Distributed Map, None until it has begun."""
    # A redrive may begin another.
    runs = sorted(states.list_map_runs(executionArn=execution)["mapRuns"], key=lambda run: run["startDate"])
    return str(runs[-1]["mapRunArn"]) if runs else None


def _states(arn: str) -> Any:
    """A client for the region that the ARN names; no other knows it."""
    return client("stepfunctions", arn.split(":")[3])


def _explained(execution: str) -> AbstractContextManager[None]:
    missing = f"There is no execution {execution}; AWS forgets them 90 days after their end."
    return explained(f"{execution} cannot be followed", _TO_FOLLOW, {"ExecutionDoesNotExist": missing})


def _input(backfill: Backfill) -> dict[str, Any]:
    """As the state machine takes it."""
    document: dict[str, Any] = {"bucket": backfill.images.bucket, "prefix": backfill.images.key}
    if backfill.tolerate is not None:
        document["tolerate"] = backfill.tolerate
    if backfill.inventory is not None:
        document["inventory"] = {"bucket": backfill.inventory.bucket, "key": backfill.inventory.key}
    return document


def _listing(definition: str, arn: str) -> _Map:
    try:
        return msgspec.json.decode(definition, type=_Definition).states.listing
    except ValueError as error:
        raise AwsError(f"{arn} is not a state machine for backfills; {_NAMED}.") from error


def _results(writer: _Writer, run: str) -> Location:
    """Where Step Functions writes: https://docs.aws.amazon.com/step-functions/latest/dg/input-output-resultwriter.html"""
    return Location(writer.parameters["Bucket"], f"{writer.parameters['Prefix']}/{run.rpartition(':')[2]}/")


def _count_failed(results: Location) -> int | None:
    s3 = client("s3")
    try:
        with explained(f"{results} cannot be read", "s3:GetObject", {}):
            manifest = s3.get_object(Bucket=results.bucket, Key=f"{results.key}manifest.json")["Body"].read()
            files = msgspec.json.decode(manifest, type=_Manifest).files.succeeded
            if sum(file.size for file in files) > LARGEST_COUNTED:
                return None
            bodies = (s3.get_object(Bucket=results.bucket, Key=file.key)["Body"] for file in files)
            lines = itertools.chain.from_iterable(body.iter_lines() for body in bodies)
            return sum(msgspec.json.decode(line, type=_Line).result.status == "failed" for line in lines)
    except (AwsError, msgspec.DecodeError):
        # Whoever may start a backfill need not be allowed to read its results, and they may be deleted by now.
        return None


def _cause(described: dict[str, Any]) -> str:
    if described["status"] == "ABORTED":
        return "it was stopped"
    error, cause = described.get("error", described["status"]), described.get("cause")
    reason = _CAUSES.get(error, error)
    return f"{reason}: {cause.rstrip('.')}" if cause else reason
