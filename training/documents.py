"""The JSON documents of a bundle: metrics.json, from which the report is made, and the manifest."""

import csv
import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from litelens_client.learning.files import sha256
from litelens_client.learning.tflite import read_tensors
from training.dataset import Dataset
from training.efficientnet_lite import find_origin
from training.evaluate import Evaluation
from training.network import KERAS_FILE
from training.preset import Preset
from training.quantize import is_float
from training.run import FitSummary, Metrics, Run

MAX_LISTED = 20
_PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "openvino", "litert-quantizer", "numpy", "pillow")


def metrics_document(
    run: Run,
    dataset: Dataset,
    evaluation: Evaluation,
    fitted: FitSummary | None,
    candidates: list[dict[str, Any]],
    command: str,
) -> dict[str, Any]:
    """Create the content of metrics.json: settings, history and all measurements of a run.

    `fitted` is None if nothing was fitted, `candidates` are the scores from `quantize`, `command` repeats the run.
    """
    preset, model = run.preset, run.model.read_bytes()
    return {
        "model": sha256(model),
        "model_bytes": len(model),
        "precision": precision(model),
        "name": preset.name,
        "version": preset.version,
        "description": full_description(preset),
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
        "dataset": preset.dataset,
        "network": _network(preset),
        "preprocessing": msgspec.structs.asdict(preset.preprocessing),
        "recipe": _recipe(preset),
        "origin": _origin(preset),
        "gate": msgspec.structs.asdict(preset.gate),
        "confidence": _confidence(preset, evaluation.metrics),
        "fit": dataclasses.asdict(fitted) if fitted else None,
        "history": read_history(run) if fitted else [],
        **evaluation.document(),
        "groups": preset.label_groups(),
        "distribution": _distribution(dataset) if dataset.labelled else {},
        "candidates": candidates,
        "skipped": {
            "images": len(dataset.unreadable),
            "listed": [dataclasses.asdict(file) for file in dataset.unreadable[:MAX_LISTED]],
        },
    }


def precision(model: bytes) -> str:
    """Return the precision with which a .tflite file computes, beside that of the network, which is fp32."""
    return "TFLite float32" if is_float(model) else "int8"


def manifest_document(
    run: Run, fitted: FitSummary | None, metrics: Metrics, candidates: list[dict[str, Any]], warnings: list[str]
) -> dict[str, Any]:
    """Create the content of manifest.json: what serving needs, the metrics, and the settings of the training."""
    preset, model = run.preset, run.model.read_bytes()
    chosen = next((candidate for candidate in candidates if candidate["chosen"]), {})
    return {
        "name": preset.name,
        "version": preset.version,
        "description": full_description(preset),
        "warnings": warnings,
        "temperature": metrics.temperature,
        "threshold": metrics.threshold,
        "preprocessing": msgspec.structs.asdict(preset.preprocessing),
        "quantization": _quantization(model, chosen),
        "tensors": {name: msgspec.to_builtins(tensor) for name, tensor in read_tensors(model).items()},
        "files": {path.name: _file(path) for path in run.served_files},
        "metrics": dataclasses.asdict(metrics),
        "training": {
            "dataset": preset.dataset,
            "network": _network(preset),
            "fit": dataclasses.asdict(fitted) if fitted else None,
            "recipe": _recipe(preset),
            "origin": _origin(preset),
        },
        "gate": msgspec.structs.asdict(preset.gate),
        "confidence": _confidence(preset, metrics),
        "groups": preset.label_groups(),
        "labels": list(run.labels),
    }


def _quantization(model: bytes, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Describe how the model was quantized, or why it was not: `float_layers` are those without an int8 form."""
    if is_float(model):
        return {"scheme": "float32", "float_layers": list(chosen.get("float_layers", ()))}
    return {
        "scheme": "int8",
        "weights": "per channel",
        "activations": "per tensor",
        "bias": "int32",
        **{name: chosen.get(name) for name in ("converter", "weight_bits", "calibration_images")},
    }


def _file(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": sha256(content), "bytes": len(content)}


def full_description(preset: Preset) -> str:
    """Return the preset's description, followed by a sentence on the network and the origin of its weights."""
    return f"{preset.description} {_describe_weights(preset)}".strip()


def _describe_weights(preset: Preset) -> str:
    """Describe the network, its initial weights, and any further training in a sentence."""
    network, file = preset.network, Path(preset.network.weights).name
    if network.architecture == KERAS_FILE:
        start = f"The network was trained elsewhere ({file})"
    elif network.weights == "none":
        start = f"The network, {network.architecture}, was trained from random weights"
    elif network.has_run_weights:
        start = f"The network, {network.architecture}, has the weights of another litelens run ({file})"
    elif network.weights == "imagenet":
        start = f"The network, {network.architecture}, was pretrained on ImageNet"
    else:
        start = f"The network, {network.architecture}, has weights from a file ({file})"
    if not preset.recipe.phases:
        return f"{start} and was not trained further."
    tuning = "" if network.weights == "none" else " and was then fine-tuned"
    teacher = preset.recipe.teacher.source
    return f"{start}{tuning}{f', with {Path(teacher).name} as its teacher' if teacher else ''}."


def read_history(run: Run) -> list[dict[str, float]]:
    """Read the measurements of each epoch, which `fit` wrote, as numbers."""
    with run.history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    counts = ("phase", "epoch")
    return [{name: int(value) if name in counts else float(value) for name, value in row.items()} for row in rows]


def _network(preset: Preset) -> dict[str, Any]:
    """Return the network's settings, with the name of the weights file but not its path."""
    return msgspec.structs.asdict(preset.network) | {"weights": Path(preset.network.weights).name}


def _recipe(preset: Preset) -> dict[str, Any]:
    """Return the recipe, with the name of the teacher but not its path."""
    recipe: dict[str, Any] = msgspec.to_builtins(preset.recipe)
    recipe["teacher"]["source"] = Path(preset.recipe.teacher.source).name
    return recipe


def _origin(preset: Preset) -> dict[str, Any] | None:
    origin = find_origin(preset.network.architecture) if preset.network.weights == "imagenet" else None
    return dataclasses.asdict(origin) if origin else None


def _confidence(preset: Preset, metrics: Metrics) -> dict[str, Any] | None:
    """Return the preset's temperature and threshold if there were no labelled images to fit them to."""
    return msgspec.structs.asdict(preset.confidence) if metrics.int8_top1 is None else None


def _distribution(dataset: Dataset) -> dict[str, list[int]]:
    """Count the images of each class in each split."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: np.bincount(s.classes, minlength=len(dataset.labels)).tolist() for name, s in splits.items()}
