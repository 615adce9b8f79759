"""Events on an EventBridge bus."""

from litelens.aws.clients import Deadline, aws_client, call_with_retry
from litelens.aws.errors import StorageUnavailable

SOURCE, IMAGE_CLASSIFIED = "litelens", "ImageClassified"

_SERVICE = "The event bus"


class EventBus:
    """An event bus. A retry can deliver an event twice. Safe for use by several threads."""

    def __init__(self, name: str) -> None:
        self._name = name

    def publish(self, document: bytes, deadline: Deadline) -> None:
        """Publish an ImageClassified event with this JSON as its detail; raises StorageError."""
        entry = {
            "EventBusName": self._name,
            "Source": SOURCE,
            "DetailType": IMAGE_CLASSIFIED,
            "Detail": document.decode(),
        }
        response = call_with_retry(lambda: aws_client("events").put_events(Entries=[entry]), deadline, _SERVICE)
        if response["FailedEntryCount"]:
            raise StorageUnavailable(f"{_SERVICE} did not accept the event; it will be sent again.")
