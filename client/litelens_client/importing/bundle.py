"""Write the bundle of an imported model: the model under litelens' names, the manifest, and what was measured."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from litelens.core.bundle import IMAGE, LOGITS, MANIFEST, METRICS, MODEL, REPORT, load_bundle
from litelens.core.classifier import Classifier
from litelens_client import __version__
from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.expectations import Assumption, Expectations, Given, find_expectations
from litelens_client.importing.labels import fit_labels, make_distinct, parse_labels, require_distinct
from litelens_client.importing.measure import measure, measure_labels
from litelens_client.importing.measurements import (
    choose_examples,
    choose_label_examples,
    label_document,
    measurements,
)
from litelens_client.importing.metadata import MAX_LABEL_BYTES
from litelens_client.importing.scores import Scores, find_scores
from litelens_client.importing.trial import Tried, try_model
from litelens_client.learning.bundle_writer import new_bundle, next_version, package_versions, require_replaceable
from litelens_client.learning.files import sha256, write_file, write_json
from litelens_client.learning.golden import add_golden_images
from litelens_client.learning.metrics import chance_warnings
from litelens_client.learning.photos import LIMITS, printable_path
from litelens_client.learning.report import render
from litelens_client.quantizing.imported import Quantized, quantize_bundle

FIELD, COMMAND = "imported", "litelens import"

# The label file that exporters put beside the model.
LABELS_FILE = "labels.txt"

# Without photos, nothing is known about the confidences. At 0.5, one label has a higher confidence than all others
# together.
_TEMPERATURE, _THRESHOLD = 1.0, 0.5

_NAMED_LABELS = 4
_PACKAGES = ("litelens", "ai-edge-litert", "numpy", "pillow")


@dataclass(frozen=True)
class Request:
    """The paths of the .tflite file, of the labels and of photos, and the options of the command.

    The photos in `data` measure the model; with those in `quantize`, it becomes int8. `multi_label` says whether a
    photo can have several labels; if it is None, the model shows it.
    """

    model: Path
    labels: Path | None
    given: Given
    data: Path | None = None
    quantize: Path | None = None
    multi_label: bool | None = None


@dataclass(frozen=True)
class Imported:
    """The result: the manifest of the new bundle, what is known about the model, and the content of metrics.json.

    `quantized` says whether the model became int8, and how it then compares; it is None if that was not asked for.
    """

    manifest: dict[str, Any]
    tried: Tried
    assumptions: tuple[Assumption, ...]
    document: dict[str, Any] | None
    quantized: Quantized | None = None


@dataclass(frozen=True)
class _Labels:
    """The labels of the model's outputs, whether their file numbers them, and from where they are."""

    labels: tuple[str, ...]
    numbered: bool
    source: str


def check_target(target: Path) -> None:
    """Raise TrainingError or OSError if the bundle cannot be written."""
    require_replaceable(target, FIELD, COMMAND)


def import_model(request: Request, target: Path, command: str) -> Imported:
    """Write the bundle `target`, in place of an earlier imported one.

    Raises ImportRefused if the model or its labels cannot be used, NotQuantizable if it cannot become int8,
    DatasetError if the photos cannot be used, TrainingError if `target` exists and is not an imported bundle, and
    BundleError if the new one cannot be served.
    """
    version = next_version(target, FIELD, COMMAND)
    with new_bundle(target) as folder:
        tried = try_model(request.model, folder / MODEL)
        scores = find_scores(tried, request.multi_label)
        labels = _find_labels(request, tried, scores)
        expectations = find_expectations(tried.graph, tried.metadata, request.given, numbered_labels=labels.numbered)
        assumptions = (*_facts(labels, scores), *expectations.assumptions)
        known = _manifest(request, tried, scores, labels.labels, expectations, assumptions, folder)
        manifest = {"name": target.name, "version": version, **known}
        write_json(folder / MANIFEST, manifest)
        Classifier(load_bundle(folder), LIMITS, threads=1).warm_up()
        quantized = quantize_bundle(folder, request.quantize, request.data) if request.quantize else None
        manifest = dict(load_bundle(folder).manifest)
        document = _measure(request.data, manifest, folder, command) if request.data else None
        add_golden_images(folder)
        manifest = dict(load_bundle(folder).manifest)
    return Imported(manifest, tried, assumptions, document, quantized)


def _find_labels(request: Request, tried: Tried, scores: Scores) -> _Labels:
    """Return the labels in the named file, in the model's metadata, or in LABELS_FILE beside the model."""
    try:
        return _find_all_labels(request, tried, 2 if scores.is_binary else tried.graph.logits.shape[1])
    except ImportRefused as error:
        if not scores.is_binary:
            raise
        raise ImportRefused(
            f"the model has a single score, so it needs two labels: first that of 0, then that of 1; {error}. For a "
            "model that only says whether one label is present, give --multi-label"
        ) from error


def _find_all_labels(request: Request, tried: Tried, classes: int) -> _Labels:
    if request.labels:
        return _labels_in_file(request.labels, classes, f"{request.labels.name}, --labels")
    if tried.metadata.labels:
        return _labels_in_model(tried, classes)
    beside = request.model.parent / LABELS_FILE
    if beside.is_file():
        return _labels_in_file(beside, classes, f"{LABELS_FILE} beside the model")
    raise ImportRefused(
        f"the model has {classes:,} classes but no labels inside, and there is no {LABELS_FILE} beside it; give "
        "--labels FILE, with a label on each line"
    )


def _labels_in_model(tried: Tried, classes: int) -> _Labels:
    """Return the labels in the metadata; those that are there several times get their index, as nobody can edit them.

    ImageNet's names are an example: two classes are called "crane".
    """
    source = f"{tried.metadata.label_file} in the model"
    found = fit_labels(parse_labels(tried.metadata.labels, source).labels, classes, source)
    distinct = make_distinct(found)
    require_distinct(distinct, source)
    changed = sum(before != after for before, after in zip(found, distinct, strict=True))
    note = f"; {changed} that are there several times have their index after them" if changed else ""
    return _Labels(distinct, numbered=False, source=source + note)


def _labels_in_file(path: Path, classes: int, source: str) -> _Labels:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LABEL_BYTES + 1)
    except OSError as error:
        raise ImportRefused(f"the labels {path} cannot be read: {error.strerror}") from error
    found = parse_labels(content, path.name)
    require_distinct(found.labels, path.name)
    return _Labels(fit_labels(found.labels, classes, path.name), found.numbered, source)


def _facts(labels: _Labels, scores: Scores) -> tuple[Assumption, ...]:
    return (
        Assumption("Labels", f"{len(labels.labels):,}", labels.source),
        Assumption("Scores", scores.describe(labels.labels), scores.source),
    )


def _manifest(
    request: Request,
    tried: Tried,
    scores: Scores,
    labels: tuple[str, ...],
    expectations: Expectations,
    assumptions: Sequence[Assumption],
    folder: Path,
) -> dict[str, Any]:
    """Return the manifest of a bundle that is not measured, without its name and version."""
    graph, source, model = tried.graph, request.model.read_bytes(), (folder / MODEL).read_bytes()
    file = printable_path(request.model.resolve(), request.model.resolve().parent)
    return {
        "description": _description(labels, scores, f"Imported from {file}, a {graph.kind} model."),
        "temperature": _TEMPERATURE,
        **({"thresholds": [_THRESHOLD] * len(labels)} if scores.is_multi_label else {"threshold": _THRESHOLD}),
        "output": scores.output,
        "preprocessing": msgspec.to_builtins(expectations.preprocessing),
        "quantization": {"scheme": graph.kind, "weight_bits": graph.weight_bits},
        "tensors": {IMAGE: msgspec.to_builtins(graph.image), LOGITS: msgspec.to_builtins(graph.logits)},
        "files": {MODEL: {"sha256": sha256(model), "bytes": len(model)}},
        FIELD: {
            "file": file,
            "sha256": sha256(source),
            "bytes": len(source),
            "exporter": expectations.exporter or None,
            "network": graph.kind,
            "operators": graph.operators,
            "assumptions": [msgspec.to_builtins(each) for each in assumptions],
            "metadata": {
                name: value
                for name in ("name", "description", "author", "license")
                if (value := getattr(tried.metadata, name))
            },
            "litelens": __version__,
        },
        "labels": list(labels),
    }


def _description(labels: Sequence[str], scores: Scores, origin: str) -> str:
    others = len(labels) - _NAMED_LABELS
    named = [*labels[:_NAMED_LABELS], f"{others:,} more"] if others > 1 else labels
    listed = f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else named[0]
    what = f"Says for {listed} whether a photo has it" if scores.is_multi_label else f"Tells {listed} apart"
    return f"{what}. {origin}"


def _measure(data: Path, manifest: dict[str, Any], folder: Path, command: str) -> dict[str, Any]:
    """Measure the bundle on photos, write METRICS and REPORT, and calibrate its manifest; return the measurements."""
    bundle = load_bundle(folder)
    if bundle.is_multi_label:
        measured_labels = measure_labels(bundle, data)
        document = _document(manifest, command, data) | label_document(measured_labels, bundle.labels)
        examples = choose_label_examples(measured_labels, bundle)
        calibrated = {"temperature": measured_labels.temperature, "thresholds": list(measured_labels.thresholds)}
    else:
        measured = measure(bundle, data)
        document = _document(manifest, command, data) | measurements(measured, bundle.labels)
        examples = choose_examples(measured, bundle)
        calibrated = {"temperature": measured.temperature, "threshold": measured.threshold}
    more = {"warnings": chance_warnings(document), "metrics": document["metrics"]}
    labels = manifest.pop("labels")
    write_json(folder / MANIFEST, manifest | calibrated | more | {"labels": labels})
    write_json(folder / METRICS, document)
    write_file(folder / REPORT, render(document, examples).encode())
    return document


def _document(manifest: dict[str, Any], command: str, data: Path) -> dict[str, Any]:
    """Return the fields of metrics.json that are not measured, in the format of training and learning."""
    imported, file = manifest[FIELD], manifest["files"][MODEL]
    return {
        "model": file["sha256"],
        "model_bytes": file["bytes"],
        **{name: manifest[name] for name in ("name", "version", "description")},
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **package_versions(_PACKAGES)},
        "dataset": printable_path(data.resolve(), data.resolve().parent),
        "precision": manifest["quantization"]["scheme"],
        "network": {
            "architecture": "imported",
            "weights": imported["network"],
            "file": imported["file"],
            "sha256": imported["sha256"],
            "exporter": imported["exporter"] or "unknown",
        },
        "preprocessing": manifest["preprocessing"],
        "recipe": {each["subject"].lower(): f"{each['value']}; {each['source']}" for each in imported["assumptions"]},
        FIELD: imported,
        "origin": None,
        "gate": None,
        "confidence": None,
        "fit": None,
        "history": [],
        "groups": {},
        "candidates": [],
        "review": None,
    }
