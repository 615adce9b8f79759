"""Generate openapi.json, the OpenAPI 3.1 description of the API, from the schemas of requests and responses.

`make openapi` runs it. The image contains the file and not this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from litelens.api import problems, requests, response_schemas
from litelens.aws.errors import (
    BucketNotAllowed,
    DescribeRefused,
    DescribeThrottled,
    DescribeTimeout,
    DescribeUnavailable,
    ObjectAccessDenied,
    ObjectNotFound,
    ObjectVersionNotFound,
    StorageTimeout,
    StorageUnavailable,
)
from litelens.core.errors import (
    CorruptImage,
    ImageMissing,
    ImageTooLarge,
    InternalError,
    InvalidOption,
    ModelNotFound,
    ModelUnusable,
    NotAnImage,
    ReportedError,
)
from litelens.core.formats import MEDIA_TYPES
from litelens.settings import MAX_IMAGES

VERSION = "1.0.0"

_ABOUT = (
    "Errors are problem documents (RFC 9457): programs read `code`, people read `detail`. Images are JPEG, PNG, WebP, "
    "GIF or BMP; EXIF orientation is applied, transparency becomes white, and only an animation's first frame is used."
)
_TAGS = {
    "images": "Classify and describe images.",
    "large images": "Upload an image that is too large for a request, and get its result.",
    "service": "The models and their health.",
}

_READING = (
    problems.InvalidJson,
    problems.InvalidMultipart,
    problems.InvalidRequest,
    problems.InvalidBase64,
    InvalidOption,
    ImageMissing,
    problems.RequestTooLarge,
    problems.UnsupportedMediaType,
)
_CHOOSING = (ModelNotFound, ModelUnusable)
_DECODING = (ImageTooLarge, NotAnImage, CorruptImage)
_STORAGE = (StorageUnavailable, StorageTimeout)
_OBJECTS = (BucketNotAllowed, ObjectAccessDenied, ObjectNotFound, ObjectVersionNotFound, *_STORAGE)
_DESCRIBING = (DescribeRefused, DescribeUnavailable, DescribeThrottled, DescribeTimeout, problems.NotConfigured)

_JSON, _PROBLEM = "application/json", "application/problem+json"
_PREDICTION = {"label": "espresso", "index": 967, "confidence": 0.835643, "group": "food and drinks"}
_MODEL = {"name": "everyday", "version": "1.1.0"}
_RED = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP8z8DAwMDAxMDAwMDAAAANHQEDasKb6QAAAABJRU5ErkJggg=="
_REQUEST_ID = "9a00d317-3e73-4f23-aec5-3eb8269d6efd"
_UPLOAD_ID = "019a6f3e-8f2c-7c11-a9d3-4b6a2f0e91c7"


@dataclass(frozen=True)
class Operation:
    """The documentation of one route. `body` and `answer` map content types to schemas."""

    method: str
    path: str
    tag: str
    id: str
    summary: str
    answer: Mapping[str, Any]
    problems: tuple[type[ReportedError], ...] = ()
    body: Mapping[str, Any] | None = None
    parameters: tuple[Mapping[str, Any], ...] = ()
    status: int = 200
    is_public: bool = False
    is_cached: bool = False


def describe_api() -> dict[str, Any]:
    """Return the OpenAPI document of an API whose root is `/`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "litelens",
            "version": VERSION,
            "summary": "Image classification with confidences.",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "apiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-api-key",
                    "description": "A key of the deployment's usage plan; `make run` needs none.",
                }
            },
        },
    }


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return paths


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.id, "tags": [operation.tag], "summary": operation.summary}
    if operation.is_public:
        described["security"] = []
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": dict(operation.body)}
    described["responses"] = _responses(operation)
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    headers = dict(_HEADERS)
    if operation.is_cached:
        headers["ETag"] = {"schema": {"type": "string"}, "description": "Send it as If-None-Match to get 304."}
    responses: dict[str, Any] = {
        str(operation.status): {
            "description": "Success.",
            "headers": headers,
            "content": dict(operation.answer),
        }
    }
    if operation.is_cached:
        responses["304"] = {"description": "The client's copy is current.", "headers": headers}
    for status, errors in sorted(_errors_by_status(operation).items()):
        responses[str(status)] = _problem_response(errors)
    return responses


def _errors_by_status(operation: Operation) -> dict[int, list[type[ReportedError]]]:
    errors: list[type[ReportedError]] = [*operation.problems, InternalError, problems.TooManyRequests]
    if not operation.is_public:
        errors += [problems.Forbidden, problems.QuotaExceeded]
    by_status: dict[int, list[type[ReportedError]]] = {}
    for error in errors:
        by_status.setdefault(error.status.value, []).append(error)
    return by_status


def _problem_response(errors: list[type[ReportedError]]) -> dict[str, Any]:
    examples = {
        error.code: {"value": msgspec.to_builtins(problems.problem_document(error(f"{error.title}."), _REQUEST_ID))}
        for error in errors
    }
    headers = dict(_HEADERS)
    if any(error.retry_after is not None for error in errors):
        headers["Retry-After"] = {"schema": {"type": "string"}, "description": "Seconds to wait before the next try."}
    return {
        "description": "; ".join(f"`{error.code}`: {error.title}" for error in errors) + ".",
        "headers": headers,
        "content": {_PROBLEM: {"schema": _refer("Problem"), "examples": examples}},
    }


def _schemas() -> dict[str, Any]:
    schemas = _components(
        requests.ClassifyBody,
        requests.DescribeBody,
        requests.UploadBody,
        requests.ImageInput,
        response_schemas.ClassifyAnswer,
        response_schemas.ClassifyManyAnswer,
        response_schemas.DescribeAnswer,
        response_schemas.UploadAnswer,
        response_schemas.ResultAnswer,
        response_schemas.ModelAnswer,
        response_schemas.ModelsAnswer,
        response_schemas.HealthAnswer,
        response_schemas.Problem,
    )
    one = [{"required": [field]} for field in ("image", "s3", "s3_uri")]
    schemas["ImageInput"]["oneOf"] = one
    schemas["DescribeBody"]["oneOf"] = one
    schemas["ClassifyBody"]["oneOf"] = [*one, {"required": ["images"]}]
    # Any other value is accepted too, and fails only its own image.
    schemas["ClassifyBody"]["properties"]["images"]["items"] = {"anyOf": [_refer("ImageInput"), {}]}
    return schemas


def _components(*structs: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON schemas of these structs, and of those that they contain, by name."""
    _, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    if requests.ClassifyBody in structs:
        schemas["ClassifyBody"]["properties"]["top_k"]["type"] = "integer"
    return schemas


def _refer(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(*names: str, **examples: Any) -> dict[str, Any]:
    """Return media type content: one of these schemas, and named examples (an underscore in a name becomes a space)."""
    schemas = [_refer(name) for name in names]
    content: dict[str, Any] = {"schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas}}
    if examples:
        content["examples"] = {key.replace("_", " "): {"value": value} for key, value in examples.items()}
    return content


def _fields(body: type[msgspec.Struct], *names: str) -> dict[str, Any]:
    """Return the schemas of these fields of a JSON body, for queries and forms."""
    schemas = _components(body)
    fields = {name: dict(schemas[body.__name__]["properties"][name]) for name in names}
    for field in fields.values():
        # An example of a form would also need an image file, which JSON cannot contain.
        field.pop("examples", None)
    return fields


def _query(name: str, field: Mapping[str, Any]) -> dict[str, Any]:
    schema = dict(field)
    return {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema}


def _form(many: bool, **fields: Any) -> dict[str, Any]:
    image = {"type": "string", "contentMediaType": "application/octet-stream"}
    images = {"oneOf": [image, {"type": "array", "items": image, "minItems": 1, "maxItems": MAX_IMAGES}]}
    return {
        "schema": {
            "type": "object",
            "required": ["image"],
            "properties": {"image": images if many else image, **fields},
            "additionalProperties": False,
        },
        "encoding": {"image": {"contentType": ", ".join(MEDIA_TYPES)}},
    }


_HEADERS = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "The request's id in the logs."},
    "Litelens-Model": {
        "schema": {"type": "string"},
        "description": "The name and version of the model that answered, or of the default model.",
    },
}
_BYTES: dict[str, Any] = {media_type: {} for media_type in MEDIA_TYPES}

_OPTIONS = _fields(
    requests.ClassifyBody, "model", "top_k", "threshold", "heatmap", "heatmap_label", "embedding", "embedding_format"
)
_MODEL_IN_QUERY = _query("model", _OPTIONS["model"])
_DESCRIBE_OPTIONS = _fields(requests.DescribeBody, "model", "question")

_ONE = {
    "model": _MODEL,
    "image": {"format": "JPEG", "width": 640, "height": 427},
    "predictions": [_PREDICTION],
    "uncertain": False,
    "timing_ms": {"decode": 2.2, "inference": 1.366, "total": 3.566},
    "request_id": _REQUEST_ID,
}
_SEVERAL_LABELS = {
    **_ONE,
    "model": {"name": "beach", "version": "1.0.0"},
    "predictions": [
        {"label": "sea", "index": 1, "confidence": 0.931276, "present": True},
        {"label": "dog", "index": 0, "confidence": 0.612404, "present": True},
        {"label": "snow", "index": 2, "confidence": 0.020917, "present": False},
    ],
}
_MODELS = {
    "default": "everyday",
    "models": [
        {
            **_MODEL,
            "description": "Names everyday things, animals and places.",
            "label_count": 1000,
            "links": {"model": "/v1/model?model=everyday", "report": "/v1/model/report?model=everyday"},
        },
        {"name": "pets", "error": "models/pets/manifest.json cannot be read: Permission denied."},
    ],
}
_PENDING = {"id": _UPLOAD_ID, "model": _MODEL, "result": {"status": "pending"}, "request_id": _REQUEST_ID}

OPERATIONS = (
    Operation(
        "POST",
        "/v1/classify",
        "images",
        "classify",
        "Classify one image or several",
        answer={
            _JSON: _content("ClassifyAnswer", "ClassifyManyAnswer", one_image=_ONE, several_labels=_SEVERAL_LABELS)
        },
        problems=(*_READING, *_CHOOSING, *_DECODING, *_OBJECTS, problems.OutOfTime),
        body={
            **_BYTES,
            _JSON: _content(
                "ClassifyBody",
                base64={"image": _RED, "top_k": 3},
                in_S3={"s3_uri": "s3://photos/cat.jpg"},
                several={"images": [{"image": _RED}, {"s3_uri": "s3://photos/cat.jpg"}]},
            ),
            requests.FORM_TYPE: _form(True, **_OPTIONS),
        },
        parameters=tuple(_query(name, field) for name, field in _OPTIONS.items()),
    ),
    Operation(
        "POST",
        "/v1/uploads",
        "large images",
        "createUpload",
        "Create a form to upload a large image",
        answer={_JSON: _content("UploadAnswer")},
        problems=(
            problems.InvalidJson,
            problems.InvalidRequest,
            problems.InvalidBase64,
            problems.UnsupportedMediaType,
            problems.NotConfigured,
            *_STORAGE,
        ),
        body={_JSON: _content("UploadBody", a_photo={"content_type": "image/jpeg"})},
        status=201,
    ),
    Operation(
        "GET",
        "/v1/results/{id}",
        "large images",
        "getResult",
        "Get the result of an upload",
        answer={_JSON: _content("ResultAnswer", not_there_yet=_PENDING)},
        problems=(problems.UnknownPath, problems.UnknownResult, problems.NotConfigured, ObjectAccessDenied, *_STORAGE),
        parameters=(
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": "The id that POST /v1/uploads returned.",
                "schema": {"type": "string", "format": "uuid"},
                "example": _UPLOAD_ID,
            },
        ),
    ),
    Operation(
        "POST",
        "/v1/describe",
        "images",
        "describe",
        "Ask a language model about an image, if one is configured",
        answer={_JSON: _content("DescribeAnswer")},
        problems=(*_READING, *_CHOOSING, *_DECODING, *_OBJECTS, *_DESCRIBING),
        body={
            **_BYTES,
            _JSON: _content("DescribeBody", a_question={"s3_uri": "s3://photos/cat.jpg", "question": "Which breed?"}),
            requests.FORM_TYPE: _form(False, **_DESCRIBE_OPTIONS),
        },
        parameters=tuple(_query(name, field) for name, field in _DESCRIBE_OPTIONS.items()),
    ),
    Operation(
        "GET",
        "/v1/models",
        "service",
        "listModels",
        "List the models",
        answer={_JSON: _content("ModelsAnswer", two_models=_MODELS)},
        is_cached=True,
    ),
    Operation(
        "GET",
        "/v1/model",
        "service",
        "getModel",
        "Get a model's manifest and metrics, and this deployment's limits and endpoints",
        answer={_JSON: _content("ModelAnswer")},
        problems=(problems.InvalidRequest, *_CHOOSING),
        parameters=(_MODEL_IN_QUERY,),
        is_cached=True,
    ),
    Operation(
        "GET",
        "/v1/model/report",
        "service",
        "getReport",
        "Get a model's report as a page",
        answer={"text/html": {"schema": {"type": "string"}}},
        problems=(problems.UnknownPath, problems.InvalidRequest, *_CHOOSING),
        parameters=(_MODEL_IN_QUERY,),
        is_cached=True,
    ),
    Operation(
        "GET",
        "/v1/health",
        "service",
        "getHealth",
        "Check that the default model works",
        answer={_JSON: _content("HealthAnswer")},
        problems=(ModelUnusable,),
        is_public=True,
    ),
)


if __name__ == "__main__":
    print(msgspec.json.format(msgspec.json.encode(describe_api())).decode())
