"""Images in bulk: batches of SQS's messages about uploads, and of a backfill's objects from Step Functions."""

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

from adapters.calls import aws_client
from adapters.deadline import Deadline
from handlers.arrivals import Arrival, InvalidNotification, read_notification
from handlers.backfill import read_batch
from handlers.problems import KINDS, OutOfTime
from handlers.records import (
    Handler,
    logged_with,
    record_batch,
    record_duplicate,
    record_failure,
    record_in_progress,
    record_problem,
    recorded,
)
from handlers.worker import PARALLEL, Worker
from settings import Settings, required

_PREFIX = "bulk"

# Left of the invocation's time, in which nothing is begun any more: what remembers an image may take so long when it
# does not answer, each attempt 3 seconds.
_RESERVED_SECONDS = 10.0
_ATTEMPTS = 3

# Seconds without which an image is not begun.
_LEAST_SECONDS = 10.0

# Once a message has been in the queue for longer than SQS keeps one, it cannot come a second time.
_QUEUE_DAYS = 14

_DAY = 24 * 3600


def create_handler(settings: Settings) -> Handler:
    """A Lambda handler for SQS's batches of S3's notifications, and for a backfill's batches of objects.

    Of the former it returns the messages that are to come again, of the latter the results. Raises BundleError or
    SettingsError when it cannot work.
    """
    batches = _Batches(settings)

    def handle(event: dict[str, Any], context: LambdaContext) -> Any:
        deadline = Deadline.after(context.get_remaining_time_in_millis() / 1000 - _RESERVED_SECONDS)
        if "Items" in event:
            return batches.tell_results(read_batch(event), deadline, context.aws_request_id)
        return batches.take_messages(event, deadline, context)

    return recorded(handle, settings.engine)


class _NotFinal(Exception):
    """The result is kept, but may change: the same image may come again, which must not be taken for a repetition."""


class _Turns:
    """One thread at a time for each image: the others find its result instead of making it too."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, ...]] = set()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, *image: str) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: image not in self._taken)
            self._taken.add(image)
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(image)
                self._changed.notify_all()


class _Batches:
    def __init__(self, settings: Settings) -> None:
        self._worker = Worker(settings)
        self._turns = _Turns()
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="image")
        self._processor = AsyncBatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
        # What was done must be forgotten before its result is, and images that come then are new.
        remembered = min(_QUEUE_DAYS, settings.result_days) * _DAY - _DAY // 24
        self._once = IdempotencyConfig(
            expires_after_seconds=remembered, hash_function="sha256", response_hook=_record_repetition
        )
        client = aws_client("dynamodb", _ATTEMPTS)
        memory = DynamoDBPersistenceLayer(required(settings, "idempotency_table"), boto3_client=client)
        # Else the first threads would each do that, and some work with it half done.
        memory.configure(self._once, key_prefix=_PREFIX)
        self._keep_once: Callable[..., None] = idempotent_function(
            self._keep_result,
            data_keyword_argument="identity",
            persistence_store=memory,
            config=self._once,
            key_prefix=_PREFIX,
        )

    def tell_results(self, arrivals: Sequence[Arrival], deadline: Deadline, request_id: str) -> list[Any]:
        """The results of a backfill's batch, in its order; raises StorageError."""
        record_batch(len(arrivals))
        told = [self._threads.submit(self._worker.tell_result, each, deadline, request_id) for each in arrivals]
        # Even if one has failed: what still runs would go on in the next invocation.
        wait(told)
        for each in told:
            if isinstance(error := each.exception(), Exception):
                _record(error, request_id)
        return [msgspec.to_builtins(each.result()) for each in told]

    def take_messages(self, event: dict[str, Any], deadline: Deadline, context: LambdaContext) -> Any:
        """Lambda's partial response to a batch of messages: those that are to come again."""
        record_batch(len(event.get("Records", [])))
        self._once.register_lambda_context(context)

        async def take_record(record: SQSRecord) -> None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, self._take, record, deadline, context.aws_request_id)

        return async_process_partial_response(event, take_record, self._processor, context)

    def _take(self, message: SQSRecord, deadline: Deadline, request_id: str) -> None:
        """See to it that all objects of a message have their results; raises the first error, after trying all."""
        with logged_with(request_id=request_id, message_id=message.message_id):
            arrivals = _arrivals(message.body, request_id)
            errors = [error for arrival in arrivals if (error := self._error_of(arrival, deadline, request_id))]
        if errors:
            raise errors[0]

    def _error_of(self, arrival: Arrival, deadline: Deadline, request_id: str) -> Exception | None:
        """What kept this arrival from its result, if anything did."""
        with logged_with(upload_request_id=arrival.upload_request_id or None):
            try:
                with self._turns.of(arrival.bucket, arrival.key, arrival.revision):
                    self._take_arrival(arrival, deadline, request_id)
            except Exception as error:
                _record(error, request_id)
                return error
        return None

    def _take_arrival(self, arrival: Arrival, deadline: Deadline, request_id: str) -> None:
        if deadline.remaining() < _LEAST_SECONDS:
            raise OutOfTime("There is no time left for this image; it is left for another invocation.")
        identity = {
            "bucket": arrival.bucket,
            "key": arrival.key,
            "revision": arrival.revision,
            "sequencer": arrival.sequencer,
            "model": self._worker.model,
        }
        with contextlib.suppress(_NotFinal):
            self._keep_once(identity=identity, arrival=arrival, deadline=deadline, request_id=request_id)

    def _keep_result(self, *, identity: dict[str, str], arrival: Arrival, deadline: Deadline, request_id: str) -> None:
        if not self._worker.keep_result(arrival, deadline, request_id):
            raise _NotFinal


def _arrivals(message: str, request_id: str) -> list[Arrival]:
    try:
        return read_notification(message)
    except InvalidNotification as error:
        record_failure(error, request_id)
        raise


def _record_repetition(response: Any, idempotent_data: DataRecord) -> Any:
    """Called in place of what was done before."""
    record_duplicate()
    return response


def _record(error: Exception, request_id: str) -> None:
    if isinstance(error, IdempotencyAlreadyInProgressError):
        record_in_progress(request_id)
    elif type(error) in KINDS:
        record_problem(error, request_id)
    else:
        record_failure(error, request_id)
