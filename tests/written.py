"""What the handlers write for CloudWatch, for tests: every line of the log and of the metrics, as it comes."""

import functools
import json
from io import StringIO
from typing import Any

import pytest
from aws_lambda_powertools.metrics.provider.cloudwatch_emf import cloudwatch

from handlers.records import logger


class Written(StringIO):
    """Standard output of the function."""

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def logged(self, message: str | None = None) -> list[dict[str, Any]]:
        """The lines of the log, all or those with this message."""
        return [line for line in self.lines() if "level" in line and message in (None, line["message"])]

    def emitted(self) -> list[dict[str, Any]]:
        """The lines of metrics, in the embedded metric format."""
        return [line for line in self.lines() if "_aws" in line]

    def values(self, name: str) -> list[float]:
        """Of one metric, in all lines."""
        return [value for line in self.emitted() for value in line.get(name, [])]

    def forget(self) -> None:
        self.seek(0)
        self.truncate()


def written_from_now_on(patch: pytest.MonkeyPatch, written: Written | None = None) -> Written:
    written = written or Written()
    patch.setattr(logger.registered_handler, "stream", written)
    # Not standard output itself, which pytest puts back before the test begins.
    patch.setattr(cloudwatch, "print", functools.partial(print, file=written), raising=False)
    return written


def units(line: dict[str, Any]) -> dict[str, str]:
    """The metrics that CloudWatch takes from a line, with their units."""
    (described,) = line["_aws"]["CloudWatchMetrics"]
    return {metric["Name"]: metric["Unit"] for metric in described["Metrics"]}
