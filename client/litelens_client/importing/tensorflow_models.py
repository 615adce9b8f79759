"""Import Keras files and SavedModel folders with the steps of training, which a checkout has.

They run in a process of their own, because TensorFlow's converter ends its process if it meets an unknown operation.
"""

import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from litelens.core.bundle import MANIFEST, MODEL, REPORT, load_bundle
from litelens_client.importing.bundle import COMMAND, LABELS_FILE
from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.formats import TensorFlowModel
from litelens_client.importing.lines import classes_row, input_row, input_type, row
from litelens_client.learning.bundle_writer import check_is_bundle, next_version
from litelens_client.learning.metrics import wilson_interval
from litelens_client.settings import models_folder

_CHECKOUT = Path(__file__).parents[3]
_STEPS = _CHECKOUT / "training" / "__main__.py"
_FILE = "file"
# The field of the manifest that training writes.
_FIELD = "training"
_STANDARD_ERROR = 2


def can_convert() -> bool:
    """Return whether this is a checkout, and TensorFlow is installed."""
    return _STEPS.is_file() and find_spec("tensorflow") is not None


def import_tensorflow_model(model: TensorFlowModel, arguments: Namespace) -> dict[str, Any]:
    """Write the bundle of a Keras or SavedModel classifier and return its manifest.

    What the steps print goes to standard error. Raises ImportRefused if options are missing or wrong, or if the steps
    failed, and TrainingError or BundleError if the target is not a bundle.
    """
    _check(arguments)
    target = models_folder() / arguments.name
    _require_imported(target)
    version = next_version(target, _FIELD, COMMAND)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(_CHECKOUT), os.environ.get("PYTHONPATH"))))
    }
    with tempfile.TemporaryDirectory() as run:
        command = [sys.executable, "-m", "training", "all", *_options(model, arguments, version), "--run", run]
        code = subprocess.run(command, env=environment, stdout=_STANDARD_ERROR, check=False).returncode  # noqa: S603
    if code < 0:
        raise ImportRefused(
            f"{model.path} cannot be converted: TensorFlow ended the process (signal {-code}), perhaps because of a "
            "layer that has no form in TFLite, or because memory ran out"
        )
    if code:
        raise ImportRefused(f"{model.path} was not imported; the reason is above")
    return dict(load_bundle(target).manifest)


def summary(manifest: Mapping[str, Any], model: TensorFlowModel, target: Path) -> list[str]:
    """Return the lines that are printed: what the model is, what was measured, and what to do."""
    metrics = manifest["metrics"]
    images = f"{metrics['test_images']:,} photos"
    accuracy = "not measured; give --data FOLDER, with photos in class folders named like the labels"
    if metrics["int8_top1"] is not None:
        low, high = wilson_interval(metrics["int8_top1"], metrics["test_images"])
        accuracy = f"{metrics['int8_top1']:.1%} on {images} (95% interval: {low:.1%} to {high:.1%})"
    return [
        f"{model.path.name}: a photo classifier, {model.what}",
        input_row(manifest),
        classes_row(manifest["labels"]),
        row("Model", _describe_quantization(manifest)),
        row("Agreement", f"{metrics['agreement']:.1%} of {images} have the same best label as the float network"),
        row("Accuracy", accuracy),
        "",
        f"{target} was written. Its report: {target / REPORT}",
    ]


def answer(manifest: Mapping[str, Any], model: TensorFlowModel, target: Path) -> dict[str, Any]:
    """Return the JSON object that is printed."""
    spec = manifest["preprocessing"]
    return {
        "name": manifest["name"],
        "version": manifest["version"],
        "folder": str(target),
        "network": model.what,
        "input": {"width": spec["width"], "height": spec["height"], "dtype": input_type(manifest)},
        "labels": manifest["labels"],
        "temperature": manifest["temperature"],
        "threshold": manifest["threshold"],
        "metrics": manifest["metrics"],
        "quantization": manifest["quantization"],
        "next": f"make run BUNDLE={target}",
    }


def _check(arguments: Namespace) -> None:
    if not arguments.quantize and not arguments.data:
        raise ImportRefused(
            "converting this model needs photos; give --quantize FOLDER with a few hundred photos like those that you "
            "will classify, or --data FOLDER with photos in class folders"
        )
    for option in ("multi_label", "scores"):
        if getattr(arguments, option) is not None:
            raise ImportRefused(
                f"--{option.replace('_', '-')} is for .tflite files; leave it out, or convert the model to .tflite "
                "where it was trained"
            )


def _require_imported(target: Path) -> None:
    """Raise ImportRefused unless the target can be replaced: it is new, or a model that was trained elsewhere."""
    if not target.exists():
        return
    check_is_bundle(target)
    try:
        manifest = json.loads((target / MANIFEST).read_bytes())
        is_imported = manifest[_FIELD]["network"]["architecture"] == _FILE
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        is_imported = False
    if not is_imported:
        raise ImportRefused(
            f"{target} is not a model that was imported like this one, so it is not replaced; choose another --name"
        )


def _options(model: TensorFlowModel, arguments: Namespace, version: str) -> list[str]:
    """Return the options of `python -m training all` that these arguments stand for."""
    options = ["--model", str(model.path), "--name", arguments.name, "--models", str(models_folder())]
    beside = model.path.parent / LABELS_FILE
    labels = arguments.labels or (beside if beside.is_file() else None)
    named = {"labels": labels, "calibration": arguments.quantize, "data": arguments.data}
    for name, path in named.items():
        options += [f"--{name}", str(path)] if path else []
    options += ["--set", f"version={json.dumps(version)}"]
    changes = {name: getattr(arguments, name) for name in ("mean", "std", "crop", "interpolation")}
    for name, value in changes.items():
        text = list(value) if isinstance(value, tuple) else value
        options += ["--set", f"preprocessing.{name}={json.dumps(text)}"] if value is not None else []
    return options


def _describe_quantization(manifest: Mapping[str, Any]) -> str:
    size = f"{manifest['files'][MODEL]['bytes'] / 1e6:.1f} MB"
    quantization = manifest["quantization"]
    if quantization["scheme"] == "float32":
        layers = ", ".join(quantization["float_layers"])
        return f"float32, {size}; layers have no int8 form: {layers}" if layers else f"float32, {size}"
    return f"int8, {size}, weights of {quantization['weight_bits']} bits"
