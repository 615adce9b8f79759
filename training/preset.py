"""Presets: everything a training depends on, read from one TOML file into typed, checked values."""

import dataclasses
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from litelens.preprocessing import Preprocessing
from training.network import Stem

PRESETS = Path(__file__).parent / "presets"
LABELS = Path(__file__).parent / "labels"


class PresetError(Exception):
    """A preset is missing or says something that cannot be; the message names the file and the field."""


def _require(holds: bool, field: str, bound: str) -> None:
    if not holds:
        raise ValueError(f"{field} must be {bound}")


@dataclass(frozen=True)
class Recipe:
    """How the network is fitted: stochastic gradient descent with Nesterov momentum, warm-up and cosine decay.

    `weight_decay` is decoupled, as Keras has it: each step scales the convolutions' weights by
    `1 - learning_rate * weight_decay`. `shift` is the largest translation, as a fraction of the image.
    """

    seed: int
    validation_images: int
    batch_size: int
    epochs: int
    warmup_epochs: float
    learning_rate: float
    momentum: float
    weight_decay: float
    label_smoothing: float
    shift: float
    flip: bool
    precision: Literal["float32", "mixed_bfloat16"]

    def __post_init__(self) -> None:
        _require(self.validation_images >= 1, "validation_images", "at least 1")
        _require(self.batch_size >= 1, "batch_size", "at least 1")
        _require(self.epochs >= 1, "epochs", "at least 1")
        _require(0 <= self.warmup_epochs < self.epochs, "warmup_epochs", "at least 0 and below epochs")
        _require(0 < self.learning_rate < math.inf, "learning_rate", "above 0")
        _require(0 <= self.momentum < 1, "momentum", "at least 0 and below 1")
        _require(0 <= self.weight_decay < math.inf, "weight_decay", "at least 0")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", "at least 0 and below 1")
        _require(0 <= self.shift < 1, "shift", "at least 0 and below 1")


@dataclass(frozen=True)
class Preset:
    """One experiment.

    `labels` names a file in labels/ with a class's name in each line, `groups` one with the coarse groups that they
    fall into, or is empty where there are none. `answered_accuracy` is wanted of the answers not marked uncertain.
    """

    name: str
    version: str
    description: str
    dataset: Literal["cifar100"]
    labels: str
    groups: str
    stem: Stem
    answered_accuracy: float
    preprocessing: Preprocessing
    recipe: Recipe

    def __post_init__(self) -> None:
        _require(re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.name) is not None, "name", "of a-z, 0-9 and '-'")
        _require(0 < self.answered_accuracy <= 1, "answered_accuracy", "above 0 and at most 1")
        _require((LABELS / self.labels).is_file(), "labels", f"a file in {LABELS.name}/")
        if self.groups:
            _require((LABELS / self.groups).is_file(), "groups", f"a file in {LABELS.name}/, or empty")
            _require(
                set(self.label_groups()) == set(self.label_names()), "groups", "a file with a group for every label"
            )

    def label_names(self) -> tuple[str, ...]:
        return tuple((LABELS / self.labels).read_text(encoding="utf-8").split())

    def label_groups(self) -> dict[str, str]:
        """The coarse group of each label; empty where there are none."""
        if not self.groups:
            return {}
        groups = tomllib.loads((LABELS / self.groups).read_text(encoding="utf-8"))
        return {label: group for group, labels in groups.items() for label in labels}


def load_preset(name: str, changes: Sequence[str] = ()) -> Preset:
    """The preset of that name, with changes such as `recipe.epochs=3`.

    Raises PresetError when there is none, a change is not of that form, or what comes out does not fit.
    """
    path = PRESETS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise PresetError(f"there is no preset '{name}'; the presets are: {known}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PresetError(f"{path.name} is not valid TOML: {error}") from error
    for change in changes:
        _change(values, change)
    return preset_from(values, source=path.name)


def preset_from(values: dict[str, Any], source: str) -> Preset:
    """A preset from plain values, as `dataclasses.asdict` or a TOML file gives them."""
    preset: Preset = _build(Preset, values, source)
    return preset


def _change(values: dict[str, Any], change: str) -> None:
    field, equals, text = change.partition("=")
    *tables, name = field.strip().split(".")
    for table in tables:
        values = values.get(table, {})
        if not isinstance(values, dict):
            raise PresetError(f"--set {change}: there are no fields in '{table}'")
    if not equals or name not in values:
        raise PresetError(f"--set {change}: give a field of the preset and a value, such as recipe.epochs=3")
    try:
        values[name] = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        values[name] = text.strip()


def _build(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise PresetError(f"{where} must be a table of fields, not {values!r}")
    types = get_type_hints(kind)
    unknown = sorted(values.keys() - types.keys())
    missing = sorted(types.keys() - values.keys())
    if unknown or missing:
        complaints = [f"unknown field '{name}'" for name in unknown] + [f"missing field '{name}'" for name in missing]
        raise PresetError(f"{where}: {'; '.join(complaints)}")
    fields = {name: _value(types[name], value, f"{where}: {name}") for name, value in values.items()}
    try:
        return kind(**fields)
    except ValueError as error:
        raise PresetError(f"{where}: {error}") from error


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where)
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not isinstance(value, list | tuple) or len(value) != len(inner):
            raise PresetError(f"{where} must be {len(inner)} values, not {value!r}")
        return tuple(_value(k, v, where) for k, v in zip(inner, value, strict=True))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise PresetError(f"{where} must be one of {', '.join(get_args(kind))}, not {value!r}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise PresetError(f"{where} must be of type {kind.__name__}, not {value!r}")
    return value
