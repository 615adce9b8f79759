"""`litelens classify`: print the labels of photos, classified by an API or by a model on this machine."""

import base64
import dataclasses
import functools
import json
import sys
import time
from argparse import ArgumentError, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from msgspec import UNSET

from litelens.api.response_schemas import Model, classification_of
from litelens.aws.clients import Deadline
from litelens.aws.s3 import ObjectReader, parse_s3_uri
from litelens.core.classifier import Classifier, Options
from litelens.core.errors import BundleError, ReportedError
from litelens.core.registry import model_name, read_bundle
from litelens.settings import Settings
from litelens_client.answers import Answer, Classified, ClassifyError, Failed, Result
from litelens_client.api import Client
from litelens_client.aws import NO_CREDENTIALS
from litelens_client.batches import Outcome
from litelens_client.inputs import Inputs, Source, find_images, names_one_image, notices, read_file, unreadable
from litelens_client.output import (
    Format,
    counted,
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

# What to do about the API's problems with these codes, whose details name headers.
_ACCESS_ADVICE = "Give a key with --api-key, a token with --token, or sign requests with --sign."
_ACCESS_CODES = ("forbidden", "unauthorized")

# Classifies images, each given as bytes, a file or an S3 URI, as Client.classify_all() does.
ClassifyAll = Callable[[Iterable[bytes | Path | str]], Iterator[Outcome]]


@dataclass
class Tally:
    """The images so far: in all, those that failed, and those with an answer that is not uncertain.

    `stopped` is the error that ended the command early, if any; `interrupted` is true after Ctrl-C.
    """

    images: int = 0
    failed: list[Failed] = field(default_factory=list)
    sure: int = 0
    stopped: ClassifyError | None = None
    interrupted: bool = False

    def count(self, results: Iterable[Result]) -> Iterator[Result]:
        """Yield the results and count them; an error that concerns all images, and Ctrl-C, end them."""
        try:
            for result in results:
                self.images += 1
                if isinstance(result, Failed):
                    self.failed.append(result)
                else:
                    self.sure += not result.answer.uncertain
                yield result
        except ClassifyError as error:
            self.stopped = error
        except KeyboardInterrupt:
            self.interrupted = True

    def summary(self, seconds: float) -> str:
        """Return how many images there were, how many answers are sure, how many images failed, and the time."""
        failed = f", {len(self.failed):,} failed" if self.failed else ""
        return f"{counted(self.images, 'photo')}, {self.sure:,} sure{failed}, {seconds:.1f} s"


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
        options = Options(top_k, threshold, embedding=embedding)
        try:
            classification = classification_of(self._classifier.classify(self._read(image), options))
            return Answer(model=self._model, **msgspec.structs.asdict(classification))
        except ReportedError as error:
            raise ClassifyError(error.code, _detail(error)) from error

    def classify_all(
        self,
        images: Iterable[bytes | Path | str],
        *,
        top_k: int | None = None,
        threshold: float | None = None,
        embedding: bool = False,
    ) -> Iterator[Outcome]:
        """Classify images, and yield the answer for each, or the exception that classify() raises, in their order."""
        for image in images:
            try:
                yield self.classify(image, top_k=top_k, threshold=threshold, embedding=embedding)
            except (ClassifyError, OSError) as error:
                yield error

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
    started = time.monotonic()
    inputs = find_images(arguments.images)
    for sentence in notices(inputs.skipped, inputs.ignored):
        print_message(sentence)
    tally = Tally()
    results = tally.count(_results(api, inputs.images, arguments))
    embeddings = EmbeddingFile(arguments.embeddings) if arguments.embeddings else None
    if embeddings:
        results = embeddings.collect(results)
    results = track(results, len(inputs.images), "Classifying", as_lines=arguments.json or arguments.csv)
    if not write_output(_format(inputs, arguments)(results)):
        return 1
    problem = embeddings.write() if embeddings else None
    for message in [*_final_messages(tally, inputs, arguments, time.monotonic() - started), problem]:
        if message:
            print_message(message)
    if tally.interrupted:
        return 130
    return 1 if tally.failed or tally.stopped or problem else 0


def classify_sources(sources: Sequence[Source | Failed], classify_all: ClassifyAll) -> Iterator[Result]:
    """Classify images and yield a result for each, in their order; raises a ClassifyError that concerns all images."""
    outcomes = classify_all(source.image for source in sources if not isinstance(source, Failed))
    for source in sources:
        yield source if isinstance(source, Failed) else _result(source, next(outcomes))


def _result(source: Source, outcome: Outcome) -> Result:
    if isinstance(outcome, OSError):
        return unreadable(source.name, outcome)
    if isinstance(outcome, ClassifyError):
        return Failed(source.name, outcome.code, outcome.detail, outcome.request_id)
    return Classified(source.name, outcome)


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
    if not _has_images(images):
        # Nothing to classify: do not load the bundle.
        return (image for image in images if isinstance(image, Failed))
    options = {"top_k": arguments.top_k, "threshold": arguments.threshold, "embedding": bool(arguments.embeddings)}
    if api:
        remote = functools.partial(api.classify_all, model=arguments.model, original=arguments.original, **options)
        return classify_sources(images, remote)
    return classify_sources(images, functools.partial(_local_classifier(arguments.model).classify_all, **options))


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


def _format(inputs: Inputs, arguments: Namespace) -> Format:
    if arguments.json:
        return json_lines
    if arguments.csv:
        return csv_lines
    return label_lines if _is_one_image(arguments) or not _has_images(inputs.images) else table


def _has_images(images: Sequence[Source | Failed]) -> bool:
    return not all(isinstance(image, Failed) for image in images)


def _is_one_image(arguments: Namespace) -> bool:
    return len(arguments.images) == 1 and names_one_image(arguments.images[0])


def _final_messages(tally: Tally, inputs: Inputs, arguments: Namespace, seconds: float) -> list[str]:
    """Return what to print on standard error at the end: what went wrong, or a summary if there are several images."""
    if tally.stopped:
        return [_stopped_sentence(tally.stopped)]
    if _is_one_image(arguments) or not _has_images(inputs.images):
        return [failure_sentence(failed) for failed in tally.failed]
    if tally.interrupted:
        return [f"Interrupted after {tally.images:,} of {counted(len(inputs.images), 'photo')}."]
    return [tally.summary(seconds)]


def _stopped_sentence(error: ClassifyError) -> str:
    advice = f" {_ACCESS_ADVICE}" if error.code in _ACCESS_CODES and "--" not in error.detail else ""
    return with_request_id(f"{error.detail}{advice}", error.request_id)
