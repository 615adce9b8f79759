"""`litelens backfill`: every image in a bucket, classified by the stack's state machine.

Exits with 0 when the backfill is done, 1 when it failed, could not be started or was not wanted, 2 when the command is
wrong, and 130 when it was interrupted, which the backfill itself is not.
"""

import argparse
import functools
import math
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

# All else is imported when the command runs, so that the help of all commands comes at once.
if TYPE_CHECKING:
    from client.estimate import Count, Location
    from client.executions import Backfill, Progress, StateMachine, Summary

_S3 = "s3://"


def add_backfill(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command; its namespace has `run`, which takes the namespace and returns the exit code."""
    command = commands.add_parser(
        "backfill", help="classify every image in a bucket", description="Classify every image in a bucket."
    )
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("images", nargs="?", type=_location, metavar="S3", help="s3://bucket or s3://bucket/prefix")
    what.add_argument("--follow", metavar="ARN", help="follow a backfill that is running, by its execution's ARN")
    command.add_argument(
        "--inventory",
        type=_object,
        metavar="S3",
        help="the manifest.json of an S3 inventory of the whole bucket, instead of listing it",
    )
    command.add_argument(
        "--state-machine",
        default=os.environ.get("LITELENS_BACKFILL"),
        metavar="ARN",
        help="the stack's output BackfillArn (default: LITELENS_BACKFILL)",
    )
    command.add_argument(
        "--tolerate",
        type=_percentage,
        metavar="PERCENT",
        help="how many images may get no answer before the backfill is given up (default: the stack's)",
    )
    command.add_argument("--yes", action="store_true", help="start without asking")
    command.add_argument("--json", action="store_true", help="print the summary as a JSON object")
    command.set_defaults(run=functools.partial(_run, command))


def _location(text: str) -> "Location":
    from client.estimate import Location

    bucket, _, key = text.removeprefix(_S3).partition("/")
    if not text.startswith(_S3) or not bucket:
        raise argparse.ArgumentTypeError("it must be like s3://bucket or s3://bucket/prefix")
    return Location(bucket, key)


def _object(text: str) -> "Location":
    location = _location(text)
    if not location.key or location.key.endswith("/"):
        raise argparse.ArgumentTypeError("it must be like s3://bucket/path/manifest.json")
    return location


def _percentage(text: str) -> int:
    number = text.removesuffix("%")
    if not number.isdecimal() or int(number) > 100:
        raise argparse.ArgumentTypeError("it must be a whole number from 0 to 100, such as 1%")
    return int(number)


def _run(command: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    from client.aws import AwsError
    from client.console import say

    try:
        if given.follow:
            return _follow(_checked_execution(command, given), given.json)
        execution = _start(_checked_backfill(command, given), given)
        return 1 if execution is None else _follow(execution, given.json)
    except AwsError as error:
        say(str(error))
        return 1


def _checked_execution(command: argparse.ArgumentParser, given: argparse.Namespace) -> str:
    from client.executions import EXECUTION

    if given.inventory or given.tolerate is not None:
        command.error("--inventory and --tolerate are for starting a backfill")
    if not EXECUTION.fullmatch(given.follow):
        command.error("--follow takes an execution's ARN, such as arn:aws:states:REGION:ACCOUNT:execution:NAME:NAME")
    return str(given.follow)


def _checked_backfill(command: argparse.ArgumentParser, given: argparse.Namespace) -> "Backfill":
    from client.executions import STATE_MACHINE, Backfill

    if not given.state_machine:
        command.error("give the stack's output BackfillArn by --state-machine or LITELENS_BACKFILL")
    if not STATE_MACHINE.fullmatch(given.state_machine):
        command.error("--state-machine takes an ARN such as arn:aws:states:REGION:ACCOUNT:stateMachine:NAME")
    if given.inventory and given.images.key:
        command.error("an inventory is of a whole bucket; give the bucket without a prefix")
    if not given.yes and not sys.stdin.isatty():
        command.error("nobody can be asked here whether to start; say so by --yes")
    return Backfill(given.images, given.tolerate, given.inventory)


def _start(backfill: "Backfill", given: argparse.Namespace) -> str | None:
    """The execution's ARN, None when it is not to be started."""
    from client.console import say
    from client.estimate import count_inventoried, count_listed
    from client.executions import find_state_machine, start

    machine = find_state_machine(given.state_machine)
    inventory = backfill.inventory
    count = count_inventoried(inventory, backfill.images.bucket) if inventory else count_listed(backfill.images)
    if not count.objects:
        say(f"There are no objects in {inventory or backfill.images}.")
        return None
    say(_announcement(backfill, count, machine))
    if not given.yes and not _wanted():
        say("Nothing was started.")
        return None
    execution = start(machine, backfill)
    say(f"Started {execution}")
    return execution


def _announcement(backfill: "Backfill", count: "Count", machine: "StateMachine") -> str:
    from client.estimate import FUNCTION_GB, IMAGE_SECONDS, estimate
    from client.prices import ABOUT

    made = estimate(count.objects, machine.batch_size, machine.concurrency)
    bound = f"{count.bound} " if count.bound else ""
    parts = ", ".join(f"{service} ${dollars:,.2f}" for service, dollars in made.dollars.items())
    what = f"{backfill.inventory or backfill.images} has {bound}{_counted(count.objects, 'object')}"
    price = f"{bound}{_duration(made.seconds)} and {bound}${made.total:,.2f} ({parts})"
    basis = f"the prices of {ABOUT}, at {IMAGE_SECONDS} seconds of {FUNCTION_GB * 1024:,.0f} MB for an image"
    width = f"{machine.batch_size} images in a batch and {machine.concurrency:,} batches at a time"
    return f"{what}, which should take {price}. That is by {basis}, with {width}."


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return _counted(round(seconds / size), unit)
    return _counted(math.ceil(seconds), "second")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _wanted() -> bool:
    # input() would ask on standard output, which may be a file.
    print("Start? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _follow(execution: str, as_json: bool) -> int:
    from client.console import print_all, say
    from client.executions import sum_up, watch

    try:
        *_, last = _with_bar(watch(execution))
    except KeyboardInterrupt:
        say(f"The backfill itself goes on. To follow it again: litelens backfill --follow {execution}")
        raise
    summary = sum_up(execution, last)
    printed = print_all([_json(summary) if as_json else _text(summary)])
    return 0 if printed and summary.is_done else 1


def _with_bar(progress: "Iterator[Progress]") -> "Iterator[Progress]":
    """The same, shown by a bar on a terminal."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("Classifying", total=None)
        for made in progress:
            bar.update(task, total=made.images or None, completed=made.answered + made.unanswered)
            yield made


def _text(summary: "Summary") -> str:
    from client.output import printable

    progress = summary.progress
    lines = []
    if progress.images:
        images = _counted(progress.images, "image")
        lines.append(f"{images}: {_outcome(summary)}, {progress.unanswered:,} without an answer.")
    if summary.results:
        lines.append(f"The results are JSON lines in {printable(str(summary.results))}")
    if summary.cause:
        lines.append(f"The backfill failed: {printable(summary.cause)}.")
        lines.append(
            f"To go on with what is left: aws stepfunctions redrive-execution --execution-arn {summary.execution}"
        )
    return "\n".join(lines) + "\n"


def _outcome(summary: "Summary") -> str:
    answered, failed = summary.progress.answered, summary.failed
    if failed is None:
        return f"{answered:,} answered, of which those that failed were not counted"
    return f"{answered - failed:,} done, {failed:,} failed"


def _json(summary: "Summary") -> str:
    import json

    progress, failed = summary.progress, summary.failed
    document: dict[str, Any] = {
        "execution": summary.execution,
        "status": progress.status,
        "images": progress.images,
        "done": None if failed is None else progress.answered - failed,
        "failed": failed,
        "unanswered": progress.unanswered,
        "results": str(summary.results) if summary.results else None,
        "cause": summary.cause,
    }
    return json.dumps(document) + "\n"
