"""The litelens API in Python.

    client = Client("https://abc.execute-api.eu-west-1.amazonaws.com/live", api_key)
    answer = client.classify(Path("photo.jpg"))
    print(answer.predictions[0].label)

A client may be used by several threads at once.
"""

import json
import re
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import parse_url

from client.inputs import content_type
from client.results import Answer, ClassifyError
from handlers.answers import Failure, Pending, Problem, ResultAnswer, UploadAnswer

# Lambda takes 6 MB in one call, and API Gateway hands it the image in base64, which is a third larger.
LARGEST_BODY = 4_400_000

# What API Gateway takes at all: https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
_LARGEST_PAYLOAD = 10_000_000

# API Gateway gives up after 29 seconds, so that what has not been answered then never will be.
TIMEOUT_SECONDS = 35.0
RESULT_TIMEOUT_SECONDS = 120.0
_POLL_SECONDS = 0.5

# Classifying an image twice does no harm, so that every method may be sent again.
_RETRIES = urllib3.Retry(
    total=5,
    connect=3,
    read=2,
    allowed_methods=None,
    status_forcelist=(HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE),
    raise_on_status=False,
    backoff_factor=0.25,
    backoff_jitter=0.25,
    retry_after_max=30,
)

# How an API that is not there, or not at this URL, shows itself.
_NOT_THERE = (ConnectTimeoutError, NameResolutionError, NewConnectionError, SSLError)

# As many bytes of an image as tell its type.
_BEGINNING = 16

Decoded = TypeVar("Decoded")


class ApiProblem(ClassifyError):
    """The API refused the request or could not answer it, with this HTTP status.

    `code` is the API's own, or `forbidden` for a wrong or missing key, `upload_refused`, `result_late`,
    `unexpected_answer` for what litelens never answers, and `http_502` or the like for what a server before it says.
    """

    def __init__(self, code: str, detail: str, status: int, request_id: str | None = None) -> None:
        super().__init__(code, detail, request_id, concerns_all=code == "forbidden")
        self.status = status


class ApiUnreachable(ClassifyError):
    """There was no answer at all, however often it was asked for; the detail says why.

    That concerns all images when the API has never answered and cannot even be connected to.
    """

    def __init__(self, detail: str, *, concerns_all: bool = False) -> None:
        super().__init__("unreachable", detail, concerns_all=concerns_all)


class Client:
    """The API at a URL, such as the stack's ApiUrl or http://127.0.0.1:8080."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        connections: int = 8,
        timeout: float = TIMEOUT_SECONDS,
        result_timeout: float = RESULT_TIMEOUT_SECONDS,
    ) -> None:
        """A client for as many threads as `connections`.

        `timeout` is how many seconds one answer may take, `result_timeout` how many the classification of an upload.
        Raises ValueError when the URL or the key cannot be one.
        """
        self._url, self._host = _checked_url(url)
        self._headers = {"User-Agent": "litelens", **_checked_key(api_key)}
        self._result_timeout = result_timeout
        self._was_answered = False
        self._http = urllib3.PoolManager(maxsize=connections, retries=_RETRIES, timeout=timeout)

    def classify(
        self, image: bytes | Path | str, *, top_k: int | None = None, threshold: float | None = None
    ) -> Answer:
        """What an image shows: the bytes of its file, its path, or an S3 URI that the API may read.

        `top_k` is the number of labels, `threshold` (0 to 1) the confidence below which an answer is uncertain; the
        API and its model decide what is not given. An image too large for one request is uploaded first, and gets no
        more labels than the API gives by default. Raises ApiProblem and ApiUnreachable, and OSError when a file cannot
        be read; one that is too large is not read.
        """
        if isinstance(image, str):
            body = json.dumps({"s3_uri": image}).encode()
            return self._classify(body, "application/json", top_k, threshold)
        size = len(image) if isinstance(image, bytes) else image.stat().st_size
        if size > LARGEST_BODY:
            upload = self._create_upload(size, content_type(_beginning(image)))
            if upload:
                self._send(upload, _data(image))
                return _narrow(self._await_result(upload.id), top_k, threshold)
        data = _data(image)
        return self._classify(data, content_type(data), top_k, threshold)

    def _classify(self, body: bytes, type_of_body: str, top_k: int | None, threshold: float | None) -> Answer:
        path = "/v1/classify" + _query(top_k, threshold)
        return self._ask(Answer, "POST", path, body=body, headers={"Content-Type": type_of_body})

    def _create_upload(self, size: int, type_of_content: str) -> UploadAnswer | None:
        """Where to send an image of this size; None when the API takes no uploads, but perhaps larger requests."""
        try:
            upload = self._ask(UploadAnswer, "POST", "/v1/uploads", json={"content_type": type_of_content})
        except ApiProblem as problem:
            if problem.code == "not_configured":
                _check_size(size, _LARGEST_PAYLOAD, problem.request_id)
                return None
            raise
        _check_size(size, upload.max_bytes, upload.request_id)
        return upload

    def _send(self, upload: UploadAnswer, image: bytes) -> None:
        # The form goes to S3, which is not told the API's key, and which ignores fields that come after the file.
        form = {**upload.fields, "file": ("image", image, content_type(image))}
        response = self._request("POST", upload.url, "The storage for uploads", fields=form)
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            detail = f"The upload was refused with {_status_line(response.status)}."
            raise ApiProblem("upload_refused", detail, response.status, upload.request_id)

    def _await_result(self, upload_id: str) -> Answer:
        give_up_at = time.monotonic() + self._result_timeout
        while True:
            answer = self._ask(ResultAnswer, "GET", f"/v1/results/{quote(upload_id, safe='')}")
            if isinstance(answer.result, Failure):
                raise _from_document(answer.result.problem)
            if not isinstance(answer.result, Pending):
                fields = msgspec.structs.asdict(answer.result)
                return Answer(model=answer.model, request_id=answer.request_id, **fields)
            if time.monotonic() >= give_up_at:
                detail = f"The image was uploaded, but not classified within {self._result_timeout:g} seconds."
                raise ApiProblem("result_late", detail, HTTPStatus.OK, answer.request_id)
            time.sleep(_POLL_SECONDS)

    def _ask(
        self, answer_type: type[Decoded], method: str, path: str, headers: dict[str, str] | None = None, **body: Any
    ) -> Decoded:
        headers = {**self._headers, "Accept": "application/json", **(headers or {})}
        response = self._request(method, self._url + path, self._host, headers=headers, **body)
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise _problem(response)
        try:
            return msgspec.json.decode(response.data, type=answer_type)
        except (ValueError, RecursionError) as error:
            detail = f"{self._host} did not answer as litelens does; is the URL right?"
            raise ApiProblem("unexpected_answer", detail, response.status) from error

    def _request(self, method: str, url: str, whom: str, **request: Any) -> urllib3.BaseHTTPResponse:
        try:
            # A redirection would take the image and the key to wherever it says.
            response = self._http.request(method, url, redirect=False, **request)
        except HTTPError as error:
            cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
            is_not_there = isinstance(cause, _NOT_THERE) and not self._was_answered
            detail = f"{whom} cannot be reached: {_reason(cause)}."
            raise ApiUnreachable(detail, concerns_all=is_not_there) from error
        self._was_answered = True
        return response


def _checked_url(url: str) -> tuple[str, str]:
    """The URL without a slash at its end, and its host and port."""
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError("The URL of the API must begin with http:// or https://, as https://example.com/stage does.")
    try:
        parsed = parse_url(url)
    except LocationParseError:
        parsed = parse_url("")
    if not parsed.netloc or parsed.auth or parsed.query or parsed.fragment:
        raise ValueError("The URL of the API must be like https://example.com/stage, with nothing before or after.")
    return parsed.url.rstrip("/"), parsed.netloc


def _checked_key(api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    # http.client's own error would show the key.
    if not re.fullmatch(r"[!-~]+", api_key):
        raise ValueError("The API key has spaces or characters that no API key has.")
    return {"x-api-key": api_key}


def _query(top_k: int | None, threshold: float | None) -> str:
    given = {name: value for name, value in (("top_k", top_k), ("threshold", threshold)) if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _narrow(answer: Answer, top_k: int | None, threshold: float | None) -> Answer:
    """The answer as it would be with these options, which uploads have not."""
    best = answer.predictions[0].confidence
    return msgspec.structs.replace(
        answer,
        predictions=answer.predictions[:top_k],
        uncertain=answer.uncertain if threshold is None else best < threshold,
    )


def _beginning(image: bytes | Path) -> bytes:
    if isinstance(image, bytes):
        return image[:_BEGINNING]
    with image.open("rb") as file:
        return file.read(_BEGINNING)


def _data(image: bytes | Path) -> bytes:
    return image if isinstance(image, bytes) else image.read_bytes()


def _check_size(size: int, max_bytes: int, request_id: str | None) -> None:
    if size > max_bytes:
        detail = f"The image has {size:,} bytes; at most {max_bytes:,} are accepted."
        raise ApiProblem("image_too_large", detail, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, request_id)


def _problem(response: urllib3.BaseHTTPResponse) -> ApiProblem:
    """The API's own problem, or, where something before it answered, what the status says."""
    try:
        return _from_document(msgspec.json.decode(response.data, type=Problem))
    except (ValueError, RecursionError):
        pass
    answered = f"The API's server answered {_status_line(response.status)}"
    if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        # To API Gateway, a path that it does not know is forbidden too.
        return ApiProblem("forbidden", f"{answered}: the API key or the URL is wrong.", response.status)
    return ApiProblem(f"http_{response.status}", f"{answered}.", response.status)


def _from_document(problem: Problem) -> ApiProblem:
    return ApiProblem(problem.code, problem.detail, problem.status, problem.request_id)


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _reason(cause: Exception) -> str:
    """Why there was no answer, in words that do not need urllib3 to be understood."""
    if isinstance(cause, NameResolutionError):
        return "there is no such host"
    if isinstance(cause, NewConnectionError):
        return "nothing takes the connection"
    if isinstance(cause, ConnectTimeoutError | ReadTimeoutError):
        return "it took too long"
    if isinstance(cause, SSLError):
        return "its certificate is not valid, or it speaks no TLS"
    return "the connection broke"
