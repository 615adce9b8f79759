"""Presets: all settings of a training, read from one TOML file into typed, checked values."""

import math
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from itertools import product, starmap
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from litelens.core.preprocessing import Preprocessing
from litelens.core.validation import explain
from litelens_client.quantizing.comparison import LEAST_AGREEMENT, MOST_LOST
from training.candidates import Candidate, Converter, WeightBits
from training.errors import PresetError
from training.network import STEM_STRIDES, Network

PRESETS = Path(__file__).parent / "presets"
LABELS = Path(__file__).parent / "labels"

_DEFAULT_TEMPERATURE, _DEFAULT_THRESHOLD = 1.0, 0.0

_MAX_NAMED = 3

# The largest number: infinity is refused.
_MAX = sys.float_info.max

# Numbers from 0 to 1, with or without either end.
_Share = Annotated[float, Meta(ge=0, le=1)]
_ShareBelow1 = Annotated[float, Meta(ge=0, lt=1)]
_ShareAbove0 = Annotated[float, Meta(gt=0, le=1)]
_ShareBetween = Annotated[float, Meta(gt=0, lt=1)]


class Augmentation(Struct, frozen=True, forbid_unknown_fields=True):
    """Random changes of the training images, by Keras' layers of similar names; all are off by default.

    `crop_padding` is in pixels: the image is padded by that many on each side and cropped at random. `shift`, `zoom`
    and `shear` are fractions of the image, `rotation` is in degrees, `randaugment` is the strength from 0 to 1 of two
    operations drawn for each batch. `mixup` and `cutmix` are the alpha of their beta distributions, for which the
    papers use 0.2 and 1.0 (https://arxiv.org/abs/1710.09412, https://arxiv.org/abs/1905.04899); use at most one.
    """

    flip: bool = False
    crop_padding: Annotated[int, Meta(ge=0)] = 0
    rotation: Annotated[float, Meta(ge=0, le=180)] = 0.0
    zoom: _ShareBelow1 = 0.0
    shift: _ShareBelow1 = 0.0
    shear: _ShareBelow1 = 0.0
    randaugment: _Share = 0.0
    mixup: _Share = 0.0
    cutmix: _Share = 0.0

    def __post_init__(self) -> None:
        if self.mixup and self.cutmix:
            raise ValueError("mixup must be 0 if cutmix is used")

    def views_only(self) -> "Augmentation":
        """Return only the flips and crops, which a teacher can classify too."""
        return Augmentation(flip=self.flip, crop_padding=self.crop_padding)


class Phase(Struct, frozen=True, forbid_unknown_fields=True):
    """A number of epochs with one optimizer: warm-up from 0 to `learning_rate`, then cosine decay.

    The decay ends at `final_learning_rate`. `trains` is the whole network, or only the head with the rest frozen.
    `freeze_normalization` keeps batch normalization's statistics and scales as they are; use it to fine-tune on few
    images. `weight_decay` is decoupled, as in Keras: each step scales the kernels by
    `1 - learning_rate * weight_decay`. Epochs are added until the phase has `least_steps` steps. `stem_stride` replaces
    the stem's stride of a resnet50-cifar network during the phase, unless it is 0: with 2, a step needs a quarter of
    the arithmetic for the same weights.
    """

    trains: Literal["all", "head"]
    epochs: Annotated[int, Meta(ge=1)]
    optimizer: Literal["sgd", "adam"]
    learning_rate: Annotated[float, Meta(gt=0, le=_MAX)]
    warmup_epochs: Annotated[float, Meta(ge=0)] = 0.0
    weight_decay: Annotated[float, Meta(ge=0, le=_MAX)] = 0.0
    freeze_normalization: bool = False
    final_learning_rate: Annotated[float, Meta(ge=0)] = 0.0
    stem_stride: Literal[0, 1, 2] = 0
    least_steps: Annotated[int, Meta(ge=0, le=1_000_000)] = 0

    def __post_init__(self) -> None:
        if self.warmup_epochs >= self.epochs:
            raise ValueError("warmup_epochs must be below epochs")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError("final_learning_rate must be at most learning_rate")

    def count_epochs(self, steps_per_epoch: int) -> int:
        """Return the phase's number of epochs if an epoch has that many steps."""
        return max(self.epochs, math.ceil(self.least_steps / steps_per_epoch))


class Teacher(Struct, frozen=True, forbid_unknown_fields=True):
    """A better classifier of the same classes, from whose answers the network learns too; off without `source`.

    `source` is a published bundle, a run's folder, or a .keras file that takes the same preprocessing. It classifies
    `views` crops and flips of each training image once, before the first epoch; each epoch uses one of them.
    The loss is `weight` times `temperature`^2 times the cross entropy of both softmaxes at that temperature, plus
    `1 - weight` times the loss from the labels (Hinton et al. 2015, https://arxiv.org/abs/1503.02531). Teacher and
    network see the same view (Beyer et al. 2021, https://arxiv.org/abs/2106.05237).
    """

    source: str = ""
    views: Annotated[int, Meta(ge=1, le=256)] = 8
    temperature: Annotated[float, Meta(gt=0, le=100)] = 4.0
    weight: _ShareAbove0 = 0.9


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the fit; without phases, nothing is fitted.

    `momentum` is SGD's, with Nesterov's. `class_weights` gives rare classes the same influence as frequent ones. With a
    `patience` above 0 a phase ends after that many epochs without a lower validation loss, and the weights of the best
    epoch are kept. `steps_per_execution` batches are passed to an accelerator at once.
    """

    seed: Annotated[int, Meta(ge=0, lt=2**31)]
    batch_size: Annotated[int, Meta(ge=1)]
    phases: tuple[Phase, ...] = ()
    augmentation: Augmentation = Augmentation()
    teacher: Teacher = Teacher()
    momentum: _ShareBelow1 = 0.9
    label_smoothing: _ShareBelow1 = 0.0
    class_weights: bool = False
    patience: Annotated[int, Meta(ge=0)] = 0
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    steps_per_execution: Annotated[int, Meta(ge=1)] = 1

    def __post_init__(self) -> None:
        if self.teacher.source and self.augmentation != self.augmentation.views_only():
            raise ValueError(
                "augmentation must be flip and crop_padding only if there is a teacher, which classifies no other views"
            )


class Quantization(Struct, frozen=True, forbid_unknown_fields=True):
    """The candidates for the int8 model: every combination of the values in the three lists.

    `weight_bits` 7 limits weights to -64 to 64, with which OpenVINO gives the same answers as LiteRT; OpenVINO does not
    run models of 8-bit weights. `calibration_images` are numbers of images from which activation ranges are taken.
    """

    converters: Annotated[tuple[Converter, ...], Meta(min_length=1)]
    weight_bits: Annotated[tuple[WeightBits, ...], Meta(min_length=1)]
    calibration_images: Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        for field, values in msgspec.structs.asdict(self).items():
            if len(set(values)) != len(values):
                raise ValueError(f"{field} must not list a value twice")

    def candidates(self) -> tuple[Candidate, ...]:
        """Return all combinations; the last field changes fastest."""
        return tuple(starmap(Candidate, product(self.converters, self.weight_bits, self.calibration_images)))


class Gate(Struct, frozen=True, forbid_unknown_fields=True):
    """Conditions for publishing a model.

    `most_lost` limits the loss of top-1 from fp32 to int8. Without labelled images, int8 and fp32 must agree on a share
    of at least `least_agreement`. `reason` explains limits that are not the defaults.
    """

    most_lost: _ShareBelow1 = MOST_LOST
    least_agreement: _Share = LEAST_AGREEMENT
    reason: str = ""

    def __post_init__(self) -> None:
        defaults = (MOST_LOST, LEAST_AGREEMENT)
        if (self.most_lost, self.least_agreement) != defaults and not self.reason:
            raise ValueError("reason must explain limits that are not the defaults")


class Confidence(Struct, frozen=True, forbid_unknown_fields=True):
    """Temperature and threshold for models without labelled images to fit them to; `reason` explains the choice."""

    temperature: Annotated[float, Meta(ge=0.01, le=100)] = _DEFAULT_TEMPERATURE
    threshold: _Share = _DEFAULT_THRESHOLD
    reason: str = ""

    def __post_init__(self) -> None:
        defaults = (_DEFAULT_TEMPERATURE, _DEFAULT_THRESHOLD)
        if (self.temperature, self.threshold) != defaults and not self.reason:
            raise ValueError("reason must explain a temperature or threshold that is not the default")


class Preset(Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one model, from the data to the gate.

    `description` says what the model is for. A sentence on the network and the origin of its weights is added to it
    from the other fields, so that it stays true when you change them.
    `labels` names a file with one class name per line, in labels/ or elsewhere; if it is empty, the folders of the data
    name the classes. `groups` names a file with the coarse groups of the labels, or is empty.
    `validation_share` and `test_share` are drawn from the training images of each class if the data has no such split.
    If the images have no classes, `test_share` of them measure the model, and the others calibrate it.
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
    validation_share: _ShareBetween = 0.1
    test_share: _ShareBetween = 0.1
    answered_accuracy: _ShareAbove0 = 0.95
    gate: Gate = Gate()
    confidence: Confidence = Confidence()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.name):
            raise ValueError("name must consist of a-z, 0-9 and '-'")
        if not self.version:
            raise ValueError("version must be a name such as 1.0.0")
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share must add up to less than 1")
        self._check_phases()
        self._check_stem_strides()
        names = self.label_names()
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            listed = ", ".join(f"'{name}'" for name in repeated[:_MAX_NAMED]) + (" ..." * (len(repeated) > _MAX_NAMED))
            raise ValueError(f"labels must be a file of distinct names; there several times: {listed}")
        groups = self.label_groups()
        if groups and set(groups) != set(names):
            raise ValueError("groups must be a file with a group for every label")

    def _check_phases(self) -> None:
        if self.recipe.phases:
            return
        if self.network.weights == "none":
            raise ValueError("recipe.phases must be given if network.weights is 'none': nothing would be fitted")
        if self.network.head == "new" and not self.network.has_run_weights:
            raise ValueError("recipe.phases must be given if network.head is 'new': the head would not be fitted")

    def _check_stem_strides(self) -> None:
        strides = [phase.stem_stride for phase in self.recipe.phases]
        own = STEM_STRIDES.get(self.network.architecture)
        if own is None and any(strides):
            raise ValueError(f"recipe.phases: stem_stride must be 0 except for {', '.join(STEM_STRIDES)}")
        if strides and strides[-1] not in (0, own):
            raise ValueError("recipe.phases: stem_stride must be 0 or the network's own stride in the last phase")

    def label_names(self) -> tuple[str, ...]:
        """Return the classes' names in the order of the network's outputs; none if the data names them."""
        if not self.labels:
            return ()
        lines = _read_file("labels", self.labels).splitlines()
        return tuple(line.strip() for line in lines if line.strip())

    def label_groups(self) -> dict[str, str]:
        """Return the coarse group of each label; empty if there are no groups."""
        if not self.groups:
            return {}
        try:
            groups = tomllib.loads(_read_file("groups", self.groups))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"groups must be a TOML file: {error}") from error
        return {label: group for group, labels in groups.items() for label in labels}


def load_preset(name: str, changes: Sequence[str] = ()) -> Preset:
    """Load the preset of that name, with changes such as `recipe.phases.0.epochs=3`.

    Raises PresetError if there is none, a change is not of that form, or the result is invalid.
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
        _apply_change(values, change)
    return parse_preset(values, source=path.name)


def parse_preset(values: dict[str, Any], source: str) -> Preset:
    """Convert plain values, from TOML or JSON, into a preset; raises PresetError, naming the source and the field."""
    try:
        return msgspec.convert(values, Preset)
    except msgspec.ValidationError as error:
        raise PresetError(f"{source}: {explain(error, Preset, values)}") from error


def _read_file(field: str, name: str) -> str:
    """Read the file of that name in labels/, or the file at that path."""
    for path in (LABELS / name, Path(name).expanduser()):
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8-sig")
            except UnicodeDecodeError as error:
                raise ValueError(f"{field} must be a file in UTF-8, which {path} is not") from error
    raise ValueError(f"{field} must be a file in training/{LABELS.name}/ or a path, not '{name}'")


def _apply_change(values: dict[str, Any], change: str) -> None:
    """Set the field that a change such as `recipe.batch_size=32` names."""
    path, equals, text = change.partition("=")
    *tables, name = path.strip().split(".")
    if not equals or not name:
        raise PresetError(f"--set {change}: give a field and a value, such as recipe.batch_size=32")
    table: Any = values
    for step in tables:
        table = _enter_table(table, step, change)
    if isinstance(table, list):
        raise PresetError(f"--set {change}: '{name}' is not a field; give one, such as recipe.phases.0.epochs=3")
    try:
        table[name] = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        table[name] = text.strip()


def _enter_table(table: Any, step: str, change: str) -> Any:
    if isinstance(table, list):
        if not step.isdecimal() or int(step) >= len(table):
            raise PresetError(f"--set {change}: there is no '{step}'; use a number from 0 to {len(table) - 1}")
        return table[int(step)]
    inner = table.setdefault(step, {})
    if not isinstance(inner, dict | list):
        raise PresetError(f"--set {change}: '{step}' has no fields")
    return inner
