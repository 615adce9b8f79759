"""What is written down of each invocation: log lines and metrics, never bytes, names of objects, keys or questions.

CloudWatch charges for a metric by the hours in which it has a value, and again for each value of a dimension, whose
metrics also take a line of their own, so that the only dimension is the service, by which alarms tell the API from
uploads. Formats and codes of problems, of which there are few, have metrics named after them. What else images are told
apart by (engine, label, route) is in the lines, where it costs nothing and CloudWatch Logs Insights counts it.
docs/metrics.md lists both. https://aws.amazon.com/cloudwatch/pricing/
"""

import contextlib
import dataclasses
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from handlers.problems import INTERNAL, KINDS
from litelens.classifier import Prediction

Handler = Callable[[dict[str, Any], LambdaContext], Any]

logger = Logger(service="litelens")
# The dimension's value is POWERTOOLS_SERVICE_NAME, which Powertools reads.
metrics = Metrics(namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE") or "litelens")

# Metrics are not safe for concurrent use, and once there are a hundred values of one, Powertools prints them: a line,
# and then its end, between which no thread may log.
_lock = threading.RLock()


def recorded(handler: Handler, engine: str) -> Handler:
    """The handler, whose invocations have their metrics, and whose lines the ids by which they are found."""

    @logger.inject_lambda_context(clear_state=True)
    @metrics.log_metrics
    def handle(event: dict[str, Any], context: LambdaContext) -> Any:
        started = time.perf_counter()
        _begin(engine, context.aws_request_id)
        try:
            return handler(event, context)
        finally:
            _add("Duration", MetricUnit.Milliseconds, round((time.perf_counter() - started) * 1000, 3))

    return handle


@contextlib.contextmanager
def logged_with(**ids: str | None) -> Iterator[None]:
    """Meanwhile each line that this thread logs has these ids, but for those that are None."""
    logger.thread_safe_append_keys(**ids)
    try:
        yield
    finally:
        logger.thread_safe_remove_keys(ids)


def record_request(request_id: str, route: str | None) -> None:
    """`request_id` is API Gateway's, `route` its resource for the path, such as /v1/classify or /{proxy+}."""
    metrics.add_metadata("request_id", request_id)
    metrics.add_metadata("route", route)
    _add("Requests", MetricUnit.Count, 1)


def record_batch(count: int) -> None:
    """`count` is the messages or objects that one invocation was given."""
    _add("Records", MetricUnit.Count, count)


def record_in_progress(request_id: str) -> None:
    """Another invocation has the same image in hand; the message comes again, and finds the result."""
    with _lock:
        logger.info("in progress", request_id=request_id)


def record_duplicate() -> None:
    """The image that this thread was told of has its result already, and was not classified again."""
    with _lock:
        logger.info("duplicate")
        _add("Duplicates", MetricUnit.Count, 1)


def record_prediction(prediction: Prediction, threshold: float, size: int, request_id: str) -> None:
    """`size` is the image's, in bytes as sent.

    What is uncertain is told by the bundle's `threshold`: by those that requests may name instead, the share of
    uncertain images would tell of the requests and not of the model.
    """
    best = prediction.candidates[0]
    uncertain = best.confidence < threshold
    with _lock:
        logger.info(
            "classified",
            request_id=request_id,
            bytes=size,
            format=prediction.image_format,
            width=prediction.width,
            height=prediction.height,
            label=best.label,
            confidence=round(best.confidence, 6),
            entropy=round(prediction.entropy, 6),
            uncertain=uncertain,
            timing_ms=dataclasses.asdict(prediction.timing),
        )
        _add("Classified", MetricUnit.Count, 1)
        _add("Decode", MetricUnit.Milliseconds, prediction.timing.decode)
        _add("Inference", MetricUnit.Milliseconds, prediction.timing.inference)
        _add("Classification", MetricUnit.Milliseconds, prediction.timing.total)
        _add("ImageBytes", MetricUnit.Bytes, size)
        _add("ImageMegapixels", MetricUnit.NoUnit, prediction.width * prediction.height / 1_000_000)
        _add("Entropy", MetricUnit.NoUnit, round(prediction.entropy, 6))
        _add("Uncertain", MetricUnit.Count, int(uncertain))
        _add(f"Format{prediction.image_format}", MetricUnit.Count, 1)


def record_description(model: str, input_tokens: int, output_tokens: int, request_id: str) -> None:
    with _lock:
        logger.info(
            "described", request_id=request_id, by=model, input_tokens=input_tokens, output_tokens=output_tokens
        )
        _add("Described", MetricUnit.Count, 1)


def record_problem(error: Exception, request_id: str) -> None:
    """`error` is one that problems.KINDS lists: the client's, or what AWS did to us, whose own name is told too."""
    kind = KINDS[type(error)]
    told: dict[str, Any] = {"request_id": request_id, "code": kind.code, "status": kind.status.value}
    with _lock:
        if kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR and kind.status != HTTPStatus.NOT_IMPLEMENTED:
            logger.warning("failed", **told, reason=_reason(error))
            _add("Failed", MetricUnit.Count, 1)
        else:
            logger.info("refused", **told)
            _add("Refused", MetricUnit.Count, 1)
        _add(_code_metric(kind.code), MetricUnit.Count, 1)


def _reason(error: Exception) -> str:
    """AWS's code for what it refused, or the type of what went wrong; never a text, which may hold names and keys."""
    cause = error.__cause__ or error
    response = getattr(cause, "response", None)
    return str(response["Error"]["Code"]) if isinstance(response, dict) else type(cause).__name__


def record_failure(error: Exception, request_id: str) -> None:
    told: dict[str, Any] = {"request_id": request_id, "code": INTERNAL.code, "status": INTERNAL.status.value}
    with _lock:
        logger.error("failed", **told, error=type(error).__name__, at=_call_chain(error))
        _add("Failed", MetricUnit.Count, 1)
        _add(_code_metric(INTERNAL.code), MetricUnit.Count, 1)


def _code_metric(code: str) -> str:
    return "Code" + code.title().replace("_", "")


def _call_chain(error: Exception) -> list[str]:
    """Where the error came from, without the paths and source lines of a stack trace."""
    frames = traceback.walk_tb(error.__traceback__)
    return [f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}:{line}" for frame, line in frames]


def _begin(engine: str, function_request_id: str) -> None:
    # Where metrics are off, Powertools keeps what it does not print, until there are a hundred values, which it prints.
    metrics.clear_metrics()
    ids: dict[str, str] = {"engine": engine, "function_request_id": function_request_id}
    if trace := os.environ.get("_X_AMZN_TRACE_ID"):
        ids["xray_trace_id"] = trace.split(";")[0].removeprefix("Root=")
    for name, value in ids.items():
        metrics.add_metadata(name, value)
    logger.append_keys(engine=engine, service=metrics.service or logger.service)
    # By Powertools' own metric its dimension would be the function's name too, and its line a second one.
    if logger.get_current_keys().get("cold_start"):
        _add("ColdStarts", MetricUnit.Count, 1)


def _add(name: str, unit: MetricUnit, value: float) -> None:
    with _lock:
        metrics.add_metric(name, unit, value)
