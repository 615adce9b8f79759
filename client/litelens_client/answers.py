"""The outcome for one image, an answer or an error, from the API or from this machine."""

from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from litelens.api.response_schemas import ImageResult, Model


class Answer(ImageResult, frozen=True, omit_defaults=True, kw_only=True):
    """The predictions for one image and the model that made them; those of this machine have no request id."""

    model: Model
    request_id: str | UnsetType = UNSET


class ClassifyError(Exception):
    """An image could not be classified: `code` is for programs, `detail` a sentence for people.

    `request_id` identifies the request in the API's logs, if the API received it. `concerns_all` is set if all other
    images would fail for the same reason.
    """

    def __init__(self, code: str, detail: str, request_id: str | None = None, *, concerns_all: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.concerns_all = concerns_all


class ApiProblem(ClassifyError):
    """The API responded with an error and this HTTP status.

    `code` is that of the API's problem, `forbidden` or `unauthorized` for a wrong or missing key, token or signature,
    `upload_refused`, `result_late`, `unexpected_answer` for a response that is not from a litelens API, or one such as
    `http_502` for errors of a proxy.
    """

    def __init__(self, code: str, detail: str, status: int, request_id: str | None = None) -> None:
        concerns_all = code in ("forbidden", "model_not_found", "unauthorized")
        super().__init__(code, detail, request_id, concerns_all=concerns_all)
        self.status = status


@dataclass(frozen=True)
class Classified:
    """An image, named by its path or S3 URI, and its answer."""

    name: str
    answer: Answer


@dataclass(frozen=True)
class Failed:
    """An image, folder or prefix, named by its path or S3 URI, and why it could not be classified.

    `code` is one of the API's or of ApiProblem's, `unreadable` for a file or folder that cannot be read, or
    `no_images` for a folder or prefix without images.
    """

    name: str
    code: str
    detail: str
    request_id: str | None = None


Result = Classified | Failed
