"""Logs and metrics of each invocation. They never contain images, names of objects, keys or questions.

CloudWatch charges for each metric and for each value of a dimension, so the only dimension is the service, by which
alarms tell the API from uploads. Image formats and error codes are few, and have metrics named after them. All other
details (engine, model, label, route) are in the log lines, where CloudWatch Logs Insights counts them at no extra
charge. docs/metrics.md lists metrics and log lines. https://aws.amazon.com/cloudwatch/pricing/
"""

import contextlib
import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.metrics.functions import is_metrics_disabled
from aws_lambda_powertools.utilities.typing import LambdaContext

from litelens.core.classifier import Prediction
from litelens.core.errors import InternalError, ReportedError

Handler = Callable[[dict[str, Any], LambdaContext], Any]


def _to_line(entry: dict[str, Any]) -> str:
    """Return a log line as JSON. A lone surrogate, which UTF-8 cannot encode, becomes a question mark."""
    return json.dumps(entry, default=str, separators=(",", ":"), ensure_ascii=False).encode(errors="replace").decode()


# The log group says which function it is, and its configuration the rest: CloudWatch charges for each byte.
_UNUSED_KEYS = ["function_name", "function_memory_size", "function_arn"]

# The `message` of a line about a classified image.
_CLASSIFIED = "classified"

# CloudWatch keeps the time of each line. On a laptop, where metrics are disabled, lines need a timestamp.
_TIMESTAMP = "%(asctime)s" if is_metrics_disabled() else None

# Lambda gives each invocation a trace id, although it records few traces or none. _start_invocation() adds the id
# of a recorded trace.
logger = Logger(service="litelens", location=None, timestamp=_TIMESTAMP, xray_trace_id=None, json_serializer=_to_line)
# The dimension's value is POWERTOOLS_SERVICE_NAME, which Powertools reads.
metrics = Metrics(namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE") or "litelens")

# Metrics are not thread-safe. When a metric has a hundred values, Powertools prints them in two writes, and no other
# thread may log between these.
_lock = threading.RLock()


def recorded(handler: Handler, engine: str) -> Handler:
    """Return the handler with metrics for each invocation, and with request ids in its log lines."""

    @logger.inject_lambda_context(clear_state=True)
    @metrics.log_metrics
    def handle(event: dict[str, Any], context: LambdaContext) -> Any:
        started = time.perf_counter()
        _start_invocation(engine, context.aws_request_id)
        try:
            return handler(event, context)
        finally:
            _add("Duration", MetricUnit.Milliseconds, round((time.perf_counter() - started) * 1000, 3))

    return handle


@contextlib.contextmanager
def logged_with(**ids: str | None) -> Iterator[None]:
    """Add these ids to each log line of this thread until the block ends; ids that are None are left out."""
    logger.thread_safe_append_keys(**ids)
    try:
        yield
    finally:
        logger.thread_safe_remove_keys(ids)


def record_request(request_id: str, route: str | None) -> None:
    """Count a request. The id is API Gateway's; `route` is its resource, such as /v1/classify or /{proxy+}."""
    metrics.add_metadata("request_id", request_id)
    metrics.add_metadata("route", route)
    _add("Requests", MetricUnit.Count, 1)


def record_model(model: str) -> None:
    """Add the name and version of the model that answers to the metrics and the later log lines of this invocation."""
    with _lock:
        metrics.add_metadata("model", model)
        logger.append_keys(model=model)


def record_batch(count: int) -> None:
    """Record the number of messages or objects that an invocation received."""
    _add("Records", MetricUnit.Count, count)


def record_duplicate() -> None:
    """Log and count an image that has a result already and was not classified again."""
    with _lock:
        logger.info("duplicate")
        _add("Duplicates", MetricUnit.Count, 1)


def record_prediction(
    prediction: Prediction, request_id: str, *, log: bool = True, is_only_image: bool = False
) -> None:
    """Count a classified image and, with `log`, log its details.

    With `is_only_image`, the details are part of the line of metrics, which costs less than a line of their own. They
    have a line of their own if metrics are disabled.

    The image counts as uncertain by the bundle's threshold and not by the request's: otherwise the share of uncertain
    images would depend on the requests and not only on the model.
    """
    with _lock:
        if log and is_only_image and not is_metrics_disabled():
            for name, value in {"message": _CLASSIFIED, **_details(prediction)}.items():
                metrics.add_metadata(name, value)
        elif log:
            logger.info(_CLASSIFIED, request_id=request_id, **_details(prediction))
        _add("Classified", MetricUnit.Count, 1)
        _add("Decode", MetricUnit.Milliseconds, prediction.timing.decode)
        _add("Inference", MetricUnit.Milliseconds, prediction.timing.inference)
        _add("Classification", MetricUnit.Milliseconds, prediction.timing.total)
        _add("ImageBytes", MetricUnit.Bytes, prediction.image_bytes)
        _add("ImageMegapixels", MetricUnit.NoUnit, prediction.width * prediction.height / 1_000_000)
        _add("Entropy", MetricUnit.NoUnit, round(prediction.entropy, 6))
        _add("Uncertain", MetricUnit.Count, int(prediction.uncertain_by_default))
        if prediction.unfamiliar is not None:
            _add("Unfamiliar", MetricUnit.Count, int(prediction.unfamiliar))
        _add(f"Format{prediction.image_format}", MetricUnit.Count, 1)


def _details(prediction: Prediction) -> dict[str, Any]:
    best = prediction.candidates[0]
    familiarity: dict[str, Any] = {} if prediction.unfamiliar is None else {"unfamiliar": prediction.unfamiliar}
    return {
        "bytes": prediction.image_bytes,
        "format": prediction.image_format,
        "width": prediction.width,
        "height": prediction.height,
        "label": best.label,
        "confidence": round(best.confidence, 6),
        "entropy": round(prediction.entropy, 6),
        "uncertain": prediction.uncertain_by_default,
        **familiarity,
        "timing_ms": vars(prediction.timing),
    }


def record_description(model: str, input_tokens: int, output_tokens: int, request_id: str) -> None:
    """Log and count an answer of the language model."""
    with _lock:
        logger.info(
            "described", request_id=request_id, by=model, input_tokens=input_tokens, output_tokens=output_tokens
        )
        _add("Described", MetricUnit.Count, 1)


def record_problem(error: ReportedError, request_id: str, reason: str | None = None) -> None:
    """Log and count an error: as refused if the client caused it, as failed if AWS or a timeout did.

    The `reason` of a failure is by default AWS's error code, or the type of the cause.
    """
    fields: dict[str, Any] = {"request_id": request_id, "code": error.code, "status": error.status.value}
    with _lock:
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.status != HTTPStatus.NOT_IMPLEMENTED:
            logger.warning("failed", **fields, reason=reason or _reason(error))
            _add("Failed", MetricUnit.Count, 1)
        else:
            logger.info("refused", **fields)
            _add("Refused", MetricUnit.Count, 1)
        _add(_code_metric(error.code), MetricUnit.Count, 1)


def record_failure(error: Exception, request_id: str) -> None:
    """Log and count an unexpected error."""
    fields: dict[str, Any] = {
        "request_id": request_id,
        "code": InternalError.code,
        "status": InternalError.status.value,
    }
    with _lock:
        logger.error("failed", **fields, error=type(error).__name__, at=_call_chain(error))
        _add("Failed", MetricUnit.Count, 1)
        _add(_code_metric(InternalError.code), MetricUnit.Count, 1)


def _reason(error: Exception) -> str:
    """Return AWS's error code, or the type of the cause; never its text, which may contain names and keys."""
    cause = error.__cause__ or error
    response = getattr(cause, "response", None)
    return str(response["Error"]["Code"]) if isinstance(response, dict) else type(cause).__name__


def _code_metric(code: str) -> str:
    return "Code" + code.title().replace("_", "")


def _call_chain(error: Exception) -> list[str]:
    """Return the functions and lines of the error's stack trace, without paths and source lines."""
    frames = traceback.walk_tb(error.__traceback__)
    return [f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}:{line}" for frame, line in frames]


def _start_invocation(engine: str, function_request_id: str) -> None:
    # If metrics are disabled, Powertools still keeps the values and prints them when there are a hundred.
    metrics.clear_metrics()
    ids: dict[str, str] = {"engine": engine, "function_request_id": function_request_id}
    trace = os.environ.get("_X_AMZN_TRACE_ID", "")
    if "Sampled=1" in trace:
        ids["xray_trace_id"] = trace.split(";")[0].removeprefix("Root=")
        logger.append_keys(xray_trace_id=ids["xray_trace_id"])
    for name, value in ids.items():
        metrics.add_metadata(name, value)
    logger.remove_keys(_UNUSED_KEYS)
    logger.append_keys(engine=engine, service=metrics.service or logger.service)
    # Powertools' own cold start metric has the function's name as a dimension, and is a separate line.
    if logger.get_current_keys().get("cold_start"):
        _add("ColdStarts", MetricUnit.Count, 1)


def _add(name: str, unit: MetricUnit, value: float) -> None:
    with _lock:
        metrics.add_metric(name, unit, value)
