"""Events for whoever listens, on an EventBridge bus."""

from adapters.calls import ask, aws_client
from adapters.deadline import Deadline
from adapters.errors import StorageUnavailable

SOURCE, IMAGE_CLASSIFIED = "litelens", "ImageClassified"

_SERVICE = "The bus for events"


class Events:
    """A bus, which may take an event more than once. May be used by several threads."""

    def __init__(self, bus: str) -> None:
        self._bus = bus

    def publish(self, document: bytes, deadline: Deadline) -> None:
        """Tell that an image was classified, with this JSON as the detail; raises StorageError."""
        entry = {
            "EventBusName": self._bus,
            "Source": SOURCE,
            "DetailType": IMAGE_CLASSIFIED,
            "Detail": document.decode(),
        }
        answer = ask(lambda: aws_client("events").put_events(Entries=[entry]), deadline, _SERVICE)
        if answer["FailedEntryCount"]:
            raise StorageUnavailable(f"{_SERVICE} did not take the event; it may be sent again.")
