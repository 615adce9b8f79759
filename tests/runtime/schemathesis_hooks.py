"""Strategies for schemathesis: bytes and base64 of small real images in every format."""

import base64
import json
from io import BytesIO

import schemathesis
from hypothesis import strategies as st
from PIL import Image
from support import DEFAULT_BUNDLE

from litelens.core.formats import FORMAT_NAMES, IMAGE_FORMATS


@st.composite
def images(draw: st.DrawFn, image_format: str | None = None) -> bytes:
    size = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    colour = tuple(draw(st.integers(0, 255)) for _ in range(3))
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, image_format or draw(st.sampled_from(FORMAT_NAMES)))
    return file.getvalue()


for each in IMAGE_FORMATS:
    schemathesis.openapi.media_type(each.media_type, images(each.name))
schemathesis.openapi.format(
    "label", st.sampled_from(json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())["labels"])
)
schemathesis.openapi.format("model", st.sampled_from([DEFAULT_BUNDLE.name, "nothing"]))
schemathesis.openapi.format("image", images().map(lambda image: base64.b64encode(image).decode()))
