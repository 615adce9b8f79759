"""`litelens classify`: the labels of photos, by an API or by the bundle on this machine.

Exits with 0 when every image was classified, 1 when one was not or the output cannot be written, 2 when the command is
wrong, and 130 when it was interrupted.
"""

import argparse
import functools
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# All else is imported when it is known to be needed, so that the help comes at once.
if TYPE_CHECKING:
    from client.output import Format
    from client.results import Answer, Failed, Result

_PARALLEL = 8
_BUNDLED = Path(__file__).parent.parent / "models" / "cifar100-resnet50"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default the process's; returns the exit code.

    Raises SystemExit, which is also such a code, when the command is wrong or there is no bundle.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.parallel and not given.url:
        parser.error("--parallel is for --url; on this machine images are classified one at a time")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names are bytes, which may not be text.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(given, parser)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="litelens", description="Classify photos.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
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
    command.add_argument("--top-k", type=_count, metavar="N", help="how many labels of each image (default: 5)")
    command.add_argument(
        "--threshold", type=_confidence, metavar="0..1", help="the confidence below which an answer is uncertain"
    )
    command.add_argument(
        "--parallel", type=_count, metavar="N", help=f"requests at a time with --url (default: {_PARALLEL})"
    )
    formats = command.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print a JSON object in a line for each image")
    formats.add_argument("--csv", action="store_true", help="print CSV with a row for each image")
    return parser


def _count(text: str) -> int:
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


def _run(given: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from client.batch import classify_all
    from client.inputs import expand

    classify = _by_api(given, parser) if given.url else _by_bundle()
    sources = expand(given.images)
    asked = functools.partial(classify, top_k=given.top_k, threshold=given.threshold)
    failed: list[Failed] = []
    results = _noted(classify_all(sources, asked, _parallel(given)), failed)
    if _shows_progress(given, len(sources)):
        results = _with_progress(results, len(sources))
    if not _print(_format(given, len(sources))(results)):
        return 1
    if failed:
        print(_complaint(failed, len(sources)), file=sys.stderr)
    return 1 if failed else 0


def _by_api(given: argparse.Namespace, parser: argparse.ArgumentParser) -> "Callable[..., Answer]":
    from client.api import Client

    try:
        return Client(given.url, given.api_key, connections=_parallel(given)).classify
    except ValueError as error:
        parser.error(str(error))


def _by_bundle() -> "Callable[..., Answer]":
    from client.local import LocalClassifier
    from litelens.errors import BundleError
    from settings import SettingsError, read_settings

    try:
        return LocalClassifier(read_settings({"LITELENS_BUNDLE": str(_BUNDLED), **os.environ})).classify
    except (BundleError, SettingsError) as error:
        sys.exit(str(error))


def _parallel(given: argparse.Namespace) -> int:
    return (given.parallel or _PARALLEL) if given.url else 1


def _format(given: argparse.Namespace, count: int) -> "Format":
    from client import output

    if given.json:
        return output.json_lines
    if given.csv:
        return output.csv_lines
    return output.labels if count == 1 else output.table


def _noted(results: "Iterator[Result]", failed: "list[Failed]") -> "Iterator[Result]":
    from client.results import Failed

    for result in results:
        if isinstance(result, Failed):
            failed.append(result)
        yield result


def _shows_progress(given: argparse.Namespace, count: int) -> bool:
    """Whether a bar tells more than the output does; lines that come on a terminal are a progress themselves."""
    comes_on_a_terminal = (given.json or given.csv) and sys.stdout.isatty()
    return count > 1 and sys.stderr.isatty() and not comes_on_a_terminal


def _with_progress(results: "Iterable[Result]", total: int) -> "Iterator[Result]":
    """The same results, with a bar on standard error while they come."""
    from rich.console import Console
    from rich.progress import Progress

    # rich would otherwise take what is printed meanwhile to standard error as well.
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        yield from bar.track(results, total=total, description="Classifying")


def _complaint(failed: "Sequence[Failed]", count: int) -> str:
    from client.output import printable

    if count > 1:
        return f"{len(failed)} of {count} could not be classified."
    request = f" (request {failed[0].request_id})" if failed[0].request_id else ""
    return printable(failed[0].detail + request)


def _print(pieces: Iterable[str]) -> bool:
    """Print all that comes, as it comes; whether that was possible."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"The output cannot be written: {error.strerror}.", file=sys.stderr)
        # Python writes what is left when it ends, and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
