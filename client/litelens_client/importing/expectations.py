"""Find out what an imported model expects of photos, and say from where each fact is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from litelens.core.bundle import Tensor
from litelens.core.preprocessing import Interpolation, Preprocessing
from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.graph import Graph
from litelens_client.importing.metadata import FACTS, Facts, Metadata

Channels = tuple[float, float, float]

_LEVELS = 255
_SLIM_CROP = 0.875
# Levels by which the range of a normalization may exceed that of an integer input, whose calibration rarely saw it all.
_MARGIN = 12
_TEACHABLE_SIDE = 224

# Keras names the input after its Sequential model. Teachable Machine trains in the browser, with TensorFlow.js, which
# names layers such as dense_Dense2.
_SEQUENTIAL_INPUT = re.compile(r"(serving_default_)?sequential_\d+_input(:\d+)?")
_TEACHABLE_OUTPUT = "/dense_Dense"
_SLIM_OUTPUT = re.compile(r"(Mobilenet|Inception)[A-Za-z0-9_]*/")

# Says that a fact is in the file that `litelens export` writes.
FACTS_SOURCE = f"{FACTS} in the model"

# Bounds of core.preprocessing, which a model within reason never reaches.
_MAX_MEAN, _MIN_STD, _MAX_STD = 100, 0.001, 1000


class Assumption(Struct, frozen=True):
    """A fact about the model: its subject, the fact, and from where it is known."""

    subject: str
    value: str
    source: str


@dataclass(frozen=True)
class Given:
    """The options of `litelens import` about preprocessing. An option that was not given is None."""

    mean: Channels | None = None
    std: Channels | None = None
    crop: float | None = None
    interpolation: Interpolation | None = None


@dataclass(frozen=True)
class Expectations:
    """The preprocessing, who exported the model (empty if unknown), and from where each fact is known."""

    preprocessing: Preprocessing
    exporter: str
    assumptions: tuple[Assumption, ...]


@dataclass(frozen=True)
class _Normalization:
    """Values from 0 to 1 become `(value - mean) / std`; `source` says how that is known."""

    mean: Channels
    std: Channels
    source: str


def find_expectations(graph: Graph, metadata: Metadata, given: Given, *, numbered_labels: bool) -> Expectations:
    """Find out the preprocessing; `numbered_labels` says whether the label file's lines begin with numbers.

    Raises ImportRefused if the range of the input's values is neither known nor given.
    """
    exporter = _exporter(graph, numbered_labels=numbered_labels)
    normalization = _normalization(graph, metadata, given, exporter)
    crop, crop_source = _crop(given, metadata.facts, exporter)
    interpolation, interpolation_source = _interpolation(given, metadata.facts)
    _, height, width, _ = graph.image.shape
    preprocessing = Preprocessing(
        height=height,
        width=width,
        crop=crop,
        interpolation=interpolation,
        mean=_checked(normalization.mean, -_MAX_MEAN, _MAX_MEAN, "mean"),
        std=_checked(normalization.std, _MIN_STD, _MAX_STD, "standard deviation"),
    )
    shape = "square" if height == width else "part with the input's aspect ratio"
    part = f"the largest centred {shape}" if crop == 1 else f"the largest centred {shape}, its sides times {crop:g}"
    return Expectations(
        preprocessing,
        exporter,
        (
            Assumption("Values", describe_range(preprocessing), normalization.source),
            Assumption("Crop", part, crop_source),
            Assumption("Resizing", interpolation, interpolation_source),
        ),
    )


def describe_range(spec: Preprocessing) -> str:
    """Return the range of the input's values as text: "-1 to 1", or that of each colour."""
    table = spec.normalization_table().astype(float)
    ranges = [f"{low:.4g} to {high:.4g}" for low, high in zip(table[0], table[-1], strict=True)]
    return ranges[0] if len(set(ranges)) == 1 else ", ".join(ranges)


def _exporter(graph: Graph, *, numbered_labels: bool) -> str:
    if _SLIM_OUTPUT.match(graph.output_name):
        return "TensorFlow-Slim"
    is_teachable = _TEACHABLE_OUTPUT in graph.output_name or numbered_labels
    if graph.image.shape[1:3] == (_TEACHABLE_SIDE, _TEACHABLE_SIDE) and is_teachable:
        return "Teachable Machine" if _SEQUENTIAL_INPUT.fullmatch(graph.input_name) else ""
    return ""


def _normalization(graph: Graph, metadata: Metadata, given: Given, exporter: str) -> _Normalization:
    if given.mean and given.std:
        return _Normalization(given.mean, given.std, "--mean and --std")
    image = graph.image
    described = _from_metadata(metadata)
    if not image.is_float:
        raw = _raw_pixels(image)
        return described if described and _is_better(image, described, raw) else raw
    if described:
        return described
    if graph.takes_pixels:
        return _Normalization((0, 0, 0), (1 / 255,) * 3, "the model itself normalizes values from 0 to 255")
    if exporter == "Teachable Machine":
        return _Normalization(
            (0.5,) * 3, (0.5,) * 3, "a Teachable Machine export, by its tensors' names; others: --mean and --std"
        )
    if exporter == "TensorFlow-Slim":
        return _Normalization(
            (0.5,) * 3, (0.5,) * 3, "a TensorFlow-Slim network, by its tensors' names; others: --mean and --std"
        )
    raise ImportRefused(
        f"the file does not say which values the model's input '{graph.input_name}' takes. Say it, as its training "
        "preprocessed photos: --mean 0.5 --std 0.5 for values from -1 to 1, --mean 0 --std 1 for 0 to 1, --mean 0 "
        "--std 0.00392157 for 0 to 255, or --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 for PyTorch's models"
    )


def _raw_pixels(image: Tensor) -> _Normalization:
    """Return the normalization with which the levels of an integer input are the values of pixels.

    An int8 input has them minus 128.
    """
    shift = -np.iinfo(image.dtype).min
    mean = (shift + image.zero_point) / _LEVELS
    std = 1 / (_LEVELS * image.scale)
    minus = f" minus {shift}" if shift else ""
    return _Normalization((mean,) * 3, (std,) * 3, f"the input is {image.dtype} and takes the pixels' values{minus}")


def _is_better(image: Tensor, described: _Normalization, raw: _Normalization) -> bool:
    """Return whether the metadata's normalization fits the range of an integer input, and differs from raw pixels.

    Exporters write the normalization of the float model, or none (0 and 1), into the metadata of integer models.
    Differences of one level are roundings.
    """
    limits = np.iinfo(image.dtype)
    expected, found = (_exact_levels(image, each) for each in (raw, described))
    fits = found.min() >= limits.min - _MARGIN and found.max() <= limits.max + _MARGIN
    return bool(fits and np.abs(found - expected).max() > 1)


def _exact_levels(image: Tensor, normalization: _Normalization) -> NDArray[np.float64]:
    """Return the levels of an integer input for pixels from 0 to 255, without rounding, `(256, 3)`."""
    values = np.linspace(0, 1, _LEVELS + 1)[:, np.newaxis]
    real = (values - np.array(normalization.mean)) / np.array(normalization.std)
    levels: NDArray[np.float64] = real / image.scale + image.zero_point
    return levels


def _from_metadata(metadata: Metadata) -> _Normalization | None:
    """Return the normalization in the metadata, whose values are from 0 to 255; None if there is none."""
    if not metadata.mean or not metadata.std:
        return None
    mean, std = _three(metadata.mean), _three(metadata.std)
    if mean is None or std is None or not np.isfinite([*mean, *std]).all() or min(std) <= 0:
        raise ImportRefused(
            f"the model's metadata have the mean {metadata.mean} and the standard deviation {metadata.std}, which "
            "cannot be right; give --mean and --std"
        )
    r, g, b = (each / _LEVELS for each in mean)
    sr, sg, sb = (each / _LEVELS for each in std)
    return _Normalization((r, g, b), (sr, sg, sb), "the model's metadata")


def _three(numbers: Sequence[float]) -> Channels | None:
    if len(numbers) == 1:
        return (numbers[0],) * 3
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def _crop(given: Given, facts: Facts, exporter: str) -> tuple[float, str]:
    if given.crop is not None:
        return given.crop, "--crop"
    if facts.crop is not None:
        return facts.crop, FACTS_SOURCE
    if exporter == "TensorFlow-Slim":
        return _SLIM_CROP, "TensorFlow-Slim evaluates its networks so; others: --crop"
    if exporter == "Teachable Machine":
        return 1.0, "Teachable Machine trains so; others: --crop"
    return 1.0, "assumed; see --crop"


def _interpolation(given: Given, facts: Facts) -> tuple[Interpolation, str]:
    if given.interpolation:
        return given.interpolation, "--interpolation"
    if facts.interpolation:
        return facts.interpolation, FACTS_SOURCE
    return "bilinear", "assumed; see --interpolation"


def _checked(numbers: Channels, low: float, high: float, what: str) -> Channels:
    for number in numbers:
        if not low <= number <= high:
            raise ImportRefused(f"the {what} {number:g} of the input's values is not from {low:g} to {high:g}")
    return numbers
