"""The report: an HTML page with a model's accuracy, its errors, and how it was made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from litelens_client.learning import charts
from litelens_client.learning.charts import Mark, Scale, Series, line_chart, scale_to
from litelens_client.learning.metrics import chance_warnings, wilson_interval

TEMPLATE = "report.html.jinja"
UNKNOWN = "—"
NO_LABEL = "no label"
MAX_CONFUSIONS = 15
MAX_WEAKEST = 5
MIN_SIDE, MAX_SIDE = 96, 160
HEAT_COLOURS = np.array([(32, 12, 84), (132, 24, 108), (212, 62, 72), (250, 146, 32), (252, 246, 150)], float)
HEAT_OPACITY = 0.8


Kind = Literal["right", "wrong", "uncertain", "misplaced"]


@dataclass(frozen=True)
class Example:
    """An image with the model's predictions.

    `image` is a PNG or JPEG of the model's input, `heat_map` the class activation map of the best label, `(h, w)` in
    any range, or None if the model has none, and `predictions` the best labels with their confidence from 0 to 1, best
    first. `name` is the file's name, or empty. `truths` are the true labels if there can be several; `truth` then names
    them all.
    """

    kind: Kind
    image: bytes
    heat_map: NDArray[np.float64] | None
    truth: str
    predictions: tuple[tuple[str, float], ...]
    name: str = ""
    truths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Confusion:
    """The number of images of the class `truth` that were predicted as another class, and their share of the class."""

    truth: str
    predicted: str
    images: int
    share: float


def render(document: dict[str, Any], examples: Sequence[Example]) -> str:
    """Render the report as a self-contained HTML page, which loads nothing from elsewhere.

    `document` is the content of metrics.json. A section without data is omitted; without examples the page says so.
    """
    labels = [row["label"] for row in document["classes"]]
    sections = _sections(document, examples)
    confusion = np.array(document["confusion"], np.int64)
    confusions = list_confusions(confusion, labels) if confusion.size else []
    template = _environment().get_template(TEMPLATE)
    return template.render(
        document
        | {
            "warnings": chance_warnings(document),
            "sections": sections,
            "charts": _charts(document, sections, confusion, labels),
            "times": times_in_hundred(document["metrics"]["int8_top1"]),
            "is_picture": len(labels) > charts.MAX_NUMBERED,
            "is_pooled": len(labels) > charts.MATRIX_SIDE,
            "confusions": confusions[:MAX_CONFUSIONS],
            "has_more_confusions": len(confusions) > MAX_CONFUSIONS,
            "weakest": weakest_classes(document["classes"], confusions),
            "label_noun": ("label", "labels") if is_multi_label(document) else ("class", "classes"),
            "splits": _splits(document),
            "margin": _margin(document["metrics"]),
            "precision": document.get("precision", "int8"),
            "is_learned": is_learned(document),
            "is_multi_label": is_multi_label(document),
            "interval": accuracy_interval(document) if is_learned(document) and not is_multi_label(document) else None,
            "subject": "photos" if is_cross_validated(document) else "test images",
            "review": document.get("review"),
            "examples": [_template_example(example) for example in examples if example.kind != "misplaced"],
            "misplaced": [_template_example(example) for example in examples if example.kind == "misplaced"],
            "recipe_rows": _flatten(document["recipe"]),
            "preprocessing_rows": _flatten(document["preprocessing"]),
        }
    )


def list_confusions(confusion: NDArray[np.int64], labels: Sequence[str]) -> list[Confusion]:
    """List all pairs of classes that were confused, the most frequent first."""
    wrong = confusion * ~np.eye(len(labels), dtype=bool)
    shares = charts.row_shares(confusion)
    truths, predictions = np.nonzero(wrong)
    order = np.argsort(-wrong[truths, predictions], kind="stable")
    return [
        Confusion(labels[truth], labels[predicted], int(wrong[truth, predicted]), float(shares[truth, predicted]))
        for truth, predicted in zip(truths[order], predictions[order], strict=True)
    ]


def weakest_classes(classes: Sequence[dict[str, Any]], confusions: Sequence[Confusion]) -> list[dict[str, Any]]:
    """List the classes with the lowest F1, at most five and at most half of all, with their most frequent confusion."""
    tested = sorted((row for row in classes if row["images"]), key=lambda row: row["f1"])
    most_frequent: dict[str, Confusion] = {}
    for confusion in confusions:
        most_frequent.setdefault(confusion.truth, confusion)
    count = min(MAX_WEAKEST, len(classes) // 2)
    return [{**row, "confusion": most_frequent.get(row["label"])} for row in tested[:count]]


def draw_overlay(image: Image.Image, heat_map: NDArray[np.float64]) -> Image.Image:
    """Draw a heat map, `(h, w)`, over an RGB image; stronger activation is lighter and more opaque.

    Activations are scaled to the strongest; negative ones count as 0.
    """
    heat = np.nan_to_num(heat_map, posinf=0.0).clip(0)
    heat = heat / (heat.max() or 1.0)
    enlarged = Image.fromarray(heat.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR)
    strength = np.asarray(enlarged, float).clip(0, 1)[:, :, np.newaxis]
    anchors = np.linspace(0, 1, len(HEAT_COLOURS))
    colour = np.concatenate([np.interp(strength, anchors, channel) for channel in HEAT_COLOURS.T], axis=2)
    opacity = strength * HEAT_OPACITY
    mixed = np.asarray(image, float) * (1 - opacity) + colour * opacity
    return Image.fromarray(mixed.round().astype(np.uint8))


def _template_example(example: Example) -> dict[str, Any]:
    """Convert an example for the template: pictures become data URLs, small ones enlarged and large ones reduced."""
    with Image.open(BytesIO(example.image)) as opened:
        image = opened.convert("RGB")
    scale = min(max(max(image.size), MIN_SIDE), MAX_SIDE) / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
    heat_map = example.heat_map
    return {
        "kind": example.kind,
        "truth": example.truth,
        "truths": example.truths or (example.truth,),
        "name": example.name,
        "predictions": example.predictions,
        "picture": charts.data_url(image),
        "overlay": None if heat_map is None else charts.data_url(draw_overlay(image, heat_map)),
    }


def times_in_hundred(share: float | None) -> int | None:
    """Round an accuracy to a whole number of 100 images. Only a model without any error is right 100 times."""
    return share if share is None else 100 if share == 1 else min(99, round(share * 100))


def _sections(document: Mapping[str, Any], examples: Sequence[Example]) -> dict[str, str]:
    """Return the titles of the sections that have content, by id, in the order of the page."""
    classes = bool(document["classes"])
    review = document.get("review") or {}
    labels = "Labels" if is_multi_label(document) else "Classes"
    present = {
        "mistakes": ("Photos it got wrong", any(example.kind == "wrong" for example in examples)),
        "review": ("Photos to check", bool(review.get("misplaced") or review.get("duplicates"))),
        "figures": ("Figures", True),
        "precision": (f"{document.get('precision', 'int8')} and fp32", document["metrics"]["agreement"] is not None),
        "training": ("Training", bool(document["history"])),
        "confusion": ("Confusion", classes and bool(document["confusion"])),
        "classes": (labels, classes),
        "reliability": ("Calibration", bool(document["reliability"])),
        "coverage": ("Accuracy and coverage", bool(document["coverage"])),
        "examples": ("Examples", True),
        "candidates": ("Quantization", bool(document["candidates"])),
        "data": ("Data", bool(_splits(document)) or bool(document["skipped"]["images"])),
        "making": ("How the model was made", True),
    }
    return {name: title for name, (title, has_content) in present.items() if has_content}


def _charts(
    document: Mapping[str, Any], sections: Mapping[str, str], confusion: NDArray[np.int64], labels: Sequence[str]
) -> dict[str, Markup]:
    result: dict[str, Markup] = {}
    if "training" in sections:
        result["loss"] = _training_chart(document["history"], "loss", "Loss", percent=False)
        result["accuracy"] = _training_chart(document["history"], "accuracy", "Accuracy", percent=True)
    if "confusion" in sections and len(labels) <= charts.MAX_NUMBERED:
        result["confusion"] = charts.confusion_table(confusion, labels)
    elif "confusion" in sections:
        result["confusion"] = charts.confusion_picture(confusion, labels, document["groups"])
    if "reliability" in sections:
        result["reliability"] = _reliability_chart(document["reliability"], document["reliability_uncalibrated"])
    if "coverage" in sections:
        subject = "photos" if is_cross_validated(document) else "test images"
        result["coverage"] = _coverage_chart(document["coverage"], document["metrics"]["threshold"], subject)
    if any(len(set(counts)) > 1 for counts in _splits(document).values()):
        result["distribution"] = _distribution_chart(_splits(document))
    return result


def _training_chart(history: Sequence[dict[str, Any]], field: str, name: str, percent: bool) -> Markup:
    lines = [
        Series(title, title, [(at, row[key]) for at, row in enumerate(history, 1) if row.get(key) is not None])
        for title, key in (("training", field), ("validation", f"val_{field}"))
    ]
    starts = [at for at, row in enumerate(history, 1) if at == 1 or row["phase"] != history[at - 2]["phase"]]
    marks = [Mark(at, f"phase {history[at - 1]['phase']}") for at in starts] if len(starts) > 1 else []
    values = [value for line in lines for _, value in line.points]
    epochs = Scale("Epoch", 1, max(len(history), 2), whole=True)
    return line_chart(f"{name} after each epoch", epochs, scale_to(name, values, percent), lines, marks)


def _reliability_chart(calibrated: Sequence[dict[str, Any]], uncalibrated: Sequence[dict[str, Any]]) -> Markup:
    lines = [Series("perfect", "ideal", [(0, 0), (1, 1)])]
    for name, style, rows in (("before", "validation", uncalibrated), ("after scaling", "training", calibrated)):
        lines.append(Series(name, style, [(row["confidence"], row["accuracy"]) for row in rows]))
    confidence, accuracy = Scale("Confidence", 0, 1, percent=True), Scale("Accuracy", 0, 1, percent=True)
    return line_chart("Accuracy by confidence", confidence, accuracy, lines)


def _coverage_chart(rows: Sequence[dict[str, Any]], threshold: float | None, subject: str) -> Markup:
    marks = []
    if threshold is not None:
        reached = np.interp(-threshold, [-row["threshold"] for row in rows], [row["coverage"] for row in rows])
        marks.append(Mark(float(reached), f"threshold {threshold:.2f}"))
    lowest = math.floor(min(row["accuracy"] for row in rows) * 10) / 10
    lines = [Series(subject, "training", [(row["coverage"], row["accuracy"]) for row in rows])]
    coverage = Scale("Share of images, most confident first", 0, 1, percent=True)
    accuracy = Scale("Accuracy", min(lowest, 0.9), 1, percent=True)
    return line_chart("Accuracy of the most confident predictions", coverage, accuracy, lines, marks)


def _distribution_chart(splits: Mapping[str, Sequence[int]]) -> Markup:
    lines = []
    for name, counts in splits.items():
        steps = enumerate(sorted(counts, reverse=True))
        lines.append(Series(name, name, [corner for at, n in steps for corner in ((at, n), (at + 1, n))], dots=False))
    classes = Scale("Classes, largest first", 0, max(map(len, splits.values())), whole=True)
    images = scale_to("Images", [n for counts in splits.values() for n in counts])
    return line_chart("Images of each class, by split", classes, images, lines)


def _splits(document: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the number of images of each class in each split that has images, by the split's title."""
    names = {"train": "training", "validation": "validation", "test": "test"}
    distribution = document["distribution"] or {}
    return {title: distribution[name] for name, title in names.items() if distribution.get(name)}


def is_multi_label(document: Mapping[str, Any]) -> bool:
    """Return whether the model's labels do not exclude each other."""
    return "mean_average_precision" in document["metrics"]


def is_learned(document: Mapping[str, Any]) -> bool:
    """Return whether `litelens learn` made the model."""
    return document.get("review") is not None


def is_cross_validated(document: Mapping[str, Any]) -> bool:
    """Return whether the accuracy was measured by cross-validation, because there are no test photos."""
    return is_learned(document) and not (document["distribution"] or {}).get("test")


def accuracy_interval(document: Mapping[str, Any]) -> tuple[float, float]:
    """Return the 95% interval of a learned model's accuracy. In a cross-validation, duplicates count as one photo."""
    metrics = document["metrics"]
    photos = sum(document["recipe"]["distinct_photos"]) if is_cross_validated(document) else metrics["test_images"]
    return wilson_interval(metrics["int8_top1"], photos)


def _margin(metrics: Mapping[str, Any]) -> float | None:
    """Compute half the width of the 95% interval of the int8 model's top-1 accuracy."""
    share, images = metrics["int8_top1"], metrics["test_images"]
    if share is None or not images:
        return None
    low, high = wilson_interval(share, images)
    return (high - low) / 2


def _flatten(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Convert nested plain values into rows of a name and a text."""
    if isinstance(value, dict):
        return [row for key, inner in value.items() for row in _flatten(inner, f"{path} / {key}" if path else key)]
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return [row for at, inner in enumerate(value, 1) for row in _flatten(inner, f"{path} {at}")]
    if isinstance(value, list):
        return [(path, ", ".join(map(str, value)) or "none")]
    return [(path, {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value)))]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_percent,
        points=_points,
        count=_count,
        megabytes=_megabytes,
        duration=_duration,
        date=_date,
        short=_short,
    )
    return environment


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.1%}"


def _points(difference: float) -> str:
    """Format a difference of two shares in percentage points, with its sign unless it rounds to 0."""
    rounded = round(difference * 100, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def _megabytes(size: int | None) -> str:
    return UNKNOWN if size is None else f"{size / 1e6:.1f} MB"


def _short(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:.3g}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _date(timestamp: str) -> str:
    moment = datetime.fromisoformat(timestamp).astimezone(UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"
