"""Forms, `multipart/form-data`, as browsers and `curl -F` send them."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from multipart import MultipartError, MultipartParser, MultipartPart, parse_options_header

from handlers.problems import InvalidMultipart, InvalidRequest
from litelens.errors import ImageMissing

# Above any request that API Gateway takes, so that no part is ever spooled to a disk.
_IN_MEMORY = 16_000_000
_QUOTED = 40


@dataclass(frozen=True)
class Form:
    """The parts called `image`, at least one, and the others as text."""

    images: tuple[bytes, ...]
    fields: Mapping[str, str]


def read_form(body: bytes, content_type: str, *, images: int, fields: tuple[str, ...]) -> Form:
    """The form in this body, with up to so many images and fields of these names.

    Raises InvalidMultipart, InvalidRequest or ImageMissing.
    """
    parts = _parts(body, content_type)
    unknown = [part.name for part in parts if part.name not in ("image", *fields)]
    if unknown:
        named = ", ".join(("image", *fields))
        raise InvalidRequest(f"There is no field {unknown[0][:_QUOTED]!a} in the form; the fields are {named}.")
    found = tuple(part.raw for part in parts if part.name == "image")
    if not found:
        raise ImageMissing("The form has no field 'image'; send one, as in curl -F image=@photo.jpg.")
    if len(found) > images:
        raise InvalidRequest(f"The form has {len(found)} images; at most {images} can be sent here.")
    return Form(found, {part.name: _text(part) for part in parts if part.name != "image"})


def _parts(body: bytes, content_type: str) -> list[MultipartPart]:
    _, options = parse_options_header(content_type)
    if not options.get("boundary"):
        raise InvalidMultipart("The content type multipart/form-data lacks its boundary.")
    try:
        parser = MultipartParser(
            BytesIO(body),
            options["boundary"],
            content_length=len(body),
            strict=True,
            # All at once: strictly, the line end after the last boundary may not come in a read of its own.
            buffer_size=_IN_MEMORY,
            spool_limit=_IN_MEMORY,
            memory_limit=_IN_MEMORY,
        )
        return list(parser)
    except (MultipartError, ValueError, LookupError) as error:
        raise InvalidMultipart("The body is not a valid multipart/form-data form.") from error


def _text(part: MultipartPart) -> str:
    try:
        return str(part.raw, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The form's field '{part.name}' is not UTF-8 text.") from error
