"""Images in bulk: batches of SQS's messages about uploads, and of a backfill's objects from Step Functions."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from aws_lambda_powertools.utilities.typing import LambdaContext

from adapters.calls import aws_client
from adapters.deadline import Deadline
from handlers.arrivals import Arrival, read_notification
from handlers.backfill import read_batch
from handlers.problems import KINDS, OutOfTime
from handlers.records import logger, metrics, record_batch, record_failure, record_in_progress, record_problem
from handlers.worker import PARALLEL, Worker
from settings import Settings, required

Handler = Callable[[dict[str, Any], LambdaContext], Any]

# Left of the invocation's time, in which nothing is begun any more.
_RESERVED_SECONDS = 5.0

# Once a message has been in the queue for longer than SQS keeps one, it cannot come a second time.
_REMEMBERED_SECONDS = 14 * 24 * 3600

_ATTEMPTS = 5


def create_handler(settings: Settings) -> Handler:
    """A Lambda handler for SQS's batches of S3's notifications, and for a backfill's batches of objects.

    Of the former it returns the messages that are to come again, of the latter the results. Raises BundleError or
    SettingsError when it cannot work.
    """
    batches = _Batches(settings)

    @logger.inject_lambda_context(clear_state=True)
    @metrics.log_metrics
    def handle(event: dict[str, Any], context: LambdaContext) -> Any:
        return batches.tell(event, context) if "Items" in event else batches.take(event, context)

    return handle


class _Batches:
    def __init__(self, settings: Settings) -> None:
        self._worker = Worker(settings)
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="image")
        self._processor = AsyncBatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
        self._once = IdempotencyConfig(expires_after_seconds=_REMEMBERED_SECONDS, hash_function="sha256")
        client = aws_client("dynamodb", _ATTEMPTS)
        memory = DynamoDBPersistenceLayer(required(settings, "idempotency_table"), boto3_client=client)
        self._take_once: Callable[..., None] = idempotent_function(
            self._take_arrival,
            data_keyword_argument="identity",
            persistence_store=memory,
            config=self._once,
            key_prefix="bulk",
        )

    def tell(self, event: dict[str, Any], context: LambdaContext) -> list[Any]:
        """The results of a backfill's batch, in its order; raises InvalidBatch, AdapterError or OutOfTime."""
        deadline, request_id = _deadline(context), context.aws_request_id
        arrivals = read_batch(event)
        record_batch(len(arrivals))
        results = self._threads.map(lambda arrival: self._worker.tell(arrival, deadline, request_id), arrivals)
        return [msgspec.to_builtins(result) for result in results]

    def take(self, event: dict[str, Any], context: LambdaContext) -> Any:
        """Lambda's partial response to a batch of messages: those that are to come again."""
        deadline, request_id = _deadline(context), context.aws_request_id
        record_batch(len(event.get("Records", [])))
        self._once.register_lambda_context(context)

        async def take_record(record: SQSRecord) -> None:
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._threads, self._take_message, record.body, deadline, request_id)
            except Exception as error:
                _record(error, request_id)
                raise

        return async_process_partial_response(event, take_record, self._processor, context)

    def _take_message(self, body: str, deadline: Deadline, request_id: str) -> None:
        for arrival in read_notification(body):
            if deadline.remaining() <= 0:
                raise OutOfTime("There is no time left for this message; it is left for another invocation.")
            identity = {
                "bucket": arrival.bucket,
                "key": arrival.key,
                "revision": arrival.revision,
                "model": self._worker.model,
            }
            self._take_once(identity=identity, arrival=arrival, deadline=deadline, request_id=request_id)

    def _take_arrival(self, *, identity: dict[str, str], arrival: Arrival, deadline: Deadline, request_id: str) -> None:
        self._worker.take(arrival, deadline, request_id)


def _deadline(context: LambdaContext) -> Deadline:
    return Deadline.after(context.get_remaining_time_in_millis() / 1000 - _RESERVED_SECONDS)


def _record(error: Exception, request_id: str) -> None:
    if isinstance(error, IdempotencyAlreadyInProgressError):
        record_in_progress(request_id)
    elif type(error) in KINDS:
        record_problem(error, request_id)
    else:
        record_failure(error, request_id)
