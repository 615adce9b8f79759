"""`litelens upload`: photos into the stack's bucket, where they are classified."""

import argparse
import functools
import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from client.classify import PARALLEL, count

# All else is imported when it is known to be needed, so that the help comes at once.
if TYPE_CHECKING:
    from client.results import Failed, Result
    from client.sending import Plan, Sent
    from client.table import Table


def add_upload(commands: "argparse._SubParsersAction[ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "upload",
        help="put photos into the upload bucket",
        description="Put photos into the upload bucket, where they are classified. What is there already, unchanged, "
        "is not sent again, so that the same command goes on where another was interrupted.",
    )
    command.add_argument("paths", nargs="+", metavar="PATH", help="a file, or a folder with all images in it")
    command.add_argument(
        "--bucket",
        default=os.environ.get("LITELENS_UPLOAD_BUCKET"),
        help="the stack's output UploadBucketName (default: LITELENS_UPLOAD_BUCKET)",
    )
    command.add_argument(
        "--prefix", default="", help="a folder below uploads/ to put them into (default: uploads/ itself)"
    )
    command.add_argument("--wait", action="store_true", help="wait for the results and print them")
    command.add_argument(
        "--table",
        default=os.environ.get("LITELENS_RESULTS_TABLE"),
        help="with --wait: the stack's output ResultsTableName (default: LITELENS_RESULTS_TABLE)",
    )
    command.add_argument(
        "--parallel", type=count, default=PARALLEL, metavar="N", help=f"uploads at a time (default: {PARALLEL})"
    )
    command.add_argument("--json", action="store_true", help="print a JSON object in a line for each photo")
    command.set_defaults(run=functools.partial(_run, command))


@dataclass
class _Course:
    """What became of the photos, noted as it comes."""

    total: int
    sent: "list[Sent]" = field(default_factory=list)
    failed: "list[Failed]" = field(default_factory=list)
    unclassified: "list[Failed]" = field(default_factory=list)

    def __str__(self) -> str:
        new = sum(photo.is_new for photo in self.sent)
        there, failed = len(self.sent) - new, len(self.failed)
        told = f"{new:,} of {self.total:,} sent, {there:,} were there already, {failed:,} failed"
        return f"{told}; {len(self.unclassified):,} could not be classified" if self.unclassified else told


def _run(command: ArgumentParser, given: Namespace) -> int:
    from client.aws import AwsError
    from client.console import say

    _check(command, given)
    plan = _plan(command, given)
    course = _Course(len(plan.items))
    try:
        could_print = (_upload_and_wait if given.wait else _upload)(plan, course, given)
    except AwsError as error:
        say(f"{error} {course}; the same command goes on from there." if course.sent else str(error))
        return 1
    except KeyboardInterrupt:
        say(f"Interrupted: {course}; the same command goes on from there.")
        return 130
    say(f"{course}.")
    return 0 if could_print and not (course.failed or course.unclassified) else 1


def _check(command: ArgumentParser, given: Namespace) -> None:
    if not given.bucket:
        command.error("name the bucket, the stack's output UploadBucketName, by --bucket or LITELENS_UPLOAD_BUCKET")
    if given.wait and not given.table:
        command.error(
            "--wait needs the table of results, the stack's output ResultsTableName; name it by --table or "
            "LITELENS_RESULTS_TABLE"
        )


def _plan(command: ArgumentParser, given: Namespace) -> "Plan":
    from client.console import say
    from client.inputs import about_skipped
    from client.output import printable
    from client.sending import plan

    try:
        made = plan(given.paths, given.prefix)
    except ValueError as error:
        command.error(printable(str(error)))
    if made.skipped:
        say(about_skipped(made.skipped))
    return made


def _upload(plan: "Plan", course: _Course, given: Namespace) -> bool:
    """Send the photos, and print what becomes of each; whether that was possible."""
    from client.console import print_all

    return print_all(_lines(_sent(plan, course, given), as_json=given.json))


def _upload_and_wait(plan: "Plan", course: _Course, given: Namespace) -> bool:
    """Send the photos, wait for their results, and print them; whether that was possible."""
    from client.console import print_all
    from client.output import json_lines, table
    from client.table import Table

    saved = Table(given.table)
    # Before anything is sent, which nobody needs who has named a wrong table.
    saved.check()
    for _ in _sent(plan, course, given):
        pass
    results = _results(course, given, saved)
    if given.json:
        return print_all(json_lines(results))
    places = {item.name: place for place, item in enumerate(plan.items)}
    return print_all(table(sorted(results, key=lambda result: places[result.name])))


def _sent(plan: "Plan", course: _Course, given: Namespace) -> "Iterator[Sent | Failed]":
    """What becomes of the photos on their way, noted."""
    from client.console import with_progress
    from client.results import Failed

    as_lines = given.json and not given.wait
    for item in with_progress(_send(plan, given), course.total, "Uploading", as_lines=as_lines):
        if isinstance(item, Failed):
            course.failed.append(item)
        else:
            course.sent.append(item)
        yield item


def _send(plan: "Plan", given: Namespace) -> "Iterator[Sent | Failed]":
    from client.sending import Uploader

    yield from plan.failed
    if plan.photos:
        # A listing does not tell the versions that results are found by.
        uploader = Uploader(given.bucket, _max_bytes(), given.parallel)
        yield from uploader.send_all(plan.photos, may_list=not given.wait)


def _max_bytes() -> int:
    from client.local import local_settings
    from settings import SettingsError

    try:
        return local_settings().max_upload_bytes
    except SettingsError as error:
        sys.exit(str(error))


def _lines(items: "Iterable[Sent | Failed]", *, as_json: bool) -> Iterator[str]:
    """A line of JSON for each photo, or only a sentence on standard error for each that failed."""
    from client.console import say
    from client.output import json_lines, named
    from client.results import Failed

    for item in items:
        if isinstance(item, Failed):
            if as_json:
                yield from json_lines([item])
            else:
                say(named(item))
        elif as_json:
            status = "sent" if item.is_new else "skipped"
            yield json.dumps({"source": item.name, "status": status, "key": item.key, "revision": item.revision}) + "\n"


def _results(course: _Course, given: Namespace, saved: "Table") -> "Iterator[Result]":
    """What is known of the photos that failed, and the results of the others as they come, noted."""
    from client.console import with_progress
    from client.following import follow
    from client.results import Failed

    yield from [*course.failed]
    results = follow(course.sent, given.bucket, saved)
    for result in with_progress(results, len(course.sent), "Classifying", as_lines=given.json):
        if isinstance(result, Failed):
            course.unclassified.append(result)
        yield result
