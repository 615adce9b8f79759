"""The HTTP API behind API Gateway: classify an image, describe the model, tell whether it works."""

import dataclasses
import json
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from handlers.problems import INTERNAL, KINDS, MethodNotAllowed, RequestError, UnknownPath, problem
from handlers.requests import parse_classify
from litelens.bundle import load_bundle
from litelens.classifier import Classifier, Prediction
from litelens.errors import InputError
from settings import Settings, read_settings

Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]

logger = Logger(service="litelens")
metrics = Metrics(namespace="litelens", service="api")


def create_handler(settings: Settings) -> Handler:
    """A Lambda handler for API Gateway's REST proxy events, its model loaded and tried.

    Raises BundleError when the bundle cannot be served.
    """
    classifier = Classifier(load_bundle(settings.bundle), settings.limits, settings.threads)
    app = _create_app(classifier, warm_up_ms=classifier.warm_up())

    @logger.inject_lambda_context(clear_state=True)
    @metrics.log_metrics
    def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        metrics.add_metric("Requests", MetricUnit.Count, 1)
        try:
            return app.resolve(event, context)
        except Exception as error:  # an event that is not API Gateway's breaks the resolver itself
            answer = _fail(error, context.aws_request_id)
            return {"statusCode": answer.status_code, "headers": answer.headers, "body": answer.body}

    return handle


def _create_app(classifier: Classifier, warm_up_ms: float) -> APIGatewayRestResolver:
    app = APIGatewayRestResolver()
    model = {"name": classifier.bundle.name, "version": classifier.bundle.version}

    def request_id() -> str:
        return app.current_event.request_context.request_id

    def classify() -> Response[str]:
        request = parse_classify(app.current_event)
        prediction = classifier.classify(request.image, request.top_k)
        _record(prediction, len(request.image), request_id())
        return _json({"model": model, **_answer(prediction), "request_id": request_id()})

    def describe_model() -> Response[str]:
        return _json(classifier.bundle.manifest)

    def tell_health() -> Response[str]:
        return _json({"status": "ok", "model": model, "warm_up_ms": warm_up_ms})

    routes = {
        "/v1/classify": ("POST", classify),
        "/v1/model": ("GET", describe_model),
        "/v1/health": ("GET", tell_health),
    }

    def refuse(error: InputError | RequestError) -> Response[str]:
        kind = KINDS[type(error)]
        logger.info("refused", request_id=request_id(), code=kind.code, status=kind.status.value)
        metrics.add_metric("Refused", MetricUnit.Count, 1)
        return problem(kind, str(error), request_id())

    def refuse_route(_: NotFoundError) -> Response[str]:
        path = app.current_event.path.rstrip("/")
        if path not in routes:
            return refuse(UnknownPath(f"There is nothing at this path; there are {', '.join(routes)}."))
        allowed, _function = routes[path]
        answer = refuse(MethodNotAllowed(f"This path takes {allowed} only."))
        answer.headers["Allow"] = allowed
        return answer

    for path, (method, function) in routes.items():
        app.route(path, method=method)(function)
    app.not_found(refuse_route)
    app.exception_handler([InputError, RequestError])(refuse)
    app.exception_handler(Exception)(lambda error: _fail(error, request_id()))
    return app


def _fail(error: Exception, request_id: str) -> Response[str]:
    logger.error("failed", request_id=request_id, error=type(error).__name__, at=_call_chain(error))
    metrics.add_metric("Failed", MetricUnit.Count, 1)
    return problem(INTERNAL, "The request could not be completed; it may be sent again.", request_id)


def _json(document: Mapping[str, Any]) -> Response[str]:
    return Response(HTTPStatus.OK, content_type="application/json", body=json.dumps(document))


def _answer(prediction: Prediction) -> dict[str, Any]:
    return {
        "predictions": [
            {"label": c.label, "index": c.index, "confidence": round(c.confidence, 6)} for c in prediction.candidates
        ],
        "uncertain": prediction.uncertain,
        "timing_ms": dataclasses.asdict(prediction.timing),
    }


def _record(prediction: Prediction, size: int, request_id: str) -> None:
    best = prediction.candidates[0]
    logger.info(
        "classified",
        request_id=request_id,
        bytes=size,
        format=prediction.image_format,
        width=prediction.width,
        height=prediction.height,
        label=best.label,
        confidence=round(best.confidence, 6),
        uncertain=prediction.uncertain,
        timing_ms=dataclasses.asdict(prediction.timing),
    )
    metrics.add_metric("Classified", MetricUnit.Count, 1)
    metrics.add_metric("Decode", MetricUnit.Milliseconds, prediction.timing.decode)
    metrics.add_metric("Inference", MetricUnit.Milliseconds, prediction.timing.inference)


def _call_chain(error: Exception) -> list[str]:
    """Where the error came from, without the paths and source lines of a stack trace."""
    frames = traceback.walk_tb(error.__traceback__)
    return [f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}:{line}" for frame, line in frames]


handler = create_handler(read_settings())
