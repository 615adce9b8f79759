"""Golden images for a bundle: the photos of the page, made into each kind of file that people send.

What is expected of them is what the bundle answers by LiteRT, which is the engine that is exact on every CPU.
"""

import dataclasses
import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from litelens.bundle import MANIFEST, load_bundle
from litelens.classifier import Classifier, Options
from litelens.golden import GOLDEN, TOLERANCE, GoldenImage, complaint
from litelens.images import Limits
from litelens.preprocessing import Preprocessing
from training.run import read_json, write_json

SAMPLES = Path(__file__).parent.parent / "web" / "samples"
_PHOTOS = ("cat", "coffee", "photographer")

# What engines may be apart here. CPUs differ too, so that as much is left to them.
_MOST_APART = TOLERANCE / 2

# Pixels of the longer side of files that are not compressed much.
_SMALL_SIDE = 160
_UNCOMPRESSED_SIDE = 120

# From five pixels to one of the input on, across and down, a JPEG is decoded at a half of its sides or less.
_REDUCED = 5

_ORIENTATION, _TURNED_LEFT = 0x0112, 6

Make = Callable[[Image.Image, Preprocessing], bytes]


def add_golden_images(folder: Path) -> list[str]:
    """Write the golden images of the bundle in that folder, and its manifest anew with what is expected of them.

    Of each kind it is the first photo for which LiteRT and OpenVINO are at most half of TOLERANCE apart and whose best
    label leads by more than TOLERANCE, or else the one whose label leads the most. Returns the names of those kinds for
    which the engines are too far apart on all photos, and which are left out. Raises BundleError for what is no bundle.
    """
    bundle = load_bundle(folder)
    classifier = Classifier(bundle, Limits(), threads=1)
    other = Classifier(bundle, Limits(), threads=1, engine="openvino") if bundle.weight_bits == 7 else classifier
    made = [_made(file, make, first, classifier, other) for file, (make, first) in _KINDS.items()]
    found = [(image, data) for image, data in filter(None, made)]
    (folder / GOLDEN).mkdir(exist_ok=True)
    for image, data in found:
        (folder / GOLDEN / image.file).write_bytes(data)
    _write_manifest(folder, [image for image, _ in found])
    left_out = [file for file in _KINDS if file not in {image.file for image, _ in found}]
    for file in left_out:
        (folder / GOLDEN / file).unlink(missing_ok=True)
    return left_out


def _made(
    file: str, make: Make, first: str, classifier: Classifier, other: Classifier
) -> tuple[GoldenImage, bytes] | None:
    found = []
    for photo in (first, *(photo for photo in _PHOTOS if photo != first)):
        with Image.open(SAMPLES / f"{photo}.jpg") as sample:
            data = make(sample.convert("RGB"), classifier.bundle.preprocessing)
        image = _expected(file, data, classifier)
        if complaint(image, _confidences(data, other), _MOST_APART):
            continue
        # Of a label that hardly leads, a wrong model could give about the same confidences.
        if image.lead > TOLERANCE:
            return image, data
        found.append((image, data))
    return max(found, key=lambda each: each[0].lead, default=None)


def _expected(file: str, data: bytes, classifier: Classifier) -> GoldenImage:
    best, *others = classifier.classify(data, Options(top_k=2)).candidates
    lead = best.confidence - sum(other.confidence for other in others)
    return GoldenImage(file, best.label, round(best.confidence, 6), round(lead, 6))


def _confidences(data: bytes, classifier: Classifier) -> dict[str, float]:
    prediction = classifier.classify(data, Options(top_k=len(classifier.bundle.labels)))
    return {candidate.label: candidate.confidence for candidate in prediction.candidates}


def _write_manifest(folder: Path, images: list[GoldenImage]) -> None:
    """With the images after the files, wherever they stood."""
    fields: dict[str, Any] = {}
    for name, value in read_json(folder / MANIFEST).items():
        if name != GOLDEN:
            fields[name] = value
        if name == "files":
            fields[GOLDEN] = [dataclasses.asdict(image) for image in images]
    write_json(folder / MANIFEST, fields)


def _large(photo: Image.Image, spec: Preprocessing) -> bytes:
    """A JPEG that is decoded at a reduced size."""
    needed = math.ceil(_REDUCED * max(spec.height, spec.width) / spec.crop)
    scale = max(1.0, needed / min(photo.size))
    size = (math.ceil(photo.width * scale), math.ceil(photo.height * scale))
    return _file(photo.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=60)


def _turned(photo: Image.Image, _: Preprocessing) -> bytes:
    """A JPEG whose pixels lie on their side, and whose EXIF says so."""
    exif = Image.Exif()
    exif[_ORIENTATION] = _TURNED_LEFT
    return _file(photo.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=75, exif=exif)


def _transparent(photo: Image.Image, _: Preprocessing) -> bytes:
    """A PNG of an ellipse of the photo; what is transparent around it is black beneath."""
    small = _within(photo, _SMALL_SIDE)
    mask = Image.new("L", small.size, 0)
    ImageDraw.Draw(mask).ellipse((0, 0, small.width - 1, small.height - 1), fill=255)
    cut = Image.new("RGBA", small.size, (0, 0, 0, 0))
    cut.paste(small, mask=mask)
    return _file(cut, "PNG", optimize=True)


def _webp(photo: Image.Image, _: Preprocessing) -> bytes:
    return _file(photo, "WEBP", quality=75)


def _gif(photo: Image.Image, _: Preprocessing) -> bytes:
    return _file(_within(photo, _SMALL_SIDE).quantize(), "GIF")


def _bmp(photo: Image.Image, _: Preprocessing) -> bytes:
    return _file(_within(photo, _UNCOMPRESSED_SIDE), "BMP")


# Each kind of file with the photo that is tried first.
_KINDS: dict[str, tuple[Make, str]] = {
    "large.jpg": (_large, "cat"),
    "turned.jpg": (_turned, "coffee"),
    "transparent.png": (_transparent, "coffee"),
    "photo.webp": (_webp, "coffee"),
    "photo.gif": (_gif, "photographer"),
    "photo.bmp": (_bmp, "cat"),
}


def _within(photo: Image.Image, side: int) -> Image.Image:
    small = photo.copy()
    small.thumbnail((side, side))
    return small


def _file(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()
