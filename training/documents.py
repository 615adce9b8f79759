"""What is written down of a run: the measurements, which metrics.json and the report hold, and the manifest."""

import csv
import dataclasses
import importlib.metadata
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from litelens.bundle import MODEL
from training.dataset import Dataset
from training.evaluate import Evaluation
from training.network import BROUGHT
from training.origin import origin
from training.preset import Preset
from training.quantize import tensors_of
from training.run import FitFacts, Metrics, Run, sha256

LISTED = 20
_PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "openvino", "litert-quantizer", "numpy", "pillow")


def measurements(
    run: Run,
    dataset: Dataset,
    evaluation: Evaluation,
    fitted: FitFacts | None,
    candidates: list[dict[str, Any]],
    command: str,
) -> dict[str, Any]:
    """All that is known of the run as JSON values, of which `render` makes the report.

    `fitted` is None for a network that was taken as it was, `candidates` are what `quantize` compared, `command` is
    what would do it all again.
    """
    preset, model = run.preset, run.model.read_bytes()
    return {
        "model": sha256(model),
        "model_bytes": len(model),
        "name": preset.name,
        "version": preset.version,
        "description": full_description(preset),
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
        "dataset": preset.dataset,
        "network": _network(preset),
        "preprocessing": dataclasses.asdict(preset.preprocessing),
        "recipe": _recipe(preset),
        "origin": _origin(preset),
        "gate": dataclasses.asdict(preset.gate),
        "confidence": dataclasses.asdict(preset.confidence) if evaluation.metrics.int8_top1 is None else None,
        "fit": dataclasses.asdict(fitted) if fitted else None,
        "history": read_history(run) if fitted else [],
        **evaluation.document(),
        "groups": preset.label_groups(),
        "distribution": _distribution(dataset) if dataset.labelled else {},
        "candidates": candidates,
        "skipped": {
            "images": len(dataset.unreadable),
            "listed": [dataclasses.asdict(file) for file in dataset.unreadable[:LISTED]],
        },
    }


def manifest(
    run: Run, fitted: FitFacts | None, metrics: Metrics, candidates: list[dict[str, Any]], warnings: list[str]
) -> dict[str, Any]:
    """What serving reads of the bundle, with the main figures and where they come from, as JSON values."""
    preset, model = run.preset, run.model.read_bytes()
    chosen = next((candidate for candidate in candidates if candidate["chosen"]), {})
    return {
        "name": preset.name,
        "version": preset.version,
        "description": full_description(preset),
        "warnings": warnings,
        "temperature": metrics.temperature,
        "threshold": metrics.threshold,
        "preprocessing": dataclasses.asdict(preset.preprocessing),
        "quantization": {
            "scheme": "int8",
            "weights": "per channel",
            "activations": "per tensor",
            "bias": "int32",
            **{name: chosen.get(name) for name in ("converter", "weight_bits", "calibration_images")},
        },
        "tensors": {name: dataclasses.asdict(tensor) for name, tensor in tensors_of(model).items()},
        "files": {MODEL: {"sha256": sha256(model), "bytes": len(model)}},
        "metrics": dataclasses.asdict(metrics),
        "training": {
            "dataset": preset.dataset,
            "network": _network(preset),
            "fit": dataclasses.asdict(fitted) if fitted else None,
            "recipe": _recipe(preset),
            "origin": _origin(preset),
        },
        "gate": dataclasses.asdict(preset.gate),
        "confidence": dataclasses.asdict(preset.confidence) if metrics.int8_top1 is None else None,
        "groups": preset.label_groups(),
        "labels": list(run.labels),
    }


def full_description(preset: Preset) -> str:
    """The preset's description, followed by a sentence on the network and the origin of its weights."""
    return f"{preset.description} {_about_weights(preset)}".strip()


def _about_weights(preset: Preset) -> str:
    """A sentence on the network, its initial weights, and any further training."""
    network, file = preset.network, Path(preset.network.weights).name
    if network.architecture == BROUGHT:
        start = f"The network was trained elsewhere ({file})"
    elif network.weights == "none":
        start = f"The network, {network.architecture}, was trained from random weights"
    elif network.of_a_run:
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
    """The epochs that `fit` wrote, as plain numbers."""
    with run.history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    counts = ("phase", "epoch")
    return [{name: int(value) if name in counts else float(value) for name, value in row.items()} for row in rows]


def _network(preset: Preset) -> dict[str, str]:
    """The network, with a file's name but not where it lay."""
    return dataclasses.asdict(preset.network) | {"weights": Path(preset.network.weights).name}


def _recipe(preset: Preset) -> dict[str, Any]:
    """The recipe, with the teacher's name but not where it lay."""
    recipe = dataclasses.asdict(preset.recipe)
    recipe["teacher"]["source"] = Path(preset.recipe.teacher.source).name
    return recipe


def _origin(preset: Preset) -> dict[str, Any] | None:
    found = origin(preset.network)
    return dataclasses.asdict(found) if found else None


def _distribution(dataset: Dataset) -> dict[str, list[int]]:
    """How many images of each class there are in each split."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: np.bincount(s.classes, minlength=len(dataset.labels)).tolist() for name, s in splits.items()}
