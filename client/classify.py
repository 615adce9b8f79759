"""`litelens classify`: the labels of photos, by an API or by the bundle on this machine."""

import argparse
import functools
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

# All else is imported when it is known to be needed, so that the help comes at once.
if TYPE_CHECKING:
    from client.api import Client
    from client.batch import Classify
    from client.inputs import Source
    from client.local import LocalClassifier
    from client.output import Format
    from client.results import Answer, ClassifyError, Failed, Result

PARALLEL = 8


def add_classify(commands: "argparse._SubParsersAction[ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser("classify", help="print the labels of photos", description="Print photos' labels.")
    command.add_argument(
        "images",
        nargs="+",
        metavar="PATH_OR_S3",
        help="a file, a folder, s3://bucket/key, s3://bucket/prefix/ or - for standard input",
    )
    command.add_argument(
        "--url",
        default=os.environ.get("LITELENS_URL"),
        help="the API to ask (default: LITELENS_URL); without one, or with '', the bundle on this machine answers",
    )
    command.add_argument(
        "--api-key",
        default=os.environ.get("LITELENS_API_KEY"),
        help="the API's key (default: LITELENS_API_KEY, where others on this machine do not see it)",
    )
    command.add_argument(
        "--top-k",
        type=count,
        metavar="N",
        help="how many labels of each image (default: 5, which is also the most an API gives of one above 4.4 MB)",
    )
    command.add_argument(
        "--threshold", type=_confidence, metavar="0..1", help="the confidence below which an answer is uncertain"
    )
    command.add_argument(
        "--parallel", type=count, metavar="N", help=f"requests at a time with --url (default: {PARALLEL})"
    )
    formats = command.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print a JSON object in a line for each image")
    formats.add_argument("--csv", action="store_true", help="print CSV with a row for each image")
    command.set_defaults(run=functools.partial(_run, command))


def count(text: str) -> int:
    """A number above 0, as an option has it; raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("it must be a whole number above 0")
    return int(text)


def _confidence(text: str) -> float:
    try:
        confidence = float(text)
    except ValueError:
        confidence = -1
    if not 0 <= confidence <= 1:
        raise argparse.ArgumentTypeError("it must be a number from 0 to 1")
    return confidence


@dataclass
class _Course:
    """What became of the images, noted as they come."""

    failed: "list[Failed]" = field(default_factory=list)
    stopped: "ClassifyError | None" = None


def _run(command: ArgumentParser, given: Namespace) -> int:
    from client.console import print_all, say, with_progress
    from client.inputs import about_skipped, expand

    if given.parallel and not given.url:
        command.error("--parallel is for --url; on this machine images are classified one at a time")
    api = _api(command, given) if given.url else None
    inputs = expand(given.images)
    if inputs.skipped:
        say(about_skipped(inputs.skipped))
    course = _Course()
    results = _noted(_results(api, inputs.images, given), course)
    results = with_progress(results, len(inputs.images), "Classifying", as_lines=given.json or given.csv)
    if not print_all(_format(given)(results)):
        return 1
    complaint = _complaint(course, given, len(inputs.images))
    if complaint:
        say(complaint)
    return 1 if complaint else 0


def _api(command: ArgumentParser, given: Namespace) -> "Client":
    from client.api import Client

    try:
        return Client(given.url, given.api_key, connections=given.parallel or PARALLEL)
    except ValueError as error:
        command.error(str(error))


def _results(api: "Client | None", images: "Sequence[Source | Failed]", given: Namespace) -> "Iterator[Result]":
    from client.batch import classify_all
    from client.results import Failed

    failed = [image for image in images if isinstance(image, Failed)]
    if len(failed) == len(images):
        # The bundle takes a moment to load.
        return iter(failed)
    classify: Callable[..., Answer] = api.classify if api else _bundle().classify
    asked: Classify = functools.partial(classify, top_k=given.top_k, threshold=given.threshold)
    return classify_all(images, asked, (given.parallel or PARALLEL) if api else 1)


def _bundle() -> "LocalClassifier":
    from client.local import LocalClassifier, local_settings
    from litelens.errors import BundleError
    from settings import SettingsError

    try:
        return LocalClassifier(local_settings())
    except (BundleError, SettingsError) as error:
        sys.exit(str(error))


def _noted(results: "Iterable[Result]", course: _Course) -> "Iterator[Result]":
    from client.results import ClassifyError, Failed

    try:
        for result in results:
            if isinstance(result, Failed):
                course.failed.append(result)
            yield result
    except ClassifyError as error:
        course.stopped = error


def _format(given: Namespace) -> "Format":
    from client import output

    if given.json:
        return output.json_lines
    if given.csv:
        return output.csv_lines
    return output.labels if _is_of_one_image(given) else output.table


def _is_of_one_image(given: Namespace) -> bool:
    from client.inputs import names_one_image

    return len(given.images) == 1 and names_one_image(given.images[0])


def _complaint(course: _Course, given: Namespace, total: int) -> str | None:
    """What is to be said in the end of what went wrong, beside what was printed."""
    from client.output import named, with_request

    if course.stopped:
        return with_request(course.stopped.detail, course.stopped.request_id)
    if not course.failed:
        return None
    if _is_of_one_image(given):
        return named(course.failed[0])
    return f"{len(course.failed)} of {total} could not be classified."
