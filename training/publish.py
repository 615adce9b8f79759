"""Publishing: from an evaluated run to a bundle that serves."""

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from litelens.bundle import MANIFEST, MODEL, load_bundle
from litelens.classifier import Classifier
from litelens.images import Limits
from training.run import FitFacts, Metrics, Run, sha256


def publish(run: Run, fitted: FitFacts, metrics: Metrics, models: Path) -> Path:
    """Write the run's bundle to `models/NAME`, in place of one that is there, which stays when this fails.

    The bundle is loaded as serving would before it takes its place; raises BundleError when it cannot be served.
    """
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".publish-") as workspace:
        bundle, replaced = Path(workspace) / "bundle", Path(workspace) / "replaced"
        bundle.mkdir()
        shutil.copyfile(run.model, bundle / MODEL)
        document = json.dumps(_manifest(run, fitted, metrics), indent=2, ensure_ascii=False) + "\n"
        (bundle / MANIFEST).write_text(document, encoding="utf-8")
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
