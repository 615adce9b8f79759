"""`litelens classify`: print the labels of photos, classified by an API or by the bundle on this machine."""

import dataclasses
import functools
import sys
from argparse import ArgumentError, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path

import msgspec

from litelens.api.response_schemas import Model, classification_of
from litelens.aws.clients import Deadline
from litelens.aws.s3 import ObjectReader, parse_s3_uri
from litelens.core.bundle import load_bundle
from litelens.core.classifier import DEFAULT_TOP_K, Classifier, Options
from litelens.core.errors import BundleError, ReportedError
from litelens.settings import Settings
from litelens_client.answers import Answer, Classified, ClassifyError, Failed, Result
from litelens_client.api import Client
from litelens_client.aws import NO_CREDENTIALS
from litelens_client.inputs import Source, find_images, names_one_image, read_file, skipped_sentence, unreadable
from litelens_client.output import (
    Format,
    csv_lines,
    failure_sentence,
    json_lines,
    label_lines,
    print_message,
    table,
    track,
    with_request_id,
    write_output,
)
from litelens_client.settings import local_settings

# Seconds for an object in S3.
_READ_TIMEOUT = 60.0

# Classifies the bytes of an image, a file or an S3 URI; raises ClassifyError and OSError.
Classify = Callable[[bytes | Path | str], Answer]


@dataclass
class Tally:
    """The images that failed so far, and the error that stopped the command, if any."""

    failed: list[Failed] = field(default_factory=list)
    stopped: ClassifyError | None = None

    def count(self, results: Iterable[Result]) -> Iterator[Result]:
        """Yield the results and record the failures; stops at an error that concerns all images."""
        try:
            for result in results:
                if isinstance(result, Failed):
                    self.failed.append(result)
                yield result
        except ClassifyError as error:
            self.stopped = error


class LocalClassifier:
    """The bundle on this machine; answers like the API. Not safe for concurrent use."""

    def __init__(self, settings: Settings) -> None:
        """Load the bundle; raises BundleError."""
        # There are no requests here, so the larger limit applies, that of uploads.
        self._max_bytes = max(settings.limits.bytes, settings.max_upload_bytes)
        limits = dataclasses.replace(settings.limits, bytes=self._max_bytes)
        bundle = load_bundle(settings.bundle)
        self._classifier = Classifier(bundle, limits, settings.threads, settings.engine)
        self._model = Model(bundle.name, bundle.version)

    def classify(
        self, image: bytes | Path | str, *, top_k: int | None = None, threshold: float | None = None
    ) -> Answer:
        """Classify an image, given as bytes, path or S3 URI; the options are those of the API.

        Raises ClassifyError with the API's codes, and OSError if a file cannot be read. S3 needs AWS credentials.
        """
        options = Options(DEFAULT_TOP_K if top_k is None else top_k, threshold)
        try:
            classification = classification_of(self._classifier.classify(self._read(image), options))
            return Answer(model=self._model, **msgspec.structs.asdict(classification))
        except ReportedError as error:
            raise ClassifyError(error.code, _detail(error)) from error

    def _read(self, image: bytes | Path | str) -> bytes:
        if isinstance(image, bytes):
            return image
        if isinstance(image, Path):
            return read_file(image, self._max_bytes)
        try:
            location = parse_s3_uri(image)
        except ValueError as error:
            raise ClassifyError("invalid_request", str(error)) from error
        # Any bucket is allowed, because the person who runs the command chose it.
        return ObjectReader([location.bucket], self._max_bytes).read(location, Deadline.after(_READ_TIMEOUT))


def run(arguments: Namespace) -> int:
    """Run the command and return its exit code; raises ArgumentError for a URL or a key that cannot be one."""
    api = _client(arguments) if arguments.url else None
    inputs = find_images(arguments.images)
    if inputs.skipped:
        print_message(skipped_sentence(inputs.skipped))
    total, tally = len(inputs.images), Tally()
    results = tally.count(_results(api, inputs.images, arguments))
    results = track(results, total, "Classifying", as_lines=arguments.json or arguments.csv)
    if not write_output(_format(arguments)(results)):
        return 1
    message = _final_message(tally, total, arguments)
    if message:
        print_message(message)
    return 1 if message else 0


def classify_all(sources: Sequence[Source | Failed], classify: Classify, parallel: int = 1) -> Iterator[Result]:
    """Classify images and yield a result for each, in their order.

    With `parallel` above 1, that many threads call `classify`; they do not keep the process from ending. Raises a
    ClassifyError that concerns all images.
    """
    if parallel == 1:
        yield from (_classify_one(source, classify) for source in sources)
        return
    with ThreadPool(parallel) as pool:
        yield from pool.imap(lambda source: _classify_one(source, classify), sources)


def _classify_one(source: Source | Failed, classify: Classify) -> Result:
    if isinstance(source, Failed):
        return source
    try:
        return Classified(source.name, classify(source.image))
    except OSError as error:
        return unreadable(source.name, error)
    except ClassifyError as error:
        if error.concerns_all:
            raise
        return Failed(source.name, error.code, error.detail, error.request_id)


def _client(arguments: Namespace) -> Client:
    try:
        return Client(arguments.url, arguments.api_key, connections=arguments.parallel)
    except ValueError as error:
        raise ArgumentError(None, str(error)) from error


def _results(api: Client | None, images: Sequence[Source | Failed], arguments: Namespace) -> Iterator[Result]:
    failed = [image for image in images if isinstance(image, Failed)]
    if len(failed) == len(images):
        # Nothing to classify: do not load the bundle.
        return iter(failed)
    classify = api.classify if api else _local_classifier(arguments.bundle).classify
    options = functools.partial(classify, top_k=arguments.top_k, threshold=arguments.threshold)
    return classify_all(images, options, arguments.parallel if api else 1)


def _local_classifier(bundle: str | None) -> LocalClassifier:
    try:
        return LocalClassifier(local_settings(bundle))
    except BundleError as error:
        sys.exit(str(error))


def _detail(error: ReportedError) -> str:
    # Imported only here: classifying files should not wait for boto3.
    from botocore.exceptions import NoCredentialsError

    # The error's own message is for clients of an API whose operator sets the credentials.
    return NO_CREDENTIALS if isinstance(error.__cause__, NoCredentialsError) else str(error)


def _format(arguments: Namespace) -> Format:
    if arguments.json:
        return json_lines
    if arguments.csv:
        return csv_lines
    return label_lines if _is_one_image(arguments) else table


def _is_one_image(arguments: Namespace) -> bool:
    return len(arguments.images) == 1 and names_one_image(arguments.images[0])


def _final_message(tally: Tally, total: int, arguments: Namespace) -> str | None:
    """Return what to print on standard error at the end if an image failed."""
    if tally.stopped:
        return with_request_id(tally.stopped.detail, tally.stopped.request_id)
    if not tally.failed:
        return None
    if _is_one_image(arguments):
        return failure_sentence(tally.failed[0])
    return f"{len(tally.failed)} of {total} could not be classified."
