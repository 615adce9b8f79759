"""Process batches of images: SQS messages about uploads, and objects of a backfill from Step Functions."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.batch import AsyncBatchProcessor, EventType, async_process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import IdempotencyAlreadyInProgressError
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from litelens.api.events import describe_event, is_sqs_batch
from litelens.api.problems import OutOfTime, UnknownEvent
from litelens.aws.clients import Deadline, aws_client
from litelens.aws.s3 import is_form_key
from litelens.bulk.s3_events import InvalidNotification, ObjectRevision, parse_backfill_batch, parse_notification
from litelens.bulk.worker import THREADS, Worker
from litelens.core.errors import ReportedError
from litelens.settings import Settings, required
from litelens.telemetry import (
    Handler,
    logged_with,
    record_batch,
    record_duplicate,
    record_failure,
    record_in_progress,
    record_model,
    record_problem,
    recorded,
)

_KEY_PREFIX = "bulk"

# Seconds that are reserved at the end of the invocation. If DynamoDB does not respond, the idempotency layer takes that
# long, with 3 seconds for each attempt.
_RESERVED_SECONDS = 10.0
_ATTEMPTS = 3

# An image is started only if at least this many seconds remain.
_MIN_SECONDS = 10.0

# SQS keeps a message for at most 14 days, after which it cannot be delivered again.
_QUEUE_DAYS = 14

_DAY = 24 * 3600


def create_handler(settings: Settings) -> Handler:
    """Return a Lambda handler for SQS batches of S3 notifications, and for a backfill's batches of objects.

    For SQS it returns the messages to retry, for a backfill the results; for any other event it raises UnknownEvent.
    Raises BundleError or SettingsError.
    """
    processor = _BatchProcessor(settings)

    def handle(event: dict[str, Any], context: LambdaContext) -> Any:
        record_model(processor.model)
        deadline = Deadline.after(context.get_remaining_time_in_millis() / 1000 - _RESERVED_SECONDS)
        if isinstance(event, dict) and "Items" in event:
            return processor.classify_objects(parse_backfill_batch(event), deadline, context.aws_request_id)
        if is_sqs_batch(event):
            return processor.process_messages(event, deadline, context)
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


class _NotFinal(Exception):
    """The result can still change, so the idempotency layer must not record the image as done."""


class KeyedLock:
    """A lock for each key: threads with the same key run one after the other, threads with other keys do not wait."""

    def __init__(self) -> None:
        self._held: set[tuple[str, ...]] = set()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, *key: str) -> Iterator[None]:
        """Hold the key's lock until the block ends."""
        with self._changed:
            self._changed.wait_for(lambda: key not in self._held)
            self._held.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._held.remove(key)
                self._changed.notify_all()


class _BatchProcessor:
    def __init__(self, settings: Settings) -> None:
        self._worker = Worker(settings)
        # If two threads have the same image, the second one waits and finds the result of the first.
        self._locks = KeyedLock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="image")
        self._messages = AsyncBatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
        # Idempotency records expire before the results: if a message is repeated after its result has expired, the
        # image must be classified again.
        record_seconds = min(_QUEUE_DAYS, settings.result_days) * _DAY - _DAY // 24
        self._idempotency = IdempotencyConfig(
            expires_after_seconds=record_seconds, hash_function="sha256", response_hook=_record_repetition
        )
        client = aws_client("dynamodb", _ATTEMPTS)
        records = DynamoDBPersistenceLayer(required(settings, "idempotency_table"), boto3_client=client)
        # Configured here, because otherwise the first threads would configure it concurrently, and some would use it
        # before it is complete.
        records.configure(self._idempotency, key_prefix=_KEY_PREFIX)
        self._process_once: Callable[..., None] = idempotent_function(
            self._process_upload,
            data_keyword_argument="identity",
            persistence_store=records,
            config=self._idempotency,
            key_prefix=_KEY_PREFIX,
        )

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

    def process_messages(self, event: dict[str, Any], deadline: Deadline, context: LambdaContext) -> Any:
        """Process a batch of SQS messages; return Lambda's partial batch response with the messages to retry."""
        record_batch(len(event.get("Records", [])))
        self._idempotency.register_lambda_context(context)

        async def process_record(record: SQSRecord) -> None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, self._process_message, record, deadline, context.aws_request_id)

        return async_process_partial_response(event, process_record, self._messages, context)

    def _process_message(self, message: SQSRecord, deadline: Deadline, request_id: str) -> None:
        """Process all objects of a message, then raise the first error if there was one."""
        with logged_with(request_id=request_id, message_id=message.message_id):
            images = _images_of(message.body, request_id)
            errors = [error for image in images if (error := self._process_image(image, deadline, request_id))]
        if errors:
            raise errors[0]

    def _process_image(self, image: ObjectRevision, deadline: Deadline, request_id: str) -> Exception | None:
        """Process an uploaded image; return the error that prevented its result, or None."""
        with logged_with(upload_request_id=image.upload_request_id or None):
            try:
                # All images of a form are processed one after the other, so that the worker can count them.
                revision = "" if is_form_key(image.key) else image.revision
                with self._locks.hold(image.bucket, image.key, revision):
                    self._process_if_new(image, deadline, request_id)
            except Exception as error:
                _record_error(error, request_id)
                return error
        return None

    def _process_if_new(self, image: ObjectRevision, deadline: Deadline, request_id: str) -> None:
        if deadline.remaining() < _MIN_SECONDS:
            raise OutOfTime("There is no time left for this image; another invocation will retry it.")
        identity = {
            "bucket": image.bucket,
            "key": image.key,
            "revision": image.revision,
            # The same image of a form counts once, however often it is sent.
            "sequencer": "" if is_form_key(image.key) else image.sequencer,
            "model": self.model,
        }
        with contextlib.suppress(_NotFinal):
            self._process_once(identity=identity, image=image, deadline=deadline, request_id=request_id)

    def _process_upload(
        self, *, identity: dict[str, str], image: ObjectRevision, deadline: Deadline, request_id: str
    ) -> None:
        if not self._worker.process_upload(image, deadline, request_id):
            raise _NotFinal


def _images_of(message: str, request_id: str) -> list[ObjectRevision]:
    try:
        return parse_notification(message)
    except InvalidNotification as error:
        record_failure(error, request_id)
        raise


def _record_repetition(response: Any, idempotent_data: DataRecord) -> Any:
    """Record a duplicate; Powertools calls this instead of processing the image again."""
    record_duplicate()
    return response


def _record_error(error: Exception, request_id: str) -> None:
    if isinstance(error, IdempotencyAlreadyInProgressError):
        record_in_progress(request_id)
    elif isinstance(error, ReportedError):
        record_problem(error, request_id)
    else:
        record_failure(error, request_id)
