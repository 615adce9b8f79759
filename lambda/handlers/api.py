"""The HTTP API behind API Gateway: which function answers which route, and what every answer carries."""

import hashlib
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.api_gateway import CORSConfig
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.typing import LambdaContext

from adapters.calls import Service
from adapters.deadline import Deadline
from adapters.snapshots import prepare_for_snapshots
from handlers.operations import DESCRIBE_PATH, REPORT_PATH, UPLOADS_PATH, Operations
from handlers.problems import INTERNAL, KINDS, MethodNotAllowed, UnknownPath, problem
from handlers.records import record_failure, record_problem, record_request, recorded
from handlers.requests import Call
from settings import Settings, read_settings

Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]

# Left of the invocation's time for finishing an image that was begun and for answering.
RESERVED_SECONDS = 3.0

_AN_HOUR = 3600
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
)

# The report's script and styles are inline, and whatever a bundle brings along must not reach what pages of the same
# origin keep, such as a key.
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)


def create_handler(settings: Settings) -> Handler:
    """A Lambda handler for API Gateway's REST proxy events, its model loaded and tried.

    Raises BundleError when the bundle cannot be served.
    """
    operations = Operations(settings)
    app = _Routes(operations, settings.cors_origin).app
    always = {
        "X-Content-Type-Options": "nosniff",
        # Names are any text, headers are not.
        "Litelens-Model": quote(f"{operations.model.name}/{operations.model.version}"),
    }
    if settings.cors_origin:
        always["Vary"] = "Origin"

    def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        try:
            answer = app.resolve(event, context)
            request_id, route = app.current_event.request_context.request_id, event.get("resource")
        except Exception as error:  # an event that is not API Gateway's breaks the resolver itself
            request_id, route = context.aws_request_id, None
            answer = _bare(_fail(error, request_id))
        record_request(request_id, route)
        headers = answer["multiValueHeaders"]
        headers.setdefault("Cache-Control", ["no-store"])
        headers.update({name: [value] for name, value in always.items()} | {"X-Request-Id": [request_id]})
        return answer

    return recorded(handle, settings.engine)


class _Routes:
    """What is answered at which path. Functions that only the documentation needs are imported when it is read."""

    def __init__(self, operations: Operations, cors_origin: str | None) -> None:
        self.app = APIGatewayRestResolver(cors=_cors(cors_origin) if cors_origin else None)
        self._operations = operations
        self._routes: dict[str, tuple[str, Callable[..., Response[str]]]] = {
            "/v1/classify": ("POST", self._classify),
            UPLOADS_PATH: ("POST", self._create_upload),
            "/v1/results/<upload_id>": ("GET", self._tell_result),
            DESCRIBE_PATH: ("POST", self._describe),
            "/v1/model": ("GET", self._tell_model),
            REPORT_PATH: ("GET", self._show_report),
            "/v1/health": ("GET", self._tell_health),
            "/openapi.json": ("GET", self._show_document),
            "/docs": ("GET", self._show_docs),
            "/docs/<name>": ("GET", self._show_docs_file),
        }
        for path, (method, function) in self._routes.items():
            self.app.route(path, method=method)(function)
        self.app.not_found(self._refuse_route)
        self.app.exception_handler(list(KINDS))(self._refuse)
        self.app.exception_handler(Exception)(lambda error: _fail(error, self._request_id()))

    def _classify(self) -> Response[str]:
        return _json(self._operations.classify(self._call()))

    def _describe(self) -> Response[str]:
        return _json(self._operations.describe(self._call()))

    def _create_upload(self) -> Response[str]:
        return _json(self._operations.create_upload(self._call()), HTTPStatus.CREATED)

    def _tell_result(self, upload_id: str) -> Response[str]:
        return _json(self._operations.tell_result(upload_id, self._call()))

    def _tell_health(self) -> Response[str]:
        return _json(self._operations.tell_health())

    def _tell_model(self) -> Response[str]:
        return self._cached(msgspec.json.encode(self._operations.tell_model()).decode(), "application/json")

    def _show_report(self) -> Response[str]:
        answer = self._cached(self._operations.show_report(), "text/html; charset=utf-8")
        answer.headers["Content-Security-Policy"] = _REPORT_POLICY
        return answer

    def _show_document(self) -> Response[str]:
        from handlers.openapi import describe_api

        return self._cached(msgspec.json.encode(describe_api(self._server())).decode(), "application/json")

    def _show_docs(self) -> Response[str]:
        from handlers.swagger import page

        answer = self._cached(page(self._server()), "text/html; charset=utf-8")
        answer.headers["Content-Security-Policy"] = _DOCS_POLICY
        return answer

    def _show_docs_file(self, name: str) -> Response[str]:
        from handlers.swagger import read_asset

        return self._cached(*read_asset(name))

    def _cached(self, body: str, content_type: str) -> Response[str]:
        """An answer that changes with a deployment only, or 304 for a client that has it already."""
        tag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": f"private, max-age={_AN_HOUR}"}
        known = self.app.current_event.headers.get("if-none-match") or ""
        if tag in known or known.strip() == "*":
            return Response(HTTPStatus.NOT_MODIFIED.value, headers=headers, body="")
        return Response(HTTPStatus.OK.value, content_type=content_type, body=body, headers=headers)

    def _refuse(self, error: Exception) -> Response[str]:
        record_problem(error, self._request_id())
        return problem(KINDS[type(error)], str(error), self._request_id())

    def _refuse_route(self, _: NotFoundError) -> Response[str]:
        path, asked = self.app.current_event.path.rstrip("/"), self.app.current_event.http_method.upper()
        for template, (allowed, _function) in self._routes.items():
            # The resolver's parameters take fewer characters, so that the method may be right and the path is not.
            if asked != allowed and re.fullmatch(re.sub("<.+>", "[^/]+", template), path):
                answer = self._refuse(MethodNotAllowed(f"This path takes {allowed} only."))
                answer.headers["Allow"] = allowed
                return answer
        return self._refuse(UnknownPath("There is nothing at this path; GET /docs shows what there is."))

    def _call(self) -> Call:
        remaining = self.app.lambda_context.get_remaining_time_in_millis() / 1000
        return Call(self.app.current_event, Deadline.after(remaining - RESERVED_SECONDS), self._request_id())

    def _request_id(self) -> str:
        return self.app.current_event.request_context.request_id

    def _server(self) -> str:
        """The API's root as this client called it: the stage is in the path of API Gateway's own host names only."""
        path, called = self.app.current_event.path, self.app.current_event.request_context.path or ""
        return called.removesuffix(path) if called.endswith(path) else ""


def _cors(origin: str) -> CORSConfig:
    return CORSConfig(
        allow_origin=origin,
        allow_headers=["content-type", "x-api-key", "if-none-match"],
        expose_headers=["x-request-id", "litelens-model", "etag", "retry-after"],
        max_age=_AN_HOUR,
    )


def _services(settings: Settings) -> list[Service]:
    """What of AWS requests can need here."""
    services: dict[Service, object] = {
        "s3": settings.buckets or settings.upload_bucket,
        "dynamodb": settings.results_table,
    }
    return [service for service, configured in services.items() if configured]


def _fail(error: Exception, request_id: str) -> Response[str]:
    record_failure(error, request_id)
    return problem(INTERNAL, "The request could not be completed; it may be sent again.", request_id)


def _bare(answer: Response[str]) -> dict[str, Any]:
    headers = {**answer.headers, "Content-Type": answer.content_type}
    return {
        "statusCode": answer.status_code,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "body": answer.body,
        "isBase64Encoded": False,
    }


def _json(answer: msgspec.Struct, status: HTTPStatus = HTTPStatus.OK) -> Response[str]:
    return Response(status.value, content_type="application/json", body=msgspec.json.encode(answer).decode())


_settings = read_settings()
handler = create_handler(_settings)
prepare_for_snapshots(_services(_settings))
