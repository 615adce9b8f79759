"""Classify the images of the bulk path: fetch them, classify them, and save and announce their results."""

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec

from litelens.api.problems import OutOfTime, problem_document
from litelens.api.response_schemas import BulkResult, Classification, Failure, Model, classification_of
from litelens.aws.clients import BULK_SERVICES, Deadline, aws_client
from litelens.aws.errors import (
    BucketNotAllowed,
    ObjectAccessDenied,
    ObjectNotFound,
    ObjectVersionNotFound,
    StorageTimeout,
)
from litelens.aws.event_bus import EventBus
from litelens.aws.results_table import ResultId, ResultsTable
from litelens.aws.s3 import ObjectReader, UploadBucket, is_form_key
from litelens.bulk.s3_events import ObjectRevision
from litelens.core.classifier import PREDICTION_BYTES, Options
from litelens.core.errors import InputError, ReportedError
from litelens.core.registry import ModelRegistry
from litelens.settings import Settings, required
from litelens.telemetry import logger, record_duplicate, record_prediction, record_problem

# The number of threads that share a worker: one for each message of a batch. Fetching and saving overlap, because they
# mostly wait for the network; docs/scale.md has the measured gain. One image is decoded while the model runs on
# another, which takes less time with several cores only.
THREADS = 10

# The number of copies of an object in memory while it is fetched.
_COPIES = 2

# An image is classified only if this many seconds remain: decoding the slowest image and saving its result can take
# that long.
_MIN_SECONDS = 5.0

# An upload form can be sent any number of times until it expires, each time with another image. This many of them are
# classified, so that one counted request cannot cause costs without a limit.
MAX_IMAGES_OF_A_FORM = 3

# Errors that a retry cannot fix. They become failed results; all others are raised, so that the message is retried.
_PERMANENT_ERRORS = (InputError, ObjectNotFound, ObjectVersionNotFound)


class Worker:
    """The default model, the buckets with images, and the destinations of results. Shared by up to THREADS threads."""

    def __init__(self, settings: Settings) -> None:
        """Raises BundleError if the bundle cannot be served, SettingsError if the bucket or the table is missing."""
        self._days = settings.result_days
        self._log_results = settings.log_results
        self._saves_objects = settings.result_objects
        self._bus = EventBus(settings.event_bus) if settings.event_bus else None
        self._results = _results_table(settings)
        self._bucket = UploadBucket(required(settings, "upload_bucket"), settings.max_upload_bytes)
        self._uploads = ObjectReader([self._bucket.bucket], settings.max_upload_bytes)
        self._all_buckets = ObjectReader([self._bucket.bucket, *settings.buckets], settings.max_upload_bytes)
        fetched = (THREADS - 1) * _COPIES * settings.max_upload_bytes
        limits = dataclasses.replace(
            settings.limits,
            bytes=settings.max_upload_bytes,
            spare=settings.limits.spare + fetched + PREDICTION_BYTES,
        )
        models = ModelRegistry(settings.bundle, settings.models, limits, settings.threads, settings.engine)
        self._classifier = models.default.classifier
        self._model = Model(self._classifier.bundle.name, self._classifier.bundle.version)
        self._options = Options(embedding=settings.store_embeddings and self._classifier.bundle.head is not None)
        if settings.store_embeddings and not self._options.embedding:
            logger.warning("No embeddings are stored, because the model gives none.")
        self._decoder_lock, self._model_lock = threading.Lock(), threading.Lock()
        # Created here, because otherwise each of the first threads would create its own.
        for service in BULK_SERVICES:
            aws_client(service)

    @property
    def model(self) -> str:
        return self._model.full_name

    def process_upload(
        self, image: ObjectRevision, deadline: Deadline, request_id: str, *, is_repeated: bool
    ) -> bytes | None:
        """Classify an uploaded image and save its result in the table; return the result's JSON document.

        If the table has a result already, that one is returned. It is looked up before the classification if the
        notification `is_repeated`. After MAX_IMAGES_OF_A_FORM images of one form, further ones have no result, and None
        is returned. Raises StorageError or OutOfTime; a retry may succeed.
        """
        if self._results is None:
            return msgspec.json.encode(self._classify_upload(image, deadline, request_id))
        result_id = ResultId(image.bucket, image.key, image.revision, self.model)
        if is_form_key(image.key):
            documents = self._results.find_all(image.bucket, image.key, deadline)
            if found := next((each for each in documents if self._is_final_result_of(image, each)), None):
                record_duplicate()
                return found
            if len(documents) >= MAX_IMAGES_OF_A_FORM:
                logger.warning("An upload form was sent again and again; this image is ignored.", request_id=request_id)
                return None
        elif is_repeated and (document := self._results.find(result_id, deadline)):
            record_duplicate()
            return document
        return self._classify_and_save(self._results, result_id, image, deadline, request_id)

    def deliver(self, documents: Sequence[bytes], request_id: str, deadline: Deadline) -> None:
        """Save the results of a batch as an object and publish them on the bus, if configured; raises StorageError."""
        if self._saves_objects:
            self._bucket.save_results(request_id, documents, datetime.now(UTC).date(), deadline)
        if self._bus:
            self._bus.publish(documents, deadline)

    def classify_object(self, image: ObjectRevision, deadline: Deadline, request_id: str) -> BulkResult:
        """Return the result of an object in any of the allowed buckets, without saving it; raises StorageError.

        An object that cannot be read, or for which there was no time, gets a failed result, because an error would fail
        the whole batch. That of a multi-label model has no absent labels.
        """
        try:
            outcome = self._classify(image, self._all_buckets, deadline, request_id)
        except (BucketNotAllowed, ObjectAccessDenied, OutOfTime, StorageTimeout) as error:
            outcome = _failure(error, request_id)
        return self._result(image, without_absent_labels(outcome), datetime.now(UTC))

    def _is_final_result_of(self, image: ObjectRevision, document: bytes) -> bool:
        result = msgspec.json.decode(document, type=BulkResult)
        return (result.revision, result.model, result.is_final) == (image.revision, self._model, True)

    def _classify_and_save(
        self, table: ResultsTable, result_id: ResultId, image: ObjectRevision, deadline: Deadline, request_id: str
    ) -> bytes:
        result = self._classify_upload(image, deadline, request_id)
        document, at = msgspec.json.encode(result), datetime.fromisoformat(result.time)
        saved = table.save(result_id, document, at, self._days, deadline, is_final=result.is_final)
        if saved != document:
            record_duplicate()
        return saved

    def _classify_upload(self, image: ObjectRevision, deadline: Deadline, request_id: str) -> BulkResult:
        outcome = self._classify(image, self._uploads, deadline, request_id)
        return self._result(image, outcome, datetime.now(UTC))

    def _result(self, image: ObjectRevision, outcome: Classification | Failure, at: datetime) -> BulkResult:
        return BulkResult(image.bucket, image.key, image.revision, self._model, at.isoformat(), outcome)

    def _classify(
        self, image: ObjectRevision, reader: ObjectReader, deadline: Deadline, request_id: str
    ) -> Classification | Failure:
        try:
            data = reader.read(image.location, deadline)
            with _turn(self._decoder_lock, deadline):
                decoded = self._classifier.prepare(data)
            with _turn(self._model_lock, deadline):
                prediction = self._classifier.predict(decoded, self._options)
            record_prediction(prediction, request_id, log=self._log_results)
            return classification_of(prediction)
        except _PERMANENT_ERRORS as error:
            return _failure(error, request_id)


@contextmanager
def _turn(lock: threading.Lock, deadline: Deadline) -> Iterator[None]:
    """Wait for a lock and hold it until the block ends; raises OutOfTime if too little time is left then."""
    with lock:
        if deadline.remaining() < _MIN_SECONDS:
            raise OutOfTime("The images before this one took all the time; another invocation will retry it.")
        yield


def without_absent_labels(outcome: Classification | Failure) -> Classification | Failure:
    """Return a multi-label result with the labels that are present or, if none is, with the most confident one.

    Step Functions accepts 256 KiB of results from a batch, which all labels of many images could exceed.
    """
    if isinstance(outcome, Failure) or not outcome.is_multi_label:
        return outcome
    return msgspec.structs.replace(outcome, predictions=outcome.labels or outcome.predictions[:1])


def _results_table(settings: Settings) -> ResultsTable | None:
    """Return the table for results; None if results are saved as objects only. Raises SettingsError."""
    if settings.result_objects and settings.results_table is None:
        return None
    return ResultsTable(required(settings, "results_table"))


def _failure(error: ReportedError, request_id: str) -> Failure:
    record_problem(error, request_id)
    return Failure(problem_document(error, request_id))
