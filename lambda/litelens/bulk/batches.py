"""Process batches of images: SQS messages about uploads, and objects of a backfill from Step Functions."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext

from litelens.api.events import describe_event, is_sqs_batch
from litelens.api.problems import OutOfTime, UnknownEvent
from litelens.aws.clients import Deadline
from litelens.aws.s3 import is_form_key
from litelens.bulk.s3_events import InvalidNotification, ObjectRevision, parse_backfill_batch, parse_notification
from litelens.bulk.worker import THREADS, Worker
from litelens.core.errors import ReportedError
from litelens.settings import Settings
from litelens.telemetry import (
    Handler,
    logged_with,
    record_batch,
    record_duplicate,
    record_failure,
    record_model,
    record_problem,
    recorded,
)

# Seconds that are reserved at the end of the invocation: for saving and publishing the batch's results, and of these
# for the response.
_DELIVERY_SECONDS = 10.0
_RESPONSE_SECONDS = 3.0

# An image is started only if at least this many seconds remain.
_MIN_SECONDS = 10.0


def create_handler(settings: Settings) -> Handler:
    """Return a Lambda handler for SQS batches of S3 notifications, and for a backfill's batches of objects.

    For SQS it returns the messages to retry, for a backfill the results; for any other event it raises UnknownEvent.
    Raises BundleError or SettingsError.
    """
    processor = _BatchProcessor(settings)

    def handle(event: dict[str, Any], context: LambdaContext) -> Any:
        record_model(processor.model)
        end = Deadline.after(context.get_remaining_time_in_millis() / 1000 - _RESPONSE_SECONDS)
        images_end = Deadline(end.at - (_DELIVERY_SECONDS - _RESPONSE_SECONDS))
        if isinstance(event, dict) and "Items" in event:
            return processor.classify_objects(parse_backfill_batch(event), images_end, context.aws_request_id)
        if is_sqs_batch(event):
            return processor.process_messages(event["Records"], images_end, end, context.aws_request_id)
        raise _unknown_event(event, context.aws_request_id)

    return recorded(handle, settings.engine)


def _unknown_event(event: Any, request_id: str) -> UnknownEvent:
    """Record and return the error of an event that is no batch; if it is not raised, Lambda takes it as processed."""
    error = UnknownEvent(
        "This function processes messages of SQS and batches of a backfill; it was invoked with "
        f"{describe_event(event)}. Send notifications of S3 to the stack's queue, from which this function gets them."
    )
    record_problem(error, request_id, reason=str(error))
    return error


@dataclass(frozen=True)
class _Upload:
    """An uploaded image and the message about it; `is_repeated` says whether SQS has delivered it before."""

    image: ObjectRevision
    message_id: str
    is_repeated: bool

    @property
    def sequence(self) -> tuple[str, ...]:
        """The key of a sequence: uploads with the same key are processed one after the other.

        So the same image is classified once, and the limit of images per form is not exceeded.
        """
        image = self.image
        return (image.bucket, image.key) if is_form_key(image.key) else (image.bucket, image.key, image.revision)


@dataclass(frozen=True)
class _Outcome:
    """The result of an upload as JSON, or the error that prevented it. An upload that is ignored has neither."""

    upload: _Upload
    document: bytes | None = None
    error: Exception | None = None


class _BatchProcessor:
    def __init__(self, settings: Settings) -> None:
        self._worker = Worker(settings)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="image")

    @property
    def model(self) -> str:
        """The name and version of the model."""
        return self._worker.model

    def classify_objects(self, images: Sequence[ObjectRevision], deadline: Deadline, request_id: str) -> list[Any]:
        """Return the results of a backfill's batch, in the order of its objects; raises StorageError."""
        record_batch(len(images))
        results = [self._threads.submit(self._worker.classify_object, each, deadline, request_id) for each in images]
        # Wait for all even if one has failed; otherwise the others would continue during the next invocation.
        wait(results)
        for result in results:
            if isinstance(error := result.exception(), Exception):
                _record_error(error, request_id)
        return [msgspec.to_builtins(result.result()) for result in results]

    def process_messages(
        self, messages: Sequence[dict[str, Any]], images_end: Deadline, end: Deadline, request_id: str
    ) -> dict[str, Any]:
        """Process a batch of SQS messages; return Lambda's partial batch response with the messages to retry.

        Images are classified until `images_end`, and the batch's results are delivered until `end`.
        """
        record_batch(len(messages))
        failed: set[str] = set()
        sequences: dict[tuple[str, ...], list[_Upload]] = defaultdict(list)
        for message in messages:
            try:
                for upload in _uploads_of(message, request_id):
                    sequences[upload.sequence].append(upload)
            except InvalidNotification:
                failed.add(message["messageId"])
        outcomes = self._process_sequences(list(sequences.values()), images_end, request_id)
        failed |= {outcome.upload.message_id for outcome in outcomes if outcome.error}
        failed |= self._deliver([outcome for outcome in outcomes if outcome.document], end, request_id)
        ids = (message["messageId"] for message in messages)
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in ids if message_id in failed]}

    def _process_sequences(
        self, sequences: Sequence[Sequence[_Upload]], deadline: Deadline, request_id: str
    ) -> list[_Outcome]:
        running = [self._threads.submit(self._process_sequence, each, deadline, request_id) for each in sequences]
        wait(running)
        return [outcome for done in running for outcome in done.result()]

    def _process_sequence(self, uploads: Sequence[_Upload], deadline: Deadline, request_id: str) -> list[_Outcome]:
        """Process uploads one after the other; one of the same revision as an earlier one has its result."""
        done: dict[str, _Outcome] = {}
        outcomes = []
        for upload in uploads:
            with logged_with(
                request_id=request_id,
                message_id=upload.message_id,
                upload_request_id=upload.image.upload_request_id or None,
            ):
                earlier = done.get(upload.image.revision)
                if earlier:
                    record_duplicate()
                    outcome = _Outcome(upload, earlier.document)
                else:
                    outcome = self._process(upload, deadline, request_id)
                if not outcome.error:
                    done[upload.image.revision] = outcome
                outcomes.append(outcome)
        return outcomes

    def _process(self, upload: _Upload, deadline: Deadline, request_id: str) -> _Outcome:
        try:
            if deadline.remaining() < _MIN_SECONDS:
                raise OutOfTime("There is no time left for this image; another invocation will retry it.")
            document = self._worker.process_upload(upload.image, deadline, request_id, is_repeated=upload.is_repeated)
        except Exception as error:
            _record_error(error, request_id)
            return _Outcome(upload, error=error)
        return _Outcome(upload, document)

    def _deliver(self, outcomes: Sequence[_Outcome], deadline: Deadline, request_id: str) -> set[str]:
        """Save and publish the results of a batch; return the ids of the messages to retry if that fails."""
        # Several messages may be about the same image.
        documents = list(dict.fromkeys(outcome.document for outcome in outcomes if outcome.document))
        try:
            if documents:
                self._worker.deliver(documents, request_id, deadline)
        except Exception as error:
            _record_error(error, request_id)
            return {outcome.upload.message_id for outcome in outcomes}
        return set()


def _uploads_of(message: dict[str, Any], request_id: str) -> Iterator[_Upload]:
    """Yield the uploads that a message is about; raises InvalidNotification."""
    with logged_with(request_id=request_id, message_id=message["messageId"]):
        try:
            images = parse_notification(message["body"])
        except InvalidNotification as error:
            record_failure(error, request_id)
            raise
    is_repeated = message["attributes"]["ApproximateReceiveCount"] != "1"
    for image in images:
        yield _Upload(image, message["messageId"], is_repeated)


def _record_error(error: Exception, request_id: str) -> None:
    if isinstance(error, ReportedError):
        record_problem(error, request_id)
    else:
        record_failure(error, request_id)
