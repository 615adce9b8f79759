"""The encodings in which programs send an image, a form or JSON, and options that do not exist."""

import base64
import binascii
import contextlib
import json
import tracemalloc
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import answer_of, classify_bytes, classify_json, encoded, event
from test_request_forms import FORM_TYPE, B, form

from litelens.api.problems import InvalidBase64
from litelens.api.requests import ImageInput, decode_base64, parse_form, parse_upload, source_of
from litelens.core.formats import MEDIA_TYPES

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PNG = encoded(Image.new("RGB", (7, 5), "orange"), "PNG")
# It has all of +, / and = in base64, so that the alphabets and the padding matter.
PHOTO = next(data for n in range(300) if {*"+/="} <= {*base64.b64encode(data := PNG + bytes(range(n))).decode()})
STANDARD = base64.b64encode(PHOTO).decode()
URL_SAFE = base64.urlsafe_b64encode(PHOTO).decode()


def with_breaks(text: str, line_break: str, width: int) -> str:
    return line_break.join(text[start : start + width] for start in range(0, len(text), width))


def size_of(response: dict[str, Any]) -> tuple[int, int]:
    assert response["statusCode"] == 200, response["body"]
    image = answer_of(response)["image"]
    return image["width"], image["height"]


def code_of(response: dict[str, Any]) -> tuple[int, str]:
    return response["statusCode"], answer_of(response)["code"]


@given(
    st.binary(max_size=80),
    st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", " ", "\t\n"]),
    st.integers(1, 80),
)
def test_base64_is_decoded_however_it_is_written(
    data: bytes, encode: Callable[[bytes], bytes], padded: bool, line_break: str, width: int
) -> None:
    text = encode(data).decode() if padded else encode(data).decode().rstrip("=")
    assert decode_base64(with_breaks(text, line_break, width) + line_break, "The body") == data


@given(st.text(max_size=20))
def test_any_text_is_decoded_or_refused_as_base64(text: str) -> None:
    with contextlib.suppress(InvalidBase64):
        assert isinstance(decode_base64(text, "The body"), bytes)


IMAGE_TEXTS = {
    "base64": STANDARD,
    "no padding": STANDARD.rstrip("="),
    "the URL-safe alphabet": URL_SAFE,
    "the URL-safe alphabet without padding": URL_SAFE.rstrip("="),
    "lines of 76 characters": with_breaks(STANDARD, "\r\n", 76),
    "a data URL": f"data:image/png;base64,{STANDARD}",
    "a data URL in percent-encoded base64": f"data:image/png;base64,{quote(STANDARD, safe='')}",
    "a percent-encoded data URL": f"data:image/png,{quote_from_bytes(PHOTO)}",
    "a data URL without a media type": f"data:;base64,{STANDARD}",
    "a data URL with a space before base64": f"data:image/png; base64,{STANDARD}",
    "a data URL with a space after the media type": f"data:image/png ;base64,{STANDARD}",
    "a data URL with a space after base64": f"data:image/png;base64 ,{STANDARD}",
    "a data URL with a charset": f"data:image/png;charset=utf-8;base64,{STANDARD}",
    "a data URL in capitals": f"DATA:IMAGE/PNG;BASE64,{STANDARD}",
    "a data URL with lines and no padding": f"data:image/png;base64,\n{with_breaks(URL_SAFE.rstrip('='), chr(10), 64)}",
}


@given(st.text(max_size=12) | st.text("%%%09afAFgG= +\t\n_\xffé", max_size=12))
def test_percent_encoded_text_is_decoded_as_by_the_standard_library(text: str) -> None:
    expected = unquote_to_bytes(text.strip().encode(errors="replace"))
    assert source_of(ImageInput(image=f"data:,{text}")) == expected


def test_a_body_with_a_lone_surrogate_is_refused_as_base64(handle: Handle) -> None:
    request = classify_bytes(PHOTO, content_type="image/png") | {"body": "\ud800", "isBase64Encoded": True}
    response = handle(request)
    assert (response["statusCode"], answer_of(response)["code"]) == (400, "invalid_base64")


def test_a_large_percent_encoded_data_url_takes_little_memory() -> None:
    content = bytes(range(256)) * 4000
    url = "data:image/png," + "".join(f"%{byte:02X}" for byte in content)
    tracemalloc.start()
    try:
        assert source_of(ImageInput(image=url)) == content
        assert tracemalloc.get_traced_memory()[1] < 10 * len(url)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", IMAGE_TEXTS)
def test_an_image_in_json_may_be_written_in_any_of_these_ways(handle: Handle, name: str) -> None:
    assert size_of(handle(classify_json({"image": IMAGE_TEXTS[name]}))) == (7, 5)


def test_an_url_is_not_fetched_and_the_answer_says_what_to_send_instead(handle: Handle) -> None:
    response = handle(classify_json({"image": "https://example.com/cat.jpg"}))
    assert code_of(response) == (400, "invalid_base64")
    assert "base64" in answer_of(response)["detail"]


@pytest.mark.parametrize("is_base64", [False, True])
def test_json_may_begin_with_a_byte_order_mark(handle: Handle, is_base64: bool) -> None:
    text = "\ufeff" + json.dumps({"image": STANDARD})
    body = text.encode() if is_base64 else text
    assert size_of(handle(event("POST", "/v1/classify", body, "application/json"))) == (7, 5)


def part_with(encoding: str, content: bytes, name: str = "image") -> bytes:
    """Return a form whose first part has this transfer encoding."""
    head = f'Content-Disposition: form-data; name="{name}"\r\nContent-Transfer-Encoding: {encoding}'.encode()
    return b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (B, head, content, B)


TRANSFERS = {
    "base64": base64.b64encode(PHOTO),
    "BASE64": base64.encodebytes(PHOTO),
    "quoted-printable": binascii.b2a_qp(PHOTO, istext=False),
    "binary": PHOTO,
    "8bit": PHOTO,
}


@pytest.mark.parametrize("encoding", TRANSFERS)
def test_a_part_of_a_form_may_have_a_transfer_encoding(handle: Handle, encoding: str) -> None:
    body = part_with(encoding, TRANSFERS[encoding])
    assert size_of(handle(event("POST", "/v1/classify", body, FORM_TYPE))) == (7, 5)


def test_the_transfer_encoding_applies_to_text_fields_too() -> None:
    field = part_with("base64", base64.b64encode(b"Wo ist das?"), "question")
    body = field.removesuffix(b"--%b--\r\n" % B) + form(("image", PHOTO))
    assert parse_form(body, FORM_TYPE, images=1, fields=("question",)).fields == {"question": "Wo ist das?"}


@pytest.mark.parametrize(
    ("encoding", "content", "code"),
    [
        ("base64", b"!!!!", "invalid_base64"),
        ("base64", b"\xff", "invalid_base64"),
        ("uuencode", b"x", "invalid_multipart"),
    ],
)
def test_a_transfer_encoding_that_does_not_fit_is_refused(
    handle: Handle, encoding: str, content: bytes, code: str
) -> None:
    response = handle(event("POST", "/v1/classify", part_with(encoding, content), FORM_TYPE))
    assert code_of(response) == (400, code)


@pytest.mark.parametrize("content_type", ["image/jpg", "IMAGE/JPG; charset=binary", "image/pjpeg", "image/x-png"])
def test_a_photo_may_have_an_unofficial_media_type(handle: Handle, content_type: str) -> None:
    assert size_of(handle(classify_bytes(PHOTO, content_type))) == (7, 5)


def test_an_upload_form_has_the_official_media_type() -> None:
    from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent

    request = event("POST", "/v1/uploads", '{"content_type": "image/jpg"}', "application/json")
    assert parse_upload(APIGatewayProxyEvent(request)).content_type == "image/jpeg"


ROUTES = {
    "/v1/classify": ("POST", PHOTO, MEDIA_TYPES[1]),
    "/v1/model": ("GET", None, None),
    "/v1/model/report": ("GET", None, None),
}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", ["topk", "Model", "tresh\nold", "\ud800", "x" * 5000])
def test_an_option_that_does_not_exist_is_refused_in_the_query_as_in_json(handle: Handle, path: str, name: str) -> None:
    method, body, content_type = ROUTES[path]
    response = handle(event(method, path, body, content_type, {name: "1"}))
    assert code_of(response) == (400, "invalid_request")
    assert ascii(name[:40]) in answer_of(response)["detail"]
    assert len(answer_of(response)["detail"]) < 300
