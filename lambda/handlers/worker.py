"""One image of many: fetched, classified, and its result kept where it will be looked for."""

import dataclasses
import threading
from datetime import UTC, datetime

import msgspec

from adapters.calls import SERVICES, aws_client
from adapters.deadline import Deadline
from adapters.errors import ObjectAccessDenied, ObjectNotFound, ObjectVersionNotFound, StorageTimeout
from adapters.events import Events
from adapters.objects import Objects
from adapters.results import ResultId, Results
from adapters.uploads import Uploads
from handlers.answers import BulkResult, Classification, Failure, Model
from handlers.arrivals import Arrival
from handlers.outcomes import classify, failure
from handlers.problems import OutOfTime
from handlers.records import record_duplicate
from litelens.bundle import load_bundle
from litelens.classifier import Classifier, Options
from litelens.errors import InputError
from settings import Settings, required

# Threads that may use a worker at a time: one for each message of a batch. Fetching and saving mostly wait for the
# network, and overlap; decoding and inference take turns, as they share a core. See docs/scale.md for what it brings.
PARALLEL = 10

# Of an object that is being fetched there are two copies in the end.
_COPIES = 2

# Seconds that decoding the slowest image and saving its result may take.
_LEAST_SECONDS = 5.0

# What will be the same however often it is tried. Other errors are raised, so that the message comes again.
_PERMANENT = (InputError, ObjectNotFound, ObjectVersionNotFound)


class Worker:
    """The model, loaded and tried, where images come from, and where their results go. For up to PARALLEL threads."""

    def __init__(self, settings: Settings) -> None:
        """Raises BundleError when the bundle cannot be served, SettingsError when a table or the bucket is missing."""
        bundle = load_bundle(settings.bundle)
        self._model = Model(bundle.name, bundle.version)
        self._days = settings.result_days
        self._events = Events(settings.event_bus) if settings.event_bus else None
        self._results = Results(required(settings, "results_table"))
        self._uploads = Uploads(required(settings, "upload_bucket"), settings.max_upload_bytes)
        self._uploaded = Objects([self._uploads.bucket], settings.max_upload_bytes)
        self._allowed = Objects([self._uploads.bucket, *settings.buckets], settings.max_upload_bytes)
        fetched = (PARALLEL - 1) * _COPIES * settings.max_upload_bytes
        limits = dataclasses.replace(
            settings.limits, bytes=settings.max_upload_bytes, spare=settings.limits.spare + fetched
        )
        self._classifier = Classifier(bundle, limits, settings.threads, settings.engine)
        self._classifier.warm_up()
        self._one_at_a_time = threading.Lock()
        # Now, and not by each of the first threads.
        for service in SERVICES:
            aws_client(service)

    @property
    def model(self) -> str:
        return f"{self._model.name}/{self._model.version}"

    def keep_result(self, arrival: Arrival, deadline: Deadline, request_id: str) -> bool:
        """See to it that this arrival has its result everywhere; returns whether that is final.

        Raises StorageError or OutOfTime, which may pass.
        """
        result_id = ResultId(arrival.bucket, arrival.key, arrival.revision, self.model)
        found = self._results.find(result_id, deadline)
        if found:
            record_duplicate()
        saved = found or self._save(result_id, arrival, deadline, request_id)
        result = msgspec.json.decode(saved, type=BulkResult)
        # What is classified now was just read; of what was found, another revision may have come since.
        tells_of_now = self._uploads.is_at(arrival.location, deadline) if found else not result.is_superseded
        if tells_of_now:
            self._uploads.save_result(arrival.key, saved, deadline)
        if self._events:
            self._events.publish(saved, deadline)
        return result.is_final

    def tell_result(self, arrival: Arrival, deadline: Deadline, request_id: str) -> BulkResult:
        """The result for an object in any of the allowed buckets, which is kept nowhere; raises StorageError.

        An object that may not be read, or that there was no time for, has failed: with an error, none of its batch
        would have a result.
        """
        try:
            outcome = self._outcome(arrival, self._allowed, deadline, request_id)
        except (ObjectAccessDenied, OutOfTime, StorageTimeout) as error:
            outcome = failure(error, request_id)
        return self._result(arrival, outcome, datetime.now(UTC))

    def _save(self, result_id: ResultId, arrival: Arrival, deadline: Deadline, request_id: str) -> bytes:
        outcome = self._outcome(arrival, self._uploaded, deadline, request_id)
        now = datetime.now(UTC)
        result = self._result(arrival, outcome, now)
        document = msgspec.json.encode(result)
        return self._results.save(result_id, document, now, self._days, deadline, is_final=result.is_final)

    def _result(self, arrival: Arrival, outcome: Classification | Failure, at: datetime) -> BulkResult:
        return BulkResult(arrival.bucket, arrival.key, arrival.revision, self._model, at.isoformat(), outcome)

    def _outcome(
        self, arrival: Arrival, objects: Objects, deadline: Deadline, request_id: str
    ) -> Classification | Failure:
        try:
            data = objects.read(arrival.location, deadline)
            with self._one_at_a_time:
                if deadline.remaining() < _LEAST_SECONDS:
                    raise OutOfTime("The images before this one took all the time; it is left for another invocation.")
                return classify(self._classifier, data, Options(), request_id)
        except _PERMANENT as error:
            return failure(error, request_id)
