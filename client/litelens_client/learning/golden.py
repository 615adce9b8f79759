"""Golden images for a bundle: the web page's sample photos, converted into each file format that is accepted.

The expected answers are the bundle's own with LiteRT, the engine that is exact on every CPU.
"""

import importlib.util
import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image, ImageDraw

from litelens.core.bundle import MANIFEST, Bundle, load_bundle
from litelens.core.classifier import Classifier, Options
from litelens.core.golden import GOLDEN, TOLERANCE, GoldenImage, mismatch
from litelens.core.images import Limits
from litelens.core.preprocessing import Preprocessing
from litelens_client.learning.files import write_json
from litelens_client.settings import page_folder

_PHOTOS = ("cat", "coffee", "photographer")

# The allowed difference between the engines. The other half of the tolerance is for differences between CPUs.
_MAX_DIFFERENCE = TOLERANCE / 2

# Pixels of the longer side of files in formats with little compression.
_SMALL_SIDE = 160
_UNCOMPRESSED_SIDE = 120

# A JPEG whose sides are at least five times the input's is decoded at half of its size or less.
_REDUCED_FACTOR = 5

_ORIENTATION, _ROTATED_LEFT = 0x0112, 6

Encode = Callable[[Image.Image, Preprocessing], bytes]


def add_golden_images(folder: Path) -> list[str]:
    """Write golden images into a bundle's folder, and their expected answers into its manifest.

    Each kind of file gets the first photo for which the confidences of LiteRT and, if it is installed, OpenVINO differ
    by at most half of TOLERANCE and whose best label leads by more than TOLERANCE. If no photo's label leads that
    clearly, it gets the photo whose label leads most. A kind is omitted if the engines differ too much on all photos.
    Returns the names of the omitted files. Raises BundleError if the folder is not a bundle.
    """
    bundle = load_bundle(folder)
    classifier = Classifier(bundle, Limits(), threads=1)
    other = Classifier(bundle, Limits(), threads=1, engine="openvino") if _can_compare(bundle) else classifier
    chosen = [_choose(file, encode, first, classifier, other) for file, (encode, first) in _KINDS.items()]
    images = dict(filter(None, chosen))
    (folder / GOLDEN).mkdir(exist_ok=True)
    for image, data in images.items():
        (folder / GOLDEN / image.file).write_bytes(data)
    _write_manifest(bundle, list(images))
    omitted = [file for file in _KINDS if file not in {image.file for image in images}]
    for file in omitted:
        (folder / GOLDEN / file).unlink(missing_ok=True)
    return omitted


def renew_golden_answers(folder: Path) -> None:
    """Compute the expected answers of a bundle's golden images anew; raises BundleError if it is not a bundle."""
    bundle = load_bundle(folder)
    classifier = Classifier(bundle, Limits(), threads=1)
    _write_manifest(bundle, [_expected_answer(image.file, image.read(folder), classifier) for image in bundle.golden])


def _can_compare(bundle: Bundle) -> bool:
    """Return whether OpenVINO can run the model and is installed, which is optional."""
    return bundle.weight_bits != 8 and importlib.util.find_spec("openvino") is not None


def _choose(
    file: str, encode: Encode, first: str, classifier: Classifier, other: Classifier
) -> tuple[GoldenImage, bytes] | None:
    """Choose the photo for a kind of file; None if the engines differ by too much on all photos."""
    found = []
    for photo in (first, *(photo for photo in _PHOTOS if photo != first)):
        with Image.open(page_folder() / "samples" / f"{photo}.jpg") as sample:
            data = encode(sample.convert("RGB"), classifier.bundle.preprocessing)
        image = _expected_answer(file, data, classifier)
        if mismatch(image, _confidences(data, other), _MAX_DIFFERENCE):
            continue
        # If the label leads by little, a wrong model could give about the same confidences.
        if image.lead > TOLERANCE:
            return image, data
        found.append((image, data))
    return max(found, key=lambda each: each[0].lead, default=None)


def _expected_answer(file: str, data: bytes, classifier: Classifier) -> GoldenImage:
    best, *others = classifier.classify(data, Options(top_k=2)).candidates
    lead = best.confidence - sum(other.confidence for other in others)
    return GoldenImage(file, best.label, round(best.confidence, 6), round(lead, 6))


def _confidences(data: bytes, classifier: Classifier) -> dict[str, float]:
    prediction = classifier.classify(data, Options(top_k=len(classifier.bundle.labels)))
    return {candidate.label: candidate.confidence for candidate in prediction.candidates}


def _write_manifest(bundle: Bundle, images: list[GoldenImage]) -> None:
    """Write the golden images into the manifest, after the field `files`."""
    fields: dict[str, Any] = {}
    for name, value in bundle.manifest.items():
        if name != GOLDEN:
            fields[name] = value
        if name == "files":
            fields[GOLDEN] = [msgspec.structs.asdict(image) for image in images]
    write_json(bundle.folder / MANIFEST, fields)


def _large_jpeg(photo: Image.Image, spec: Preprocessing) -> bytes:
    """Encode a JPEG so large that it is decoded at a reduced size."""
    needed = math.ceil(_REDUCED_FACTOR * max(spec.height, spec.width) / spec.crop)
    scale = max(1.0, needed / min(photo.size))
    size = (math.ceil(photo.width * scale), math.ceil(photo.height * scale))
    return _encode(photo.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=60)


def _rotated_jpeg(photo: Image.Image, _: Preprocessing) -> bytes:
    """Encode a JPEG whose pixels are rotated, with the orientation in its EXIF."""
    exif = Image.Exif()
    exif[_ORIENTATION] = _ROTATED_LEFT
    return _encode(photo.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=75, exif=exif)


def _transparent_png(photo: Image.Image, _: Preprocessing) -> bytes:
    """Encode a PNG with an ellipse of the photo; the pixels around it are transparent black."""
    small = _shrink(photo, _SMALL_SIDE)
    mask = Image.new("L", small.size, 0)
    ImageDraw.Draw(mask).ellipse((0, 0, small.width - 1, small.height - 1), fill=255)
    cut = Image.new("RGBA", small.size, (0, 0, 0, 0))
    cut.paste(small, mask=mask)
    return _encode(cut, "PNG", optimize=True)


def _webp(photo: Image.Image, _: Preprocessing) -> bytes:
    return _encode(photo, "WEBP", quality=75)


def _gif(photo: Image.Image, _: Preprocessing) -> bytes:
    return _encode(_shrink(photo, _SMALL_SIDE).quantize(), "GIF")


def _bmp(photo: Image.Image, _: Preprocessing) -> bytes:
    return _encode(_shrink(photo, _UNCOMPRESSED_SIDE), "BMP")


# Each kind of file with the photo that is tried first.
_KINDS: dict[str, tuple[Encode, str]] = {
    "large.jpg": (_large_jpeg, "cat"),
    "turned.jpg": (_rotated_jpeg, "coffee"),
    "transparent.png": (_transparent_png, "coffee"),
    "photo.webp": (_webp, "coffee"),
    "photo.gif": (_gif, "photographer"),
    "photo.bmp": (_bmp, "cat"),
}


def _shrink(photo: Image.Image, side: int) -> Image.Image:
    small = photo.copy()
    small.thumbnail((side, side))
    return small


def _encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()
