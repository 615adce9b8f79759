"""From an API Gateway event to the image and options in it."""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent

from handlers.problems import InvalidBase64, InvalidJson, InvalidRequest, UnsupportedMediaType
from litelens.classifier import DEFAULT_TOP_K
from litelens.errors import ImageMissing, InvalidOption

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp")
JSON_FIELDS = ("image", "top_k")

_DATA_URL = re.compile(r"\s*data:[^,]*;base64,", re.IGNORECASE)
_WHITESPACE = re.compile(r"\s+")

# As much of what a caller sent as an answer repeats.
_QUOTED = 40


@dataclass(frozen=True)
class ClassifyRequest:
    image: bytes
    top_k: int


def parse_classify(event: APIGatewayProxyEvent) -> ClassifyRequest:
    """What a `POST /v1/classify` asks for; raises RequestError, ImageMissing or InvalidOption."""
    media_type = (event.headers.get("content-type") or "").partition(";")[0].strip().lower()
    top_k = _top_k_in_query(event)
    if media_type == "application/json":
        return _from_json(_body(event), top_k)
    if media_type in IMAGE_TYPES:
        return ClassifyRequest(_body(event), top_k)
    named = f"'{media_type[:_QUOTED]}'" if media_type else "missing"
    raise UnsupportedMediaType(
        f"The content type is {named}; send {', '.join(IMAGE_TYPES)} with the image's bytes, or application/json."
    )


def _body(event: APIGatewayProxyEvent) -> bytes:
    body = event.body or ""
    if event.is_base64_encoded:
        return _decode_base64(body, "The body")
    return body.encode(errors="replace")


def _from_json(body: bytes, top_k: int) -> ClassifyRequest:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidJson("The body is not valid JSON.") from error
    if not isinstance(document, dict):
        raise InvalidRequest('The JSON must be an object such as {"image": "<base64>", "top_k": 5}.')
    unknown = sorted(document.keys() - set(JSON_FIELDS))
    if unknown:
        raise InvalidRequest(f"There is no field {unknown[0][:_QUOTED]!r}; the fields are {', '.join(JSON_FIELDS)}.")
    return ClassifyRequest(_image_in_json(document.get("image")), _top_k(document.get("top_k", top_k)))


def _image_in_json(image: Any) -> bytes:
    if image is None or image == "":
        raise ImageMissing("The field 'image' is missing or empty; put the image's bytes there in base64.")
    if not isinstance(image, str):
        raise InvalidRequest("The field 'image' must be a string: the image's bytes in base64, or a data URL.")
    data_url = _DATA_URL.match(image)
    return _decode_base64(image[data_url.end() :] if data_url else image, "The field 'image'")


def _decode_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(_WHITESPACE.sub("", text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidBase64(f"{where} is not valid base64.") from error


def _top_k_in_query(event: APIGatewayProxyEvent) -> int:
    text = event.query_string_parameters.get("top_k")
    if text is None:
        return DEFAULT_TOP_K
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise InvalidOption("top_k must be a whole number.")
    return int(text)


def _top_k(value: Any) -> int:
    if type(value) is not int:
        raise InvalidOption("top_k must be a whole number.")
    return value
