"""parse_form, with forms as urllib3 writes them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from litelens.api.requests import Form, parse_form
from litelens.settings import MAX_IMAGES

BOUNDARY = "----the-boundary"
B = BOUNDARY.encode()
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"

# No sequence of these contains the whole boundary.
BOUNDARY_PARTS = (b"\r\n", b"\r", b"\n", b"--", B[:-1], B[1:], b"\r\n--" + B[:-1], b"\0")


def form(*parts: tuple[str, bytes | str]) -> bytes:
    """Return a form as urllib3 writes it: bytes become files, text becomes fields."""
    fields = [(name, ("photo.jpg", value) if isinstance(value, bytes) else value) for name, value in parts]
    return encode_multipart_formdata(fields, BOUNDARY)[0]


def parse(body: bytes) -> Form:
    return parse_form(body, FORM_TYPE, images=MAX_IMAGES, fields=("question",))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 65_538, 65_539, 131_073, 1_048_578])
def test_a_form_of_any_length_is_parsed(size: int) -> None:
    content = bytes(size - len(form(("image", b""))))
    body = form(("image", content))
    assert len(body) == size
    assert parse(body).images == (content,)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.binary(max_size=300) | st.lists(st.sampled_from(BOUNDARY_PARTS)).map(b"".join),
        min_size=1,
        max_size=MAX_IMAGES,
    )
)
def test_parsing_returns_the_images_unchanged(contents: list[bytes]) -> None:
    assert parse(form(*(("image", content) for content in contents))).images == tuple(contents)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_parsing_returns_text_unchanged(text: str) -> None:
    assert parse(form(("question", text), ("image", b"photo"))) == Form((b"photo",), {"question": text})


def test_the_charset_of_a_part_is_ignored() -> None:
    body = form(("question", "ü"), ("image", b"photo")).replace(
        b'name="question"', b'name="question"\r\nContent-Type: text/plain; charset=klingon'
    )
    assert b"klingon" in body
    assert parse(body).fields == {"question": "ü"}


def test_the_last_of_several_fields_with_one_name_is_used() -> None:
    assert parse(form(("question", "first"), ("image", b"photo"), ("question", "last"))).fields == {"question": "last"}
