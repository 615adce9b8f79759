"""Write a learned bundle: model, head, familiarity, golden images, measurements and report."""

import platform
from dataclasses import asdict
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from litelens.core.bundle import MANIFEST, METRICS, MODEL, REPORT, Bundle, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.familiarity import FAMILIARITY
from litelens.core.head import HEAD
from litelens_client import __version__
from litelens_client.learning.bundle_writer import (
    describe_labels,
    new_bundle,
    next_version,
    package_versions,
    require_replaceable,
)
from litelens_client.learning.calibration import calibration_error, coverage_curve, reliability
from litelens_client.learning.files import sha256, write_file, write_json
from litelens_client.learning.golden import add_golden_images
from litelens_client.learning.learn import Learned, confidences_of
from litelens_client.learning.learn_labels import LearnedLabels
from litelens_client.learning.metrics import Floats, Labelled, chance_warnings, class_scores, confusion_matrix
from litelens_client.learning.multi_label import label_confidences, label_measurements
from litelens_client.learning.photos import LIMITS, printable_path, try_decode
from litelens_client.learning.report import NO_LABEL, Example, Kind, render
from litelens_client.learning.tflite import read_tensors, replace_head

TOP = 5
MAX_LISTED = 100
_MAX_PICTURES = 24
_EXAMPLES_PER_KIND = 6
_SHOWN_LABELS = 3
_SEED = 1
# The command that writes these bundles, and the field of their manifests that shows it.
_COMMAND, _FIELD = "litelens learn", "learning"
_PACKAGES = ("litelens", "ai-edge-litert", "scikit-learn", "numpy", "pillow")


def write_learned_bundle(learned: Learned | LearnedLabels, target: Path, command: str) -> dict[str, Any]:
    """Write the bundle `target`, in place of an earlier learned one, and return the content of its metrics.json.

    Raises TrainingError if `target` exists and is not a learned bundle, BundleError if the new one cannot be served.
    """
    version = next_version(target, _FIELD, _COMMAND)
    with new_bundle(target) as folder:
        model = replace_head(learned.base.model.read_bytes(), learned.head, learned.train.pooled)
        write_file(folder / MODEL, model)
        write_file(folder / HEAD, learned.head.to_bytes())
        if learned.familiarity:
            write_file(folder / FAMILIARITY, learned.familiarity.to_bytes())
        document = _metrics_document(learned, target.name, version, model, command)
        write_json(folder / MANIFEST, _manifest(learned, document, folder))
        add_golden_images(folder)
        classifier = Classifier(load_bundle(folder), LIMITS, threads=1)
        write_json(folder / METRICS, document)
        examples = (
            _label_examples(learned, classifier)
            if isinstance(learned, LearnedLabels)
            else _choose_examples(learned, classifier)
        )
        write_file(folder / REPORT, render(document, examples).encode())
    return document


def check_target(target: Path) -> None:
    """Raise TrainingError or OSError if the bundle cannot be written, before time is spent on learning."""
    require_replaceable(target, _FIELD, _COMMAND)


def _metrics_document(
    learned: Learned | LearnedLabels, name: str, version: str, model: bytes, command: str
) -> dict[str, Any]:
    measurements = _label_fields(learned) if isinstance(learned, LearnedLabels) else _class_fields(learned)
    return {
        "model": sha256(model),
        "model_bytes": len(model),
        "name": name,
        "version": version,
        "description": _description(learned),
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **package_versions(_PACKAGES)},
        "dataset": printable_path(learned.root.resolve(), learned.root.resolve().parent),
        "network": _base(learned.base),
        "preprocessing": msgspec.structs.asdict(learned.base.preprocessing),
        "recipe": _recipe(learned),
        "origin": None,
        "gate": None,
        "confidence": None,
        "fit": None,
        "history": [],
        **measurements,
        "duplicates": [printable_path(path, learned.root) for path in learned.repeated_in_test],
        "groups": {},
        "candidates": [],
        "skipped": {
            "images": len(learned.unreadable),
            "listed": [asdict(file) for file in learned.unreadable[:MAX_LISTED]],
        },
        "review": _review(learned),
    }


def _class_fields(learned: Learned) -> dict[str, Any]:
    """Return the measured fields of classes that exclude each other."""
    measured, logits = learned.measured
    confidences = confidences_of(logits, learned.temperature)
    uncalibrated = confidences_of(logits, 1.0)
    truth, best = measured.classes, confidences.argmax(axis=1)
    correct, confidence = best == truth, confidences.max(axis=1)
    confusion = confusion_matrix(truth, best, len(learned.labels))
    return {
        "metrics": _metrics(learned, correct, confidence, uncalibrated.max(axis=1), _top5(confidences, truth)),
        "classes": [asdict(score) for score in class_scores(confusion, learned.labels)],
        "confusion": confusion.tolist(),
        "reliability": reliability(confidence, correct),
        "reliability_uncalibrated": reliability(uncalibrated.max(axis=1), correct),
        "coverage": coverage_curve(confidence, correct),
        "distribution": {
            split: np.bincount(photos.classes, minlength=len(learned.labels)).tolist()
            for split, photos in (("train", learned.train), ("test", learned.test))
            if photos is not None
        },
    }


def _label_fields(learned: LearnedLabels) -> dict[str, Any]:
    """Return the measured fields of labels that do not exclude each other."""
    measured, logits = learned.measured
    confidences, uncalibrated = (label_confidences(logits, each) for each in (learned.temperature, 1.0))
    fields = label_measurements(confidences, uncalibrated, measured.classes, learned.labels, learned.thresholds)
    fields["metrics"] |= {
        "test_duplicates": len(learned.repeated_in_test) if learned.test is not None else None,
        "validation_images": len(learned.train),
        "temperature": learned.temperature,
        "unfamiliar_share": _unfamiliar_share(learned),
    }
    fields["distribution"] = {
        split: photos.classes.sum(axis=0).tolist()
        for split, photos in (("train", learned.train), ("test", learned.test))
        if photos is not None
    }
    return fields


def _base(bundle: Bundle) -> dict[str, str]:
    return {"name": bundle.name, "version": bundle.version, "backbone": bundle.backbone}


def _metrics(
    learned: Learned, correct: Any, confidence: Floats, uncalibrated: Floats, top5: float | None
) -> dict[str, Any]:
    """Return the fields of training.run.Metrics; those that concern an fp32 network are None."""
    answered = confidence >= learned.threshold
    test = learned.test
    return {
        "test_images": len(correct),
        "test_duplicates": len(learned.repeated_in_test) if test is not None else None,
        "fp32_top1": None,
        "fp32_top5": None,
        "int8_top1": float(correct.mean()),
        "int8_top5": top5,
        "int8_group_top1": None,
        "agreement": None,
        "openvino_top1": None,
        "openvino_agreement": None,
        "calibration_error_uncalibrated": calibration_error(uncalibrated, correct),
        "calibration_error": calibration_error(confidence, correct),
        "validation_images": len(learned.train),
        "temperature": learned.temperature,
        "threshold": learned.threshold,
        "answered_share": float(answered.mean()),
        "answered_accuracy": float(correct[answered].mean()) if answered.any() else None,
        "cross_validated_top1": float((learned.confidences.argmax(axis=1) == learned.train.classes).mean()),
        "unfamiliar_share": _unfamiliar_share(learned),
    }


def _unfamiliar_share(learned: Learned | LearnedLabels) -> float | None:
    """Return the share of the test photos that are wrongly called unfamiliar; None if it cannot be measured."""
    test, logits, familiarity = learned.test, learned.test_logits, learned.familiarity
    if test is None or logits is None or familiarity is None:
        return None
    found = zip(test.embeddings, logits.argmax(axis=1).tolist(), strict=True)
    return float(np.mean([familiarity.is_unfamiliar(embedding, best) for embedding, best in found]))


def _top5(confidences: Floats, truth: Any) -> float | None:
    if confidences.shape[1] <= TOP:
        return None
    best = np.argsort(-confidences, axis=1, kind="stable")[:, :TOP]
    return float((best == truth[:, np.newaxis]).any(axis=1).mean())


def _recipe(learned: Learned | LearnedLabels) -> dict[str, Any]:
    return {
        "method": f"logistic regression{' for each label' if isinstance(learned, LearnedLabels) else ''}",
        "photos": len(learned.train),
        "mirrored": learned.mirrored,
        "regularization": learned.validation.regularization,
        "folds": learned.validation.folds,
        "distinct_photos": learned.distinct_photos.tolist(),
        # The photos whose embeddings are kept to recognize unfamiliar photos.
        "references": 0 if learned.familiarity is None else len(learned.familiarity.references),
    }


def _review(learned: Learned | LearnedLabels) -> dict[str, Any]:
    """Return the photos to check: those that are probably in the wrong folder, and duplicates.

    `in_several_classes` is the number of photos whose copies are in several class folders. Photos whose labels do not
    exclude each other are in no wrong folder.
    """
    root, misplaced = learned.root, () if isinstance(learned, LearnedLabels) else learned.misplaced
    return {
        "in_several_classes": _in_several_classes(learned),
        "misplaced": len(misplaced),
        "misplaced_listed": [
            {
                "file": printable_path(found.photo, root),
                "label": found.label,
                "looks_like": found.looks_like,
                "confidence": round(found.confidence, 4),
            }
            for found in misplaced[:MAX_LISTED]
        ],
        "duplicate_pairs": len(learned.pairs),
        "duplicates": [
            {
                "first": printable_path(pair.first, root),
                "second": printable_path(pair.second, root),
                "exact": pair.exact,
            }
            for pair in learned.pairs[:MAX_LISTED]
        ],
    }


def _in_several_classes(learned: Learned | LearnedLabels) -> int:
    if isinstance(learned, LearnedLabels):
        return 0
    classes: dict[bytes, set[int]] = {}
    for digest, index in zip(learned.train.digests, learned.train.classes.tolist(), strict=True):
        classes.setdefault(digest, set()).add(index)
    return sum(len(found) > 1 for found in classes.values())


def _manifest(learned: Learned | LearnedLabels, document: dict[str, Any], folder: Path) -> dict[str, Any]:
    base = learned.base.manifest
    files = [path for name in (MODEL, HEAD, FAMILIARITY) if (path := folder / name).is_file()]
    return {
        **{name: document[name] for name in ("name", "version", "description")},
        "warnings": chance_warnings(document),
        "temperature": learned.temperature,
        **(
            {"thresholds": list(learned.thresholds)}
            if isinstance(learned, LearnedLabels)
            else {"threshold": learned.threshold}
        ),
        "preprocessing": document["preprocessing"],
        "quantization": {**base["quantization"], "head": "float32; 7 bits in model.tflite"},
        "tensors": {
            name: msgspec.structs.asdict(tensor) for name, tensor in read_tensors((folder / MODEL).read_bytes()).items()
        },
        "files": {path.name: {"sha256": sha256(path.read_bytes()), "bytes": path.stat().st_size} for path in files},
        "metrics": document["metrics"],
        "learning": {"base": document["network"], "recipe": document["recipe"], "litelens": __version__},
        "labels": list(learned.labels),
    }


def _description(learned: Learned | LearnedLabels) -> str:
    what = describe_labels(learned.labels, is_multi_label=isinstance(learned, LearnedLabels))
    return f"{what} Learned from {len(learned.train):,} photos, with the features of {learned.base.name}."


def _choose_examples(learned: Learned, classifier: Classifier) -> list[Example]:
    """Choose up to six random photos of each kind, and the photos that are most probably in the wrong folder."""
    photos, logits = learned.measured
    labels, confidences = learned.labels, confidences_of(logits, learned.temperature)
    chosen: dict[Kind, list[int]] = {"right": [], "wrong": [], "uncertain": []}
    for index in np.random.default_rng(_SEED).permutation(len(photos)).tolist():
        indices = chosen[_kind(confidences[index], int(photos.classes[index]), learned.threshold)]
        if len(indices) < _EXAMPLES_PER_KIND:
            indices.append(index)
    examples = [
        _example(kind, photos.paths[index], (labels[photos.classes[index]],), confidences[index], learned, classifier)
        for kind, indices in chosen.items()
        for index in indices
    ]
    positions = {path: index for index, path in enumerate(learned.train.paths)}
    cross_validated = learned.confidences
    for found in learned.misplaced[:_MAX_PICTURES]:
        index = positions[found.photo]
        truth = (labels[learned.train.classes[index]],)
        examples.append(_example("misplaced", found.photo, truth, cross_validated[index], learned, classifier))
    return [example for example in examples if example is not None]


def _label_examples(learned: LearnedLabels, classifier: Classifier) -> list[Example]:
    photos, logits = learned.measured
    confidences = label_confidences(logits, learned.temperature)
    present = confidences >= np.array(learned.thresholds)
    examples = []
    for kind, indices in choose_label_photos(present, photos.classes, _EXAMPLES_PER_KIND).items():
        for index in indices:
            truths = tuple(learned.labels[at] for at in np.flatnonzero(photos.classes[index]))
            examples.append(_example(kind, photos.paths[index], truths, confidences[index], learned, classifier))
    return [example for example in examples if example is not None]


def choose_label_photos(present: Labelled, labelled: Labelled, count: int) -> dict[Kind, list[int]]:
    """Return the indices of random photos, at most `count` of each kind.

    The labels that are present on a photo are all right, or one is wrong, or there are none.
    """
    chosen: dict[Kind, list[int]] = {"right": [], "wrong": [], "uncertain": []}
    for index in np.random.default_rng(_SEED).permutation(len(present)).tolist():
        is_right = np.array_equal(present[index], labelled[index])
        kind: Kind = "uncertain" if not present[index].any() else "right" if is_right else "wrong"
        if len(chosen[kind]) < count:
            chosen[kind].append(index)
    return chosen


def _kind(confidences: Floats, truth: int, threshold: float) -> Kind:
    if confidences.max() < threshold:
        return "uncertain"
    return "right" if int(confidences.argmax()) == truth else "wrong"


def _example(
    kind: Kind,
    path: Path,
    truths: tuple[str, ...],
    confidences: Floats,
    learned: Learned | LearnedLabels,
    classifier: Classifier,
) -> Example | None:
    """Return the photo with its true labels and its predictions; None if the file can no longer be read."""
    pixels = try_decode(learned.base.preprocessing, path)
    if isinstance(pixels, str):
        return None
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    best = np.argsort(-confidences, kind="stable")[: max(_SHOWN_LABELS, len(truths))]
    heat_map = classifier.heat_map(pixels, int(best[0]))
    return Example(
        kind=kind,
        image=file.getvalue(),
        heat_map=None if heat_map is None else heat_map.astype(np.float64),
        truth=", ".join(truths) or NO_LABEL,
        truths=truths,
        predictions=tuple((learned.labels[index], float(confidences[index])) for index in best),
        name=printable_path(path, learned.root),
    )
