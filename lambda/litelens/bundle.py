"""A model on disk: a folder with model.tflite and the manifest.json that says what it is.

Bundles that training publishes also hold metrics.json, all that was measured, report.html, the same to read, and the
folder golden/ with the images by which a deployed version is verified.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelens.errors import BundleError
from litelens.golden import GoldenImage, golden_images
from litelens.preprocessing import Preprocessing

MANIFEST = "manifest.json"
MODEL = "model.tflite"
METRICS = "metrics.json"
REPORT = "report.html"

# The model's input and outputs; the last is not there in models whose head has no such map.
IMAGE, LOGITS, MAP = "image", "logits", "class_activation_map"


@dataclass(frozen=True)
class Tensor:
    """What goes into the model or comes out, as int8 levels: the real values are `scale * (level - zero_point)`."""

    shape: tuple[int, ...]
    scale: float
    zero_point: int

    def levels(self, values: NDArray[np.float32]) -> NDArray[np.int8]:
        """The levels nearest to real values of any shape."""
        # In float32, evenly spaced levels meet ties, and rounding those to even would merge neighbours.
        exact = values.astype(np.float64) / self.scale + self.zero_point
        levels: NDArray[np.int8] = exact.round().clip(-128, 127).astype(np.int8)
        return levels

    def values(self, levels: NDArray[np.int8]) -> NDArray[np.float32]:
        """The real values of levels of any shape."""
        values: NDArray[np.float32] = (levels.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return values


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `manifest` is the whole document; the other fields are what serving reads from it.

    `sha256` is the model's, `weight_bits` are 8 or 7. `tensors` are its input IMAGE, `(1, height, width, 3)`, and its
    outputs LOGITS, `(1, classes)`, and where it has one MAP, `(1, h, w, classes)`. Confidences are the softmax of the
    logits divided by `temperature`; a best one below `threshold` is uncertain. `groups` gives the coarse group of each
    label; it is empty in bundles without groups, as `golden` is in bundles without golden images.
    """

    folder: Path
    manifest: Mapping[str, Any]
    sha256: str
    name: str
    version: str
    weight_bits: int
    tensors: Mapping[str, Tensor]
    labels: tuple[str, ...]
    groups: Mapping[str, str]
    preprocessing: Preprocessing
    temperature: float
    threshold: float
    golden: tuple[GoldenImage, ...] = ()

    @property
    def model(self) -> Path:
        return self.folder / MODEL


def load_bundle(folder: Path) -> Bundle:
    """The bundle in that folder, its model's checksum verified.

    Raises BundleError, naming the file, when one is missing, damaged or says something that cannot be.
    """
    manifest_path = folder / MANIFEST
    try:
        manifest = json.loads(manifest_path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise BundleError(f"{manifest_path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{manifest_path} is not valid JSON: {error}") from error
    try:
        bundle = _from_manifest(folder, manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{manifest_path} is not a litelens manifest: {_complaint(error)}") from error
    found = _sha256(bundle.model)
    if found != bundle.sha256:
        raise BundleError(f"{bundle.model} has the sha256 {found}, but the manifest says {bundle.sha256}")
    return bundle


def _from_manifest(folder: Path, manifest: Mapping[str, Any]) -> Bundle:
    labels = manifest["labels"]
    if not isinstance(labels, list) or not labels or not all(_is_name(label) for label in labels):
        raise ValueError("labels must be a list of names")
    if len(set(labels)) != len(labels):
        raise ValueError("labels must be distinct")
    for field in ("name", "version"):
        if not _is_name(manifest[field]):
            raise ValueError(f"{field} must be a name")
    groups = manifest.get("groups") or {}
    if not isinstance(groups, dict) or not all(_is_name(group) for group in groups.values()):
        raise ValueError("groups must be the name of a group for each label")
    if groups and set(groups) != set(labels):
        raise ValueError("groups must have a group for every label, and for nothing else")
    temperature, threshold = manifest["temperature"], manifest["threshold"]
    if type(temperature) not in (int, float) or not 0.01 <= temperature <= 100:
        raise ValueError(f"temperature must be between 0.01 and 100, not {temperature!r}")
    if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be between 0 and 1, not {threshold!r}")
    preprocessing = _preprocessing(manifest["preprocessing"])
    return Bundle(
        folder=folder,
        manifest=manifest,
        sha256=str(manifest["files"][MODEL]["sha256"]),
        name=manifest["name"],
        version=manifest["version"],
        weight_bits=_weight_bits(manifest["quantization"]),
        labels=tuple(labels),
        groups=groups,
        preprocessing=preprocessing,
        tensors=_tensors(manifest.get("tensors"), (preprocessing.height, preprocessing.width), len(labels)),
        temperature=float(temperature),
        threshold=float(threshold),
        golden=golden_images(manifest.get("golden"), labels),
    )


def _preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    return Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def _weight_bits(quantization: Mapping[str, Any]) -> int:
    bits = quantization["weight_bits"]
    if bits not in (7, 8):
        raise ValueError(f"weight_bits must be 7 or 8, not {bits!r}")
    return int(bits)


def _tensors(values: Mapping[str, Any] | None, size: tuple[int, int], classes: int) -> dict[str, Tensor]:
    if values is None:
        raise ValueError(
            "it has no tensors, as an earlier litelens wrote it; make it again: python -m training quantize, then "
            "evaluate, report and publish"
        )
    tensors = {name: _tensor(name, **value) for name, value in values.items()}
    if tensors[IMAGE].shape != (1, *size, 3):
        raise ValueError(f"the tensor {IMAGE} has the shape {tensors[IMAGE].shape}, but preprocessing makes {size}")
    if tensors[LOGITS].shape != (1, classes):
        raise ValueError(f"the tensor {LOGITS} has the shape {tensors[LOGITS].shape}, but there are {classes} labels")
    if MAP in tensors and (len(tensors[MAP].shape) != 4 or tensors[MAP].shape[3] != classes):
        raise ValueError(f"the tensor {MAP} has the shape {tensors[MAP].shape}, but there are {classes} labels")
    if extra := set(tensors) - {IMAGE, LOGITS, MAP}:
        raise ValueError(f"there is no use for the tensor {min(extra)}")
    return tensors


def _tensor(name: str, shape: list[int], scale: float, zero_point: int) -> Tensor:
    if not all(type(side) is int and side >= 1 for side in shape):
        raise ValueError(f"the shape of the tensor {name} must be whole numbers above 0")
    if type(scale) not in (int, float) or not 0 < scale < math.inf:
        raise ValueError(f"the scale of the tensor {name} must be a number above 0")
    if type(zero_point) is not int or not -128 <= zero_point <= 127:
        raise ValueError(f"the zero_point of the tensor {name} must be a whole number from -128 to 127")
    return Tensor(tuple(shape), float(scale), zero_point)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _complaint(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
