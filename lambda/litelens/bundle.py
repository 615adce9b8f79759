"""A model on disk: a folder with model.tflite and the manifest.json that says what it is.

Bundles that training publishes also hold metrics.json, all that was measured, and report.html, the same to read.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litelens.errors import BundleError
from litelens.preprocessing import Preprocessing

MANIFEST = "manifest.json"
MODEL = "model.tflite"
METRICS = "metrics.json"
REPORT = "report.html"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `manifest` is the whole document; the other fields are what serving reads from it.

    Confidences are the softmax of the logits divided by `temperature`; a best one below `threshold` is uncertain.
    `groups` gives the coarse group of each label; it is empty in bundles without groups.
    """

    folder: Path
    manifest: Mapping[str, Any]
    name: str
    version: str
    labels: tuple[str, ...]
    groups: Mapping[str, str]
    preprocessing: Preprocessing
    temperature: float
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
        manifest = json.loads(manifest_path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise BundleError(f"{manifest_path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
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
    return Bundle(
        folder=folder,
        manifest=manifest,
        name=manifest["name"],
        version=manifest["version"],
        labels=tuple(labels),
        groups=groups,
        preprocessing=_preprocessing(manifest["preprocessing"]),
        temperature=float(temperature),
        threshold=float(threshold),
    )


def _preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    return Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


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
