"""Golden images: images in a bundle with the prediction that its model is known to make for them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from litelens.core.errors import BundleError
from litelens.core.formats import SUFFIXES, media_type_of_suffix

# The folder of the images in a bundle.
GOLDEN = "golden"

# The allowed difference from the expected confidence. With the default model and the three sample photos in each of
# the six kinds of files that training writes, LiteRT and OpenVINO differed by 0.014 on average and by 0.030 at most.
TOLERANCE = 0.1


class GoldenImage(Struct, frozen=True, forbid_unknown_fields=True):
    """A file in the bundle's folder GOLDEN, and the most confident label with its confidence, as computed by LiteRT.

    `lead` is the difference from the confidence of the second label.
    """

    file: str
    label: str
    confidence: Annotated[float, Meta(ge=0, le=1)]
    lead: Annotated[float, Meta(ge=0)]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.[a-z]+", self.file):
            raise ValueError(f"file must be a plain name such as photo.jpg, not {self.file!r}")
        if Path(self.file).suffix not in SUFFIXES:
            raise ValueError(f"file must end in one of {', '.join(SUFFIXES)}, not {self.file!r}")
        if self.lead > self.confidence:
            raise ValueError(f"lead must be at most the confidence, not {self.lead!r}")

    @property
    def media_type(self) -> str:
        """The media type of the file, such as image/jpeg."""
        return media_type_of_suffix(Path(self.file).suffix)

    def read(self, bundle: Path) -> bytes:
        """Read the file from the bundle in that folder; raises BundleError, naming the file, if it cannot be read."""
        path = bundle / GOLDEN / self.file
        try:
            return path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def mismatch(image: GoldenImage, confidences: Mapping[str, float], tolerance: float = TOLERANCE) -> str | None:
    """Compare the confidences of a model, by label, with the expected prediction.

    The expected label must have the expected confidence within the tolerance. If its lead is above the tolerance, it
    must also have the highest confidence. Returns a sentence that says what is wrong, or None.
    """
    found = confidences.get(image.label)
    if found is None:
        return f"{image.file}: the answer does not have the label {image.label}."
    # `not ... <=` instead of `>`, so that NaN is a mismatch.
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
