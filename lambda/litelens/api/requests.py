"""Requests: the documented bodies, and the images and options in API Gateway's events."""

import base64
import codecs
import quopri
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent
from msgspec import UNSET, Meta, Struct, UnsetType
from multipart import MultipartError, MultipartParser, MultipartPart, parse_options_header

from litelens.api.events import to_text
from litelens.api.problems import InvalidBase64, InvalidJson, InvalidMultipart, InvalidRequest, UnsupportedMediaType
from litelens.api.response_schemas import DEFAULT_EMBEDDING_FORMAT, EMBEDDING_FORMATS, MAX_TURNS
from litelens.aws.bedrock import Turn
from litelens.aws.clients import Deadline
from litelens.aws.s3 import ObjectLocation, parse_s3_uri
from litelens.core.classifier import DEFAULT_MULTI_LABEL_TOP_K, DEFAULT_TOP_K, Options
from litelens.core.errors import ImageMissing, InvalidOption
from litelens.core.formats import MEDIA_TYPES
from litelens.settings import MAX_IMAGES

JSON_TYPE = "application/json"
FORM_TYPE = "multipart/form-data"

# Unofficial names of media types, which some programs send.
_UNOFFICIAL_TYPES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/x-ms-bmp": "image/bmp",
    "image/heif": "image/heic",
}

# The content types whose bodies API Gateway encodes in base64; template.yaml has the same list.
BINARY_TYPES = (*MEDIA_TYPES, *_UNOFFICIAL_TYPES, FORM_TYPE)

MAX_QUESTION = 2000

# https://fetch.spec.whatwg.org/#data-urls
_DATA_URL = re.compile(r"\s*data:([^,]*),", re.IGNORECASE)
_IN_BASE64 = re.compile(r";\s*base64\s*$", re.IGNORECASE)
_WEB_URL = re.compile(r"\s*https?://", re.IGNORECASE)

_PERCENT = ord("%")
# The value of each hexadecimal digit, by its byte; 255 for others.
_NOT_HEX = 255
_HEX_VALUES = np.full(256, _NOT_HEX, np.uint8)
for _digit in "0123456789abcdefABCDEF":
    _HEX_VALUES[ord(_digit)] = int(_digit, 16)

_URL_SAFE = str.maketrans("-_", "+/")

# The values of Content-Transfer-Encoding that leave the content as it is.
_UNCHANGED = ("", "7bit", "8bit", "binary")

# The size above which parts of a form are written to disk: larger than any body that API Gateway accepts.
_FORM_BUFFER = 16_000_000

# The maximum number of characters of a client's text that an error message quotes.
_QUOTED = 80
_QUOTED_FIELD = 40

ImageText = Annotated[
    str,
    Meta(
        description="The image's bytes in base64, or a data URL.",
        extra_json_schema={"minLength": 1, "contentEncoding": "base64", "format": "image"},
    ),
]
S3Uri = Annotated[
    str,
    Meta(
        description="An object in one of the allowed buckets.",
        pattern="^s3://[^/?#]+/.",
        examples=["s3://photos/cat.jpg"],
    ),
]
ModelNameOption = Annotated[
    str,
    Meta(
        description="The model's name, which GET /v1/models lists; by default, or if empty, the default model.",
        examples=["everyday"],
        extra_json_schema={"format": "model"},
    ),
]
Question = Annotated[
    str,
    Meta(
        description="A question about the image; without it, the answer is a short description.",
        pattern=r"\S",
        max_length=MAX_QUESTION,
        examples=["What is in the background?"],
    ),
]


class S3Object(Struct, frozen=True, forbid_unknown_fields=True):
    """An object in one of the buckets that this deployment may read."""

    bucket: Annotated[str, Meta(min_length=3, max_length=63, examples=["photos"])]
    key: Annotated[str, Meta(min_length=1, max_length=1024, examples=["cat.jpg"])]
    version_id: Annotated[str, Meta(min_length=1, max_length=1024)] | UnsetType = UNSET


class ImageInput(Struct, frozen=True, forbid_unknown_fields=True):
    """One image: its bytes in base64, an object in S3, or the URI of one."""

    image: ImageText | UnsetType = UNSET
    s3: S3Object | UnsetType = UNSET
    s3_uri: S3Uri | UnsetType = UNSET


class ClassifyBody(ImageInput, frozen=True, forbid_unknown_fields=True):
    """One image, or several as `images`; and options, which override those in the query."""

    # Each is an ImageInput. source_of() decodes them one by one, so that an invalid one does not fail the others.
    images: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_IMAGES)] | UnsetType = UNSET
    model: ModelNameOption | UnsetType = UNSET
    # A float, because 3.0 is an integer in JSON Schema; openapi.json says integer.
    top_k: (
        Annotated[
            float,
            Meta(
                description="The number of labels; if the model has fewer, all of them. By default "
                f"{DEFAULT_TOP_K}; of a multi-label model, all labels, at most {DEFAULT_MULTI_LABEL_TOP_K:,}.",
                extra_json_schema={"minimum": 1},
            ),
        ]
        | UnsetType
    ) = UNSET
    threshold: (
        Annotated[
            float,
            Meta(
                description="The confidence below which an answer is uncertain, or from which each label of a "
                "multi-label model is present; by default the model's own threshold or thresholds.",
                extra_json_schema={"minimum": 0, "maximum": 1},
            ),
        ]
        | UnsetType
    ) = UNSET
    heatmap: (
        Annotated[
            bool,
            Meta(description="Whether to return a heat map.", extra_json_schema={"default": False}),
        ]
        | UnsetType
    ) = UNSET
    heatmap_label: (
        Annotated[
            str,
            Meta(
                description="The label of the heat map; by default, or if empty, the most confident one.",
                examples=["espresso"],
                extra_json_schema={"format": "label", "default": ""},
            ),
        ]
        | UnsetType
    ) = UNSET
    embedding: (
        Annotated[
            bool,
            Meta(description="Whether to return the photo's embedding.", extra_json_schema={"default": False}),
        ]
        | UnsetType
    ) = UNSET
    embedding_format: (
        Annotated[
            str,
            Meta(
                description="How the embedding is written: float32 numbers in base64, or a list of numbers.",
                extra_json_schema={"enum": list(EMBEDDING_FORMATS), "default": DEFAULT_EMBEDDING_FORMAT},
            ),
        ]
        | UnsetType
    ) = UNSET


class DescribeBody(ImageInput, frozen=True, forbid_unknown_fields=True):
    """One image, a question, the earlier turns of the conversation, and the model."""

    model: ModelNameOption | UnsetType = UNSET
    question: Question | UnsetType = UNSET
    turns: Annotated[list[Turn], Meta(max_length=MAX_TURNS)] = []


class UploadBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The content type of the image to upload."""

    content_type: Annotated[str, Meta(extra_json_schema={"enum": list(MEDIA_TYPES)})]


Body = TypeVar("Body")

# An image in a request: its bytes, or its JSON, decoded or not.
Image = bytes | ImageInput | msgspec.Raw


@dataclass(frozen=True)
class Call:
    """One request, the time left for it, and its id in the logs."""

    event: APIGatewayProxyEvent
    deadline: Deadline
    id: str


@dataclass(frozen=True)
class ClassifyRequest:
    """The images of a request, with the model's name and the options for all; `is_list` if they were sent as a list.

    `embedding_format` is one of EMBEDDING_FORMATS.
    """

    images: tuple[Image, ...]
    is_list: bool
    model: str | None
    options: Options
    embedding_format: str


@dataclass(frozen=True)
class DescribeRequest:
    """An image, the model's name, the question about the image, and the earlier turns."""

    image: Image
    model: str | None
    question: str | None
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Form:
    """A multipart/form-data body: the parts named `image`, at least one, and the others as text."""

    images: tuple[bytes, ...]
    fields: Mapping[str, str]


def parse_classify(event: APIGatewayProxyEvent) -> ClassifyRequest:
    """Parse `POST /v1/classify`; raises RequestError, ImageMissing or InvalidOption."""
    in_query = _options_in_text(_query(event, *_OPTION_PARSERS))
    media_type = _media_type(event)
    if media_type == JSON_TYPE:
        body = _json(_body(event), ClassifyBody)
        if body.images is not UNSET and _has_image(body):
            raise InvalidRequest("The JSON must have one image or 'images', not both.")
        values = in_query | _options_in_json(body)
        if body.images is UNSET:
            return _classify_request((body,), False, values)
        return _classify_request(tuple(body.images), True, values)
    if media_type == FORM_TYPE:
        form = parse_form(_body(event), event.headers["content-type"], images=MAX_IMAGES, fields=tuple(_OPTION_PARSERS))
        return _classify_request(form.images, len(form.images) > 1, in_query | _options_in_text(form.fields))
    return _classify_request((_image_body(event, media_type),), False, in_query)


def parse_describe(event: APIGatewayProxyEvent) -> DescribeRequest:
    """Parse `POST /v1/describe`; raises RequestError, ImageMissing or InvalidOption."""
    query = _query(event, *_DESCRIBE_OPTIONS)
    media_type = _media_type(event)
    if media_type == JSON_TYPE:
        body = _json(_body(event), DescribeBody)
        model = query.get("model") if body.model is UNSET else body.model
        question = _question(query) if body.question is UNSET else body.question
        return DescribeRequest(body, model, question, tuple(body.turns))
    if media_type == FORM_TYPE:
        form = parse_form(_body(event), event.headers["content-type"], images=1, fields=_DESCRIBE_OPTIONS)
        values = {**query, **form.fields}
        return DescribeRequest(form.images[0], values.get("model"), _question(values), ())
    return DescribeRequest(_image_body(event, media_type), query.get("model"), _question(query), ())


def model_in_query(event: APIGatewayProxyEvent) -> str | None:
    """Return the name of the model in the query, the only option there; None stands for the default model.

    Raises InvalidRequest.
    """
    return _query(event, "model").get("model")


def parse_upload(event: APIGatewayProxyEvent) -> UploadBody:
    """Parse `POST /v1/uploads`; raises RequestError."""
    _query(event)
    media_type = _media_type(event)
    if media_type != JSON_TYPE:
        raise UnsupportedMediaType(f"The content type is {_quoted(media_type)}; send {JSON_TYPE}.")
    body = _json(_body(event), UploadBody)
    content_type = _official_type(body.content_type)
    if content_type not in MEDIA_TYPES:
        raise InvalidRequest(f"content_type must be one of {', '.join(MEDIA_TYPES)}.")
    return UploadBody(content_type)


def parse_form(body: bytes, content_type: str, *, images: int, fields: tuple[str, ...]) -> Form:
    """Parse a multipart/form-data body with up to this many images and with fields of these names.

    Raises InvalidMultipart, InvalidRequest or ImageMissing.
    """
    parts = _form_parts(body, content_type)
    unknown = [part.name for part in parts if part.name not in ("image", *fields)]
    if unknown:
        known = ", ".join(("image", *fields))
        raise InvalidRequest(f"There is no field {unknown[0][:_QUOTED_FIELD]!a} in the form; the fields are {known}.")
    found = tuple(_part_content(part) for part in parts if part.name == "image")
    if not found:
        raise ImageMissing("The form has no field 'image'; send one, as in curl -F image=@photo.jpg.")
    if len(found) > images:
        raise InvalidRequest(f"The form has {len(found)} images; at most {images} are accepted.")
    return Form(found, {part.name: _form_text(part) for part in parts if part.name != "image"})


def source_of(image: Image) -> bytes | ObjectLocation:
    """Return an image's bytes, or its location in S3; raises RequestError or ImageMissing."""
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
        return _parse_object_uri(image.s3_uri)
    if image.image is UNSET or image.image == "":
        raise ImageMissing("The field 'image' is missing or empty; put the image's bytes there in base64.")
    return _decode_image_text(image.image)


def decode_base64(text: str, where: str) -> bytes:
    """Decode base64 with or without line breaks and padding, in the usual or the URL-safe alphabet.

    Raises InvalidBase64, whose message begins with `where`.
    """
    try:
        # Four times as fast as the module base64.
        return msgspec.convert(text, bytes)
    except ValueError:
        # Only now, because it takes longer than decoding.
        compact = "".join(text.split()).translate(_URL_SAFE)
    try:
        return base64.b64decode(compact if "=" in compact else compact + "=" * (-len(compact) % 4), validate=True)
    except ValueError as error:
        raise InvalidBase64(f"{where} is not valid base64.") from error


def _decode_image_text(text: str) -> bytes:
    """Decode base64 or a data URL; raises InvalidBase64."""
    where = "The field 'image'"
    if _WEB_URL.match(text):
        raise InvalidBase64(
            f"{where} is the URL of a page, which is not fetched; put the image's bytes there in base64."
        )
    url = _DATA_URL.match(text)
    if not url:
        return decode_base64(text, where)
    data = text[url.end() :]
    if _IN_BASE64.search(url[1]):
        return decode_base64(_unquote(data).decode(errors="replace") if "%" in data else data, where)
    return _unquote(data.strip())


def _unquote(text: str) -> bytes:
    """Decode percent-encoded text as urllib.parse.unquote_to_bytes() does, in less memory and time."""
    sent = np.frombuffer(text.encode(errors="replace"), np.uint8)
    values = _HEX_VALUES[sent]
    high, low = values[1:-1], values[2:]
    is_escape = (sent[:-2] == _PERCENT) & (high != _NOT_HEX) & (low != _NOT_HEX)
    decoded, is_kept = sent.copy(), np.ones(len(sent), bool)
    decoded[:-2][is_escape] = high[is_escape] * 16 + low[is_escape]
    is_kept[1:-1][is_escape] = False
    is_kept[2:][is_escape] = False
    return decoded[is_kept].tobytes()


def _parse_object_uri(uri: str) -> ObjectLocation:
    """Return the location that `s3://bucket/key` names; raises InvalidRequest."""
    try:
        location = parse_s3_uri(uri)
    except ValueError as error:
        raise InvalidRequest(str(error)) from error
    if not location.key:
        raise InvalidRequest("An S3 URI must have a key, as in s3://bucket/key.")
    return location


def _has_image(body: ImageInput) -> bool:
    return any(field is not UNSET for field in (body.image, body.s3, body.s3_uri))


def _query(event: APIGatewayProxyEvent, *known: str) -> Mapping[str, str]:
    """Return the options in the query; raises InvalidRequest if one of them is not known."""
    query = {name: to_text(value) for name, value in event.query_string_parameters.items()}
    unknown = [name for name in query if name not in known]
    if unknown:
        options = f"the options are {', '.join(known)}" if known else "this path has none"
        raise InvalidRequest(f"There is no option {unknown[0][:_QUOTED_FIELD]!a} in the query; {options}.")
    return query


def _media_type(event: APIGatewayProxyEvent) -> str:
    return _official_type(event.headers.get("content-type") or "")


def _official_type(content_type: str) -> str:
    """Return the media type in lower case, without parameters, by its official name."""
    media_type = content_type.partition(";")[0].strip().lower()
    return _UNOFFICIAL_TYPES.get(media_type, media_type)


def _image_body(event: APIGatewayProxyEvent, media_type: str) -> bytes:
    if media_type not in MEDIA_TYPES:
        raise UnsupportedMediaType(
            f"The content type is {_quoted(media_type)}; send {', '.join(MEDIA_TYPES)} with the image's bytes, "
            f"{FORM_TYPE} or {JSON_TYPE}."
        )
    return _body(event)


def _body(event: APIGatewayProxyEvent) -> bytes:
    body = event.body or ""
    if event.is_base64_encoded:
        return decode_base64(body, "The body")
    return body.encode(errors="replace")


def _json(text: bytes, form: type[Body]) -> Body:
    try:
        return msgspec.json.decode(text.removeprefix(codecs.BOM_UTF8), type=form)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The JSON does not match the API's schema: {str(error)[: 2 * _QUOTED]}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidJson("The body is not valid JSON.") from error


def _form_parts(body: bytes, content_type: str) -> list[MultipartPart]:
    _, options = parse_options_header(content_type)
    if not options.get("boundary"):
        raise InvalidMultipart("The content type multipart/form-data lacks its boundary.")
    try:
        parser = MultipartParser(
            BytesIO(body),
            options["boundary"],
            content_length=len(body),
            strict=True,
            # In one read: in strict mode the parser refuses a final line break that is read separately.
            buffer_size=_FORM_BUFFER,
            spool_limit=_FORM_BUFFER,
            memory_limit=_FORM_BUFFER,
        )
        return list(parser)
    except (MultipartError, ValueError, LookupError) as error:
        raise InvalidMultipart("The body is not a valid multipart/form-data form.") from error


def _part_content(part: MultipartPart) -> bytes:
    """Return a part's content, without its transfer encoding; raises InvalidBase64 or InvalidMultipart."""
    encoding = (part.headers.get("content-transfer-encoding") or "").strip().lower()
    if encoding in _UNCHANGED:
        return bytes(part.raw)
    if encoding == "base64":
        return decode_base64(str(part.raw, "latin-1"), f"The form's field '{part.name}'")
    if encoding == "quoted-printable":
        return quopri.decodestring(part.raw)
    raise InvalidMultipart(
        f"The form's field '{part.name}' has the transfer encoding {_quoted(encoding)}; send its bytes unchanged."
    )


def _form_text(part: MultipartPart) -> str:
    try:
        return str(_part_content(part), "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The form's field '{part.name}' is not UTF-8 text.") from error


def _options_in_json(body: ClassifyBody) -> dict[str, Any]:
    values = {name: getattr(body, name) for name in _OPTION_PARSERS}
    if body.top_k is not UNSET:
        if not body.top_k.is_integer():
            raise InvalidRequest("The JSON does not match the API's schema: top_k must be a whole number.")
        values["top_k"] = int(body.top_k)
    return {name: value for name, value in values.items() if value is not UNSET}


def _options_in_text(fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: parse(name, fields[name]) for name, parse in _OPTION_PARSERS.items() if name in fields}


def _classify_request(images: tuple[Image, ...], is_list: bool, values: Mapping[str, Any]) -> ClassifyRequest:
    embedding_format = values.get("embedding_format", DEFAULT_EMBEDDING_FORMAT)
    if embedding_format not in EMBEDDING_FORMATS:
        raise InvalidOption(f"embedding_format must be one of {', '.join(EMBEDDING_FORMATS)}.")
    return ClassifyRequest(images, is_list, values.get("model"), _options(values), embedding_format)


def _options(values: Mapping[str, Any]) -> Options:
    label = values.get("heatmap_label") or None
    return Options(
        top_k=values.get("top_k"),
        threshold=values.get("threshold"),
        heat_map=values.get("heatmap", bool(label)),
        heat_map_label=label,
        embedding=values.get("embedding", False),
    )


def _parse_integer(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}(\.0{1,18})?", text):
        raise InvalidOption(f"{name} must be a whole number.")
    return int(text.partition(".")[0])


def _parse_number(name: str, text: str) -> float:
    if not re.fullmatch(r"-?[0-9]{1,40}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?", text):
        raise InvalidOption(f"{name} must be a number such as 0.5.")
    return float(text)


def _parse_boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise InvalidOption(f"{name} must be true or false.")
    return text.lower() == "true"


def _parse_text(_: str, text: str) -> str:
    return text


_OPTION_PARSERS = {
    "model": _parse_text,
    "top_k": _parse_integer,
    "threshold": _parse_number,
    "heatmap": _parse_boolean,
    "heatmap_label": _parse_text,
    "embedding": _parse_boolean,
    "embedding_format": _parse_text,
}


_DESCRIBE_OPTIONS = ("model", "question")


def _question(fields: Mapping[str, str]) -> str | None:
    question = fields.get("question")
    if question is not None and not (question.strip() and len(question) <= MAX_QUESTION):
        raise InvalidOption(f"question must have 1 to {MAX_QUESTION:,} characters, and not only blanks.")
    return question


def _quoted(text: str) -> str:
    return ascii(text[:_QUOTED]) if text else "missing"
