"""Presets: everything a training depends on, read from one TOML file into typed, checked values."""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from litelens.preprocessing import Preprocessing
from training.network import Stem

FOLDER = Path(__file__).parent / "presets"


class PresetError(Exception):
    """A preset is missing or says something that cannot be; the message names the file and the field."""


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


@dataclass(frozen=True)
class Preset:
    """One experiment. `answered_accuracy` is the accuracy wanted on the answers that are not marked uncertain."""

    name: str
    version: str
    description: str
    dataset: Literal["cifar100"]
    labels: str
    stem: Stem
    answered_accuracy: float
    preprocessing: Preprocessing
    recipe: Recipe

    def label_names(self) -> tuple[str, ...]:
        return tuple((FOLDER / self.labels).read_text(encoding="utf-8").split())


def load_preset(name: str) -> Preset:
    """The preset of that name; raises PresetError when there is none or it does not fit."""
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise PresetError(f"there is no preset '{name}'; the presets are: {known}")
    return preset_from(tomllib.loads(path.read_text(encoding="utf-8")), source=path.name)


def preset_from(values: dict[str, Any], source: str) -> Preset:
    """A preset from plain values, as `dataclasses.asdict` or a TOML file gives them."""
    return _build(Preset, values, source)


def _build(kind: Any, values: dict[str, Any], where: str) -> Any:
    types = get_type_hints(kind)
    unknown = sorted(values.keys() - types.keys())
    missing = sorted(types.keys() - values.keys())
    if unknown or missing:
        complaints = [f"unknown field '{name}'" for name in unknown] + [f"missing field '{name}'" for name in missing]
        raise PresetError(f"{where}: {'; '.join(complaints)}")
    return kind(**{name: _value(types[name], value, f"{where}: {name}") for name, value in values.items()})


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
