"""What became of an image: an answer, or a problem. The same for images classified by the API and on this machine."""

from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from handlers.answers import Model, Shown


class Answer(Shown, frozen=True, omit_defaults=True, kw_only=True):
    """What one image shows, and the model that says so. An image classified on this machine has no request id."""

    model: Model
    request_id: str | UnsetType = UNSET


class ClassifyError(Exception):
    """An image got no answer: `code` for programs, `detail` a sentence for people.

    `request_id` finds the request in the API's logs, where one got there. What `concerns_all` is so for every other
    image too, which need not be tried.
    """

    def __init__(self, code: str, detail: str, request_id: str | None = None, *, concerns_all: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.concerns_all = concerns_all


@dataclass(frozen=True)
class Labelled:
    """An image, by its path or S3 URI, and its answer."""

    name: str
    answer: Answer


@dataclass(frozen=True)
class Failed:
    """What was to be classified, by its path or S3 URI, and why it was not.

    Codes are those of the API and of `client.api`, `unreadable` for what cannot be read or listed from this machine,
    and `no_images` for a folder or prefix without any.
    """

    name: str
    code: str
    detail: str
    request_id: str | None = None


Result = Labelled | Failed
