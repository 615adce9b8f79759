"""Requests with several images: fill them, and send images again that another request can help."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Generic, TypeVar

from litelens.settings import MAX_IMAGES
from litelens_client.answers import Answer, ApiProblem, ClassifyError

# The most bytes of a request with several images: in base64, they fit into the 6 MB of an event of Lambda.
MAX_BATCH_BYTES = 4_000_000

# More bytes than a form has around one image.
_PART_BYTES = 256

# Errors of a whole request that a single one of its images, or their number, can cause: too large, or an invocation
# that failed or took too long.
_DIVISIBLE = frozenset(
    (
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.GATEWAY_TIMEOUT,
    )
)

# Errors of one image of a request that do not occur in a smaller request, or not later.
_TRANSIENT = frozenset(("timeout", "storage_timeout", "storage_unavailable"))

Item = TypeVar("Item")

# The answer for an image, or the error that `Client.classify` would raise.
Outcome = Answer | ClassifyError | OSError


def pack(
    items: Iterable[Item], size_of: Callable[[Item], int], kind_of: Callable[[Item], object]
) -> Iterator[list[Item]]:
    """Divide items into lists for one request each, in their order, as long as the limits of a request allow.

    Each has items of one kind, at most 16, of at most 4,000,000 bytes together; a larger item is alone. Items are taken
    only when they are needed.
    """
    batch: list[Item] = []
    left = MAX_BATCH_BYTES
    for item in items:
        size = size_of(item) + _PART_BYTES
        if batch and (len(batch) == MAX_IMAGES or size > left or kind_of(item) != kind_of(batch[0])):
            yield batch
            batch, left = [], MAX_BATCH_BYTES
        batch.append(item)
        left -= size
    if batch:
        yield batch


def send_batch(images: Sequence[Item], send: Callable[[Sequence[Item]], list[Outcome]]) -> list[Outcome]:
    """Send images in one request, and in further ones if that can help; return the outcome of each, in their order.

    `send` sends one request, and raises ClassifyError if it fails as a whole. Then all its images fail, unless half of
    them may succeed. Raises a ClassifyError that concerns all images.
    """
    return _BatchSender(send).send(images)


class _BatchSender(Generic[Item]):
    """Sends the images of one batch. If the service fails for a second single image, it is not asked again."""

    def __init__(self, send: Callable[[Sequence[Item]], list[Outcome]]) -> None:
        self._send = send
        self._failures: list[ApiProblem] = []

    def send(self, images: Sequence[Item]) -> list[Outcome]:
        if len(self._failures) > 1:
            return [self._failures[-1]] * len(images)
        try:
            outcomes = self._send(images)
        except ClassifyError as error:
            if error.concerns_all:
                raise
            if isinstance(error, ApiProblem) and error.status in _DIVISIBLE:
                if len(images) > 1:
                    return self._send_halves(images)
                if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    self._failures.append(error)
            return [error] * len(images)
        failed = [number for number, outcome in enumerate(outcomes) if _is_transient(outcome)]
        if failed and len(images) > 1:
            again = [images[number] for number in failed]
            later = self.send(again) if len(again) < len(images) else self._send_halves(again)
            for number, outcome in zip(failed, later, strict=True):
                outcomes[number] = outcome
        return outcomes

    def _send_halves(self, images: Sequence[Item]) -> list[Outcome]:
        middle = (len(images) + 1) // 2
        return self.send(images[:middle]) + self.send(images[middle:])


def _is_transient(outcome: Outcome) -> bool:
    return isinstance(outcome, ClassifyError) and outcome.code in _TRANSIENT
