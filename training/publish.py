"""Publishing: from an evaluated run to a bundle that serves."""

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any

from litelens.bundle import MANIFEST, MODEL, load_bundle
from litelens.classifier import Classifier
from litelens.images import Limits
from training.quantize import check_integer_only
from training.run import FitFacts, Metrics, Run, sha256, write_json

MOST_LOST = 0.005
MOST_DUPLICATES = 0.005


class GateError(Exception):
    """The model is not fit to be published; the message says why."""


def check_fit_to_publish(metrics: Metrics, model: bytes) -> None:
    """Raise GateError or QuantizationError when the model must not be published."""
    lost = metrics.fp32_top1 - metrics.int8_top1
    if lost > MOST_LOST:
        raise GateError(f"int8 loses {lost:.2%} top-1 to fp32, more than the {MOST_LOST:.2%} that are let pass")
    share = metrics.test_duplicates / (metrics.test_images + metrics.test_duplicates)
    if share > MOST_DUPLICATES:
        raise GateError(
            f"{share:.2%} of the test images also occur in the training split, more than the {MOST_DUPLICATES:.2%} "
            "that are let pass: its accuracy would say little"
        )
    check_integer_only(model)


def publish(run: Run, fitted: FitFacts, metrics: Metrics, models: Path) -> Path:
    """Write the run's bundle to `models/NAME`, in place of one that is there, which stays when this fails.

    The bundle is loaded as serving would before it takes its place. Raises GateError or QuantizationError when the
    model is not good enough, BundleError when it cannot be served.
    """
    check_fit_to_publish(metrics, run.model.read_bytes())
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".publish-") as workspace:
        bundle, replaced = Path(workspace) / "bundle", Path(workspace) / "replaced"
        bundle.mkdir()
        shutil.copyfile(run.model, bundle / MODEL)
        write_json(bundle / MANIFEST, _manifest(run, fitted, metrics))
        Classifier(load_bundle(bundle), Limits(), threads=1).warm_up()
        published = models / run.preset.name
        if published.exists():
            published.rename(replaced)
        try:
            bundle.rename(published)
        except OSError:
            if replaced.exists():
                replaced.rename(published)
            raise
    return published


def _manifest(run: Run, fitted: FitFacts, metrics: Metrics) -> dict[str, Any]:
    preset = run.preset
    model = run.model.read_bytes()
    return {
        "name": preset.name,
        "version": preset.version,
        "description": preset.description,
        "temperature": metrics.temperature,
        "threshold": metrics.threshold,
        "preprocessing": dataclasses.asdict(preset.preprocessing),
        "quantization": {"scheme": "int8", "weights": "per channel", "activations": "per tensor", "bias": "int32"},
        "files": {MODEL: {"sha256": sha256(model), "bytes": len(model)}},
        "metrics": dataclasses.asdict(metrics),
        "training": {
            "dataset": preset.dataset,
            "network": f"ResNet-50, {preset.stem} stem",
            **dataclasses.asdict(fitted),
            "recipe": dataclasses.asdict(preset.recipe),
        },
        "labels": list(preset.label_names()),
    }
