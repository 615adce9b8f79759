"""The log lines and metrics that the handlers write, captured for tests."""

import functools
import json
from io import StringIO
from typing import Any

import pytest
from aws_lambda_powertools.metrics.provider.cloudwatch_emf import cloudwatch

from litelens.telemetry import logger


class CapturedLogs(StringIO):
    """The function's standard output: JSON lines of logs and metrics."""

    def lines(self) -> list[dict[str, Any]]:
        """Return all lines."""
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def log_lines(self, message: str | None = None) -> list[dict[str, Any]]:
        """Return the log lines, all or with this message."""
        return [line for line in self.lines() if "level" in line and message in (None, line["message"])]

    def classified(self) -> list[dict[str, Any]]:
        """Return the lines that describe classified images: lines of metrics, or lines of their own."""
        return [line for line in self.lines() if line.get("message") == "classified"]

    def metric_lines(self) -> list[dict[str, Any]]:
        """Return the lines of metrics, in the embedded metric format."""
        return [line for line in self.lines() if "_aws" in line]

    def metric_values(self, name: str) -> list[float]:
        """Return the values of a metric in all lines."""
        return [value for line in self.metric_lines() for value in line.get(name, [])]

    def clear(self) -> None:
        self.seek(0)
        self.truncate()


def capture_logs(patch: pytest.MonkeyPatch, captured: CapturedLogs | None = None) -> CapturedLogs:
    """Capture log lines and metrics from now on."""
    captured = captured or CapturedLogs()
    patch.setattr(logger.registered_handler, "stream", captured)
    # Patch print, not standard output, because pytest restores standard output before the test begins.
    patch.setattr(cloudwatch, "print", functools.partial(print, file=captured), raising=False)
    return captured


def metric_units(line: dict[str, Any]) -> dict[str, str]:
    """Return the metrics that CloudWatch reads from a line, with their units."""
    (described,) = line["_aws"]["CloudWatchMetrics"]
    return {metric["Name"]: metric["Unit"] for metric in described["Metrics"]}
