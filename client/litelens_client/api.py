"""A client of the litelens API.

    client = Client("https://abc.execute-api.eu-west-1.amazonaws.com/live", api_key)
    answer = client.classify(Path("photo.jpg"))
    print(answer.predictions[0].label)
    for result in client.classify_all(Path("photos").glob("*.jpg")):
        print(f"failed: {result}" if isinstance(result, Exception) else result.predictions[0].label)

Instead of a key, an API may want a token, `Client(url, token=token)`, or a signature with AWS credentials,
`Client(url, sign=True)`. Threads can share a client.
"""

import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from multiprocessing.pool import AsyncResult, ThreadPool
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
from urllib3.filepost import encode_multipart_formdata
from urllib3.util import parse_url

from litelens.api.response_schemas import (
    Classification,
    ClassifyManyAnswer,
    Failure,
    Model,
    Pending,
    Photo,
    Problem,
    ResultAnswer,
    UploadAnswer,
)
from litelens.core.formats import SIGNATURE_BYTES, media_type_of
from litelens.core.preprocessing import Preprocessing
from litelens.settings import MAX_REQUEST_IMAGE_BYTES
from litelens_client.answers import Answer, ApiProblem, ClassifyError
from litelens_client.aws import AwsError, aws_errors
from litelens_client.batches import Outcome, pack, send_batch
from litelens_client.reduction import MAX_BYTES, MIN_BYTES, has_many_pixels, reduce_photo

# API Gateway's limit: https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
MAX_PAYLOAD_BYTES = 10_000_000

# API Gateway responds within 29 seconds, if only with a timeout.
TIMEOUT_SECONDS = 35.0
RESULT_TIMEOUT_SECONDS = 120.0
_POLL_SECONDS = 0.5

# Seconds for which a model's input is remembered. A deployment can change it.
_MODEL_SECONDS = 300

# The requests of classify_all() that are prepared or answered before their turn, for each connection.
_REQUESTS_AHEAD = 2

# Every method is retried, since classifying an image twice does no harm.
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

# Errors that occur if there is no server at the URL.
_CONNECTION_FAILURES = (ConnectTimeoutError, NameResolutionError, NewConnectionError, SSLError)

# Host names of API Gateway and of Lambda's function URLs have the region:
# https://docs.aws.amazon.com/general/latest/gr/apigateway.html, https://docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html
_REGION_IN_HOST = re.compile(r".+\.execute-api\.([a-z0-9-]+)\.(vpce\.)?amazonaws\.com(\.cn)?(:[0-9]+)?")
_REGION_IN_URL_HOST = re.compile(r".+\.lambda-url\.([a-z0-9-]+)\.on\.aws")

# What the types of API Gateway's errors, which are in the header x-amzn-errortype, ask for.
_OTHER_CREDENTIALS = "valid AWS credentials; those of this machine are wrong or have expired"
_WANTED = {
    "AccessDeniedException": "a caller who has the permission execute-api:Invoke",
    "ExpiredTokenException": _OTHER_CREDENTIALS,
    "ForbiddenException": "a valid API key (--api-key)",
    "IncompleteSignatureException": "a signature with AWS credentials (--sign)",
    "InvalidSignatureException": _OTHER_CREDENTIALS,
    "MissingAuthenticationTokenException": "a signature with AWS credentials (--sign), or there is no such path",
    "UnauthorizedException": "a valid token (--token)",
    "UnrecognizedClientException": _OTHER_CREDENTIALS,
}
_FUNCTION_URL_WANTED = _WANTED | {
    "AccessDeniedException": "a caller who has the permissions lambda:InvokeFunctionUrl and lambda:InvokeFunction",
}
_ALL_WANTED = (
    "a valid API key (--api-key), a token (--token) or a signature with AWS credentials (--sign), or the URL is wrong"
)

Decoded = TypeVar("Decoded")

# Returns the headers that authenticate a request, from its method, URL, media type and body.
Authenticate = Callable[[str, str, str | None, bytes], dict[str, str]]


class ApiUnreachable(ClassifyError):
    """The API did not answer in any attempt; the detail says why.

    `concerns_all` is set if the API has never answered and no connection can be made.
    """

    def __init__(self, detail: str, *, concerns_all: bool = False) -> None:
        super().__init__("unreachable", detail, concerns_all=concerns_all)


@dataclass(frozen=True)
class _Prepared:
    """An image as it is sent: bytes, an S3 URI, or a file that is too large for a request.

    `size` is its number of bytes, 0 for an object in S3. `original` is the format and the size in pixels of the photo,
    if `image` is a reduced one.
    """

    image: bytes | Path | str
    size: int = 0
    original: Photo | None = None


class _Manifest(msgspec.Struct, frozen=True):
    preprocessing: Preprocessing


class _ModelAnswer(msgspec.Struct, frozen=True):
    """The part of GET /v1/model that says how many pixels the model needs."""

    manifest: _Manifest


@dataclass(frozen=True)
class _Options:
    """The options of a classification, as in `Client.classify`."""

    model: str | None
    top_k: int | None
    threshold: float | None
    embedding: bool
    original: bool

    @property
    def query(self) -> str:
        embedding = "true" if self.embedding else None
        return _query(model=self.model, top_k=self.top_k, threshold=self.threshold, embedding=embedding)


class Client:
    """The API at a URL, such as the stack's output ApiUrl or http://127.0.0.1:8080."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        token: str | None = None,
        sign: bool = False,
        connections: int = 8,
        timeout: float = TIMEOUT_SECONDS,
        result_timeout: float = RESULT_TIMEOUT_SECONDS,
    ) -> None:
        """Create a client that `connections` threads can use at the same time.

        An API takes an API key, a `token` (JWT) of the issuer that it trusts, or a signature with boto3's usual AWS
        credentials (`sign`). `timeout` is the limit for one response, `result_timeout` that for the classification of
        an upload, in seconds. Raises ValueError for an invalid URL, key or token, for more than one of the three, and
        if there are no AWS credentials or no region to sign with.
        """
        self._url, self._host = _parse_api_url(url)
        self._authenticate = _authentication(self._host, api_key, token, sign)
        self._result_timeout = result_timeout
        self._has_answered = False
        self._connections = connections
        self._inputs: dict[str | None, tuple[float, Preprocessing | None]] = {}
        self._inputs_lock = threading.Lock()
        self._http = urllib3.PoolManager(maxsize=connections, retries=_RETRIES, timeout=timeout)

    def classify(
        self,
        image: bytes | Path | str,
        *,
        model: str | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        embedding: bool = False,
        original: bool = False,
    ) -> Answer:
        """Classify an image: bytes, a path, or the S3 URI of an object in a bucket that the API may read.

        `model` is a model's name, `top_k` the number of labels, `threshold` (0 to 1) the confidence below which the
        answer is uncertain; by default the API and its model decide. With `embedding`, the answer has the photo's
        embedding in base64.

        A photo above 250,000 bytes with far more pixels than the model needs is reduced before it is sent, unless
        `original` is set. The answer has the format and the size of the photo itself. An image that is still too large
        for a request is uploaded, which is possible for the default model only; its answer has at most as many labels
        as the API returns by default, and an embedding only if the deployment stores them.

        Raises ApiProblem and ApiUnreachable, ClassifyError if the AWS credentials to sign with have expired, and
        OSError if a file cannot be read. A file that is larger than the API accepts is not read.
        """
        options = _Options(model, top_k, threshold, embedding, original)
        return self._classify(self._prepare(image, options), options)

    def classify_all(
        self,
        images: Iterable[bytes | Path | str],
        *,
        model: str | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        embedding: bool = False,
        original: bool = False,
    ) -> Iterator[Answer | ClassifyError | OSError]:
        """Classify images, and yield the answer for each, or the exception that classify() would raise, in their order.

        Requests have up to 16 images or 4 MB. As many requests as the client has `connections` are sent at the same
        time. An image that fails does not affect the others. Raises a ClassifyError that concerns all images.
        """
        options = _Options(model, top_k, threshold, embedding, original)
        is_over = threading.Event()

        def classify_some(some: Sequence[bytes | Path | str]) -> list[Outcome]:
            if is_over.is_set():
                return []
            try:
                return self._classify_some(some, options)
            except ClassifyError:
                is_over.set()
                raise

        running: deque[AsyncResult[list[Outcome]]] = deque()
        # Its threads do not keep the process from ending.
        with ThreadPool(self._connections) as pool:
            try:
                for some in pack(images, lambda image: _expected_size(image, options), _is_uri):
                    running.append(pool.apply_async(classify_some, (some,)))
                    if len(running) >= _REQUESTS_AHEAD * self._connections:
                        yield from running.popleft().get()
                while running:
                    yield from running.popleft().get()
            finally:
                is_over.set()

    def _classify_some(self, images: Sequence[bytes | Path | str], options: _Options) -> list[Outcome]:
        """Prepare images and send them, usually in one request; raises a ClassifyError that concerns all images."""
        outcomes: list[Outcome] = []
        prepared = (self._try_to_prepare(image, options) for image in images)
        for batch in pack(prepared, lambda each: each.size if isinstance(each, _Prepared) else 0, lambda _: None):
            readable = [each for each in batch if isinstance(each, _Prepared)]
            sent = iter(send_batch(readable, lambda some: self._send_together(some, options)) if readable else ())
            outcomes += [next(sent) if isinstance(each, _Prepared) else each for each in batch]
        return outcomes

    def _send_together(self, images: Sequence[_Prepared], options: _Options) -> list[Outcome]:
        """Send one request with these images, which are all bytes or all S3 URIs; raises ClassifyError if it fails."""
        if len(images) == 1:
            try:
                return [self._classify(images[0], options)]
            except OSError as error:
                return [error]
        body, media_type = _body_of([each.image for each in images])
        answer = self._call(ClassifyManyAnswer, "POST", f"/v1/classify{options.query}", body, media_type)
        if len(answer.results) != len(images):
            raise self._unexpected_answer(HTTPStatus.OK)
        return [
            _from_document(result.problem)
            if isinstance(result, Failure)
            else _with_size_of(each.original, _answer_of(result, answer.model, answer.request_id))
            for each, result in zip(images, answer.results, strict=True)
        ]

    def _try_to_prepare(self, image: bytes | Path | str, options: _Options) -> _Prepared | OSError:
        try:
            return self._prepare(image, options)
        except OSError as error:
            return error

    def _prepare(self, image: bytes | Path | str, options: _Options) -> _Prepared:
        """Read an image that a request can carry, and reduce it if possible; raises OSError."""
        if isinstance(image, str):
            return _Prepared(image)
        size = _size(image)
        if not options.original and MIN_BYTES < size <= MAX_BYTES:
            image = _read(image)
            spec = self._input_of(options.model) if has_many_pixels(image) else None
            reduced = reduce_photo(image, spec) if spec else None
            if reduced:
                return _Prepared(reduced.data, len(reduced.data), reduced.original)
        return _Prepared(image if size > MAX_REQUEST_IMAGE_BYTES else _read(image), size)

    def _input_of(self, model: str | None) -> Preprocessing | None:
        """Return the preprocessing of a model's input, or None if the API does not say it."""
        with self._inputs_lock:
            until, spec = self._inputs.get(model, (0.0, None))
            if time.monotonic() < until:
                return spec
            try:
                spec = self._call(_ModelAnswer, "GET", f"/v1/model{_query(model=model)}").manifest.preprocessing
            except ClassifyError:
                # Photos are sent as they are, and the answer to them says what is wrong.
                spec = None
            self._inputs[model] = (time.monotonic() + _MODEL_SECONDS, spec)
            return spec

    def _classify(self, prepared: _Prepared, options: _Options) -> Answer:
        image = prepared.image
        if isinstance(image, str):
            return self._request_answer(json.dumps({"s3_uri": image}).encode(), "application/json", options)
        if prepared.size > MAX_REQUEST_IMAGE_BYTES:
            upload = self._create_upload(prepared.size, media_type_of(_signature(image)))
            if upload and options.model is not None:
                raise _too_large_for_model(prepared.size, upload.request_id)
            if upload:
                self._send(upload, _read(image))
                return _apply_options(self._wait_for_result(upload.id), options.top_k, options.threshold)
        data = _read(image)
        return _with_size_of(prepared.original, self._request_answer(data, media_type_of(data), options))

    def _request_answer(self, body: bytes, media_type: str, options: _Options) -> Answer:
        return self._call(Answer, "POST", f"/v1/classify{options.query}", body, media_type)

    def _create_upload(self, size: int, media_type: str) -> UploadAnswer | None:
        """Return the form for an upload, or None if the API has no uploads and may therefore accept larger requests."""
        try:
            body = json.dumps({"content_type": media_type}).encode()
            upload = self._call(UploadAnswer, "POST", "/v1/uploads", body, "application/json")
        except ApiProblem as problem:
            if problem.code == "not_configured":
                _check_size(size, MAX_PAYLOAD_BYTES, problem.request_id)
                return None
            raise
        _check_size(size, upload.max_bytes, upload.request_id)
        return upload

    def _send(self, upload: UploadAnswer, image: bytes) -> None:
        # The form goes to S3, which must not get the API key or the token. S3 ignores fields after the file.
        form = {**upload.fields, "file": ("image", image, media_type_of(image))}
        response = self._request("POST", upload.url, "The storage for uploads", fields=form)
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            detail = f"The storage rejected the upload with {_status_line(response.status)}."
            raise ApiProblem("upload_refused", detail, response.status, upload.request_id)

    def _wait_for_result(self, upload_id: str) -> Answer:
        deadline = time.monotonic() + self._result_timeout
        while True:
            answer = self._call(ResultAnswer, "GET", f"/v1/results/{quote(upload_id, safe='')}")
            if isinstance(answer.result, Failure):
                raise _from_document(answer.result.problem)
            if not isinstance(answer.result, Pending):
                return _answer_of(answer.result, answer.model, answer.request_id)
            if time.monotonic() >= deadline:
                detail = f"The image was uploaded, but not classified within {self._result_timeout:g} seconds."
                raise ApiProblem("result_late", detail, HTTPStatus.OK, answer.request_id)
            time.sleep(_POLL_SECONDS)

    def _call(
        self, answer_type: type[Decoded], method: str, path: str, body: bytes = b"", media_type: str | None = None
    ) -> Decoded:
        url = self._url + path
        headers = {"User-Agent": "litelens", "Accept": "application/json"}
        headers |= {"Content-Type": media_type} if media_type else {}
        headers |= self._authenticate(method, url, media_type, body)
        response = self._request(method, url, self._host, headers=headers, body=body or None)
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise _problem(response, self._host)
        try:
            return msgspec.json.decode(response.data, type=answer_type)
        except (ValueError, RecursionError) as error:
            raise self._unexpected_answer(response.status) from error

    def _unexpected_answer(self, status: int) -> ApiProblem:
        detail = f"The response of {self._host} is not from a litelens API; check the URL."
        return ApiProblem("unexpected_answer", detail, status)

    def _request(self, method: str, url: str, server: str, **request: Any) -> urllib3.BaseHTTPResponse:
        try:
            # Following a redirect would send the image and the key or token to another server.
            response = self._http.request(method, url, redirect=False, **request)
        except HTTPError as error:
            cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
            concerns_all = isinstance(cause, _CONNECTION_FAILURES) and not self._has_answered
            raise ApiUnreachable(f"{server} cannot be reached: {_reason(cause)}.", concerns_all=concerns_all) from error
        self._has_answered = True
        return response


def _parse_api_url(url: str) -> tuple[str, str]:
    """Return the URL without a slash at its end, and its host and port; raises ValueError."""
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError("The URL of the API must begin with http:// or https://, as in https://example.com/stage.")
    try:
        parsed = parse_url(url)
    except LocationParseError:
        parsed = parse_url("")
    if not parsed.netloc or parsed.auth or parsed.query or parsed.fragment:
        raise ValueError("The URL of the API must be like https://example.com/stage, without user, query or fragment.")
    return parsed.url.rstrip("/"), parsed.netloc


def _authentication(host: str, api_key: str | None, token: str | None, sign: bool) -> Authenticate:
    """Return what authenticates the requests to this host; raises ValueError."""
    if sum(map(bool, (api_key, token, sign))) > 1:
        raise ValueError("An API takes an API key, a token or a signature; give only one of them.")
    if sign:
        return _aws_signature(host)
    headers = {}
    if api_key:
        headers["x-api-key"] = _printable("API key", api_key)
    if token:
        headers["Authorization"] = f"Bearer {_printable('token', token)}"
    return lambda *_: headers


def _printable(name: str, secret: str) -> str:
    # http.client's own error message would contain the secret.
    if not re.fullmatch(r"[!-~]+", secret):
        raise ValueError(f"The {name} contains spaces or other invalid characters.")
    return secret


def _aws_signature(host: str) -> Authenticate:
    """Return what signs requests with boto3's usual credentials, for the region in the host's name or else boto3's.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    # Imported only here, as in aws.py.
    from boto3.session import Session
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.exceptions import NoCredentialsError, NoRegionError

    try:
        with aws_errors("The requests cannot be signed", "", {}):
            session = Session()
            of_function = _REGION_IN_URL_HOST.fullmatch(host)
            in_host = of_function or _REGION_IN_HOST.fullmatch(host)
            region = in_host[1] if in_host else os.environ.get("AWS_REGION") or session.region_name
            if not region:
                raise NoRegionError
            credentials = session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
    except AwsError as error:
        raise ValueError(str(error)) from error

    service = "lambda" if of_function else "execute-api"

    def sign(method: str, url: str, media_type: str | None, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": media_type} if media_type else {}
        request = AWSRequest(method, url, headers=headers, data=body)
        try:
            with aws_errors("The request cannot be signed", "", {}):
                SigV4Auth(credentials.get_frozen_credentials(), service, region).add_auth(request)
        except AwsError as error:
            raise ClassifyError("not_signed", str(error), concerns_all=True) from error
        return dict(request.headers.items())

    return sign


def _query(**options: str | float | None) -> str:
    """Return the query of these options, with spaces as %20: signatures allow no other form."""
    given = {name: value for name, value in options.items() if value is not None}
    return f"?{urlencode(given, quote_via=quote, safe='')}" if given else ""


def _apply_options(answer: Answer, top_k: int | None, threshold: float | None) -> Answer:
    """Apply these options to the answer of an upload, which has no options of its own."""
    predictions, uncertain = answer.predictions, answer.uncertain
    if threshold is not None:
        uncertain = predictions[0].confidence < threshold or answer.unfamiliar is True
        if answer.is_multi_label:
            predictions = [msgspec.structs.replace(each, present=each.confidence >= threshold) for each in predictions]
    return msgspec.structs.replace(answer, predictions=predictions[:top_k], uncertain=uncertain)


def _body_of(images: Sequence[bytes | Path | str]) -> tuple[bytes, str]:
    """Return the body of a request with several images, all bytes or all S3 URIs, and its media type."""
    uris = [image for image in images if isinstance(image, str)]
    if uris:
        return json.dumps({"images": [{"s3_uri": uri} for uri in uris]}).encode(), "application/json"
    files = [image for image in images if isinstance(image, bytes)]
    return encode_multipart_formdata([("image", ("image", file, media_type_of(file))) for file in files])


def _answer_of(result: Classification, model: Model, request_id: str) -> Answer:
    return Answer(model=model, request_id=request_id, **msgspec.structs.asdict(result))


def _with_size_of(original: Photo | None, answer: Answer) -> Answer:
    """Return the answer for a reduced photo with the format and the size of the photo itself."""
    return msgspec.structs.replace(answer, image=original) if original else answer


def _is_uri(image: bytes | Path | str) -> bool:
    return isinstance(image, str)


def _expected_size(image: bytes | Path | str, options: _Options) -> int:
    """Return the number of bytes that will be sent, as far as it can be told without reading the image."""
    if isinstance(image, str):
        return 0
    try:
        size = _size(image)
    except OSError:
        return 0
    return size if options.original or size > MAX_BYTES else min(size, MIN_BYTES)


def _size(image: bytes | Path) -> int:
    return len(image) if isinstance(image, bytes) else image.stat().st_size


def _signature(image: bytes | Path) -> bytes:
    if isinstance(image, bytes):
        return image[:SIGNATURE_BYTES]
    with image.open("rb") as file:
        return file.read(SIGNATURE_BYTES)


def _read(image: bytes | Path) -> bytes:
    return image if isinstance(image, bytes) else image.read_bytes()


def _check_size(size: int, max_bytes: int, request_id: str | None) -> None:
    if size > max_bytes:
        detail = f"The image has {size:,} bytes; at most {max_bytes:,} are accepted."
        raise ApiProblem("image_too_large", detail, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, request_id)


def _too_large_for_model(size: int, request_id: str | None) -> ApiProblem:
    detail = (
        f"The image has {size:,} bytes; with a model's name, at most {MAX_REQUEST_IMAGE_BYTES:,} are accepted, because "
        "uploads are classified by the default model."
    )
    return ApiProblem("image_too_large", detail, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, request_id)


def _problem(response: urllib3.BaseHTTPResponse, host: str) -> ApiProblem:
    """Return the API's own problem, or one for the status if a server in front of the API responded."""
    try:
        return _from_document(msgspec.json.decode(response.data, type=Problem))
    except (ValueError, RecursionError):
        pass
    answered = f"The API's server answered {_status_line(response.status)}"
    if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        code = "forbidden" if response.status == HTTPStatus.FORBIDDEN else "unauthorized"
        by_type = _FUNCTION_URL_WANTED if _REGION_IN_URL_HOST.fullmatch(host) else _WANTED
        wanted = by_type.get(response.headers.get("x-amzn-errortype", "").partition(":")[0], _ALL_WANTED)
        return ApiProblem(code, f"{answered}: it wants {wanted}.", response.status)
    return ApiProblem(f"http_{response.status}", f"{answered}.", response.status)


def _from_document(problem: Problem) -> ApiProblem:
    return ApiProblem(problem.code, problem.detail, problem.status, problem.request_id)


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _reason(cause: Exception) -> str:
    """Return the reason in words that do not require knowledge of urllib3."""
    if isinstance(cause, NameResolutionError):
        return "the host does not exist"
    if isinstance(cause, NewConnectionError):
        return "the connection was not accepted"
    if isinstance(cause, ConnectTimeoutError | ReadTimeoutError):
        return "the request timed out"
    if isinstance(cause, SSLError):
        return "its certificate is not valid, or it does not use TLS"
    return "the connection was interrupted"
