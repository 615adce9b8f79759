"""Golden images: a few that lie beside a model, with what it is known to say of them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litelens.errors import BundleError

GOLDEN = "golden"

# The allowed difference from the expected confidence. With the default model and the three sample photos in each of
# training's six kinds of files, LiteRT and OpenVINO differed by 0.014 on average and by 0.030 at most.
TOLERANCE = 0.1

MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
}

_FIELDS = {"file", "label", "confidence", "lead"}


@dataclass(frozen=True)
class GoldenImage:
    """A file in the bundle's folder GOLDEN, and its best label with its confidence, 0 to 1, as LiteRT answers.

    `lead` is how much more confidence it has than the next label.
    """

    file: str
    label: str
    confidence: float
    lead: float

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[Path(self.file).suffix]

    def read(self, bundle: Path) -> bytes:
        """The file in the bundle of that folder; raises BundleError, naming it, when it cannot be read."""
        path = bundle / GOLDEN / self.file
        try:
            return path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def complaint(image: GoldenImage, confidences: Mapping[str, float], tolerance: float = TOLERANCE) -> str | None:
    """What is wrong with these confidences, by label, as a model's answer for the image; None when they are right.

    The expected label must have the expected confidence within the tolerance, and be the best where it leads by more.
    """
    found = confidences.get(image.label)
    if found is None:
        return f"{image.file}: the answer does not have the label {image.label}."
    if not abs(found - image.confidence) <= tolerance:
        return (
            f"{image.file}: {image.label} has the confidence {found:.3f}, which is more than {tolerance} from the "
            f"expected {image.confidence:.3f}."
        )
    best = max(confidences, key=confidences.__getitem__)
    if image.lead > tolerance and confidences[best] > found:
        return (
            f"{image.file}: the best label is {best} ({confidences[best]:.3f}) and not {image.label} ({found:.3f}), "
            f"which is expected to lead by {image.lead:.3f}."
        )
    return None


def golden_images(values: Any, labels: Collection[str]) -> tuple[GoldenImage, ...]:
    """The list in a manifest, which may be missing; raises ValueError when it says what cannot be."""
    if values is None:
        return ()
    if not isinstance(values, list):
        raise ValueError("golden must be a list of images")
    images = tuple(_golden_image(value, labels) for value in values)
    if len({image.file for image in images}) != len(images):
        raise ValueError("golden must not have the same file twice")
    return images


def _golden_image(value: Any, labels: Collection[str]) -> GoldenImage:
    if not isinstance(value, dict) or set(value) != _FIELDS:
        raise ValueError("each image in golden must have file, label, confidence and lead, and nothing else")
    file, label, confidence, lead = value["file"], value["label"], value["confidence"], value["lead"]
    if not isinstance(file, str) or not re.fullmatch(r"[A-Za-z0-9_-]+\.[a-z]+", file):
        raise ValueError(f"a file in golden must be a plain name such as photo.jpg, not {file!r}")
    if Path(file).suffix not in MEDIA_TYPES:
        raise ValueError(f"a file in golden must end in one of {', '.join(MEDIA_TYPES)}, not {file!r}")
    if label not in labels:
        raise ValueError(f"the label of {file} in golden must be one of labels, not {label!r}")
    if type(confidence) not in (int, float) or not 0 <= confidence <= 1:
        raise ValueError(f"the confidence of {file} in golden must be between 0 and 1, not {confidence!r}")
    if type(lead) not in (int, float) or not 0 <= lead <= confidence:
        raise ValueError(f"the lead of {file} in golden must be between 0 and its confidence, not {lead!r}")
    return GoldenImage(file, label, float(confidence), float(lead))
