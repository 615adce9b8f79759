"""The command `litelens`: its arguments. Each subcommand has a module with a function `run`, by default of its name.

Exit codes: 0 on success, 1 if something failed or the output could not be written, 2 for wrong arguments, and 130
after Ctrl-C.
"""

import importlib
import io
import math
import os
import re
import sys
from argparse import (
    ArgumentError,
    ArgumentParser,
    ArgumentTypeError,
    BooleanOptionalAction,
    HelpFormatter,
    Namespace,
)
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path

from litelens_client import __version__

DEFAULT_BASE = "everyday"
DEFAULT_PARALLEL = 8
DEFAULT_PORT = 8080
DEFAULT_SINCE = "24h"

# `litelens results` queries each day separately, and results are not kept for longer.
MAX_DAYS = 400

STATE_MACHINE_ARN = re.compile(r"arn:[a-z-]+:states:[a-z0-9-]+:[0-9]{12}:stateMachine:[^:/\s]+(:[^:/\s]+)?")
EXECUTION_ARN = re.compile(r"arn:[a-z-]+:states:[a-z0-9-]+:[0-9]{12}:execution:[^:/\s]+:[^:/\s]+")

# A module cannot have the name of a keyword.
_MODULES = {"import": "importing.command"}

# A larger mean or standard deviation is one of pixels from 0 to 255.
_MAX_CHANNEL = 10

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
_OUTPUTS = ("logits", "probabilities")

_AGE_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_AGE = re.compile(rf"(\d+)([{''.join(_AGE_UNITS)}])", re.ASCII)

# Exit codes in the help of every subcommand. Those of 0 and 1 have their own meanings in most.
_EXIT_CODES: Mapping[int, str] = {
    0: "success",
    1: "something failed, or the output could not be written",
    2: "wrong arguments",
    130: "interrupted with Ctrl-C",
}

# Adds a subcommand's options to its parser.
AddOptions = Callable[[ArgumentParser], None]
# Raises ArgumentError if options cannot be combined.
Check = Callable[[Namespace], None]


class _HelpFormatter(HelpFormatter):
    """Keeps the lines of a text that has several, such as the examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default those of the process, and return the exit code.

    Raises SystemExit for wrong arguments and if the command cannot start.
    """
    parsed = create_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names are bytes, and not necessarily valid UTF-8.
        sys.stdout.reconfigure(errors="backslashreplace")
    parser: ArgumentParser = parsed.parser
    try:
        if parsed.check:
            parsed.check(parsed)
        # The threads of OpenBLAS, which NumPy contains, keep cores busy while they wait. That slows down the model.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        # Imported only now, so that help and error messages appear immediately.
        module = _MODULES.get(parsed.command, parsed.command)
        run: Callable[[Namespace], int] = importlib.import_module(f"litelens_client.{module}").run
        return run(parsed)
    except ArgumentError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130


def create_parser() -> ArgumentParser:
    """Return the parser of the whole command line."""
    parser = ArgumentParser(
        prog="litelens",
        description="Classify photos.",
        epilog=f"{_exit_codes({})}\n\nlitelens COMMAND --help lists the options of a command, with examples.",
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str,
        add_options: AddOptions,
        check: Check | None = None,
        *,
        summary: str,
        description: str,
        examples: Sequence[str],
        exit_codes: Mapping[int, str],
    ) -> None:
        lines = "".join(f"  {example}\n" for example in examples)
        command = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=f"examples:\n{lines}\n{_exit_codes(exit_codes)}",
            formatter_class=_HelpFormatter,
        )
        add_options(command)
        command.set_defaults(parser=command, check=check)

    add(
        "classify",
        _add_classify_options,
        _check_classify,
        summary="print the labels of photos",
        description="Print the labels of photos.",
        examples=(
            "litelens classify cat.jpg",
            "litelens classify photos --model pets --csv > labels.csv",
            "litelens classify photos --url http://127.0.0.1:8080 --json",
        ),
        exit_codes={
            0: "every photo was classified",
            1: "a photo could not be classified, there were none, or the output could not be written",
            130: "interrupted with Ctrl-C; the photos so far are printed",
        },
    )
    add(
        "serve",
        _add_serve_options,
        summary="serve the API and its page on this machine",
        description="Serve the API and its page on this machine, without Docker or an AWS account.",
        examples=(
            "litelens serve",
            "litelens serve --port 8081 --model pets",
            "litelens serve --log-json",
        ),
        exit_codes={
            0: "stopped with Ctrl-C",
            1: "the port cannot be used, or the model cannot be served",
            130: "interrupted with Ctrl-C before it was listening",
        },
    )
    add(
        "learn",
        _add_learn_options,
        summary="learn a classifier from photos in class folders, in seconds",
        description="Learn a classifier from photos in class folders, such as photos/cat and photos/dog. If "
        "photos/train and photos/test have class folders, learn from the first and measure the accuracy on the second. "
        "The result is a bundle in models/.",
        examples=(
            "litelens learn photos --name pets",
            "litelens learn photos --name scenes --multi-label",
            "litelens learn photos --name pets --json > pets.json",
        ),
        exit_codes={0: "the bundle was written", 1: "nothing can be learned from the photos, or nothing was written"},
    )
    add(
        "import",
        _add_import_options,
        _check_import,
        summary="make a bundle of a .tflite classifier that was made elsewhere",
        description="Make a bundle of a .tflite photo classifier that was made elsewhere, such as an export of "
        "Teachable Machine, and say what was assumed about it. The result is a bundle in models/.",
        examples=(
            "litelens import converted_tflite/model.tflite --name pets",
            "litelens import pets.tflite --name pets --labels labels.txt --data photos",
            "litelens import pets.tflite --name pets --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        ),
        exit_codes={0: "the bundle was written", 1: "the file is not such a model, or nothing was written"},
    )
    add(
        "export",
        _add_export_options,
        summary="write a model as one .tflite file for phones and browsers",
        description="Write a model as one .tflite file that other programs can run: Android, iOS, browsers, Python. "
        "The head, the calibration, the labels and the normalization are inside.",
        examples=("litelens export pets", "litelens export models/pets --output app/pets.tflite --force"),
        exit_codes={0: "the file was written", 1: "the model cannot be exported, or the file cannot be written"},
    )
    add(
        "convert",
        _add_convert_options,
        summary="convert bundles of earlier versions of litelens",
        description="Convert bundles of earlier versions of litelens to the current format. Bundles that already have "
        "it are not changed.",
        examples=("litelens convert models/pets", "litelens convert models/pets models/cars"),
        exit_codes={0: "every bundle has the current format", 1: "a bundle could not be converted"},
    )
    add(
        "upload",
        _add_upload_options,
        _check_upload,
        summary="upload photos to the bucket",
        description="Upload photos to the bucket, where they are classified. Photos that are already there and have "
        "not changed are skipped, so you can repeat the command after an interruption.",
        examples=(
            "litelens upload photos --bucket UploadBucketName",
            "litelens upload photos --prefix trip --wait",
            "litelens upload cat.jpg dog.jpg --json",
        ),
        exit_codes={
            0: "every photo was uploaded and, with --wait, classified",
            1: "a photo was not uploaded or not classified, or the output could not be written",
            130: "interrupted with Ctrl-C; repeat the command to continue",
        },
    )
    add(
        "results",
        _add_results_options,
        _check_results,
        summary="list the results of uploaded photos",
        description="List the results of uploaded photos, newest day first and by key within a day. Days and times "
        "are in UTC.",
        examples=(
            "litelens results --prefix trip --since 2h",
            "litelens results --since 2026-11-01 --until 2026-11-20 --uncertain --csv > uncertain.csv",
            "litelens results --failed --json",
        ),
        exit_codes={
            0: "the results were printed, or there are none",
            1: "the table cannot be read, or the output could not be written",
        },
    )
    add(
        "backfill",
        _add_backfill_options,
        _check_backfill,
        summary="classify every image in a bucket",
        description="Classify every image in a bucket.",
        examples=(
            "litelens backfill s3://photos/2026",
            "litelens backfill s3://photos --inventory s3://inventory/photos/manifest.json --tolerate 1% --yes",
            "litelens backfill --follow arn:aws:states:eu-west-1:123456789012:execution:backfill:photos",
        ),
        exit_codes={
            0: "the backfill succeeded",
            1: "the backfill failed or was not started",
            130: "interrupted with Ctrl-C, which does not stop a backfill that was started",
        },
    )
    return parser


def _exit_codes(meanings: Mapping[int, str]) -> str:
    lines = [f"  {code:<4} {meaning}" for code, meaning in {**_EXIT_CODES, **meanings}.items()]
    return "\n".join(["exit codes:", *lines])


def positive_integer(text: str) -> int:
    """Parse a whole number above 0."""
    if not _is_whole_number(text) or int(text) < 1:
        raise ArgumentTypeError("must be a whole number above 0")
    return int(text)


def port(text: str) -> int:
    """Parse the number of a TCP port; 0 stands for any free port."""
    if not _is_whole_number(text) or int(text) > 65535:
        raise ArgumentTypeError("must be a port from 0 to 65535")
    return int(text)


def channels(text: str) -> tuple[float, float, float]:
    """Parse a number for all colours, or one for each: 0.485,0.456,0.406."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(math.isfinite(number) for number in numbers):
        raise ArgumentTypeError("must be a number, or three for red, green and blue, such as 0.485,0.456,0.406")
    if max(map(abs, numbers)) > _MAX_CHANNEL:
        raise ArgumentTypeError("must be for pixels from 0 to 1; 127.5 for pixels from 0 to 255 is 0.5 here")
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return red, green, blue


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 1:
        raise ArgumentTypeError("must be a number from 0 to 1")
    return number


def percentage(text: str) -> int:
    """Parse a whole number from 0 to 100, with or without a percent sign."""
    number = text.removesuffix("%")
    if not _is_whole_number(number) or int(number) > 100:
        raise ArgumentTypeError("must be a whole number from 0 to 100, such as 1%")
    return int(number)


def moment(text: str, time_of_day: time) -> datetime:
    """Parse an age such as `2h`, a date, or a date and time; a date without a time gets `time_of_day`."""
    try:
        if age := _AGE.fullmatch(text):
            return datetime.now(UTC) - int(age[1]) * _AGE_UNITS[age[2]]
        if len(text) == len("2026-11-20"):
            return datetime.combine(date.fromisoformat(text), time_of_day, UTC)
        parsed = datetime.fromisoformat(text)
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError("must be like 90m, 2h, 3d, 2026-11-20 or 2026-11-20T14:30") from None


def s3_prefix(text: str) -> tuple[str, str]:
    """Parse an S3 URI; return its bucket and its prefix, which may be empty."""
    # Imported only here, like the subcommands in main().
    from litelens.aws.s3 import parse_s3_uri

    try:
        location = parse_s3_uri(text)
    except ValueError:
        raise ArgumentTypeError("must be like s3://bucket or s3://bucket/prefix") from None
    return location.bucket, location.key


def s3_object(text: str) -> tuple[str, str]:
    """Parse the S3 URI of an object; return its bucket and key."""
    bucket, key = s3_prefix(text)
    if not key or key.endswith("/"):
        raise ArgumentTypeError("must be like s3://bucket/path/manifest.json")
    return bucket, key


def npy_file(text: str) -> Path:
    """Parse the path of a .npy file in a folder that exists."""
    path = Path(text)
    if path.suffix != ".npy" or not path.parent.is_dir():
        raise ArgumentTypeError("must be the path of a .npy file in a folder that exists")
    return path


def _is_whole_number(text: str) -> bool:
    # isdigit() alone is also true for digits of other scripts.
    return text.isascii() and text.isdigit()


def _add_classify_options(command: ArgumentParser) -> None:
    command.add_argument(
        "images",
        nargs="+",
        metavar="PATH_OR_S3",
        help="a file, a folder, s3://bucket/key, s3://bucket/prefix/ or - for standard input",
    )
    command.add_argument(
        "--url",
        help="the API to use (default: LITELENS_URL); without one, or with '', photos are classified on this machine",
    )
    access = command.add_mutually_exclusive_group()
    access.add_argument(
        "--api-key", help="the key of the API (default: LITELENS_API_KEY, which other users of this machine cannot see)"
    )
    access.add_argument(
        "--token", help="a token (JWT) of the issuer that the API trusts (default: LITELENS_TOKEN, likewise)"
    )
    access.add_argument(
        "--sign",
        action="store_true",
        help="sign requests with your AWS credentials, for the region in the API's URL or else AWS_REGION",
    )
    command.add_argument(
        "--model",
        metavar="NAME_OR_PATH",
        help="a model's name in models/ or the path of its bundle; with --url, a name that the API lists (default: "
        "LITELENS_BUNDLE, or the bundle that comes with litelens; with --url, the API's default model)",
    )
    command.add_argument(
        "--top-k",
        type=positive_integer,
        metavar="N",
        help="number of labels for each image (default: 5, or all labels of a multi-label model; at most that many for "
        "an image above 4.4 MB with --url)",
    )
    command.add_argument(
        "--threshold",
        type=fraction,
        metavar="0..1",
        help="confidence below which an answer is uncertain, or from which a label of a multi-label model is present",
    )
    command.add_argument(
        "--parallel",
        type=positive_integer,
        metavar="N",
        help=f"requests at the same time, with --url (default: {DEFAULT_PARALLEL})",
    )
    command.add_argument(
        "--original",
        action="store_true",
        help="send large photos whole, with --url; by default, they are reduced to what the model needs",
    )
    command.add_argument(
        "--embeddings",
        type=npy_file,
        metavar="OUT.npy",
        help="write the photos' embeddings to this file, and their names to a .json file beside it",
    )
    formats = command.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print a line with a JSON object for each image")
    formats.add_argument("--csv", action="store_true", help="print CSV with a row for each image")


def _check_classify(parsed: Namespace) -> None:
    if parsed.url is None:
        parsed.url = os.environ.get("LITELENS_URL")
    _check_access(parsed)
    if parsed.parallel and not parsed.url:
        raise ArgumentError(None, "--parallel needs --url; without it, images are classified one at a time")
    if parsed.original and not parsed.url:
        raise ArgumentError(None, "--original needs --url; without it, no image is sent")
    parsed.parallel = parsed.parallel or DEFAULT_PARALLEL


def _check_access(parsed: Namespace) -> None:
    """Take the key or the token from the environment if there is no option for either, or for a signature."""
    if (parsed.token or parsed.sign) and not parsed.url:
        raise ArgumentError(None, "--token and --sign need --url; without it, images are classified on this machine")
    if parsed.api_key is not None or parsed.token is not None or parsed.sign:
        return
    parsed.api_key, parsed.token = os.environ.get("LITELENS_API_KEY"), os.environ.get("LITELENS_TOKEN")
    if parsed.api_key and parsed.token and parsed.url:
        raise ArgumentError(
            None, "LITELENS_API_KEY and LITELENS_TOKEN are both set; an API takes only one, so unset one"
        )


def _add_serve_options(command: ArgumentParser) -> None:
    command.add_argument(
        "--port", type=port, default=DEFAULT_PORT, help=f"port on 127.0.0.1 (default: {DEFAULT_PORT}; 0 for a free one)"
    )
    command.add_argument(
        "--api-key",
        default=os.environ.get("API_KEY") or None,
        help="require this key, as a deployed API does (default: API_KEY, which other users of this machine cannot "
        "see; without either, no key is required)",
    )
    command.add_argument(
        "--log-json",
        action="store_true",
        help="print JSON log lines instead of a short line for each request",
    )
    command.add_argument(
        "--model",
        metavar="NAME_OR_PATH",
        help="the default model, a name in models/ or the path of a bundle (default: LITELENS_BUNDLE, or the bundle "
        "that comes with litelens)",
    )


def _add_learn_options(command: ArgumentParser) -> None:
    command.add_argument(
        "photos",
        type=Path,
        metavar="FOLDER_OR_CSV",
        help="the folder that contains the class folders; or a .csv file in the photos' folder, with the labels of "
        "each photo, which can be several",
    )
    command.add_argument(
        "--multi-label",
        action="store_true",
        help="a photo can have several labels: it has those of all class folders that it is in",
    )
    command.add_argument(
        "--name", required=True, help="the model's name: lower-case letters, digits, - and _, such as pets"
    )
    command.add_argument(
        "--base",
        metavar="NAME_OR_PATH",
        default=DEFAULT_BASE,
        help=f"the model whose features are used, a name in models/ or the path of a bundle (default: {DEFAULT_BASE})",
    )
    command.add_argument("--json", action="store_true", help="print the measurements as a JSON object")


def _add_import_options(command: ArgumentParser) -> None:
    command.add_argument("model", type=Path, metavar="MODEL", help="the .tflite file")
    command.add_argument(
        "--name", required=True, help="the model's name: lower-case letters, digits, - and _, such as pets"
    )
    command.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="a file with a label on each line (default: the labels in the model, or labels.txt beside it)",
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="photos in class folders named like the labels: measure the accuracy on them, calibrate the confidences; "
        "or a .csv file with the labels of each photo, for a multi-label model",
    )
    command.add_argument(
        "--multi-label",
        action=BooleanOptionalAction,
        help="a photo can have several of the labels, or none (default: yes if the model ends in several sigmoids)",
    )
    command.add_argument(
        "--scores",
        choices=_OUTPUTS,
        help="what the model gives, if it does not end in a softmax or sigmoid (default: logits, unless the scores add "
        "up to 1)",
    )
    command.add_argument(
        "--quantize",
        type=Path,
        metavar="FOLDER",
        help="photos of the kind that you will classify: make a float model int8 with them, which is smaller and "
        "faster, and keep the int8 model only if it agrees with the float one",
    )
    for name, what in (("mean", "mean"), ("std", "standard deviation")):
        command.add_argument(
            f"--{name}",
            type=channels,
            metavar="NUMBER",
            help=f"the {what} with which the model was trained, for pixels from 0 to 1: a number, or three with commas",
        )
    command.add_argument(
        "--crop", type=fraction, metavar="0..1", help="the part of the photo's centre that the model sees (default: 1)"
    )
    command.add_argument("--interpolation", choices=_INTERPOLATIONS, help="how photos are resized (default: bilinear)")
    command.add_argument("--json", action="store_true", help="print the summary as a JSON object")


def _check_import(parsed: Namespace) -> None:
    if (parsed.mean is None) != (parsed.std is None):
        raise ArgumentError(None, "--mean and --std belong together; give both")
    if parsed.std and min(parsed.std) <= 0:
        raise ArgumentError(None, "--std must be above 0")
    if parsed.crop == 0:
        raise ArgumentError(None, "--crop must be above 0")


def _add_export_options(command: ArgumentParser) -> None:
    command.add_argument("model", metavar="NAME", help="a model's name in models/, or the path of its bundle")
    command.add_argument("--format", choices=("tflite",), default="tflite", help="the file's format (default: tflite)")
    command.add_argument("--output", type=Path, metavar="FILE", help="the file to write (default: NAME.tflite)")
    command.add_argument("--force", action="store_true", help="replace the file if it exists")
    command.add_argument("--json", action="store_true", help="print the summary as a JSON object")


def _add_convert_options(command: ArgumentParser) -> None:
    command.add_argument("bundles", nargs="+", type=Path, metavar="FOLDER", help="the folder of a bundle")


def _add_upload_options(command: ArgumentParser) -> None:
    command.add_argument("paths", nargs="+", metavar="PATH", help="a file, or a folder with images")
    _add_bucket_option(command, "the stack's output UploadBucketName (default: LITELENS_UPLOAD_BUCKET)")
    command.add_argument("--prefix", default="", help="folder under uploads/ for the photos (default: uploads/ itself)")
    command.add_argument("--wait", action="store_true", help="wait for the results and print them")
    _add_table_option(command, "with --wait: the stack's output ResultsTableName (default: LITELENS_RESULTS_TABLE)")
    command.add_argument(
        "--parallel",
        type=positive_integer,
        default=DEFAULT_PARALLEL,
        metavar="N",
        help=f"uploads at the same time (default: {DEFAULT_PARALLEL})",
    )
    command.add_argument("--json", action="store_true", help="print a line with a JSON object for each photo")


def _check_upload(parsed: Namespace) -> None:
    if not parsed.bucket:
        raise ArgumentError(None, "set --bucket or LITELENS_UPLOAD_BUCKET to the stack's output UploadBucketName")
    if parsed.wait and not parsed.table:
        raise ArgumentError(
            None,
            "--wait needs the results table; set --table or LITELENS_RESULTS_TABLE to the stack's output "
            "ResultsTableName. A stack with Results=objects stores no results in the table: upload without --wait",
        )


def _add_results_options(command: ArgumentParser) -> None:
    _add_bucket_option(command, "only photos in this bucket (default: LITELENS_UPLOAD_BUCKET, or all buckets)")
    _add_table_option(command, "the stack's output ResultsTableName (default: LITELENS_RESULTS_TABLE)")
    command.add_argument(
        "--prefix", default="", help="only keys that start with this; uploads/ is prepended if it is missing"
    )
    command.add_argument(
        "--since",
        type=partial(moment, time_of_day=time.min),
        default=DEFAULT_SINCE,
        metavar="TIME",
        help=f"an age (90m, 2h or 3d), a date (2026-11-20) or a time (2026-11-20T14:30) (default: {DEFAULT_SINCE})",
    )
    command.add_argument(
        "--until", type=partial(moment, time_of_day=time.max), metavar="TIME", help="like --since (default: now)"
    )
    command.add_argument("--label", help="only results with this best label")
    command.add_argument("--uncertain", action="store_true", help="only uncertain results")
    command.add_argument("--failed", action="store_true", help="only photos that could not be classified")
    formats = command.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print the stored JSON documents, one per line")
    formats.add_argument("--csv", action="store_true", help="print CSV with a row for each result")


def _check_results(parsed: Namespace) -> None:
    if not parsed.table:
        raise ArgumentError(None, "set --table or LITELENS_RESULTS_TABLE to the stack's output ResultsTableName")
    if datetime.now(UTC) - parsed.since > timedelta(days=MAX_DAYS):
        raise ArgumentError(None, f"--since may be at most {MAX_DAYS} days ago")
    if parsed.until and parsed.until < parsed.since:
        raise ArgumentError(None, "--until must not be before --since")
    if parsed.failed and (parsed.label or parsed.uncertain):
        raise ArgumentError(None, "--failed cannot be combined with --label or --uncertain; failures have no label")


def _add_bucket_option(command: ArgumentParser, description: str) -> None:
    command.add_argument("--bucket", default=os.environ.get("LITELENS_UPLOAD_BUCKET"), help=description)


def _add_table_option(command: ArgumentParser, description: str) -> None:
    command.add_argument("--table", default=os.environ.get("LITELENS_RESULTS_TABLE"), help=description)


def _add_backfill_options(command: ArgumentParser) -> None:
    target = command.add_mutually_exclusive_group(required=True)
    target.add_argument("images", nargs="?", type=s3_prefix, metavar="S3", help="s3://bucket or s3://bucket/prefix")
    target.add_argument("--follow", metavar="ARN", help="follow a running backfill, by the ARN of its execution")
    command.add_argument(
        "--inventory",
        type=s3_object,
        metavar="S3",
        help="the manifest.json of an S3 inventory of the whole bucket, to use instead of listing the bucket",
    )
    command.add_argument(
        "--state-machine",
        default=os.environ.get("LITELENS_BACKFILL"),
        metavar="ARN",
        help="the stack's output BackfillArn (default: LITELENS_BACKFILL)",
    )
    command.add_argument(
        "--tolerate",
        type=percentage,
        metavar="PERCENT",
        help="percentage of images that may have no result before the backfill fails (default: the stack's setting)",
    )
    command.add_argument("--yes", action="store_true", help="start without asking for confirmation")
    command.add_argument("--json", action="store_true", help="print the summary as a JSON object")


def _check_backfill(parsed: Namespace) -> None:
    if parsed.follow:
        _check_follow(parsed)
        return
    if not parsed.state_machine:
        raise ArgumentError(None, "set --state-machine or LITELENS_BACKFILL to the stack's output BackfillArn")
    if not STATE_MACHINE_ARN.fullmatch(parsed.state_machine):
        raise ArgumentError(
            None, "--state-machine takes an ARN such as arn:aws:states:REGION:ACCOUNT:stateMachine:NAME"
        )
    if parsed.inventory and parsed.images[1]:
        raise ArgumentError(None, "an inventory lists a whole bucket; name the bucket without a prefix")
    if not parsed.yes and not sys.stdin.isatty():
        raise ArgumentError(None, "a confirmation needs a terminal; add --yes to start without one")


def _check_follow(parsed: Namespace) -> None:
    if parsed.inventory or parsed.tolerate is not None:
        raise ArgumentError(None, "--inventory and --tolerate are for starting a backfill")
    if not EXECUTION_ARN.fullmatch(parsed.follow):
        raise ArgumentError(
            None, "--follow takes the ARN of an execution, such as arn:aws:states:REGION:ACCOUNT:execution:NAME:NAME"
        )


if __name__ == "__main__":
    sys.exit(main())
