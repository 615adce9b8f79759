"""The step publish: check an evaluated run and write its bundle."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from litelens.core.bundle import MANIFEST, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.golden import TOLERANCE, GoldenImage
from litelens.core.images import Limits
from litelens_client.learning.bundle_writer import new_bundle
from litelens_client.learning.files import write_json
from litelens_client.learning.golden import add_golden_images
from litelens_client.learning.metrics import chance_warnings
from litelens_client.quantizing.comparison import exceeds
from training.documents import manifest_document
from training.errors import GateError
from training.preset import Gate
from training.quantize import check_floats_only, check_integer_only, is_float
from training.run import FitSummary, Metrics, Run

# Limits of the difference between the engines. LiteRT is slower on most x86 CPUs, but exact on all of them.
MAX_ENGINE_DIFFERENCE = 0.003
MIN_ENGINE_AGREEMENT = 0.97

MAX_DUPLICATES = 0.005
_MAX_NAMED = 10

# What to try next, by the option's name.
_LITERT_ONLY = "To serve with LiteRT only, run quantize again with --set 'quantization.weight_bits=[8]'"
_BETTER_RANGES = (
    "Try --set 'quantization.calibration_images=[500]', or --calibration with more photos of the kind that you will "
    "classify"
)
_DIFFERENT_FLOAT = "TFLite computes one of its layers differently; build the model with another layer in its place"
_NOT_QUANTIZED = "If that is not enough, --float32 serves the model without quantization, which is slower"


def check_gate(metrics: Metrics, duplicates: Sequence[str], model: bytes, gate: Gate = Gate()) -> None:  # noqa: B008 (frozen)
    """Raise GateError or QuantizationError if the model must not be published.

    `duplicates` names the test images that were left out because they also occur for training or validation.
    """
    precision = "The served float32 model" if is_float(model) else "int8"
    advice = _DIFFERENT_FLOAT if is_float(model) else f"{_BETTER_RANGES}. {_NOT_QUANTIZED}"
    if metrics.fp32_top1 is None or metrics.int8_top1 is None:
        _check_agreement(precision, metrics.agreement, gate.least_agreement, advice)
    elif exceeds(lost := metrics.fp32_top1 - metrics.int8_top1, gate.most_lost, metrics.test_images):
        raise GateError(
            f"{precision} loses {lost:.2%} top-1 to fp32 on {metrics.test_images} test images; the limit is "
            f"{gate.most_lost:.2%}. {advice}"
        )
    _check_engines(metrics)
    share = metrics.test_duplicates / (metrics.test_images + metrics.test_duplicates)
    if share > MAX_DUPLICATES:
        raise GateError(
            f"{share:.2%} of the test images also occur for training or validation; the limit is {MAX_DUPLICATES:.2%}. "
            "Remove them from the test images or from the others, and give the new folder with --data and a new --run "
            f"({', '.join(duplicates[:_MAX_NAMED])}{' ...' if len(duplicates) > _MAX_NAMED else ''})"
        )
    (check_floats_only if is_float(model) else check_integer_only)(model)


def _check_agreement(precision: str, agreement: float, minimum: float, advice: str) -> None:
    """Raise GateError if both models agree on too few images; for models whose accuracy is unknown."""
    if agreement < minimum:
        raise GateError(
            f"{precision} agrees with fp32 on only {agreement:.2%} of the images; without labelled images, "
            f"{minimum:.0%} are required. {advice}"
        )


def _check_engines(metrics: Metrics) -> None:
    """Raise GateError if OpenVINO and LiteRT differ by too much; models of 8-bit weights have only one engine."""
    if metrics.openvino_agreement is None:
        return
    differing = 1 - metrics.openvino_agreement
    if exceeds(differing, 1 - MIN_ENGINE_AGREEMENT, metrics.test_images):
        raise GateError(
            f"OpenVINO and LiteRT agree on only {metrics.openvino_agreement:.2%} of the test images; "
            f"{MIN_ENGINE_AGREEMENT:.0%} are required. {_LITERT_ONLY}"
        )
    if metrics.openvino_top1 is None or metrics.int8_top1 is None:
        return
    difference = abs(metrics.openvino_top1 - metrics.int8_top1)
    if exceeds(difference, MAX_ENGINE_DIFFERENCE, metrics.test_images):
        raise GateError(
            f"the top-1 of OpenVINO and LiteRT differs by {difference:.2%} on {metrics.test_images} test images; the "
            f"limit is {MAX_ENGINE_DIFFERENCE:.2%}. {_LITERT_ONLY}"
        )


def _check_golden_images(images: Sequence[GoldenImage]) -> None:
    """Raise GateError if there are no golden images, which verify each deployed version before it gets requests."""
    if not images:
        raise GateError(f"LiteRT and OpenVINO differ too much on every golden image. {_LITERT_ONLY}")
    if all(image.lead <= TOLERANCE for image in images):
        print(
            "No golden image has a label that clearly leads, so that releases detect fewer errors; see docs/train.md."
        )


def publish(run: Run, fitted: FitSummary | None, metrics: Metrics, document: Mapping[str, Any], models: Path) -> Path:
    """Write the run's bundle to `models/NAME` and return this path; an earlier bundle is replaced only on success.

    `fitted` is None if nothing was fitted; `document` is the content of metrics.json, with `metrics` in it.

    The bundle is loaded as for serving before it replaces another. Raises GateError or QuantizationError if the model
    does not pass the gate, TrainingError if `models/NAME` is not a bundle, BundleError if the new bundle cannot be
    served.
    """
    check_gate(metrics, document.get("duplicates", []), run.model.read_bytes(), run.preset.gate)
    published = models / run.preset.name
    with new_bundle(published) as bundle:
        for source in (*run.served_files, run.metrics, run.report):
            shutil.copyfile(source, bundle / source.name)
        candidates, warnings = document.get("candidates", []), chance_warnings(document)
        write_json(bundle / MANIFEST, manifest_document(run, fitted, metrics, candidates, warnings))
        omitted = add_golden_images(bundle)
        loaded = load_bundle(bundle)
        _check_golden_images(loaded.golden)
        Classifier(loaded, Limits(), threads=1).warm_up()
    if omitted:
        print(f"Golden images omitted, because LiteRT and OpenVINO differ too much on them: {', '.join(omitted)}.")
    return published
