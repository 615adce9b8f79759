"""Events on an EventBridge bus."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

from litelens.aws.clients import Deadline, aws_client, call_with_retry

SOURCE, IMAGES_CLASSIFIED = "litelens", "ImagesClassified"

# An event is billed for each 64 KB: https://aws.amazon.com/eventbridge/pricing/. The rest is for the event's other
# fields.
MAX_DETAIL_BYTES = 64_000

# The bus may accept an entry later that it refuses with one of these codes:
# https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEventsResultEntry.html
_TRANSIENT = {"InternalException", "InternalFailure", "ThrottlingException"}

_SERVICE = "The event bus"


class EventBus:
    """An event bus. A retry can deliver an event twice. Safe for use by several threads."""

    def __init__(self, name: str) -> None:
        self._name = name

    def publish(self, documents: Sequence[bytes], deadline: Deadline) -> None:
        """Publish these JSON documents as the `results` of as few ImagesClassified events as fit; raises StorageError.

        A document that is larger than MAX_DETAIL_BYTES has an event of its own, which is billed as several.
        """
        for detail in _details(documents):
            self._publish(detail, deadline)

    def _publish(self, detail: bytes, deadline: Deadline) -> None:
        entry = {
            "EventBusName": self._name,
            "Source": SOURCE,
            "DetailType": IMAGES_CLASSIFIED,
            "Detail": detail.decode(),
        }
        call_with_retry(lambda: _put(entry), deadline, _SERVICE)


def _put(entry: dict[str, str]) -> None:
    """Send an entry; raises ClientError also if the response says that the bus did not accept it."""
    from botocore.exceptions import ClientError

    response = aws_client("events").put_events(Entries=[entry])
    if response["FailedEntryCount"]:
        (refused,) = response["Entries"]
        code = refused["ErrorCode"]
        status = HTTPStatus.SERVICE_UNAVAILABLE if code in _TRANSIENT else HTTPStatus.BAD_REQUEST
        refusal: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(refusal, "PutEvents")


def _details(documents: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the details of the events, each with as many documents as fit, in order."""
    packed: list[bytes] = []
    for document in documents:
        if packed and len(_detail([*packed, document])) > MAX_DETAIL_BYTES:
            yield _detail(packed)
            packed = []
        packed.append(document)
    if packed:
        yield _detail(packed)


def _detail(documents: Sequence[bytes]) -> bytes:
    return b'{"results":[' + b",".join(documents) + b"]}"
