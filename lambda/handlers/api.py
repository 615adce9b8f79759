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

from adapters.deadline import Deadline
from handlers.operations import REPORT_PATH, Operations
from handlers.problems import INTERNAL, KINDS, MethodNotAllowed, UnknownPath, problem
from handlers.records import logger, metrics, record_failure, record_refusal, record_request
from handlers.requests import parse_classify, parse_describe, parse_upload
from settings import Settings, read_settings

Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]

# Left of the invocation's time for finishing an image that was begun and for answering.
_RESERVED_SECONDS = 3.0

_AN_HOUR = 3600
_SCRIPTS_FROM_HERE = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "


def create_handler(settings: Settings) -> Handler:
    """A Lambda handler for API Gateway's REST proxy events, its model loaded and tried.

    Raises BundleError when the bundle cannot be served.
    """
    operations = Operations(settings)
    app = _create_app(operations, settings.cors_origin)
    always = {
        "X-Content-Type-Options": "nosniff",
        # Names are any text, headers are not.
        "Litelens-Model": quote(f"{operations.model.name}/{operations.model.version}"),
    }
    if settings.cors_origin:
        always["Vary"] = "Origin"

    @logger.inject_lambda_context(clear_state=True)
    @metrics.log_metrics
    def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        record_request()
        try:
            answer = app.resolve(event, context)
            request_id = app.current_event.request_context.request_id
        except Exception as error:  # an event that is not API Gateway's breaks the resolver itself
            request_id = context.aws_request_id
            answer = _bare(_fail(error, request_id))
        headers = answer["multiValueHeaders"]
        headers.setdefault("Cache-Control", ["no-store"])
        headers.update({name: [value] for name, value in always.items()} | {"X-Request-Id": [request_id]})
        return answer

    return handle


def _create_app(operations: Operations, cors_origin: str | None) -> APIGatewayRestResolver:
    app = APIGatewayRestResolver(cors=_cors(cors_origin) if cors_origin else None)

    def request_id() -> str:
        return app.current_event.request_context.request_id

    def deadline() -> Deadline:
        return Deadline.after(app.lambda_context.get_remaining_time_in_millis() / 1000 - _RESERVED_SECONDS)

    def classify() -> Response[str]:
        return _json(operations.classify(parse_classify(app.current_event), deadline(), request_id()))

    def describe() -> Response[str]:
        return _json(operations.describe(parse_describe(app.current_event), deadline(), request_id()))

    def create_upload() -> Response[str]:
        return _json(operations.create_upload(parse_upload(app.current_event), request_id()), HTTPStatus.CREATED)

    def tell_result(upload_id: str) -> Response[str]:
        return _json(operations.tell_result(upload_id, deadline(), request_id()))

    def tell_health() -> Response[str]:
        return _json(operations.tell_health())

    def tell_model() -> Response[str]:
        return cached(msgspec.json.encode(operations.tell_model()).decode(), "application/json")

    def show_report() -> Response[str]:
        return cached(operations.show_report(), "text/html; charset=utf-8")

    def show_document() -> Response[str]:
        from handlers.openapi import describe_api

        return cached(msgspec.json.encode(describe_api(_server(app))).decode(), "application/json")

    def show_docs() -> Response[str]:
        from handlers.swagger import page

        answer = cached(page(_server(app)), "text/html; charset=utf-8")
        answer.headers["Content-Security-Policy"] = _SCRIPTS_FROM_HERE + "connect-src 'self'"
        return answer

    def show_docs_file(name: str) -> Response[str]:
        from handlers.swagger import read_asset

        body, content_type = read_asset(name)
        return cached(body, content_type)

    def cached(body: str, content_type: str) -> Response[str]:
        """An answer that changes with a deployment only, or 304 for a client that has it already."""
        tag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": f"private, max-age={_AN_HOUR}"}
        known = app.current_event.headers.get("if-none-match") or ""
        if tag in known or known.strip() == "*":
            return Response(HTTPStatus.NOT_MODIFIED.value, headers=headers, body="")
        return Response(HTTPStatus.OK.value, content_type=content_type, body=body, headers=headers)

    routes: dict[str, tuple[str, Callable[..., Response[str]]]] = {
        "/v1/classify": ("POST", classify),
        "/v1/uploads": ("POST", create_upload),
        "/v1/results/<upload_id>": ("GET", tell_result),
        "/v1/describe": ("POST", describe),
        "/v1/model": ("GET", tell_model),
        REPORT_PATH: ("GET", show_report),
        "/v1/health": ("GET", tell_health),
        "/openapi.json": ("GET", show_document),
        "/docs": ("GET", show_docs),
        "/docs/<name>": ("GET", show_docs_file),
    }

    def refuse(error: Exception) -> Response[str]:
        kind = KINDS[type(error)]
        record_refusal(kind, request_id())
        return problem(kind, str(error), request_id())

    def refuse_route(_: NotFoundError) -> Response[str]:
        path, asked = app.current_event.path.rstrip("/"), app.current_event.http_method.upper()
        for template, (allowed, _function) in routes.items():
            # The resolver's parameters take fewer characters, so that the method may be right and the path is not.
            if asked != allowed and re.fullmatch(re.sub("<.+>", "[^/]+", template), path):
                answer = refuse(MethodNotAllowed(f"This path takes {allowed} only."))
                answer.headers["Allow"] = allowed
                return answer
        return refuse(UnknownPath("There is nothing at this path; GET /docs shows what there is."))

    for path, (method, function) in routes.items():
        app.route(path, method=method)(function)
    app.not_found(refuse_route)
    app.exception_handler(list(KINDS))(refuse)
    app.exception_handler(Exception)(lambda error: _fail(error, request_id()))
    return app


def _cors(origin: str) -> CORSConfig:
    return CORSConfig(
        allow_origin=origin,
        allow_headers=["content-type", "x-api-key", "if-none-match"],
        expose_headers=["x-request-id", "litelens-model", "etag", "retry-after"],
        max_age=_AN_HOUR,
    )


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


def _server(app: APIGatewayRestResolver) -> str:
    """The API's root as this client called it: the stage is in the path of API Gateway's own host names only."""
    path, called = app.current_event.path, app.current_event.request_context.path or ""
    return called.removesuffix(path) if called.endswith(path) else ""


handler = create_handler(read_settings())
