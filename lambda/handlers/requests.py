"""From an API Gateway event to the images and options in it."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent
from msgspec import UNSET

from adapters.deadline import Deadline
from adapters.describer import Turn
from adapters.objects import ObjectLocation
from handlers.bodies import (
    FORM_TYPE,
    IMAGE_TYPES,
    JSON_TYPE,
    MAX_IMAGES,
    MAX_QUESTION,
    ClassifyBody,
    DescribeBody,
    ImageInput,
    UploadBody,
)
from handlers.forms import read_form
from handlers.problems import InvalidBase64, InvalidJson, InvalidRequest, UnsupportedMediaType
from litelens.classifier import DEFAULT_TOP_K, Options
from litelens.errors import ImageMissing, InvalidOption

_DATA_URL = re.compile(r"\s*data:[^,]*;base64,", re.IGNORECASE)
_S3_URI = re.compile(r"s3://([^/?#]+)/(.+)", re.DOTALL)

# As much of what a caller sent as an answer repeats.
_QUOTED = 80


@dataclass(frozen=True)
class Call:
    """One request, the time left for it, and the id that finds it in the logs."""

    event: APIGatewayProxyEvent
    deadline: Deadline
    id: str


# An image in a request: its bytes, or what the JSON says of it, which may not have been read yet.
Image = bytes | ImageInput | msgspec.Raw


@dataclass(frozen=True)
class ClassifyRequest:
    """The images, and what is asked of each."""

    images: tuple[Image, ...]
    are_many: bool
    options: Options


@dataclass(frozen=True)
class DescribeRequest:
    image: Image
    question: str | None
    turns: tuple[Turn, ...]


Body = TypeVar("Body")


def parse_classify(event: APIGatewayProxyEvent) -> ClassifyRequest:
    """What a `POST /v1/classify` asks for; raises RequestError, ImageMissing or InvalidOption."""
    asked = _options_in_text(event.query_string_parameters)
    media_type = _media_type(event)
    if media_type == JSON_TYPE:
        body = _json(_body(event), ClassifyBody)
        if body.images is not UNSET and _is_given(body):
            raise InvalidRequest("The JSON must have one image or 'images', not both.")
        options = _options(asked | _options_in_json(body))
        if body.images is UNSET:
            return ClassifyRequest((body,), False, options)
        return ClassifyRequest(tuple(body.images), True, options)
    if media_type == FORM_TYPE:
        form = read_form(_body(event), event.headers["content-type"], images=MAX_IMAGES, fields=tuple(_IN_TEXT))
        return ClassifyRequest(form.images, len(form.images) > 1, _options(asked | _options_in_text(form.fields)))
    return ClassifyRequest((_raw(event, media_type),), False, _options(asked))


def parse_describe(event: APIGatewayProxyEvent) -> DescribeRequest:
    """What a `POST /v1/describe` asks for; raises RequestError or ImageMissing."""
    media_type = _media_type(event)
    if media_type == JSON_TYPE:
        body = _json(_body(event), DescribeBody)
        return DescribeRequest(body, None if body.question is UNSET else body.question, tuple(body.turns))
    if media_type == FORM_TYPE:
        form = read_form(_body(event), event.headers["content-type"], images=1, fields=("question",))
        return DescribeRequest(form.images[0], _question(form.fields), ())
    return DescribeRequest(_raw(event, media_type), _question(event.query_string_parameters), ())


def parse_upload(event: APIGatewayProxyEvent) -> UploadBody:
    """What a `POST /v1/uploads` asks for; raises RequestError."""
    media_type = _media_type(event)
    if media_type != JSON_TYPE:
        raise UnsupportedMediaType(f"The content type is {_quoted(media_type)}; send {JSON_TYPE}.")
    return _json(_body(event), UploadBody)


def source_of(image: Image) -> bytes | ObjectLocation:
    """The image's bytes, or where in S3 they lie; raises RequestError or ImageMissing."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, msgspec.Raw):
        image = _json(bytes(image), ImageInput)
    given = [field for field in ("image", "s3", "s3_uri") if getattr(image, field) is not UNSET]
    if len(given) > 1:
        raise InvalidRequest(f"There are both '{given[0]}' and '{given[1]}'; send one of them for each image.")
    if image.s3 is not UNSET:
        version = None if image.s3.version_id is UNSET else image.s3.version_id
        return ObjectLocation(image.s3.bucket, image.s3.key, version)
    if image.s3_uri is not UNSET:
        return parse_s3_uri(image.s3_uri)
    if image.image is UNSET or image.image == "":
        raise ImageMissing("The field 'image' is missing or empty; put the image's bytes there in base64.")
    data_url = _DATA_URL.match(image.image)
    return _decode_base64(image.image[data_url.end() :] if data_url else image.image, "The field 'image'")


def parse_s3_uri(uri: str) -> ObjectLocation:
    """The object that an `s3://bucket/key` names; raises InvalidRequest."""
    found = _S3_URI.fullmatch(uri)
    if not found:
        raise InvalidRequest("An S3 URI is written s3://bucket/key.")
    return ObjectLocation(found[1], found[2])


def _is_given(body: ImageInput) -> bool:
    return any(field is not UNSET for field in (body.image, body.s3, body.s3_uri))


def _media_type(event: APIGatewayProxyEvent) -> str:
    return (event.headers.get("content-type") or "").partition(";")[0].strip().lower()


def _raw(event: APIGatewayProxyEvent, media_type: str) -> bytes:
    if media_type not in IMAGE_TYPES:
        raise UnsupportedMediaType(
            f"The content type is {_quoted(media_type)}; send {', '.join(IMAGE_TYPES)} with the image's bytes, "
            f"{FORM_TYPE} or {JSON_TYPE}."
        )
    return _body(event)


def _body(event: APIGatewayProxyEvent) -> bytes:
    body = event.body or ""
    if event.is_base64_encoded:
        return _decode_base64(body, "The body")
    return body.encode(errors="replace")


def _json(text: bytes, form: type[Body]) -> Body:
    try:
        return msgspec.json.decode(text, type=form)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The JSON is not of the documented form: {str(error)[: 2 * _QUOTED]}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidJson("The body is not valid JSON.") from error


def _decode_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidBase64(f"{where} is not valid base64.") from error


def _options_in_json(body: ClassifyBody) -> dict[str, Any]:
    values = {name: getattr(body, name) for name in _IN_TEXT}
    return {name: value for name, value in values.items() if value is not UNSET}


def _options_in_text(fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: read(name, fields[name]) for name, read in _IN_TEXT.items() if name in fields}


def _options(asked: Mapping[str, Any]) -> Options:
    label = asked.get("heatmap_label") or None
    return Options(
        top_k=asked.get("top_k", DEFAULT_TOP_K),
        threshold=asked.get("threshold"),
        heat_map=asked.get("heatmap", bool(label)),
        heat_map_label=label,
    )


def _whole_number(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise InvalidOption(f"{name} must be a whole number.")
    return int(text)


def _number(name: str, text: str) -> float:
    if not re.fullmatch(r"-?[0-9]{1,40}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?", text):
        raise InvalidOption(f"{name} must be a number such as 0.5.")
    return float(text)


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise InvalidOption(f"{name} must be true or false.")
    return text.lower() == "true"


def _text(_: str, text: str) -> str:
    return text


_IN_TEXT = {"top_k": _whole_number, "threshold": _number, "heatmap": _truth, "heatmap_label": _text}


def _question(fields: Mapping[str, str]) -> str | None:
    question = fields.get("question")
    if question is not None and not (question.strip() and len(question) <= MAX_QUESTION):
        raise InvalidOption(f"question must have 1 to {MAX_QUESTION:,} characters, and not only blanks.")
    return question


def _quoted(text: str) -> str:
    return ascii(text[:_QUOTED]) if text else "missing"
