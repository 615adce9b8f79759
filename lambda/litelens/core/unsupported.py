"""Say what a file is that cannot be decoded, by its first bytes, and what to do with it."""

import codecs
import re
from dataclasses import dataclass

from litelens.core.formats import FORMAT_NAMES

# The number of bytes that are searched.
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class _Kind:
    """A kind of file: its name, a pattern of its first bytes, and what to do. Patterns are compiled when needed."""

    name: str
    pattern: bytes
    advice: str = "Export it as JPEG or PNG."


# Text may begin with a byte order mark and blanks, XML with a declaration, comments and a document type. Repetitions
# are possessive, so that no text takes long to search.
_BLANK = rb"(?:\xef\xbb\xbf)?+\s*+"
_XML = _BLANK + rb"(?:(?:<\?[^>]*+>|<!--(?:(?!-->).)*+-->|<![^-][^>]*+>)\s*+)*+"
_DECODE = "Decode the base64 first, or send it in JSON."

# The first match counts.
_KINDS = (
    _Kind("a TIFF or a camera's raw file", rb"II[*+]\0|MM\0[*+]|IIU\0|IIRO|FUJIFILMCCD-RAW|.{4}ftypcrx "),
    _Kind("an icon (ICO)", rb"\0\0[\x01\x02]\0[^\0]"),
    _Kind("a PDF", rb".{0,20}?%PDF-", "Export the page as JPEG or PNG."),
    _Kind("an SVG drawing", _XML + rb"(?i:<svg[\s>])", "Export it as PNG."),
    _Kind("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    _Kind("JPEG 2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    _Kind("JPEG XR", rb"II\xbc"),
    _Kind("a Photoshop file", rb"8BPS"),
    _Kind("a GIMP file", rb"gimp xcf"),
    _Kind("PNM", rb"P[1-7][\s#]"),
    _Kind("OpenEXR", rb"v/1\x01"),
    _Kind("video or sound", rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}(?:AVI |WAVE)|ID3", "Send one frame as JPEG."),
    _Kind("a ZIP archive", rb"PK\x03\x04", "Send its images one by one."),
    _Kind("compressed with gzip", rb"\x1f\x8b", "Decompress it first."),
    _Kind("a pointer of Git LFS", rb"version https://git-lfs", "Fetch the file itself with git lfs pull."),
    _Kind("a web page", _XML + rb"(?i:<(?:html|head|body)[\s>])", "Send the image that it shows."),
    _Kind("base64 text", _BLANK + rb"(?:data:image/|/9j/|iVBORw0KGgo|R0lGOD|UklGR)", _DECODE),
    _Kind("JSON", _BLANK + rb"(?:\{\s*+[\"}]|\[\s*+[\"{\[\]\d-])", "Send it with the content type application/json."),
    _Kind("a form", rb"--[^\r\n]{1,100}+\r\nContent-", "Send it with the content type multipart/form-data."),
)

# What invalid bytes become if a program reads a file as UTF-8 text, and what it does to the first bytes of JPEG, PNG,
# WebP and GIF. If it reads the file as Latin-1, each byte above 127 becomes two.
_REPLACED = b"\xef\xbf\xbd"
_MIN_REPLACED = 3
_LATIN_1 = (b"\xc3\xbf\xc3\x98\xc3\xbf", b"\xc2\x89PNG")
_LINE_ENDS = (b"\x89PNG\n\x1a\n", b"\x89PNG\r\r\n\x1a\r\n", b"\x89PNG\r\x1a\r", b"\x89PNG\r\r\x1a\r")
_BINARY = "Read and send the file as bytes, not as text."


def explain_unsupported(data: bytes) -> str:
    """Return a sentence or two about a file that is in none of the supported formats."""
    text = explain_text(data)
    if text is not None:
        return text
    head = data[:_HEAD_BYTES]
    for kind in _KINDS:
        if re.match(kind.pattern, head, re.DOTALL):
            return f"The file is {kind.name}, which is not supported. {kind.advice}"
    if not any(head):
        return "The file contains only zeros. Send the image again."
    return f"The bytes are not an image in a supported format; send one of {', '.join(FORMAT_NAMES)}."


def explain_text(data: bytes) -> str | None:
    """Return a sentence or two if the bytes of an image were changed because a program took them for text."""
    head = data[:_HEAD_BYTES]
    if head.count(_REPLACED) >= _MIN_REPLACED and _is_utf8(head):
        return f"The image was read as UTF-8 text, which replaces bytes. {_BINARY}"
    if head.startswith(_LATIN_1):
        return f"The image was written as UTF-8 text. {_BINARY}"
    if head.startswith(_LINE_ENDS):
        return f"The line ends in the image were converted as in text. {_BINARY}"
    return None


def _is_utf8(head: bytes) -> bool:
    """Return whether the first bytes of a file are valid UTF-8. The last character may be incomplete."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
