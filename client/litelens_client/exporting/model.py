"""Write a bundle as one .tflite file with everything inside, and compare its answers with the bundle's."""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import IMAGE, Bundle
from litelens.core.classifier import Classifier
from litelens.core.images import decode
from litelens.core.native_logs import hide_native_logs
from litelens.core.probabilities import sigmoid, softmax
from litelens_client.exporting.errors import ExportRefused
from litelens_client.exporting.graph import CONFIDENCES, Normalization, standalone_graph
from litelens_client.exporting.metadata import Description, write_with_metadata
from litelens_client.learning.photos import LIMITS

# The largest difference of a confidence. Sums in another order change an integer model's input by at most a level.
MAX_DIFFERENCE = 0.02

_RANDOM_IMAGES = 3


@dataclass(frozen=True)
class Exported:
    """A .tflite file, the normalization of its input, and how it was compared with the bundle.

    `difference` is the largest difference of a confidence on that many `images`, the golden images and random pixels.
    """

    content: bytes
    normalization: Normalization
    images: int
    difference: float


def export_model(bundle: Bundle) -> Exported:
    """Return the bundle as a .tflite file whose confidences are those of the API.

    Raises ExportRefused if a label has line breaks or if the file answers differently, and BundleError if the model
    cannot be run.
    """
    for label in bundle.labels:
        if len(label.splitlines()) != 1:
            raise ExportRefused(f"the label {label!r} has a line break; a .tflite file has a label on each line")
    try:
        parsed, normalization = standalone_graph(bundle)
    except ValueError as error:
        raise ExportRefused(f"{bundle.model} cannot be exported: {error}") from error
    content = write_with_metadata(
        parsed, _describe(bundle), normalization, bundle.labels, _facts(bundle, normalization)
    )
    images = _test_images(bundle)
    try:
        difference = _largest_difference(content, normalization, bundle, images)
    except (ValueError, RuntimeError) as error:
        raise ExportRefused(f"LiteRT cannot run the exported model, so no file was written: {error}") from error
    if difference > MAX_DIFFERENCE:
        raise ExportRefused(
            f"the exported model answers differently from {bundle.name}: a confidence differs by {difference:.3f}, so "
            "no file was written; please report this"
        )
    return Exported(content, normalization, len(images), difference)


def _describe(bundle: Bundle) -> Description:
    """Return the texts of the metadata; an imported model keeps its author and licence."""
    imported = bundle.manifest.get("imported") or {}
    kept = imported.get("metadata") or {}
    texts = {name: str(kept[name]) for name in ("author", "license") if name in kept}
    return Description(bundle.name, str(bundle.manifest.get("description", "")), bundle.version, **texts)


def _facts(bundle: Bundle, normalization: Normalization) -> dict[str, Any]:
    """Return what the metadata cannot say."""
    spec = bundle.preprocessing
    return {
        "name": bundle.name,
        "version": bundle.version,
        "sha256": bundle.sha256,
        "width": spec.width,
        "height": spec.height,
        "crop": spec.crop,
        "interpolation": spec.interpolation,
        **msgspec.to_builtins(normalization),
        "temperature": bundle.temperature,
        **(
            {"thresholds": dict(zip(bundle.labels, bundle.thresholds, strict=True))}
            if bundle.is_multi_label
            else {"threshold": bundle.threshold}
        ),
        "groups": bundle.groups,
    }


def _test_images(bundle: Bundle) -> list[NDArray[np.uint8]]:
    """Return the pixels of the golden images and random ones, uint8 `(height, width, 3)`."""
    spec, random = bundle.preprocessing, np.random.default_rng(1)
    golden = [decode(image.read(bundle.folder), LIMITS, spec).pixels(spec) for image in bundle.golden]
    shape = (spec.height, spec.width, 3)
    return [*golden, *(random.integers(0, 256, shape, np.uint8) for _ in range(_RANDOM_IMAGES))]


def _largest_difference(
    content: bytes, normalization: Normalization, bundle: Bundle, images: list[NDArray[np.uint8]]
) -> float:
    from ai_edge_litert.interpreter import Interpreter

    classifier = Classifier(bundle, LIMITS, threads=1)
    with hide_native_logs():
        run = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    differences = []
    for pixels in images:
        scores = classifier.logits(pixels) / np.float32(bundle.temperature)
        expected = sigmoid(scores) if bundle.is_multi_label else softmax(scores)
        values = (pixels.astype(np.float32) - normalization.mean) / normalization.std
        found = run(**{IMAGE: values[np.newaxis].astype(np.float32)})[CONFIDENCES][0]
        differences.append(float(np.abs(found - expected).max()))
    return max(differences)
