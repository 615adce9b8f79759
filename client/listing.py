"""`litelens results`: what is in the stack's table of results, newest day first."""

import argparse
import functools
import itertools
import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

# All else is imported when it is known to be needed, so that the help comes at once.
if TYPE_CHECKING:
    from client.listed import Format
    from client.table import Saved
    from handlers.answers import BulkResult

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_AGO = re.compile(rf"(\d+)([{''.join(_UNITS)}])", re.ASCII)

_DEFAULT_SINCE = "24h"

# Each day costs requests, and results are not kept for so long.
_LONGEST = timedelta(days=400)


def add_results(commands: "argparse._SubParsersAction[ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "results",
        help="list the results of photos that were uploaded",
        description="List the results of photos that were uploaded, newest day first, and in a day by key. Days and "
        "times are of UTC.",
    )
    command.add_argument(
        "--bucket",
        default=os.environ.get("LITELENS_UPLOAD_BUCKET"),
        help="only of photos in this bucket (default: LITELENS_UPLOAD_BUCKET, or all)",
    )
    command.add_argument(
        "--table",
        default=os.environ.get("LITELENS_RESULTS_TABLE"),
        help="the stack's output ResultsTableName (default: LITELENS_RESULTS_TABLE)",
    )
    command.add_argument(
        "--prefix", default="", help="only of keys that begin so, below uploads/ where it does not begin with that"
    )
    command.add_argument(
        "--since",
        type=functools.partial(_moment, at=time.min),
        default=_DEFAULT_SINCE,
        metavar="TIME",
        help=f"90m, 2h or 3d ago, 2026-11-20 or 2026-11-20T14:30 (default: {_DEFAULT_SINCE})",
    )
    command.add_argument(
        "--until", type=functools.partial(_moment, at=time.max), metavar="TIME", help="likewise (default: now)"
    )
    command.add_argument("--label", help="only where this is the likeliest label")
    command.add_argument("--uncertain", action="store_true", help="only what is uncertain")
    command.add_argument("--failed", action="store_true", help="only what could not be classified")
    formats = command.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print the results' JSON documents, one in a line")
    formats.add_argument("--csv", action="store_true", help="print CSV with a row for each result")
    command.set_defaults(run=functools.partial(_run, command))


def _moment(text: str, at: time) -> datetime:
    """A moment that is given as such, by how long ago it was, or by a day, of which `at` is meant."""
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - int(ago[1]) * _UNITS[ago[2]]
        if len(text) == len("2026-11-20"):
            return datetime.combine(date.fromisoformat(text), at, UTC)
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("it must be like 90m, 2h, 3d, 2026-11-20 or 2026-11-20T14:30") from None


def _run(command: ArgumentParser, given: Namespace) -> int:
    from client.aws import AwsError
    from client.console import print_all, say

    _check(command, given)
    try:
        chosen = _chosen(given)
        # Asked for before the first line is printed, which nobody needs who has named a wrong table.
        first = list(itertools.islice(chosen, 1))
        if not first:
            say("There are no such results.")
        if not (first or given.csv):
            return 0
        return 0 if print_all(_format(given)(itertools.chain(first, chosen))) else 1
    except AwsError as error:
        say(str(error))
        return 1


def _check(command: ArgumentParser, given: Namespace) -> None:
    if not given.table:
        command.error("name the table, the stack's output ResultsTableName, by --table or LITELENS_RESULTS_TABLE")
    if datetime.now(UTC) - given.since > _LONGEST:
        command.error(f"--since may be {_LONGEST.days} days ago at the most")
    if given.until and given.until < given.since:
        command.error("--until must not be before --since")
    if given.failed and (given.label or given.uncertain):
        command.error("what failed has no label; give --failed without --label and --uncertain")


def _format(given: Namespace) -> "Format":
    from client import listed

    if given.json:
        return listed.documents
    return listed.csv_lines if given.csv else listed.rows


def _chosen(given: Namespace) -> "Iterator[Saved]":
    from client.sending import in_uploads
    from client.table import Table

    today = datetime.now(UTC).date()
    last = min(today, given.until.date()) if given.until else today
    saved: Iterable[Saved] = Table(given.table).between(given.since.date(), last, in_uploads(given.prefix))
    return (item for item in saved if _is_chosen(item.result, given))


def _is_chosen(result: "BulkResult", given: Namespace) -> bool:
    classified_at = datetime.fromisoformat(result.time)
    if classified_at < given.since or (given.until and classified_at > given.until):
        return False
    return (not given.bucket or result.bucket == given.bucket) and _is_as_asked(result, given)


def _is_as_asked(result: "BulkResult", given: Namespace) -> bool:
    from handlers.answers import Failure

    found = result.result
    if isinstance(found, Failure):
        return not (given.label or given.uncertain)
    return not (
        given.failed
        or (given.uncertain and not found.uncertain)
        or (given.label and found.predictions[0].label != given.label)
    )
