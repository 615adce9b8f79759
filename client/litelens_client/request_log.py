"""The log of `litelens serve`: a short line for each request. It has no headers, queries or bodies, so no keys."""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from starlette.responses import Response

from litelens_client.output import counted, printable

# Longer paths are cut.
_MAX_PATH = 100

# The last calls before an error that are shown.
_SHOWN_CALLS = 3

# The code of a colour for terminals by the first digit of the status: green, yellow or red.
_COLOURS: Mapping[int, int] = {2: 32, 3: 32, 4: 33, 5: 31}


class _Prediction(Struct, frozen=True):
    label: str
    confidence: float
    present: bool | None = None


class _Result(Struct, frozen=True):
    status: str


class _Document(Struct, frozen=True):
    """The fields of a response that are logged: the code of a problem, one answer, or the results of several photos."""

    code: str = ""
    predictions: tuple[_Prediction, ...] = ()
    uncertain: bool = False
    unfamiliar: bool = False
    results: tuple[_Result, ...] | None = None


@dataclass(frozen=True)
class Logged:
    """A request and its response, and the seconds between; None if the client was gone before the response."""

    method: str
    path: str
    response: Response | None
    seconds: float

    def result(self) -> str:
        """Return the label of a classification, the code of an error, or an empty text."""
        if self.response is None:
            return ""
        is_error = self.response.status_code >= 400
        if not is_error and not self.path.endswith("/classify"):
            return ""
        try:
            document = msgspec.json.decode(self.response.body, type=_Document)
        except (ValueError, RecursionError):
            # Not a document of the API, such as API Gateway's text about the length of a body.
            return ""
        return document.code if is_error else _classification(document)


class RequestLog:
    """Prints requests on standard output, in colour on a terminal."""

    def __init__(self) -> None:
        console = Console()
        self._is_coloured = bool(console.color_system) and not (console.no_color or console.legacy_windows)

    def write(self, logged: Logged) -> None:
        """Print a line; does nothing if standard output cannot be written."""
        path = printable(logged.path)
        path = path if len(path) <= _MAX_PATH else f"{path[:_MAX_PATH]}..."
        line = f"{logged.method} {path} {self._status(logged.response)} {logged.seconds * 1000:.0f} ms"
        if result := logged.result():
            line += f"  {printable(result)}"
        with contextlib.suppress(OSError):
            print(line, flush=True)

    def _status(self, response: Response | None) -> str:
        if response is None:
            return "gone"
        code, colour = response.status_code, _COLOURS.get(response.status_code // 100)
        return f"\x1b[{colour}m{code}\x1b[0m" if self._is_coloured and colour else f"{code}"


def replace_json_lines() -> None:
    """Instead of the handler's JSON lines, log only its warnings and errors, each as a short line on standard error."""
    # Imported here, because the import reads the environment.
    from litelens.telemetry import logger

    logger.registered_handler.setLevel(logging.CRITICAL)
    failures = logging.StreamHandler()
    failures.setLevel(logging.WARNING)
    failures.setFormatter(_FailureFormatter())
    logger.addHandler(failures)


class _FailureFormatter(logging.Formatter):
    """Formats a message; for a request that failed, with the reason, or with the error and where it was raised."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = record.__dict__
        if "code" not in fields:
            return printable(record.getMessage())
        reason = fields.get("reason") or f"{fields['error']} in {' > '.join(fields['at'][-_SHOWN_CALLS:])}"
        return printable(f"{record.getMessage()}: {fields['code']}, {reason}")


def _classification(document: _Document) -> str:
    """Return the labels of one photo with their confidences, or the number of photos."""
    if document.results is not None:
        failed = sum(result.status == "failed" for result in document.results)
        photos = counted(len(document.results), "photo")
        return f"{photos}, {failed} failed" if failed else photos
    # The answer of a multi-label model says of each label whether it is present.
    labels = [
        each for at, each in enumerate(document.predictions) if each.present or (each.present is None and at == 0)
    ]
    doubt = "unfamiliar" if document.unfamiliar else "uncertain" if document.uncertain else ""
    answer = ", ".join(f"{each.label} {each.confidence:.2f}" for each in labels)
    return f"{answer} {doubt}".strip()
