"""Publishing: from an evaluated run to a bundle that serves."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from litelens.bundle import MANIFEST, METRICS, MODEL, REPORT, load_bundle
from litelens.classifier import Classifier
from litelens.golden import TOLERANCE, GoldenImage
from litelens.images import Limits
from training.chance import chance_warnings
from training.documents import manifest
from training.errors import GateError
from training.golden import add_golden_images
from training.preset import Gate
from training.quantize import check_integer_only
from training.run import FitFacts, Metrics, Run, write_json

# Fewer lost images may be chance: a sign test at 5% sees no loss in four of four discordant images (1/16).
LEAST_LOST_IMAGES = 5

# What the engines may differ in. The one that is slower on most x86 CPUs is the one that is exact on all of them.
MOST_APART = 0.003
LEAST_ENGINE_AGREEMENT = 0.97

MOST_DUPLICATES = 0.005
_NAMED = 10


def check_fit_to_publish(metrics: Metrics, duplicates: Sequence[str], model: bytes, gate: Gate = Gate()) -> None:  # noqa: B008 (frozen)
    """Raise GateError or QuantizationError when the model must not be published.

    `duplicates` names the test images that were left out because they also occur for training or validation.
    """
    if metrics.fp32_top1 is None or metrics.int8_top1 is None:
        _check_agreement(metrics.agreement, gate.least_agreement)
    elif _is_beyond(lost := metrics.fp32_top1 - metrics.int8_top1, gate.most_lost, metrics.test_images):
        raise GateError(
            f"int8 loses {lost:.2%} top-1 to fp32 on {metrics.test_images} test images, more than the "
            f"{gate.most_lost:.2%} that are let pass; more calibration_images may help, and more test images tell more"
        )
    _check_engines(metrics)
    share = metrics.test_duplicates / (metrics.test_images + metrics.test_duplicates)
    if share > MOST_DUPLICATES:
        raise GateError(
            f"{share:.2%} of the test images also occur among those for training or validation, more than the "
            f"{MOST_DUPLICATES:.2%} that are let pass: the accuracy would say little; remove them from one of the two "
            f"({', '.join(duplicates[:_NAMED])}{' ...' if len(duplicates) > _NAMED else ''})"
        )
    check_integer_only(model)


def _is_beyond(share: float, most: float, test_images: int) -> bool:
    return share > most and round(share * test_images) >= LEAST_LOST_IMAGES


def _check_agreement(agreement: float, least: float) -> None:
    """Raise GateError if int8 and fp32 agree too seldom; for models whose accuracy is unknown."""
    if agreement < least:
        raise GateError(
            f"int8 agrees with fp32 on {agreement:.2%} of the images only, less than the {least:.0%} that "
            "are asked where no labelled images tell the accuracy; give more and likelier photos to --calibration"
        )


def _check_engines(metrics: Metrics) -> None:
    """A model of 8-bit weights has only one engine; with a few test images, so few may differ by chance."""
    if metrics.openvino_agreement is None:
        return
    differing = 1 - metrics.openvino_agreement
    if _is_beyond(differing, 1 - LEAST_ENGINE_AGREEMENT, metrics.test_images):
        raise GateError(
            f"OpenVINO and LiteRT agree on {metrics.openvino_agreement:.2%} of the test images only, less than the "
            f"{LEAST_ENGINE_AGREEMENT:.0%} that are asked; quantize with weight_bits = [8] to serve by LiteRT alone"
        )
    if metrics.openvino_top1 is None or metrics.int8_top1 is None:
        return
    if _is_beyond(apart := abs(metrics.openvino_top1 - metrics.int8_top1), MOST_APART, metrics.test_images):
        raise GateError(
            f"OpenVINO and LiteRT are {apart:.2%} apart in top-1 on {metrics.test_images} test images, more than the "
            f"{MOST_APART:.2%} that are let pass; quantize with weight_bits = [8] to serve by LiteRT alone"
        )


def _check_golden_images(images: Sequence[GoldenImage]) -> None:
    """No new version of a stack gets requests without any."""
    if not images:
        raise GateError(
            "LiteRT and OpenVINO are too far apart on every golden image; quantize with weight_bits = [8] to serve by "
            "LiteRT alone"
        )
    if all(image.lead <= TOLERANCE for image in images):
        print("The model is sure of no golden image, so that a release notices little; docs/train.md has more.")


def _check_is_a_bundle(folder: Path) -> None:
    if not (folder / MANIFEST).is_file():
        raise GateError(
            f"{folder} is there but is no bundle, and is left as it is; move it away, or choose another --models"
        )


def publish(run: Run, fitted: FitFacts | None, metrics: Metrics, document: Mapping[str, Any], models: Path) -> Path:
    """Write the run's bundle to `models/NAME`, in place of one that is there, which stays when this fails.

    `fitted` is None for a network that was taken as it was; `document` is what `evaluate` wrote, `metrics` among it.

    The bundle is loaded as serving would before it takes its place. Raises GateError or QuantizationError when the
    model is not good enough, BundleError when it cannot be served.
    """
    check_fit_to_publish(metrics, document.get("duplicates", []), run.model.read_bytes(), run.preset.gate)
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".publish-", ignore_cleanup_errors=True) as workspace:
        bundle, replaced = Path(workspace) / "bundle", Path(workspace) / "replaced"
        bundle.mkdir()
        for source, name in ((run.model, MODEL), (run.metrics, METRICS), (run.report, REPORT)):
            shutil.copyfile(source, bundle / name)
        candidates, warnings = document.get("candidates", []), chance_warnings(document)
        write_json(bundle / MANIFEST, manifest(run, fitted, metrics, candidates, warnings))
        left_out = add_golden_images(bundle)
        loaded = load_bundle(bundle)
        _check_golden_images(loaded.golden)
        Classifier(loaded, Limits(), threads=1).warm_up()
        published = models / run.preset.name
        try:
            if published.exists():
                _check_is_a_bundle(published)
                published.rename(replaced)
            bundle.rename(published)
        except BaseException:
            if replaced.exists() and not published.exists():
                replaced.rename(published)
            raise
    if left_out:
        print(f"Golden images without {', '.join(left_out)}: LiteRT and OpenVINO are too far apart on them.")
    return published
