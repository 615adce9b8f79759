"""A model on disk: a folder with model.tflite and the manifest.json that says what it is."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from litelens.errors import BundleError
from litelens.preprocessing import Interpolation, Preprocessing

MANIFEST = "manifest.json"
MODEL = "model.tflite"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `manifest` is the whole document; the other fields are what serving reads from it."""

    folder: Path
    manifest: Mapping[str, Any]
    name: str
    version: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    threshold: float

    @property
    def model(self) -> Path:
        return self.folder / MODEL


def load_bundle(folder: Path) -> Bundle:
    """The bundle in that folder, its model's checksum verified.

    Raises BundleError, naming the file, when one is missing, damaged or says something that cannot be.
    """
    manifest_path = folder / MANIFEST
    try:
        manifest = json.loads(manifest_path.read_bytes())
    except OSError as error:
        raise BundleError(f"{manifest_path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{manifest_path} is not valid JSON: {error}") from error
    try:
        bundle = _from_manifest(folder, manifest)
        expected = str(manifest["files"][MODEL]["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{manifest_path} is not a litelens manifest: {_complaint(error)}") from error
    found = _sha256(bundle.model)
    if found != expected:
        raise BundleError(f"{bundle.model} has the sha256 {found}, but the manifest says {expected}")
    return bundle


def _from_manifest(folder: Path, manifest: Mapping[str, Any]) -> Bundle:
    labels = tuple(manifest["labels"])
    if not labels or not all(isinstance(label, str) and label for label in labels):
        raise ValueError("labels must be a list of names")
    if len(set(labels)) != len(labels):
        raise ValueError("labels must be distinct")
    threshold = manifest["threshold"]
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be between 0 and 1, not {threshold!r}")
    return Bundle(
        folder=folder,
        manifest=manifest,
        name=str(manifest["name"]),
        version=str(manifest["version"]),
        labels=labels,
        preprocessing=_preprocessing(manifest["preprocessing"]),
        threshold=float(threshold),
    )


def _preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    spec = Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
    numbers = (spec.height, spec.width, spec.crop, *spec.mean, *spec.std)
    if len(spec.mean) != 3 or len(spec.std) != 3 or not all(math.isfinite(n) for n in numbers):
        raise ValueError("preprocessing needs numbers, three of them for mean and std")
    if min(spec.height, spec.width) < 1 or not 0 < spec.crop <= 1 or min(spec.std) <= 0:
        raise ValueError("preprocessing needs a positive size and std, and a crop in (0, 1]")
    if spec.interpolation not in get_args(Interpolation):
        raise ValueError(f"preprocessing.interpolation must be one of {', '.join(get_args(Interpolation))}")
    return spec


def _complaint(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
