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
from training.errors import PresetError
from training.network import STEM_STRIDES, Network
from training.quantize import Quantization

PRESETS = Path(__file__).parent / "presets"
LABELS = Path(__file__).parent / "labels"


def _require(holds: bool, field: str, bound: str) -> None:
    if not holds:
        raise ValueError(f"{field} must be {bound}")


@dataclass(frozen=True)
class Augmentation:
    """What varies the training images, by Keras' layers of like names; all off unless a preset turns it on.

    `crop_padding` is in pixels: the image is padded by so many on each side and cut back at random. `shift`, `zoom` and
    `shear` are fractions of the image, `rotation` is in degrees, `randaugment` is the strength from 0 to 1 of two
    operations drawn for each batch. `mixup` and `cutmix` are the alpha of their beta distributions, of which the
    papers use 0.2 and 1.0 (https://arxiv.org/abs/1710.09412, https://arxiv.org/abs/1905.04899); one of them at most.
    """

    flip: bool = False
    crop_padding: int = 0
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    randaugment: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        _require(self.crop_padding >= 0, "crop_padding", "at least 0")
        _require(0 <= self.rotation <= 180, "rotation", "from 0 to 180 degrees")
        _require(0 <= self.zoom < 1, "zoom", "at least 0 and below 1")
        _require(0 <= self.shift < 1, "shift", "at least 0 and below 1")
        _require(0 <= self.shear < 1, "shear", "at least 0 and below 1")
        _require(0 <= self.randaugment <= 1, "randaugment", "from 0 to 1")
        _require(0 <= self.mixup <= 1, "mixup", "from 0 to 1")
        _require(0 <= self.cutmix <= 1, "cutmix", "from 0 to 1")
        _require(not (self.mixup and self.cutmix), "mixup", "0 where cutmix is used")

    def views_only(self) -> "Augmentation":
        """The flips and crops alone, which a teacher's views can have."""
        return Augmentation(flip=self.flip, crop_padding=self.crop_padding)


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimizer: warm-up from 0 to `learning_rate`, then cosine decay.

    The decay ends at `final_learning_rate`. `trains` is the whole network, or the head alone with the rest frozen.
    `freeze_normalization` keeps batch normalization's statistics and scales as they are; use it to fine-tune on few
    images. `weight_decay` is decoupled, as in Keras: each step scales the kernels by
    `1 - learning_rate * weight_decay`. Epochs are added until the phase has `least_steps` steps. `stem_stride` replaces
    the stem's stride of a resnet50-cifar network during the phase, unless it is 0: with 2, a step needs a quarter of
    the arithmetic for the same weights.
    """

    trains: Literal["all", "head"]
    epochs: int
    optimizer: Literal["sgd", "adam"]
    learning_rate: float
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    freeze_normalization: bool = False
    final_learning_rate: float = 0.0
    stem_stride: Literal[0, 1, 2] = 0
    least_steps: int = 0

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", "at least 1")
        _require(0 <= self.least_steps <= 1_000_000, "least_steps", "from 0 to 1000000")
        _require(0 <= self.warmup_epochs < self.epochs, "warmup_epochs", "at least 0 and below epochs")
        _require(0 < self.learning_rate < math.inf, "learning_rate", "above 0")
        _require(0 <= self.final_learning_rate <= self.learning_rate, "final_learning_rate", "from 0 to learning_rate")
        _require(0 <= self.weight_decay < math.inf, "weight_decay", "at least 0")

    def epochs_of(self, steps_per_epoch: int) -> int:
        """The phase's number of epochs if an epoch has that many steps."""
        return max(self.epochs, math.ceil(self.least_steps / steps_per_epoch))


@dataclass(frozen=True)
class Teacher:
    """A better classifier of the same classes, from whose answers the network learns too; off without `source`.

    `source` is a published bundle, a run's folder, or a .keras file that takes the same preprocessing. It classifies
    `views` crops and flips of each training image once, before the first epoch; each epoch uses one of them.
    The loss is `weight` times `temperature`^2 times the cross entropy of both softmaxes at that temperature, plus
    `1 - weight` times the loss from the labels (Hinton et al. 2015, https://arxiv.org/abs/1503.02531). Teacher and
    network see the same view (Beyer et al. 2021, https://arxiv.org/abs/2106.05237).
    """

    source: str = ""
    views: int = 8
    temperature: float = 4.0
    weight: float = 0.9

    def __post_init__(self) -> None:
        _require(1 <= self.views <= 256, "views", "from 1 to 256")
        _require(0 < self.temperature <= 100, "temperature", "above 0 and at most 100")
        _require(0 < self.weight <= 1, "weight", "above 0 and at most 1")


@dataclass(frozen=True)
class Recipe:
    """How the network is fitted; without phases it is taken as it is.

    `momentum` is of SGD, with Nesterov's. `class_weights` makes rare classes count as much as frequent ones. With a
    `patience` above 0 a phase ends after so many epochs without a lower validation loss, and the weights of the best
    epoch are kept. `steps_per_execution` batches are handed to an accelerator at once.
    """

    seed: int
    batch_size: int
    phases: tuple[Phase, ...] = ()
    augmentation: Augmentation = Augmentation()
    teacher: Teacher = Teacher()
    momentum: float = 0.9
    label_smoothing: float = 0.0
    class_weights: bool = False
    patience: int = 0
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    steps_per_execution: int = 1

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**31, "seed", "at least 0 and below 2147483648")
        _require(self.batch_size >= 1, "batch_size", "at least 1")
        _require(0 <= self.momentum < 1, "momentum", "at least 0 and below 1")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", "at least 0 and below 1")
        _require(self.patience >= 0, "patience", "at least 0")
        _require(self.steps_per_execution >= 1, "steps_per_execution", "at least 1")
        _require(
            not self.teacher.source or self.augmentation == self.augmentation.views_only(),
            "augmentation",
            "flip and crop_padding alone where there is a teacher, which answers no other views",
        )


@dataclass(frozen=True)
class Gate:
    """Limits of `publish`: the top-1 lost from fp32 to int8, or, without labels, the share on which both agree.

    `reason` explains the limits, and is required if they are not the defaults.
    """

    most_lost: float = 0.005
    least_agreement: float = 0.9
    reason: str = ""

    def __post_init__(self) -> None:
        _require(0 <= self.most_lost < 1, "most_lost", "at least 0 and below 1")
        _require(0 <= self.least_agreement <= 1, "least_agreement", "from 0 to 1")
        usual = (self.most_lost, self.least_agreement) == (Gate.most_lost, Gate.least_agreement)
        _require(usual or bool(self.reason), "reason", "given if the limits are not the defaults")


@dataclass(frozen=True)
class Confidence:
    """Temperature and threshold if there are no labelled images to fit them to; `reason` says how they were chosen."""

    temperature: float = 1.0
    threshold: float = 0.0
    reason: str = ""

    def __post_init__(self) -> None:
        _require(0.01 <= self.temperature <= 100, "temperature", "from 0.01 to 100")
        _require(0 <= self.threshold <= 1, "threshold", "from 0 to 1")
        usual = (self.temperature, self.threshold) == (Confidence.temperature, Confidence.threshold)
        _require(usual or bool(self.reason), "reason", "given if temperature or threshold is changed")


@dataclass(frozen=True)
class Preset:
    """One experiment.

    `description` says what the model is for. A sentence on the network and the origin of its weights is added to it
    from the other fields, so that it stays true when you change them.
    `labels` names a file with a class's name in each line, in labels/ or anywhere; empty, the classes are named by
    the data's folders. `groups` names a file with the coarse groups that the labels fall into, or is empty.
    `validation_share` and `test_share` are drawn from the training images of each class if the data has no such split.
    If the images have no classes, `test_share` of them measure the model, and the rest calibrate it.
    `answered_accuracy` is the accuracy to reach among the answers that are not marked uncertain.
    """

    name: str
    version: str
    description: str
    dataset: Literal["cifar100", "cifar10", "cats-vs-dogs", "folder"]
    network: Network
    preprocessing: Preprocessing
    recipe: Recipe
    quantization: Quantization
    labels: str = ""
    groups: str = ""
    validation_share: float = 0.1
    test_share: float = 0.1
    answered_accuracy: float = 0.95
    gate: Gate = Gate()
    confidence: Confidence = Confidence()

    def __post_init__(self) -> None:
        _require(re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.name) is not None, "name", "of a-z, 0-9 and '-'")
        _require(self.version != "", "version", "a name such as 1.0.0")
        _require(
            bool(self.recipe.phases) or self.network.weights != "none",
            "recipe.phases",
            "given where network.weights is 'none': nothing would be fitted",
        )
        _require(
            bool(self.recipe.phases) or self.network.head == "published" or self.network.of_a_run,
            "recipe.phases",
            "given where network.head is 'new': it would never be fitted",
        )
        self._check_stem_strides()
        _require(0 < self.validation_share < 1, "validation_share", "above 0 and below 1")
        _require(0 < self.test_share < 1, "test_share", "above 0 and below 1")
        _require(self.validation_share + self.test_share < 1, "validation_share", "less than 1 with test_share")
        _require(0 < self.answered_accuracy <= 1, "answered_accuracy", "above 0 and at most 1")
        names = self.label_names()
        _require(len(set(names)) == len(names), "labels", "a file of distinct names")
        groups = self.label_groups()
        _require(not groups or set(groups) == set(names), "groups", "a file with a group for every label")

    def _check_stem_strides(self) -> None:
        strides = [phase.stem_stride for phase in self.recipe.phases]
        own = STEM_STRIDES.get(self.network.architecture)
        _require(
            own is not None or not any(strides), "stem_stride", f"0 but for the networks {', '.join(STEM_STRIDES)}"
        )
        _require(not strides or strides[-1] in (0, own), "stem_stride", "the network's own in the last phase, or 0")

    def label_names(self) -> tuple[str, ...]:
        """The classes' names in the order of the network's outputs; empty where the data names them."""
        if not self.labels:
            return ()
        lines = _read("labels", self.labels).splitlines()
        return tuple(line.strip() for line in lines if line.strip())

    def label_groups(self) -> dict[str, str]:
        """The coarse group of each label; empty where there are none."""
        if not self.groups:
            return {}
        groups = tomllib.loads(_read("groups", self.groups))
        return {label: group for group, labels in groups.items() for label in labels}


def load_preset(name: str, changes: Sequence[str] = ()) -> Preset:
    """The preset of that name, with changes such as `recipe.phases.0.epochs=3`.

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
    """A preset from plain values, as `dataclasses.asdict` or a TOML file gives them; raises PresetError."""
    preset: Preset = _build(Preset, values, source)
    return preset


def _read(field: str, name: str) -> str:
    """A file of that name in labels/, or of that path."""
    for path in (LABELS / name, Path(name).expanduser()):
        if path.is_file():
            return _text(field, path)
    raise ValueError(f"{field} must be a file, in training/{LABELS.name}/ or of that path, not '{name}'")


def _text(field: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{field} must be a file in UTF-8, which {path} is not") from error


def _change(values: dict[str, Any], change: str) -> None:
    path, equals, text = change.partition("=")
    *tables, name = path.strip().split(".")
    if not equals or not name:
        raise PresetError(f"--set {change}: give a field and a value, such as recipe.batch_size=32")
    table: Any = values
    for step in tables:
        table = _step_into(table, step, change)
    if isinstance(table, list):
        raise PresetError(f"--set {change}: '{name}' is no field; give one, such as recipe.phases.0.epochs=3")
    try:
        table[name] = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        table[name] = text.strip()


def _step_into(table: Any, step: str, change: str) -> Any:
    if isinstance(table, list):
        if not step.isdecimal() or int(step) >= len(table):
            raise PresetError(f"--set {change}: there is no '{step}'; there are 0 to {len(table) - 1}")
        return table[int(step)]
    inner = table.setdefault(step, {})
    if not isinstance(inner, dict | list):
        raise PresetError(f"--set {change}: there are no fields in '{step}'")
    return inner


def _build(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise PresetError(f"{where} must be a table of fields, not {values!r}")
    types = get_type_hints(kind)
    needed = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    unknown = sorted(values.keys() - types.keys())
    missing = sorted(needed - values.keys())
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
        return _values(get_args(kind), value, where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind) or type(value) is bool:
            raise PresetError(f"{where} must be one of {', '.join(map(str, get_args(kind)))}, not {value!r}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise PresetError(f"{where} must be of type {kind.__name__}, not {value!r}")
    return value


def _values(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise PresetError(f"{where} must be a list, not {value!r}")
    if kinds[-1] is Ellipsis:
        return tuple(_value(kinds[0], v, f"{where}: {i}") for i, v in enumerate(value))
    if len(value) != len(kinds):
        raise PresetError(f"{where} must be {len(kinds)} values, not {value!r}")
    return tuple(_value(k, v, where) for k, v in zip(kinds, value, strict=True))
