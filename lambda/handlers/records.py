"""What is written down of each request: log lines and metrics, never bytes, keys or base64."""

import dataclasses
import threading
import traceback
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from handlers.problems import KINDS
from litelens.classifier import Prediction

logger = Logger(service="litelens")
# The service is the environment's POWERTOOLS_SERVICE_NAME.
metrics = Metrics(namespace="litelens")

# Metrics are not safe for concurrent use.
_lock = threading.Lock()


def record_request() -> None:
    _count("Requests", MetricUnit.Count, 1)


def record_batch(count: int) -> None:
    """`count` is the messages or objects that one invocation was given."""
    _count("Records", MetricUnit.Count, count)


def record_in_progress(request_id: str) -> None:
    """Another invocation has the same image in hand; the message comes again, and finds the result."""
    logger.info("in progress", request_id=request_id)


def record_prediction(prediction: Prediction, size: int, request_id: str) -> None:
    """`size` is the image's, in bytes as sent."""
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
    _count("Classified", MetricUnit.Count, 1)
    _count("Decode", MetricUnit.Milliseconds, prediction.timing.decode)
    _count("Inference", MetricUnit.Milliseconds, prediction.timing.inference)


def record_description(model: str, input_tokens: int, output_tokens: int, request_id: str) -> None:
    logger.info("described", request_id=request_id, by=model, input_tokens=input_tokens, output_tokens=output_tokens)
    _count("Described", MetricUnit.Count, 1)


def record_problem(error: Exception, request_id: str) -> None:
    """`error` is one that problems.KINDS lists: the client's, or what AWS did to us, whose own name is told too."""
    kind = KINDS[type(error)]
    told: dict[str, Any] = {"request_id": request_id, "code": kind.code, "status": kind.status.value}
    if kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR and kind.status != HTTPStatus.NOT_IMPLEMENTED:
        logger.warning("failed", **told, reason=_reason(error))
        _count("Failed", MetricUnit.Count, 1)
    else:
        logger.info("refused", **told)
        _count("Refused", MetricUnit.Count, 1)


def _reason(error: Exception) -> str:
    """AWS's code for what it refused, or the type of what went wrong; never a text, which may hold names and keys."""
    cause = error.__cause__ or error
    response = getattr(cause, "response", None)
    return str(response["Error"]["Code"]) if isinstance(response, dict) else type(cause).__name__


def record_failure(error: Exception, request_id: str) -> None:
    logger.error("failed", request_id=request_id, error=type(error).__name__, at=_call_chain(error))
    _count("Failed", MetricUnit.Count, 1)


def _call_chain(error: Exception) -> list[str]:
    """Where the error came from, without the paths and source lines of a stack trace."""
    frames = traceback.walk_tb(error.__traceback__)
    return [f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}:{line}" for frame, line in frames]


def _count(name: str, unit: MetricUnit, value: float) -> None:
    with _lock:
        metrics.add_metric(name, unit, value)
