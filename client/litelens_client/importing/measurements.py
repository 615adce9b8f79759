"""The document of measurements of an imported model, metrics.json, and the photos in its report."""

from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from litelens.core.bundle import Bundle
from litelens_client.importing.measure import CALIBRATION, TEST, Measured, MeasuredLabels, Scored
from litelens_client.learning.calibration import calibration_error, coverage_curve, reliability
from litelens_client.learning.learn import confidences_of
from litelens_client.learning.learned_bundle import MAX_LISTED, TOP, choose_label_photos
from litelens_client.learning.metrics import Floats, class_scores, confusion_matrix
from litelens_client.learning.multi_label import label_confidences, label_measurements
from litelens_client.learning.photos import Unreadable, printable_path, try_decode
from litelens_client.learning.report import NO_LABEL, Example, Kind

_EXAMPLES_PER_KIND = 6
_SHOWN_LABELS = 3
_SEED = 1


def measurements(measured: Measured, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of metrics.json that are measured; the names of the fields are those of training and learning.

    `answered_share` and `answered_accuracy` are those of the photos that calibrated the model; the fields that begin
    with `test_` are those of the others.
    """
    logits, truth = measured.test.logits, measured.test.classes
    confidences, uncalibrated = confidences_of(logits, measured.temperature), confidences_of(logits, 1.0)
    best, confidence = confidences.argmax(axis=1), confidences.max(axis=1)
    correct = best == truth
    confusion = confusion_matrix(truth, best, len(labels))
    answered = _answered(measured.calibration, measured)
    test_answered = _answered(measured.test, measured)
    return {
        "metrics": {
            "test_images": len(correct),
            "test_duplicates": len(measured.copies),
            "fp32_top1": None,
            "fp32_top5": None,
            # The model that is served, whatever its data type.
            "int8_top1": float(correct.mean()),
            "int8_top5": _top5(confidences, truth),
            "int8_group_top1": None,
            "agreement": None,
            "openvino_top1": None,
            "openvino_agreement": None,
            "calibration_error_uncalibrated": calibration_error(uncalibrated.max(axis=1), correct),
            "calibration_error": calibration_error(confidence, correct),
            "validation_images": len(measured.calibration),
            "temperature": measured.temperature,
            "threshold": measured.threshold,
            "answered_share": answered[0],
            "answered_accuracy": answered[1],
            "test_answered_share": test_answered[0],
            "test_answered_accuracy": test_answered[1],
        },
        "split": measured.split,
        "duplicates": [printable_path(path, measured.root) for path in measured.copies[:MAX_LISTED]],
        "classes": [asdict(score) for score in class_scores(confusion, labels)],
        "confusion": confusion.tolist(),
        "reliability": reliability(confidence, correct),
        "reliability_uncalibrated": reliability(uncalibrated.max(axis=1), correct),
        "coverage": coverage_curve(confidence, correct),
        "distribution": {
            name: np.bincount(part.classes, minlength=len(labels)).tolist()
            for name, part in ((CALIBRATION, measured.calibration), (TEST, measured.test))
        },
        "skipped": _skipped(measured.unreadable),
    }


def label_document(measured: MeasuredLabels, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return the measured fields of a multi-label model's metrics.json."""
    test = measured.test
    confidences, uncalibrated = (label_confidences(test.logits, each) for each in (measured.temperature, 1.0))
    document = label_measurements(confidences, uncalibrated, test.classes, labels, measured.thresholds)
    document["metrics"] |= {
        "test_duplicates": None,
        "validation_images": len(measured.calibration),
        "temperature": measured.temperature,
    }
    return document | {
        "split": measured.split,
        "duplicates": [],
        "distribution": {
            name: part.classes.sum(axis=0).tolist()
            for name, part in ((CALIBRATION, measured.calibration), (TEST, measured.test))
        },
        "skipped": _skipped(measured.unreadable),
    }


def choose_label_examples(measured: MeasuredLabels, bundle: Bundle) -> list[Example]:
    """Choose up to six random photos whose labels are all right, on which one is wrong, and without any."""
    test = measured.test
    confidences = label_confidences(test.logits, measured.temperature)
    present = confidences >= np.array(measured.thresholds)
    chosen = choose_label_photos(present, test.classes, _EXAMPLES_PER_KIND)
    examples = [
        _example(
            kind,
            test.paths[index],
            tuple(bundle.labels[at] for at in np.flatnonzero(test.classes[index])),
            confidences[index],
            bundle,
        )
        for kind, indices in chosen.items()
        for index in indices
    ]
    return [example for example in examples if example is not None]


def _skipped(unreadable: tuple[Unreadable, ...]) -> dict[str, Any]:
    return {"images": len(unreadable), "listed": [asdict(file) for file in unreadable[:MAX_LISTED]]}


def choose_examples(measured: Measured, bundle: Bundle) -> list[Example]:
    """Choose up to six random photos of each kind from those that measured the model."""
    confidences = confidences_of(measured.test.logits, measured.temperature)
    chosen: dict[Kind, list[int]] = {"right": [], "wrong": [], "uncertain": []}
    for index in np.random.default_rng(_SEED).permutation(len(measured.test)).tolist():
        kind = _kind(confidences[index], int(measured.test.classes[index]), measured.threshold)
        if len(chosen[kind]) < _EXAMPLES_PER_KIND:
            chosen[kind].append(index)
    examples = [
        _example(
            kind,
            measured.test.paths[index],
            (bundle.labels[measured.test.classes[index]],),
            confidences[index],
            bundle,
        )
        for kind, indices in chosen.items()
        for index in indices
    ]
    return [example for example in examples if example is not None]


def _answered(photos: Scored[np.int64], measured: Measured) -> tuple[float, float | None]:
    """Return the share of photos whose confidence reaches the threshold, and how many of these are right."""
    confidences = confidences_of(photos.logits, measured.temperature)
    answered = confidences.max(axis=1) >= measured.threshold
    correct = confidences.argmax(axis=1) == photos.classes
    return float(answered.mean()), float(correct[answered].mean()) if answered.any() else None


def _top5(confidences: Floats, truth: Any) -> float | None:
    if confidences.shape[1] <= TOP:
        return None
    best = np.argsort(-confidences, axis=1, kind="stable")[:, :TOP]
    return float((best == truth[:, np.newaxis]).any(axis=1).mean())


def _kind(confidences: Floats, truth: int, threshold: float) -> Kind:
    if confidences.max() < threshold:
        return "uncertain"
    return "right" if int(confidences.argmax()) == truth else "wrong"


def _example(kind: Kind, path: Path, truths: tuple[str, ...], confidences: Floats, bundle: Bundle) -> Example | None:
    """Return the photo with its true labels and its predictions; None if the file can no longer be read."""
    pixels = try_decode(bundle.preprocessing, path)
    if isinstance(pixels, str):
        return None
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    best = np.argsort(-confidences, kind="stable")[: max(_SHOWN_LABELS, len(truths))]
    return Example(
        kind=kind,
        image=file.getvalue(),
        heat_map=None,
        truth=", ".join(truths) or NO_LABEL,
        truths=truths,
        predictions=tuple((bundle.labels[index], float(confidences[index])) for index in best),
        name="/".join(path.parts[-2:]),
    )
