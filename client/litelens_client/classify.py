"""`litelens classify`: print the labels of photos, classified by an API or by a model on this machine."""

import base64
import dataclasses
import functools
import json
import sys
from argparse import ArgumentError, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path

import msgspec
import numpy as np
from msgspec import UNSET

from litelens.api.response_schemas import Model, classification_of
from litelens.aws.clients import Deadline
from litelens.aws.s3 import ObjectReader, parse_s3_uri
from litelens.core.classifier import DEFAULT_TOP_K, Classifier, Options
from litelens.core.errors import BundleError, ReportedError
from litelens.core.registry import model_name, read_bundle
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
    """The model on this machine; answers like the API. Not safe for concurrent use."""

    def __init__(self, settings: Settings) -> None:
        """Load the bundle; raises BundleError."""
        # There are no requests here, so the larger limit applies, that of uploads.
        self._max_bytes = max(settings.limits.bytes, settings.max_upload_bytes)
        limits = dataclasses.replace(settings.limits, bytes=self._max_bytes)
        bundle = read_bundle(model_name(settings.bundle, settings.models), settings.bundle)
        self._classifier = Classifier(bundle, limits, settings.threads, settings.engine)
        self._model = Model(bundle.name, bundle.version)

    def classify(
        self,
        image: bytes | Path | str,
        *,
        top_k: int | None = None,
        threshold: float | None = None,
        embedding: bool = False,
    ) -> Answer:
        """Classify an image, given as bytes, path or S3 URI; the options are those of the API.

        Raises ClassifyError with the API's codes, and OSError if a file cannot be read. S3 needs AWS credentials.
        """
        options = Options(DEFAULT_TOP_K if top_k is None else top_k, threshold, embedding=embedding)
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


class EmbeddingFile:
    """Collects the embeddings of photos and writes them to a .npy file, and their names to a .json file beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: list[str] = []
        self._rows: list[bytes] = []
        self._missing = 0

    def collect(self, results: Iterable[Result]) -> Iterator[Result]:
        """Yield the results without their embeddings, which are kept."""
        for result in results:
            if isinstance(result, Failed):
                yield result
                continue
            embedding = result.answer.embedding
            if embedding is UNSET or embedding.base64 is UNSET:
                self._missing += 1
            else:
                self._names.append(result.name)
                self._rows.append(base64.b64decode(embedding.base64))
            yield Classified(result.name, msgspec.structs.replace(result.answer, embedding=UNSET))

    def write(self) -> str | None:
        """Write float32 `(photos, dimension)` and the names in the same order; return a sentence if that fails."""
        rows = np.frombuffer(b"".join(self._rows), "<f4").reshape(len(self._rows), -1) if self._rows else None
        try:
            with self._path.open("wb") as file:
                np.save(file, np.zeros((0, 0), np.float32) if rows is None else rows)
            self._path.with_suffix(".json").write_text(json.dumps(self._names, indent=1) + "\n")
        except OSError as error:
            return f"{error.filename or self._path} cannot be written: {error.strerror}."
        if self._missing:
            return (
                f"{self._missing} photos have no embedding: they were uploaded, and the API does not store embeddings."
            )
        return None


def run(arguments: Namespace) -> int:
    """Run the command and return its exit code; raises ArgumentError for a URL or a key that cannot be one."""
    api = _client(arguments) if arguments.url else None
    inputs = find_images(arguments.images)
    if inputs.skipped:
        print_message(skipped_sentence(inputs.skipped))
    total, tally = len(inputs.images), Tally()
    results = tally.count(_results(api, inputs.images, arguments))
    embeddings = EmbeddingFile(arguments.embeddings) if arguments.embeddings else None
    if embeddings:
        results = embeddings.collect(results)
    results = track(results, total, "Classifying", as_lines=arguments.json or arguments.csv)
    if not write_output(_format(arguments)(results)):
        return 1
    messages = [_final_message(tally, total, arguments), embeddings.write() if embeddings else None]
    for message in filter(None, messages):
        print_message(message)
    return 1 if any(messages) else 0


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
        return Client(
            arguments.url,
            arguments.api_key,
            token=arguments.token,
            sign=arguments.sign,
            connections=arguments.parallel,
        )
    except ValueError as error:
        raise ArgumentError(None, str(error)) from error


def _results(api: Client | None, images: Sequence[Source | Failed], arguments: Namespace) -> Iterator[Result]:
    failed = [image for image in images if isinstance(image, Failed)]
    if len(failed) == len(images):
        # Nothing to classify: do not load the bundle.
        return iter(failed)
    options = {"top_k": arguments.top_k, "threshold": arguments.threshold, "embedding": bool(arguments.embeddings)}
    if api:
        with_options = functools.partial(api.classify, model=arguments.model, **options)
        return classify_all(images, with_options, arguments.parallel)
    return classify_all(images, functools.partial(_local_classifier(arguments.model).classify, **options))


def _local_classifier(model: str | None) -> LocalClassifier:
    try:
        return LocalClassifier(local_settings(model))
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
