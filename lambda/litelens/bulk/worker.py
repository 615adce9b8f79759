"""Classify one image of the bulk path: fetch it, classify it, and save its result."""

import dataclasses
import threading
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
from litelens.core.classifier import Options
from litelens.core.errors import InputError, ReportedError
from litelens.core.registry import ModelRegistry
from litelens.settings import Settings, required
from litelens.telemetry import logger, record_duplicate, record_prediction, record_problem

# The number of threads that share a worker: one for each message of a batch. Fetching and saving overlap, because they
# mostly wait for the network. Decoding and inference run one at a time, because they share a core. docs/scale.md has
# the measured gain.
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
        """Raises BundleError if the bundle cannot be served, SettingsError if a table or the bucket is missing."""
        self._days = settings.result_days
        self._bus = EventBus(settings.event_bus) if settings.event_bus else None
        self._results = ResultsTable(required(settings, "results_table"))
        self._bucket = UploadBucket(required(settings, "upload_bucket"), settings.max_upload_bytes)
        self._uploads = ObjectReader([self._bucket.bucket], settings.max_upload_bytes)
        self._all_buckets = ObjectReader([self._bucket.bucket, *settings.buckets], settings.max_upload_bytes)
        fetched = (THREADS - 1) * _COPIES * settings.max_upload_bytes
        limits = dataclasses.replace(
            settings.limits, bytes=settings.max_upload_bytes, spare=settings.limits.spare + fetched
        )
        models = ModelRegistry(settings.bundle, settings.models, limits, settings.threads, settings.engine)
        self._classifier = models.default.classifier
        self._model = Model(self._classifier.bundle.name, self._classifier.bundle.version)
        self._options = Options(embedding=settings.store_embeddings and self._classifier.bundle.head is not None)
        if settings.store_embeddings and not self._options.embedding:
            logger.warning("No embeddings are stored, because the model gives none.")
        self._classifier_lock = threading.Lock()
        # Created here, because otherwise each of the first threads would create its own.
        for service in BULK_SERVICES:
            aws_client(service)

    @property
    def model(self) -> str:
        return self._model.full_name

    def process_upload(self, image: ObjectRevision, deadline: Deadline, request_id: str) -> bool:
        """Classify an uploaded image and save its result in the table, the bucket and on the bus.

        If the table has a result already, that one is used. After MAX_IMAGES_OF_A_FORM images of one form, further ones
        are ignored. Returns whether the image needs no retry. Raises StorageError or OutOfTime; a retry may succeed.
        """
        result_id = ResultId(image.bucket, image.key, image.revision, self.model)
        found = self._results.find(result_id, deadline)
        if found:
            record_duplicate()
        elif self._is_one_too_many(image, deadline):
            logger.warning("An upload form was sent again and again; this image is ignored.", request_id=request_id)
            return True
        saved = found or self._classify_and_save(result_id, image, deadline, request_id)
        result = msgspec.json.decode(saved, type=BulkResult)
        # A new result belongs to the revision that was just read. For a stored result, the key may have a newer
        # revision.
        is_current = self._bucket.is_current(image.location, deadline) if found else not result.is_superseded
        if is_current:
            self._bucket.save_result(image.key, saved, deadline)
        if self._bus:
            self._bus.publish(saved, deadline)
        return result.is_final

    def classify_object(self, image: ObjectRevision, deadline: Deadline, request_id: str) -> BulkResult:
        """Return the result of an object in any of the allowed buckets, without saving it; raises StorageError.

        An object that cannot be read, or for which there was no time, gets a failed result, because an error would fail
        the whole batch.
        """
        try:
            outcome = self._classify(image, self._all_buckets, deadline, request_id)
        except (BucketNotAllowed, ObjectAccessDenied, OutOfTime, StorageTimeout) as error:
            outcome = _failure(error, request_id)
        return self._result(image, outcome, datetime.now(UTC))

    def _is_one_too_many(self, image: ObjectRevision, deadline: Deadline) -> bool:
        if not is_form_key(image.key):
            return False
        return self._results.count(image.bucket, image.key, MAX_IMAGES_OF_A_FORM, deadline) >= MAX_IMAGES_OF_A_FORM

    def _classify_and_save(
        self, result_id: ResultId, image: ObjectRevision, deadline: Deadline, request_id: str
    ) -> bytes:
        outcome = self._classify(image, self._uploads, deadline, request_id)
        now = datetime.now(UTC)
        result = self._result(image, outcome, now)
        document = msgspec.json.encode(result)
        return self._results.save(result_id, document, now, self._days, deadline, is_final=result.is_final)

    def _result(self, image: ObjectRevision, outcome: Classification | Failure, at: datetime) -> BulkResult:
        return BulkResult(image.bucket, image.key, image.revision, self._model, at.isoformat(), outcome)

    def _classify(
        self, image: ObjectRevision, reader: ObjectReader, deadline: Deadline, request_id: str
    ) -> Classification | Failure:
        try:
            data = reader.read(image.location, deadline)
            with self._classifier_lock:
                if deadline.remaining() < _MIN_SECONDS:
                    raise OutOfTime("The images before this one took all the time; another invocation will retry it.")
                prediction = self._classifier.classify(data, self._options)
            record_prediction(prediction, self._classifier.bundle.threshold, len(data), request_id)
            return classification_of(prediction)
        except _PERMANENT_ERRORS as error:
            return _failure(error, request_id)


def _failure(error: ReportedError, request_id: str) -> Failure:
    record_problem(error, request_id)
    return Failure(problem_document(error, request_id))
