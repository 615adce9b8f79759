"""The HTTP API behind API Gateway: routes, their operations, and the headers of every response.

Importing this module loads the model: `handler` is the Lambda function's entry point.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.api_gateway import CORSConfig
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.typing import LambdaContext
from msgspec import UNSET, UnsetType

from litelens.api import response_schemas as schemas
from litelens.api.events import IncompleteRequest, describe_event, is_request, is_rest_request, to_rest_request
from litelens.api.problems import (
    MethodNotAllowed,
    NotConfigured,
    OutOfTime,
    RequestTooLarge,
    UnknownEvent,
    UnknownPath,
    UnknownResult,
    problem_document,
    problem_response,
)
from litelens.api.requests import (
    Call,
    ClassifyRequest,
    Image,
    model_in_query,
    parse_classify,
    parse_describe,
    parse_upload,
    source_of,
)
from litelens.aws.bedrock import DEFAULT_QUESTION, Describer, Turn, to_jpeg
from litelens.aws.clients import Deadline, Service
from litelens.aws.results_table import ResultsTable
from litelens.aws.s3 import ObjectLocation, ObjectReader, UploadBucket, image_key, is_upload_id
from litelens.aws.snapstart import register_hooks
from litelens.core.bundle import METRICS, REPORT, Bundle
from litelens.core.classifier import DEFAULT_TOP_K, PREDICTION_BYTES, Classifier, Options, PreparedImage
from litelens.core.errors import BundleError, InternalError, ReportedError
from litelens.core.registry import DAMAGED, LoadedModel, ModelRegistry
from litelens.settings import Settings, read_settings
from litelens.telemetry import (
    record_description,
    record_failure,
    record_model,
    record_prediction,
    record_problem,
    record_request,
    recorded,
)

Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]

T = TypeVar("T")
R = TypeVar("R")

MODEL_PATH = "/v1/model"
MODELS_PATH = "/v1/models"
REPORT_PATH = "/v1/model/report"
UPLOADS_PATH = "/v1/uploads"
DESCRIBE_PATH = "/v1/describe"

# What a header can carry. API Gateway's own ids are UUIDs.
_REQUEST_ID = re.compile(r"[!-~]{1,128}")

# Seconds of the invocation that are reserved for finishing the current image and responding.
RESERVED_SECONDS = 3.0

# `make openapi` writes it.
_OPENAPI = Path(__file__).parent / "openapi.json"

_CACHE_SECONDS = 3600
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
)

# The report's script and styles are inline. The sandbox prevents a report from reading what pages of the same origin
# store, such as an API key.
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)

_OPERATOR = "the service's operator (see docs/deploy.md)"


def create_handler(settings: Settings) -> Handler:
    """Return a Lambda handler for requests of API Gateway, Function URLs and Application Load Balancers.

    It loads the default model and runs it once. Raises BundleError if the default bundle cannot be served.
    """
    api = _Api(settings)
    common_headers = {"X-Content-Type-Options": "nosniff"}
    if settings.cors_origin:
        common_headers["Vary"] = "Origin"

    def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        api.model = api.default_model
        request: dict[str, Any] = event
        to_response: Callable[[dict[str, Any]], dict[str, Any]] = _unchanged
        try:
            request, to_response = to_rest_request(event, context.aws_request_id)
            response = api.resolver.resolve(request, context)
            request_id, route = api.request_id(), request.get("resource")
        except Exception as error:  # the resolver fails on an event that is not a request
            request_id, route = context.aws_request_id, None
            response = _to_proxy_response(_unprocessed(request, error, request_id))
        record_request(request_id, route)
        headers = response["multiValueHeaders"]
        headers.setdefault("Cache-Control", ["no-store"])
        headers.update({name: [value] for name, value in common_headers.items()})
        # A model's name can be any text, but a header must be ASCII.
        headers.update({"Litelens-Model": [quote(api.model.full_name)], "X-Request-Id": [request_id]})
        return to_response(response)

    return recorded(handle, settings.engine)


class _Api:
    """The routes with their operations, the models, and the AWS services of this deployment.

    `model` is the one that the current request has chosen, or the default one.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises BundleError if the default bundle cannot be served."""
        self._limits = settings.limits
        self._max_upload_bytes = settings.max_upload_bytes
        self._log_results = settings.log_results
        # On one core, decoding ahead saves nothing, and switching between threads costs time.
        self._decodes_ahead = settings.threads > 1
        limits = dataclasses.replace(
            settings.limits,
            bytes=max(settings.limits.bytes, settings.max_upload_bytes),
            spare=settings.limits.spare + PREDICTION_BYTES,
        )
        self._models = ModelRegistry(settings.bundle, settings.models, limits, settings.threads, settings.engine)
        self.model = self.default_model
        self._objects = ObjectReader(settings.buckets, settings.max_upload_bytes)
        self._bucket = (
            UploadBucket(settings.upload_bucket, settings.max_upload_bytes, settings.upload_form_seconds)
            if settings.upload_bucket
            else None
        )
        self._results = ResultsTable(settings.results_table) if settings.results_table else None
        self._describer = Describer(settings.describe_model) if settings.describe_model else None
        self.resolver = APIGatewayRestResolver(cors=_cors(settings.cors_origin) if settings.cors_origin else None)
        self._routes: dict[str, tuple[str, Callable[..., Response[str]]]] = {
            "/v1/classify": ("POST", self._classify),
            UPLOADS_PATH: ("POST", self._create_upload),
            "/v1/results/<upload_id>": ("GET", self._get_result),
            DESCRIBE_PATH: ("POST", self._describe),
            MODELS_PATH: ("GET", self._list_models),
            MODEL_PATH: ("GET", self._get_model),
            REPORT_PATH: ("GET", self._get_report),
            "/v1/health": ("GET", self._get_health),
            "/openapi.json": ("GET", self._get_openapi),
            "/docs": ("GET", self._get_docs),
            "/docs/<name>": ("GET", self._get_docs_file),
        }
        for path, (method, function) in self._routes.items():
            self.resolver.route(path, method=method)(function)
        self.resolver.not_found(self._no_route)
        self.resolver.exception_handler(ReportedError)(self._problem)
        self.resolver.exception_handler(Exception)(lambda error: _internal_error(error, self.request_id()))

    @property
    def default_model(self) -> schemas.Model:
        return _model_of(self._models.default.bundle)

    def _choose_model(self, name: str | None) -> LoadedModel:
        """Return the model that the request names, or the default one; raises ModelNotFound or ModelUnusable."""
        chosen = self._models.get(name)
        self.model = _model_of(chosen.bundle)
        record_model(self.model.full_name)
        return chosen

    def _classify(self) -> Response[str]:
        call = self._call()
        request = parse_classify(call.event)
        classifier = self._choose_model(request.model).classifier
        classifier.check(request.options)
        if request.is_list:
            results = self._classify_list(classifier, request, call)
            return _json(schemas.ClassifyManyAnswer(self.model, results, call.id))
        (image,) = request.images
        found = self._classify_image(classifier, self._prepare(classifier, image, call), request, call)
        return _json(schemas.ClassifyAnswer(model=self.model, request_id=call.id, **msgspec.structs.asdict(found)))

    def _classify_list(
        self, classifier: Classifier, request: ClassifyRequest, call: Call
    ) -> list[schemas.Classification | schemas.Failure]:
        """Classify several images. With several cores, the next one is decoded while the model runs."""
        prepare = partial(self._prepare_item, classifier, call)
        results: list[schemas.Classification | schemas.Failure] = []
        is_ahead = self._decodes_ahead and len(request.images) > 1
        for prepared in (_map_ahead if is_ahead else _map)(prepare, request.images):
            try:
                image = prepared()
                _require_time(call)
                results.append(self._classify_image(classifier, image, request, call))
            except ReportedError as error:
                record_problem(error, call.id)
                results.append(schemas.Failure(problem_document(error, call.id)))
        return results

    def _prepare_item(self, classifier: Classifier, call: Call, image: Image) -> PreparedImage:
        _require_time(call)
        return self._prepare(classifier, image, call)

    def _prepare(self, classifier: Classifier, image: Image, call: Call) -> PreparedImage:
        """Fetch and decode an image."""
        return classifier.prepare(self._fetch(image, call))

    def _classify_image(
        self, classifier: Classifier, image: PreparedImage, request: ClassifyRequest, call: Call
    ) -> schemas.Classification:
        prediction = classifier.predict(image, request.options)
        record_prediction(prediction, call.id, log=self._log_results, is_only_image=not request.is_list)
        return schemas.classification_of(prediction, request.embedding_format)

    def _fetch(self, image: Image, call: Call) -> bytes:
        source = source_of(image)
        if isinstance(source, ObjectLocation):
            return self._objects.read(source, call.deadline)
        if len(source) > self._limits.bytes:
            detail = f"The image has {len(source):,} bytes; at most {self._limits.bytes:,} are accepted in a request."
            raise RequestTooLarge(f"{detail} Upload it with POST /v1/uploads." if self._gives_forms else detail)
        return source

    def _create_upload(self) -> Response[str]:
        call = self._call()
        bucket, _ = self._required_uploads()
        form = bucket.create_form(parse_upload(call.event).content_type)
        answer = schemas.UploadAnswer(form.id, form.url, dict(form.fields), form.expires_in, form.max_bytes, call.id)
        return _json(answer, HTTPStatus.CREATED)

    def _get_result(self, upload_id: str) -> Response[str]:
        """Respond with the result of an upload, or with "pending" if it has not been uploaded or classified yet."""
        call = self._call()
        bucket, table = self._required_uploads()
        if not is_upload_id(upload_id):
            raise UnknownResult("This is not an id that POST /v1/uploads returned.")
        saved = table.find_all(bucket.bucket, image_key(upload_id), call.deadline)
        if saved:
            results = [msgspec.json.decode(document, type=schemas.BulkResult) for document in saved]
            found = next((result for result in results if not result.is_superseded), results[0])
            return _json(schemas.ResultAnswer(upload_id, found.model, found.result, call.id))
        if not bucket.accepts_upload(upload_id) and not bucket.has_image(upload_id, call.deadline):
            raise UnknownResult("No image was uploaded under this id in time, or it was deleted; request a new upload.")
        return _json(schemas.ResultAnswer(upload_id, self.model, schemas.Pending(), call.id))

    def _describe(self) -> Response[str]:
        call = self._call()
        if self._describer is None:
            raise NotConfigured(f"This deployment has no language model; {_OPERATOR} can choose one.")
        request = parse_describe(call.event)
        classifier = self._choose_model(request.model).classifier
        data = self._fetch(request.image, call)
        prediction = classifier.classify(data, Options(top_k=DEFAULT_TOP_K))
        # The language model receives more pixels than the classifier's input has.
        image = classifier.decode(data)
        labels = [(candidate.label, candidate.confidence) for candidate in prediction.candidates]
        question = request.question or DEFAULT_QUESTION
        description = self._describer.describe(to_jpeg(image.rgb), labels, question, request.turns, call.deadline)
        record_description(self._describer.model_id, description.input_tokens, description.output_tokens, call.id)
        return _json(
            schemas.DescribeAnswer(
                model=self.model,
                describe_model=self._describer.model_id,
                answer=description.answer,
                turns=[*request.turns, Turn(question, description.answer)][-schemas.MAX_TURNS :],
                predictions=schemas.labels_of(prediction),
                uncertain=prediction.uncertain,
                unfamiliar=schemas.unfamiliar_of(prediction),
                input_tokens=description.input_tokens,
                output_tokens=description.output_tokens,
                request_id=call.id,
            )
        )

    def _list_models(self) -> Response[str]:
        models = [_listed(name, found) for name, found in self._models.bundles().items()]
        answer = schemas.ModelsAnswer(self._models.default_name, models)
        return self._revalidated(msgspec.json.encode(answer).decode(), "application/json")

    def _get_model(self) -> Response[str]:
        name = model_in_query(self.resolver.current_event)
        bundle = self._choose_model(name).bundle
        metrics = bundle.folder / METRICS
        answer = schemas.ModelAnswer(
            manifest=dict(bundle.manifest),
            links=schemas.Links(
                models=MODELS_PATH if len(self._models.names) > 1 else UNSET,
                report=_report_link(bundle, name),
                uploads=UPLOADS_PATH if self._gives_forms else UNSET,
                describe=DESCRIBE_PATH if self._describer else UNSET,
            ),
            limits=schemas.ImageLimits(
                request_bytes=self._limits.bytes,
                pixels=self._limits.pixels,
                upload_bytes=self._max_upload_bytes if self._gives_forms else UNSET,
            ),
            metrics=msgspec.json.decode(metrics.read_bytes()) if metrics.is_file() else UNSET,
        )
        return self._revalidated(msgspec.json.encode(answer).decode(), "application/json")

    def _get_report(self) -> Response[str]:
        report = self._choose_model(model_in_query(self.resolver.current_event)).bundle.folder / REPORT
        if not report.is_file():
            raise UnknownPath("This model has no report.")
        response = self._revalidated(report.read_text("utf-8"), "text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = _REPORT_POLICY
        return response

    def _get_health(self) -> Response[str]:
        warm_up_ms = self._choose_model(None).warm_up_ms
        return _json(schemas.HealthAnswer("ok", self.model, warm_up_ms))

    def _get_openapi(self) -> Response[str]:
        document = msgspec.json.decode(_OPENAPI.read_bytes())
        document["servers"] = [{"url": self._root() or "/"}]
        return self._cached(msgspec.json.encode(document).decode(), "application/json")

    # Only the documentation needs litelens.api.docs.
    def _get_docs(self) -> Response[str]:
        from litelens.api.docs import page

        response = self._cached(page(self._root()), "text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = _DOCS_POLICY
        return response

    def _get_docs_file(self, name: str) -> Response[str]:
        from litelens.api.docs import read_asset

        return self._cached(*read_asset(name))

    @property
    def _gives_forms(self) -> bool:
        """True if the API issues upload forms, which needs the upload bucket and the results table."""
        return self._bucket is not None and self._results is not None

    def _required_uploads(self) -> tuple[UploadBucket, ResultsTable]:
        if self._bucket is None or self._results is None:
            raise NotConfigured(f"This deployment gives no upload forms; {_OPERATOR} can change that.")
        return self._bucket, self._results

    def _cached(self, body: str, content_type: str) -> Response[str]:
        """Return a response that changes only with a deployment, or 304 if the client already has it."""
        return self._with_etag(body, content_type, f"private, max-age={_CACHE_SECONDS}")

    def _revalidated(self, body: str, content_type: str) -> Response[str]:
        """Return a response that changes with a bundle, or 304 if the client already has it."""
        return self._with_etag(body, content_type, "private, no-cache")

    def _with_etag(self, body: str, content_type: str, cache_control: str) -> Response[str]:
        etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Cache-Control": cache_control}
        known = self.resolver.current_event.headers.get("if-none-match") or ""
        if etag in known or known.strip() == "*":
            return Response(HTTPStatus.NOT_MODIFIED.value, headers=headers, body="")
        return Response(HTTPStatus.OK.value, content_type=content_type, body=body, headers=headers)

    def _problem(self, error: ReportedError) -> Response[str]:
        record_problem(error, self.request_id())
        return problem_response(error, self.request_id())

    def _no_route(self, _: NotFoundError) -> Response[str]:
        path = self.resolver.current_event.path.rstrip("/")
        method = self.resolver.current_event.http_method.upper()
        for template, (allowed, _function) in self._routes.items():
            # Check the method too: the resolver's path parameters match fewer characters than [^/]+, so it can reject a
            # path whose method is right.
            if method != allowed and re.fullmatch(re.sub("<.+>", "[^/]+", template), path):
                return self._problem(MethodNotAllowed(allowed))
        return self._problem(UnknownPath("This path does not exist; GET /docs lists all endpoints."))

    def _call(self) -> Call:
        remaining = self.resolver.lambda_context.get_remaining_time_in_millis() / 1000
        return Call(self.resolver.current_event, Deadline.after(remaining - RESERVED_SECONDS), self.request_id())

    def request_id(self) -> str:
        """Return the id of the current request: API Gateway's, or Lambda's if there is none that a header can carry."""
        found = self.resolver.current_event.request_context.get("requestId")
        if isinstance(found, str) and _REQUEST_ID.fullmatch(found):
            return found
        return self.resolver.lambda_context.aws_request_id

    def _root(self) -> str:
        """Return the path of the API's root: the stage on API Gateway's own host names, empty on others."""
        path, requested = self.resolver.current_event.path, self.resolver.current_event.request_context.path or ""
        return requested.removesuffix(path) if requested.endswith(path) else ""


def _require_time(call: Call) -> None:
    """Raise OutOfTime if the time for the request is used up."""
    if call.deadline.remaining() <= 0:
        raise OutOfTime("The images before this one took all the time; send it again in a smaller request.")


def _map(function: Callable[[T], R], items: Iterable[T]) -> Iterator[Callable[[], R]]:
    """For each item, yield a callable that returns `function(item)` or raises its error."""
    return (partial(function, item) for item in items)


def _map_ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[Callable[[], R]]:
    """Like _map(), but another thread calls `function`, one item ahead of the caller.

    If the caller stops early, it waits until the thread has finished the current item, so that nothing runs on.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decoder") as thread:
        first, *others = items
        current = thread.submit(function, first)
        for item in others:
            following = thread.submit(function, item)
            yield current.result
            current = following
        yield current.result


def _cors(origin: str) -> CORSConfig:
    return CORSConfig(
        allow_origin=origin,
        allow_headers=["content-type", "x-api-key", "if-none-match"],
        expose_headers=["x-request-id", "litelens-model", "etag", "retry-after"],
        max_age=_CACHE_SECONDS,
    )


def _services(settings: Settings) -> list[Service]:
    """Return the AWS services that this deployment uses."""
    services: dict[Service, object] = {
        "s3": settings.buckets or settings.upload_bucket,
        "dynamodb": settings.results_table,
    }
    return [service for service, configured in services.items() if configured]


def _model_of(bundle: Bundle) -> schemas.Model:
    return schemas.Model(bundle.name, bundle.version)


def _listed(name: str, found: Bundle | BundleError) -> schemas.ListedModel:
    if isinstance(found, BundleError):
        return schemas.ListedModel(name, error=f"The model cannot be used: {DAMAGED}")
    description = found.manifest.get("description")
    return schemas.ListedModel(
        name,
        version=found.version,
        description=description if isinstance(description, str) else UNSET,
        label_count=len(found.labels),
        links=schemas.ModelLinks(_with_model(MODEL_PATH, name), _report_link(found, name)),
    )


def _report_link(bundle: Bundle, name: str | None) -> str | UnsetType:
    return _with_model(REPORT_PATH, name) if (bundle.folder / REPORT).is_file() else UNSET


def _with_model(path: str, name: str | None) -> str:
    """Return a path with the model's name in its query; without a name, it stands for the default model."""
    return path if name is None else f"{path}?model={quote(name, safe='')}"


def _unchanged(response: dict[str, Any]) -> dict[str, Any]:
    return response


def _unprocessed(event: Any, error: Exception, request_id: str) -> Response[str]:
    """Record and report an event that could not be converted, or one that the resolver could not process."""
    if is_rest_request(event) and not isinstance(error, IncompleteRequest):
        return _internal_error(error, request_id)
    what = (
        f"The request is incomplete: the event lacks a field of {describe_event(event)}, or has an invalid one."
        if is_request(event)
        else f"This function answers HTTP requests; it was invoked with {describe_event(event)}."
    )
    unknown = UnknownEvent(
        f"{what} Send requests through API Gateway, as template.yaml does, a Function URL or an Application Load "
        "Balancer."
    )
    record_problem(unknown, request_id, reason=str(unknown))
    return problem_response(unknown, request_id)


def _internal_error(error: Exception, request_id: str) -> Response[str]:
    record_failure(error, request_id)
    return problem_response(InternalError("The request could not be completed; send it again."), request_id)


def _to_proxy_response(response: Response[str]) -> dict[str, Any]:
    headers = {**response.headers, "Content-Type": response.content_type}
    return {
        "statusCode": response.status_code,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "body": response.body,
        "isBase64Encoded": False,
    }


def _json(answer: msgspec.Struct, status: HTTPStatus = HTTPStatus.OK) -> Response[str]:
    return Response(status.value, content_type="application/json", body=msgspec.json.encode(answer).decode())


_settings = read_settings()
handler = create_handler(_settings)
register_hooks(_services(_settings))
