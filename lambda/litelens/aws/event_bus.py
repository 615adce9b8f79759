"""Events on an EventBridge bus."""

from litelens.aws.clients import Deadline, aws_client, call_with_retry
from litelens.aws.errors import StorageUnavailable

SOURCE, IMAGE_CLASSIFIED = "litelens", "ImageClassified"

_SERVICE = "The event bus"


class EventBus:
    """A bus. A retried publication can deliver an event twice. May be used by several threads."""

    def __init__(self, name: str) -> None:
        self._name = name

    def publish(self, document: bytes, deadline: Deadline) -> None:
        """Publish that an image was classified, with this JSON as the event's detail; raises StorageError."""
        entry = {
            "EventBusName": self._name,
            "Source": SOURCE,
            "DetailType": IMAGE_CLASSIFIED,
            "Detail": document.decode(),
        }
        response = call_with_retry(lambda: aws_client("events").put_events(Entries=[entry]), deadline, _SERVICE)
        if response["FailedEntryCount"]:
            raise StorageUnavailable(f"{_SERVICE} did not accept the event; it may be sent again.")
