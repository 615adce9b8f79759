"""A run's folder: the preset it was started with and what each step leaves there for the next one."""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from litelens.bundle import METRICS, MODEL, REPORT
from training.errors import RunError
from training.preset import Confidence, Gate, Preset, preset_from
from training.quantize import Quantization


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

    Of the test split, less `test_duplicates` images that also occur for training or validation: top-1
    and top-5 of both models, the int8 one's top-1 on coarse groups (None without groups), how often the two agree,
    the int8 one's top-1 by OpenVINO instead of LiteRT and how often the two engines agree (None with 8-bit weights,
    which OpenVINO is not for), and by LiteRT its expected calibration error at temperature 1 and at `temperature`. Of
    the validation split: `temperature`, `threshold`, and of the images that reach the threshold their share and how
    many of them are right. Where the images' classes are unknown, so is all but what agrees.
    """

    test_images: int
    test_duplicates: int
    fp32_top1: float | None
    fp32_top5: float | None
    int8_top1: float | None
    int8_top5: float | None
    int8_group_top1: float | None
    agreement: float
    openvino_top1: float | None
    openvino_agreement: float | None
    calibration_error_uncalibrated: float | None
    calibration_error: float | None
    validation_images: int
    temperature: float
    threshold: float
    answered_share: float | None
    answered_accuracy: float | None


WEIGHTS = "network.weights.h5"
PRESET, DATA = "preset.json", "data.json"

Facts = TypeVar("Facts", FitFacts, Metrics)


@dataclass(frozen=True)
class Run:
    folder: Path
    preset: Preset
    labels: tuple[str, ...]

    @property
    def checkpoint(self) -> Path:
        """Where `fit` keeps what it needs to go on after an interruption."""
        return self.folder / "checkpoint"

    @property
    def weights(self) -> Path:
        """The fitted network's weights, float32; `fit` writes them."""
        return self.folder / WEIGHTS

    @property
    def model(self) -> Path:
        """The int8 model; `quantize` writes it."""
        return self.folder / MODEL

    @property
    def lessons(self) -> Path:
        """A teacher's answers to the training images; `fit` writes them."""
        return self.folder / "teacher"

    @property
    def history(self) -> Path:
        """Loss and accuracy of each epoch, as CSV; `fit` writes it."""
        return self.folder / "history.csv"

    @property
    def tensorboard(self) -> Path:
        """The same for TensorBoard."""
        return self.folder / "tensorboard"

    @property
    def fit_facts(self) -> Path:
        return self.folder / "fit.json"

    @property
    def candidates(self) -> Path:
        """How the candidates for the int8 model compare; `quantize` writes it."""
        return self.folder / "candidates.json"

    @property
    def metrics(self) -> Path:
        """All that was measured, with the checksum of the model it was measured on; `evaluate` writes it."""
        return self.folder / METRICS

    @property
    def report(self) -> Path:
        """The same as a page to read; `report` writes it."""
        return self.folder / REPORT

    def has_results(self) -> bool:
        """Return True if the folder has results of any step, such as an epoch's checkpoint or a teacher's answers."""
        results = (self.checkpoint, self.lessons, self.weights, self.model, self.candidates, self.metrics, self.report)
        return any(path.exists() for path in results)


@dataclass(frozen=True)
class DataFacts:
    """What a run was begun with: the labels, and a digest of all images of each split, by which changes are seen."""

    labels: tuple[str, ...]
    digest: str


def start_run(folder: Path, preset: Preset, data: DataFacts) -> Run:
    """A folder for this preset and data, made if need be; raises RunError when another run is there.

    A run that has no results yet is started again, whatever its preset and data were. If nothing is fitted, the data
    may differ from those of the last start.
    """
    run = Run(folder, preset, data.labels)
    if (folder / PRESET).exists() and run.has_results():
        open_run(folder, preset, data if preset.recipe.phases else None)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DATA, dataclasses.asdict(data))
    write_json(folder / PRESET, dataclasses.asdict(preset))
    return run


def open_run(folder: Path, preset: Preset, data: DataFacts | None = None) -> Run:
    """This preset's run in that folder; raises RunError when there is none or another one, or one of other data."""
    path = require(folder / PRESET, step="fit")
    if _what_fitting_depends_on(preset_from(read_json(path), source=str(path))) != _what_fitting_depends_on(preset):
        raise RunError(f"{folder} holds a run of another preset or of another version of it; choose another --run")
    path = require(folder / DATA, step="fit")
    found = read_json(path)
    known = DataFacts(tuple(found.get("labels", ())), str(found.get("digest")))
    if data and data.labels != known.labels:
        raise RunError(
            f"{folder} was begun with {len(known.labels)} labels, {_few(known.labels)}, but the data has "
            f"{len(data.labels)}, {_few(data.labels)}; give the same data, or choose another --run"
        )
    if data and data.digest != known.digest:
        raise RunError(
            f"{folder} was begun with other images, so that test images may have been trained on; give the same data, "
            "or choose another --run"
        )
    return Run(folder, preset, known.labels)


def reopen_run(folder: Path) -> Run:
    """Open the run in that folder, whatever its preset and data are; raises RunError if there is none."""
    path = require(folder / PRESET, step="fit")
    known = read_json(require(folder / DATA, step="fit"))
    return Run(folder, preset_from(read_json(path), source=str(path)), tuple(known.get("labels", ())))


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
    """The preset without what may change after the fit."""
    quantization = Quantization(("TFLiteConverter",), (8,), (1,))
    return dataclasses.replace(
        preset,
        name="any",
        version="any",
        description="",
        answered_accuracy=1.0,
        gate=Gate(),
        confidence=Confidence(),
        quantization=quantization,
    )


def _few(labels: tuple[str, ...]) -> str:
    return ", ".join(f"'{label}'" for label in labels[:3]) + (" ..." if len(labels) > 3 else "")
