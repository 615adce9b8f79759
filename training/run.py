"""A run's folder: the preset and data that a training started with, and the files that each step writes."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import keras
import msgspec

from litelens.core.bundle import METRICS, MODEL, REPORT
from litelens.core.head import HEAD
from litelens_client.learning.files import write_json
from training.errors import RunError
from training.network import build_network
from training.preset import Confidence, Gate, Preset, Quantization, parse_preset


@dataclass(frozen=True)
class FitSummary:
    """The result of `fit`; `last_sitting_seconds` is its duration since the last interruption, if there was one."""

    images: int
    epochs: int
    last_sitting_seconds: int
    validation_accuracy: float
    backend: str
    keras: str
    processor: str


@dataclass(frozen=True)
class Metrics:
    """The measurements of `evaluate`; shares are from 0 to 1.

    Measured on the test split without the `test_duplicates` images that also occur for training or validation: top-1
    and top-5 of both models; the int8 model's top-1 on coarse groups (None without groups); the `agreement` of both;
    the int8 model's top-1 with OpenVINO instead of LiteRT, and the agreement of the two engines (None with 8-bit
    weights, which OpenVINO does not run); the int8 model's expected calibration error with LiteRT, at temperature 1
    and at `temperature`. Measured on the validation split: `temperature`, `threshold`, the share of images that reach
    the threshold, and their accuracy. If the images have no labels, all fields that need labels are None.
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

Document = TypeVar("Document")


@dataclass(frozen=True)
class Run:
    """A run's folder, with the preset and the labels."""

    folder: Path
    preset: Preset
    labels: tuple[str, ...]

    @property
    def checkpoint(self) -> Path:
        """The folder in which `fit` keeps what it needs to continue after an interruption."""
        return self.folder / "checkpoint"

    @property
    def soft_labels(self) -> Path:
        """The folder with a teacher's logits for the training images; `fit` writes it."""
        return self.folder / "teacher"

    @property
    def weights(self) -> Path:
        """The fitted network's weights, float32; `fit` writes them."""
        return self.folder / WEIGHTS

    @property
    def history(self) -> Path:
        """Loss and accuracy of each epoch, as CSV; `fit` writes it."""
        return self.folder / "history.csv"

    @property
    def tensorboard(self) -> Path:
        """The folder with the same figures for TensorBoard."""
        return self.folder / "tensorboard"

    @property
    def fit_summary(self) -> Path:
        """The result of `fit`, which writes it."""
        return self.folder / "fit.json"

    @property
    def model(self) -> Path:
        """The int8 model; `quantize` writes it."""
        return self.folder / MODEL

    @property
    def head(self) -> Path:
        """The network's head, if it has features; `quantize` writes it."""
        return self.folder / HEAD

    @property
    def served_files(self) -> tuple[Path, ...]:
        """The files of the run that serving loads: the model and, if it has features, its head."""
        return tuple(path for path in (self.model, self.head) if path.is_file())

    @property
    def candidates(self) -> Path:
        """The measurements of all candidates for the int8 model; `quantize` writes them."""
        return self.folder / "candidates.json"

    @property
    def metrics(self) -> Path:
        """All measurements, with the checksum of the model that was measured; `evaluate` writes them."""
        return self.folder / METRICS

    @property
    def report(self) -> Path:
        """The measurements as a web page; `report` writes it."""
        return self.folder / REPORT

    def has_results(self) -> bool:
        """Return True if the folder has results of any step, such as an epoch's checkpoint or a teacher's logits."""
        results = (self.checkpoint, self.soft_labels, self.weights, self.model, self.candidates)
        return any(path.exists() for path in (*results, self.metrics, self.report))


@dataclass(frozen=True)
class DataSummary:
    """The labels of a run's data and a digest of the images of each split, by which changes are noticed."""

    labels: tuple[str, ...]
    digest: str


def start_run(folder: Path, preset: Preset, data: DataSummary) -> Run:
    """Create a folder for this preset and data, or reuse the one of the same run; raises RunError if it has another.

    A run that has no results yet may be started again with another preset and other data. If nothing is fitted, the
    data may differ from those of the last start.
    """
    run = Run(folder, preset, data.labels)
    if (folder / PRESET).exists() and run.has_results():
        open_run(folder, preset, data if preset.recipe.phases else None)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DATA, dataclasses.asdict(data))
    write_json(folder / PRESET, msgspec.to_builtins(preset))
    return run


def open_run(folder: Path, preset: Preset, data: DataSummary | None = None) -> Run:
    """Open this preset's run in a folder; raises RunError if there is none, or one of another preset or other data."""
    if _fit_settings(_read_preset(folder)) != _fit_settings(preset):
        raise RunError(f"{folder} contains a run of another preset or preset version; choose another --run")
    started = _read_data(folder)
    if data and data.labels != started.labels:
        raise RunError(
            f"{folder} was started with {len(started.labels)} labels, {_first_few(started.labels)}, but the data has "
            f"{len(data.labels)}, {_first_few(data.labels)}; give the same data, or choose another --run"
        )
    if data and data.digest != started.digest:
        raise RunError(
            f"{folder} was started with other images, so that test images may have been trained on; give the same "
            "data, or choose another --run"
        )
    return Run(folder, preset, started.labels)


def reopen_run(folder: Path) -> Run:
    """Open the run in a folder, with any preset and data; raises RunError if there is none."""
    return Run(folder, _read_preset(folder), _read_data(folder).labels)


def load_fitted_network(run: Run) -> keras.Model:
    """Load the fitted network, or the preset's own if it has nothing to fit; raises RunError or NetworkError."""
    preset = run.preset
    if not preset.recipe.phases:
        return build_network(preset.network, preset.preprocessing, len(run.labels))
    weights = require(run.weights, step="fit")
    network = build_network(preset.network, preset.preprocessing, len(run.labels), pretrained=False)
    try:
        network.load_weights(weights)
    except Exception as error:  # h5py and Keras raise OSError, KeyError, ValueError and others
        raise RunError(f"{weights} is damaged; {_how_to_write('fit')}") from error
    return network


def require(path: Path, step: str) -> Path:
    """Return the path of a file that `step` writes; raises RunError if it does not exist yet."""
    if not path.is_file():
        raise RunError(f"{path} is missing; {_how_to_write(step)}")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file; raises RunError if there is none."""
    try:
        return msgspec.convert(json.loads(path.read_bytes()), dict[str, Any])
    except ValueError as error:  # of json and of msgspec
        raise RunError(f"{path} is damaged ({error}); remove it and repeat the step that writes it") from error


def parse_document(kind: type[Document], values: Any, path: Path, step: str) -> Document:
    """Convert values from the file that `step` wrote into a dataclass; raises RunError if its fields do not fit."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise RunError(f"{path} does not fit this version of litelens ({error}); {_how_to_write(step)}") from error


def discard(*paths: Path) -> None:
    """Remove files that the step about to run makes obsolete."""
    for path in paths:
        path.unlink(missing_ok=True)


def _read_preset(folder: Path) -> Preset:
    path = require(folder / PRESET, step="fit")
    return parse_preset(read_json(path), source=str(path))


def _read_data(folder: Path) -> DataSummary:
    path = require(folder / DATA, step="fit")
    return parse_document(DataSummary, read_json(path), path, step="fit")


def _fit_settings(preset: Preset) -> Preset:
    """Return the preset with fixed values for all settings that may change after the fit."""
    return msgspec.structs.replace(
        preset,
        name="any",
        version="any",
        description="",
        answered_accuracy=1.0,
        gate=Gate(),
        confidence=Confidence(),
        quantization=Quantization(("TFLiteConverter",), (8,), (1,)),
    )


def _how_to_write(step: str) -> str:
    return f"the step that writes it is: python -m training {step}"


def _first_few(labels: tuple[str, ...]) -> str:
    return ", ".join(f"'{label}'" for label in labels[:3]) + (" ..." if len(labels) > 3 else "")
