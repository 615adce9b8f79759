"""Forms as they are read, against forms as urllib3 writes them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from handlers.bodies import MAX_IMAGES
from handlers.forms import Form, read_form

BOUNDARY = "----the-boundary"
B = BOUNDARY.encode()
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"

# None of them, nor several in a row, makes the whole boundary.
NEARLY_BOUNDARIES = (b"\r\n", b"\r", b"\n", b"--", B[:-1], B[1:], b"\r\n--" + B[:-1], b"\0")


def form(*parts: tuple[str, bytes | str]) -> bytes:
    """The form as urllib3 writes it: bytes as files, text as text."""
    fields = [(name, ("photo.jpg", value) if isinstance(value, bytes) else value) for name, value in parts]
    return encode_multipart_formdata(fields, BOUNDARY)[0]


def read(body: bytes) -> Form:
    return read_form(body, FORM_TYPE, images=MAX_IMAGES, fields=("question",))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 65_538, 65_539, 131_073, 1_048_578])
def test_a_form_of_any_length_is_read(size: int) -> None:
    content = bytes(size - len(form(("image", b""))))
    body = form(("image", content))
    assert len(body) == size
    assert read(body).images == (content,)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.binary(max_size=300) | st.lists(st.sampled_from(NEARLY_BOUNDARIES)).map(b"".join),
        min_size=1,
        max_size=MAX_IMAGES,
    )
)
def test_images_come_out_of_a_form_as_they_went_in(contents: list[bytes]) -> None:
    assert read(form(*(("image", content) for content in contents))).images == tuple(contents)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_out_of_a_form_as_it_went_in(text: str) -> None:
    assert read(form(("question", text), ("image", b"photo"))) == Form((b"photo",), {"question": text})


def test_the_charset_that_a_part_claims_is_not_used() -> None:
    body = form(("question", "ü"), ("image", b"photo")).replace(
        b'name="question"', b'name="question"\r\nContent-Type: text/plain; charset=klingon'
    )
    assert b"klingon" in body
    assert read(body).fields == {"question": "ü"}


def test_the_last_of_equal_fields_counts() -> None:
    assert read(form(("question", "first"), ("image", b"photo"), ("question", "last"))).fields == {"question": "last"}
