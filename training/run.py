"""A run's folder: the preset it was started with and what each step leaves there for the next one."""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from litelens.bundle import MODEL
from training.preset import Preset, preset_from


class RunError(Exception):
    """A run's folder does not hold what a step needs; the message names the step to take first."""


@dataclass(frozen=True)
class FitFacts:
    """What happened in `fit`, which may have taken several sittings."""

    images: int
    epochs: int
    last_sitting_seconds: int
    validation_accuracy: float
    backend: str
    keras: str
    processor: str


@dataclass(frozen=True)
class Metrics:
    """What `evaluate` measured; shares are from 0 to 1.

    Of the test split, from which `test_duplicates` images that also occur in the training split are left out: top-1
    and top-5 of both models, the int8 one's top-1 on coarse groups (None without groups), how often the two agree,
    and the int8 one's expected calibration error at temperature 1 and at `temperature`. Of the validation split:
    `temperature`, `threshold`, and of the images that reach the threshold their share and how many of them are right.
    """

    test_images: int
    test_duplicates: int
    fp32_top1: float
    fp32_top5: float
    int8_top1: float
    int8_top5: float
    int8_group_top1: float | None
    agreement: float
    calibration_error_uncalibrated: float
    calibration_error: float
    validation_images: int
    temperature: float
    threshold: float
    answered_share: float
    answered_accuracy: float


Facts = TypeVar("Facts", FitFacts, Metrics)


@dataclass(frozen=True)
class Run:
    folder: Path
    preset: Preset

    @property
    def weights(self) -> Path:
        """The fitted network's weights, float32; `fit` writes them."""
        return self.folder / "network.weights.h5"

    @property
    def model(self) -> Path:
        """The int8 model; `quantize` writes it."""
        return self.folder / MODEL

    @property
    def history(self) -> Path:
        """Loss and accuracy of each epoch, as CSV; `fit` writes it."""
        return self.folder / "history.csv"

    @property
    def fit_facts(self) -> Path:
        return self.folder / "fit.json"

    @property
    def metrics(self) -> Path:
        """All that was measured, with the checksum of the model it was measured on; `evaluate` writes it."""
        return self.folder / "metrics.json"


def start_run(folder: Path, preset: Preset) -> Run:
    """A folder for this preset, made if need be; raises RunError when another preset's run is there."""
    if _preset_file(folder).exists():
        return open_run(folder, preset)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(_preset_file(folder), dataclasses.asdict(preset))
    return Run(folder, preset)


def open_run(folder: Path, preset: Preset) -> Run:
    """This preset's run in that folder; raises RunError when there is none or another one."""
    path = require(_preset_file(folder), step="fit")
    if _what_fitting_depends_on(preset_from(read_json(path), source=str(path))) != _what_fitting_depends_on(preset):
        raise RunError(f"{folder} holds a run of another preset or of another version of it; choose another --run")
    return Run(folder, preset)


def require(path: Path, step: str) -> Path:
    """The path, which `step` writes; raises RunError when it is not there yet."""
    if not path.is_file():
        raise RunError(f"{path} is missing; the step that writes it is: python -m training {step}")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in that file; raises RunError when there is none."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); remove it and take the step that writes it again") from error
    if not isinstance(document, dict):
        raise RunError(f"{path} is damaged; remove it and take the step that writes it again")
    return document


def facts_from(kind: type[Facts], values: Any, path: Path, step: str) -> Facts:
    """What a step found, from what it wrote; raises RunError when that is of another version of it."""
    try:
        return kind(**values)
    except TypeError as error:
        raise RunError(f"{path} does not fit; the step that writes it is: python -m training {step}") from error


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def discard(*paths: Path) -> None:
    """Remove what a step is about to make out of date."""
    for path in paths:
        path.unlink(missing_ok=True)


def write_json(path: Path, document: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _what_fitting_depends_on(preset: Preset) -> Preset:
    return dataclasses.replace(preset, version="", description="", answered_accuracy=1.0)


def _preset_file(folder: Path) -> Path:
    return folder / "preset.json"
