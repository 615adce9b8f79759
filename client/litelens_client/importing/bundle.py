"""Write the bundle of an imported model: the model under litelens' names, the manifest, and what was measured."""

import dataclasses
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from litelens.core.bundle import IMAGE, LOGITS, MANIFEST, METRICS, MODEL, REPORT, Bundle, Output, load_bundle
from litelens.core.classifier import Classifier
from litelens_client import __version__
from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.expectations import FACTS_SOURCE, Assumption, Expectations, Given, find_expectations
from litelens_client.importing.labels import check_label, fit_labels, make_distinct, parse_labels, require_distinct
from litelens_client.importing.measure import Measured, MeasuredLabels, measure, measure_labels
from litelens_client.importing.measurements import (
    choose_examples,
    choose_label_examples,
    label_document,
    measurements,
)
from litelens_client.importing.metadata import MAX_LABEL_BYTES, Facts
from litelens_client.importing.scores import Scores, find_scores
from litelens_client.importing.trial import Tried, try_model
from litelens_client.learning.bundle_writer import (
    describe_labels,
    new_bundle,
    next_version,
    package_versions,
    require_replaceable,
)
from litelens_client.learning.files import sha256, write_file, write_json
from litelens_client.learning.golden import add_golden_images
from litelens_client.learning.metrics import chance_warnings
from litelens_client.learning.photos import LIMITS, printable_path
from litelens_client.learning.report import render
from litelens_client.output import LABEL_SEPARATOR
from litelens_client.quantizing.imported import Quantized, quantize_bundle, require_float

FIELD, COMMAND = "imported", "litelens import"

# The label file that exporters put beside the model.
LABELS_FILE = "labels.txt"

# Without photos, nothing is known about the confidences. At 0.5, one label has a higher confidence than all others
# together.
_TEMPERATURE, _THRESHOLD = 1.0, 0.5
_NOT_CALIBRATED = "assumed, not calibrated; see --data"

_PACKAGES = ("litelens", "ai-edge-litert", "numpy", "pillow")


@dataclass(frozen=True)
class Request:
    """The paths of the .tflite file, of the labels and of photos, and the options of the command.

    The photos in `data` measure the model; with those in `quantize`, it becomes int8. `multi_label` says whether a
    photo can have several labels, and `scores` what the model gives; if they are None, the model shows it.
    """

    model: Path
    labels: Path | None
    given: Given
    data: Path | None = None
    quantize: Path | None = None
    multi_label: bool | None = None
    scores: Output | None = None


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


@dataclass(frozen=True)
class _Decisions:
    """The manifest's fields with thresholds and groups, and from where each is known."""

    fields: dict[str, Any]
    assumptions: tuple[Assumption, ...]


def check_target(target: Path) -> None:
    """Raise TrainingError or OSError if the bundle cannot be written."""
    require_replaceable(target, FIELD, COMMAND)


def import_model(request: Request, target: Path, command: str) -> Imported:
    """Write the bundle `target`, in place of an earlier imported one.

    Raises ImportRefused if the model or its labels cannot be used, NotQuantizable if it cannot become int8,
    DatasetError if the photos cannot be used, TrainingError if `target` exists and is not an imported bundle,
    BundleError if the new one cannot be served, and ModelUnusable if its scores of a photo are not finite.
    """
    version = next_version(target, FIELD, COMMAND)
    with new_bundle(target) as folder:
        tried = try_model(request.model, folder / MODEL)
        scores = find_scores(tried, request.multi_label, request.scores)
        labels = _find_labels(request, tried, scores)
        decisions = _decide(tried.metadata.facts, labels.labels, scores, is_measured=request.data is not None)
        expectations = find_expectations(tried.graph, tried.metadata, request.given, numbered_labels=labels.numbered)
        assumptions = (*_facts(labels, scores), *expectations.assumptions, *decisions.assumptions)
        known = _manifest(request, tried, scores, labels.labels, expectations, decisions, assumptions, folder)
        write_json(folder / MANIFEST, {"name": target.name, "version": version, **known})
        bundle = load_bundle(folder)
        Classifier(bundle, LIMITS, threads=1).warm_up()
        quantized, measured = _quantize_and_classify(request, bundle)
        assumptions = _update_scores(load_bundle(folder), scores, assumptions)
        document = _measure(measured, load_bundle(folder), request.data, command) if measured and request.data else None
        add_golden_images(folder)
        manifest = dict(load_bundle(folder).manifest)
    return Imported(manifest, tried, assumptions, document, quantized)


def _quantize_and_classify(
    request: Request, bundle: Bundle
) -> tuple[Quantized | None, Measured | MeasuredLabels | None]:
    """Make the bundle int8 if that was asked for, and classify the photos with known labels with the model it keeps."""
    if not request.quantize:
        return None, _classify(bundle, request.data) if request.data else None
    require_float(bundle)
    measured = measure(bundle, request.data) if request.data else None
    quantized = quantize_bundle(bundle, request.quantize, measured)
    if request.data and quantized.is_used:
        measured = measure(load_bundle(bundle.folder), request.data)
    return quantized, measured


def _find_labels(request: Request, tried: Tried, scores: Scores) -> _Labels:
    """Return the labels in the named file, in the model's metadata, or in LABELS_FILE beside the model."""
    try:
        found = _find_all_labels(request, tried, 2 if scores.is_binary else tried.graph.logits.shape[1])
    except ImportRefused as error:
        if not scores.is_binary:
            raise
        raise ImportRefused(
            f"the model has a single score, so it needs two labels: first that of 0, then that of 1; {error}. For a "
            "model that only says whether one label is present, give --multi-label"
        ) from error
    joined = [label for label in found.labels if LABEL_SEPARATOR in label]
    if scores.is_multi_label and joined:
        raise ImportRefused(
            f"{found.source}: the label '{joined[0]}' has the character {LABEL_SEPARATOR}, which stands between the "
            "labels of a photo in CSV; give --labels FILE without it"
        )
    return found


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
        _describe_scores(scores, labels.labels),
    )


def _describe_scores(scores: Scores, labels: Sequence[str]) -> Assumption:
    return Assumption("Scores", scores.describe(labels), scores.source)


def _update_scores(bundle: Bundle, scores: Scores, assumptions: Sequence[Assumption]) -> tuple[Assumption, ...]:
    """Return the assumptions about the int8 model, whose last operator may be removed, and write them."""
    if bundle.output == scores.output:
        return tuple(assumptions)
    before = _describe_scores(scores, bundle.labels)
    source = f"{scores.source}; the int8 model leaves that operator to litelens"
    after = _describe_scores(dataclasses.replace(scores, output=bundle.output, source=source), bundle.labels)
    updated = tuple(after if each == before else each for each in assumptions)
    imported = bundle.manifest[FIELD] | {"assumptions": [msgspec.to_builtins(each) for each in updated]}
    write_json(bundle.folder / MANIFEST, dict(bundle.manifest) | {FIELD: imported})
    return updated


def _decide(facts: Facts, labels: Sequence[str], scores: Scores, *, is_measured: bool) -> _Decisions:
    """Return the thresholds, which are not calibrated yet, and the groups; raises ImportRefused for damaged groups.

    Photos that measure the model give other thresholds, so those here are then no assumptions.
    """
    fields, threshold = (_label_thresholds if scores.is_multi_label else _threshold)(facts, labels)
    assumptions = () if is_measured else (threshold,)
    # The labels may be those of another file.
    if facts.groups.keys() != set(labels) or scores.is_multi_label:
        return _Decisions(fields, assumptions)
    for group in facts.groups.values():
        check_label(group, f"a group in {FACTS_SOURCE}")
    groups = Assumption("Groups", f"{len(set(facts.groups.values())):,}", FACTS_SOURCE)
    return _Decisions(fields | {"groups": facts.groups}, (*assumptions, groups))


def _threshold(facts: Facts, labels: Sequence[str]) -> tuple[dict[str, Any], Assumption]:
    is_known = facts.threshold is not None
    threshold = facts.threshold if is_known else _THRESHOLD
    source = FACTS_SOURCE if is_known else _NOT_CALIBRATED
    return {"threshold": threshold}, Assumption("Uncertain", f"answers below {threshold:.2f}", source)


def _label_thresholds(facts: Facts, labels: Sequence[str]) -> tuple[dict[str, Any], Assumption]:
    is_known = facts.thresholds.keys() == set(labels)
    thresholds = [facts.thresholds[label] if is_known else _THRESHOLD for label in labels]
    low, high = (f"{threshold:.2f}" for threshold in (min(thresholds), max(thresholds)))
    present = f"labels from {low}" if low == high else f"labels from {low} to {high}, each from its own"
    source = FACTS_SOURCE if is_known else _NOT_CALIBRATED
    return {"thresholds": thresholds}, Assumption("Present", present, source)


def _manifest(
    request: Request,
    tried: Tried,
    scores: Scores,
    labels: tuple[str, ...],
    expectations: Expectations,
    decisions: _Decisions,
    assumptions: Sequence[Assumption],
    folder: Path,
) -> dict[str, Any]:
    """Return the manifest of a bundle that is not measured, without its name and version."""
    graph, source, model = tried.graph, request.model.read_bytes(), (folder / MODEL).read_bytes()
    file = printable_path(request.model.resolve(), request.model.resolve().parent)
    return {
        "description": f"{describe_labels(labels, is_multi_label=scores.is_multi_label)} Imported from {file}, a "
        f"{graph.kind} model.",
        "temperature": _TEMPERATURE,
        **decisions.fields,
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


def _classify(bundle: Bundle, data: Path) -> Measured | MeasuredLabels:
    """Classify the photos with known labels."""
    return measure_labels(bundle, data) if bundle.is_multi_label else measure(bundle, data)


def _measure(measured: Measured | MeasuredLabels, bundle: Bundle, data: Path, command: str) -> dict[str, Any]:
    """Write METRICS and REPORT of classified photos, and calibrate the bundle's manifest; return the measurements."""
    folder, manifest = bundle.folder, dict(bundle.manifest)
    document = _document(manifest, command, data)
    calibrated: dict[str, Any] = {"temperature": measured.temperature}
    if isinstance(measured, MeasuredLabels):
        document |= label_document(measured, bundle.labels)
        examples = choose_label_examples(measured, bundle)
        calibrated["thresholds"] = list(measured.thresholds)
    else:
        document |= measurements(measured, bundle.labels)
        examples = choose_examples(measured, bundle)
        calibrated["threshold"] = measured.threshold
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
