"""The training report: one HTML page that says what a model can do, where it errs, and how it was made."""

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

from training import charts
from training.chance import chance_warnings
from training.charts import Mark, Scale, Series, line_chart, scale_to
from training.metrics import wilson_interval

TEMPLATE = "report.html.jinja"
UNKNOWN = "—"
CONFUSED_PAIRS = 15
WORST_CLASSES = 5
SHOWN_SIDE = 96, 160
HEAT_COLOURS = np.array([(32, 12, 84), (132, 24, 108), (212, 62, 72), (250, 146, 32), (252, 246, 150)], float)
HEAT_OPACITY = 0.8


Kind = Literal["right", "wrong", "uncertain"]


@dataclass(frozen=True)
class Example:
    """One test image with what the model said of it.

    `image` is a PNG or JPEG of what the model saw, `heat_map` the class activation of the best label, `(h, w)` in any
    range, or None when the model has no class activation map, `answers` the best labels with their confidence from 0
    to 1, best first.
    """

    kind: Kind
    image: bytes
    heat_map: NDArray[np.float64] | None
    truth: str
    answers: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Confused:
    """How many images of the class `truth` were taken for the class `said`, and which share of the class they are."""

    truth: str
    said: str
    images: int
    share: float


def render(document: dict[str, Any], examples: Sequence[Example]) -> str:
    """The report as one self-contained HTML page, which asks for nothing from anywhere.

    `document` is the content of metrics.json. A section whose part of it is empty is left out; without examples the
    page says so.
    """
    labels = [row["label"] for row in document["classes"]]
    confusion = np.array(document["confusion"], np.int64)
    pairs = most_confused(confusion, labels) if confusion.size else []
    template = _environment().get_template(TEMPLATE)
    return template.render(
        document
        | {
            "warnings": chance_warnings(document),
            "sections": _sections(document),
            "charts": _charts(document, confusion, labels),
            "pictured": len(labels) > charts.MOST_NUMBERED,
            "pooled": len(labels) > charts.MATRIX_SIDE,
            "pairs": pairs[:CONFUSED_PAIRS],
            "more_pairs": len(pairs) > CONFUSED_PAIRS,
            "worst": worst_classes(document["classes"], pairs),
            "splits": _splits(document),
            "margin": _margin(document["metrics"]),
            "examples": [_shown(example) for example in examples],
            "recipe_rows": _flat(document["recipe"]),
            "preprocessing_rows": _flat(document["preprocessing"]),
        }
    )


def most_confused(confusion: NDArray[np.int64], labels: Sequence[str]) -> list[Confused]:
    """The pairs of classes that were ever confused, the most often first."""
    wrong = confusion * ~np.eye(len(labels), dtype=bool)
    shares = charts.row_shares(confusion)
    truths, saids = np.nonzero(wrong)
    order = np.argsort(-wrong[truths, saids], kind="stable")
    return [
        Confused(labels[truth], labels[said], int(wrong[truth, said]), float(shares[truth, said]))
        for truth, said in zip(truths[order], saids[order], strict=True)
    ]


def worst_classes(classes: Sequence[dict[str, Any]], pairs: Sequence[Confused]) -> list[dict[str, Any]]:
    """The classes with the lowest F1, at most five and at most half of all, each with its commonest confusion."""
    tested = sorted((row for row in classes if row["images"]), key=lambda row: row["f1"])
    commonest: dict[str, Confused] = {}
    for pair in pairs:
        commonest.setdefault(pair.truth, pair)
    return [
        {**row, "taken_for": commonest.get(row["label"])} for row in tested[: min(WORST_CLASSES, len(classes) // 2)]
    ]


def overlay(image: Image.Image, heat_map: NDArray[np.float64]) -> Image.Image:
    """The RGB image with the heat map, `(h, w)`, over it: the stronger the activation, the more opaque and the lighter.

    Negative activation counts as none, and the strongest as full.
    """
    heat = np.nan_to_num(heat_map, posinf=0.0).clip(0)
    heat = heat / (heat.max() or 1.0)
    grown = Image.fromarray(heat.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR)
    strength = np.asarray(grown, float).clip(0, 1)[:, :, np.newaxis]
    anchors = np.linspace(0, 1, len(HEAT_COLOURS))
    colour = np.concatenate([np.interp(strength, anchors, channel) for channel in HEAT_COLOURS.T], axis=2)
    opacity = strength * HEAT_OPACITY
    mixed = np.asarray(image, float) * (1 - opacity) + colour * opacity
    return Image.fromarray(mixed.round().astype(np.uint8))


def _shown(example: Example) -> dict[str, Any]:
    """The example with its pictures as data URLs, small ones enlarged and large ones reduced."""
    with Image.open(BytesIO(example.image)) as opened:
        image = opened.convert("RGB")
    least, most = SHOWN_SIDE
    scale = min(max(max(image.size), least), most) / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
    heat_map = example.heat_map
    return {
        "kind": example.kind,
        "truth": example.truth,
        "answers": example.answers,
        "picture": charts.data_url(image),
        "overlay": None if heat_map is None else charts.data_url(overlay(image, heat_map)),
    }


def _sections(document: Mapping[str, Any]) -> dict[str, str]:
    """The titles of the sections that have something to show, by id, in the order of the page."""
    classes = bool(document["classes"])
    present = {
        "precision": ("int8 against fp32", document["metrics"]["agreement"] is not None),
        "training": ("Training", bool(document["history"])),
        "confusion": ("Confusion", classes and bool(document["confusion"])),
        "classes": ("Classes", classes),
        "reliability": ("Calibration", bool(document["reliability"])),
        "coverage": ("Accuracy and coverage", bool(document["coverage"])),
        "examples": ("Examples", True),
        "candidates": ("Quantization", bool(document["candidates"])),
        "data": ("Data", bool(_splits(document)) or bool(document["skipped"]["images"])),
        "making": ("How it was made", True),
    }
    return {name: title for name, (title, shown) in present.items() if shown}


def _charts(document: Mapping[str, Any], confusion: NDArray[np.int64], labels: Sequence[str]) -> dict[str, Markup]:
    sections = _sections(document)
    drawn: dict[str, Markup] = {}
    if "training" in sections:
        drawn["loss"] = _training_chart(document["history"], "loss", "Loss", percent=False)
        drawn["accuracy"] = _training_chart(document["history"], "accuracy", "Accuracy", percent=True)
    if "confusion" in sections and len(labels) <= charts.MOST_NUMBERED:
        drawn["confusion"] = charts.confusion_numbers(confusion, labels)
    elif "confusion" in sections:
        drawn["confusion"] = charts.confusion_picture(confusion, labels, document["groups"])
    if "reliability" in sections:
        drawn["reliability"] = _reliability_chart(document["reliability"], document["reliability_uncalibrated"])
    if "coverage" in sections:
        drawn["coverage"] = _coverage_chart(document["coverage"], document["metrics"]["threshold"])
    if any(len(set(counts)) > 1 for counts in _splits(document).values()):
        drawn["distribution"] = _distribution_chart(_splits(document))
    return drawn


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
    said, true = Scale("Confidence", 0, 1, percent=True), Scale("Share that is right", 0, 1, percent=True)
    return line_chart("Accuracy of answers by their confidence", said, true, lines)


def _coverage_chart(rows: Sequence[dict[str, Any]], threshold: float | None) -> Markup:
    marks = []
    if threshold is not None:
        reached = np.interp(-threshold, [-row["threshold"] for row in rows], [row["coverage"] for row in rows])
        marks.append(Mark(float(reached), f"threshold {threshold:.2f}"))
    lowest = math.floor(min(row["accuracy"] for row in rows) * 10) / 10
    lines = [Series("test images", "training", [(row["coverage"], row["accuracy"]) for row in rows])]
    given = Scale("Share of answers given, surest first", 0, 1, percent=True)
    right = Scale("Share of them that is right", min(lowest, 0.9), 1, percent=True)
    return line_chart("Accuracy by the share of answers given", given, right, lines, marks)


def _distribution_chart(splits: Mapping[str, Sequence[int]]) -> Markup:
    lines = []
    for name, counts in splits.items():
        steps = enumerate(sorted(counts, reverse=True))
        lines.append(Series(name, name, [corner for at, n in steps for corner in ((at, n), (at + 1, n))], dots=False))
    classes = Scale("Classes, largest first", 0, max(map(len, splits.values())), whole=True)
    images = scale_to("Images", [n for counts in splits.values() for n in counts])
    return line_chart("Images of each class, by split", classes, images, lines)


def _splits(document: Mapping[str, Any]) -> dict[str, list[int]]:
    """The splits that have images, by the name under which the page shows them."""
    names = {"train": "training", "validation": "validation", "test": "test"}
    distribution = document["distribution"] or {}
    return {shown: distribution[name] for name, shown in names.items() if distribution.get(name)}


def _margin(metrics: Mapping[str, Any]) -> float | None:
    """Half the 95% interval of the int8 model's top-1 accuracy."""
    share, images = metrics["int8_top1"], metrics["test_images"]
    if share is None or not images:
        return None
    low, high = wilson_interval(share, images)
    return (high - low) / 2


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Nested plain values as rows of a name and a text."""
    if isinstance(value, dict):
        return [row for key, inner in value.items() for row in _flat(inner, f"{path} / {key}" if path else key)]
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return [row for at, inner in enumerate(value, 1) for row in _flat(inner, f"{path} {at}")]
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
    """A difference of two shares in percentage points, signed unless it rounds to nothing."""
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
