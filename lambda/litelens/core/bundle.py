"""A bundle: a model's folder, with model.tflite and the manifest.json that describes the model.

If the model computes features, head.npz has the head that turns them into class scores. familiarity.npz, which is
optional, tells which photos are unlike the training photos. Bundles that training publishes or `litelens learn` writes
also contain metrics.json (all measurements), report.html (the same for people to read) and the folder golden/ with the
golden images, which test a new version before it gets requests.
"""

import codecs
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from litelens.core.errors import BundleError
from litelens.core.familiarity import FAMILIARITY, Familiarity, load_familiarity
from litelens.core.golden import GoldenImage
from litelens.core.head import HEAD, Head, load_head
from litelens.core.preprocessing import Preprocessing
from litelens.core.validation import explain

MANIFEST = "manifest.json"
MODEL = "model.tflite"
METRICS = "metrics.json"
REPORT = "report.html"

# The names of the model's input and outputs. Some models lack the output FEATURES.
IMAGE, LOGITS, FEATURES = "image", "logits", "features"

# The digits of a model's checksum that are enough to tell models apart.
_CHECKSUM_DIGITS = 12

# The output that earlier versions of litelens had instead of FEATURES. `litelens convert` replaces it.
OLD_MAP = "class_activation_map"


# What the model's output LOGITS has: class scores of any range, or probabilities. Those of labels that exclude each
# other add up to 1. A single score of a model with two labels is for the second label.
Output = Literal["logits", "probabilities"]

# The weights have 7 or 8 bits if the model computes with integers, and 32 if it computes with floats, whatever the
# number of bits in which a float model's file stores them.
WeightBits = Literal[7, 8, 32]
FLOAT_BITS: WeightBits = 32


class Tensor(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An input or output of the model.

    The levels of an integer tensor represent the real values `scale * (level - zero_point)`; its scale is above 0. The
    values of a float32 tensor are the real values.
    """

    shape: tuple[Annotated[int, Meta(ge=1)], ...]
    scale: Annotated[float, Meta(ge=0)] = 0.0
    zero_point: Annotated[int, Meta(ge=-128, le=255)] = 0
    dtype: Literal["int8", "uint8", "float32"] = "int8"

    def __post_init__(self) -> None:
        """Check the fields of an integer tensor; raises ValueError."""
        if self.is_float:
            return
        if not self.scale:
            raise ValueError("scale must be a number > 0, unless the dtype is float32")
        limits = np.iinfo(self.dtype)
        if self.zero_point < limits.min:
            raise ValueError(f"zero_point must be a whole number >= {limits.min}, not {self.zero_point}")
        if self.zero_point > limits.max:
            raise ValueError(f"zero_point must be a whole number <= {limits.max}, not {self.zero_point}")

    @property
    def is_float(self) -> bool:
        """True if the tensor holds float32 numbers instead of integer levels."""
        return self.dtype == "float32"

    def quantize(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Round real values of any shape to the nearest levels; returns an array of `dtype` and of the same shape."""
        if self.is_float:
            return values.astype(np.float32)
        limits = np.iinfo(self.dtype)
        # In float32, evenly spaced values can fall halfway between two levels, and rounding half to even would then
        # give two neighbours the same level.
        exact = values.astype(np.float64) / self.scale + self.zero_point
        levels: NDArray[Any] = exact.round().clip(limits.min, limits.max).astype(self.dtype)
        return levels

    def dequantize(self, levels: NDArray[Any]) -> NDArray[np.float32]:
        """Return the real values of levels of any shape; float32 of the same shape."""
        if self.is_float:
            return levels.astype(np.float32)
        values: NDArray[np.float32] = (levels.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return values


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `manifest` is the whole document; the other fields are those that serving needs.

    `sha256` is the checksum of the model, whose weights have `weight_bits` bits. `tensors` has the model's input IMAGE,
    `(1, height, width, 3)`, its output LOGITS, `(1, classes)`, and, if the model has it, its output FEATURES,
    `(1, h, w, channels)`. `output` says what LOGITS has. If the model has features, `head` computes the class scores
    from them more exactly than LOGITS, which is for other programs. `familiarity` needs features too, and is optional.
    `backbone` identifies the features: the name, version and checksum of the bundle that they are from, which is this
    one or the one it was learned from. Confidences are the softmax of the logits divided by `temperature`, or their
    sigmoid in a multi-label bundle. A prediction is uncertain if its highest confidence is below `threshold`. In a
    multi-label bundle, `threshold` is None, and `thresholds` has the confidence from which each label is present.
    `groups` maps each label to its coarse group; it is empty if there are none, and so is `golden`.
    """

    folder: Path
    manifest: Mapping[str, Any]
    sha256: str
    name: str
    version: str
    weight_bits: WeightBits
    tensors: Mapping[str, Tensor]
    labels: tuple[str, ...]
    groups: Mapping[str, str]
    preprocessing: Preprocessing
    temperature: float
    threshold: float | None
    thresholds: tuple[float, ...] = ()
    output: Output = "logits"
    backbone: str = ""
    head: Head | None = None
    familiarity: Familiarity | None = None
    golden: tuple[GoldenImage, ...] = ()

    @property
    def model(self) -> Path:
        """The path of model.tflite."""
        return self.folder / MODEL

    @property
    def is_multi_label(self) -> bool:
        """True if a photo can have any number of the labels, each with a confidence of its own."""
        return bool(self.thresholds)

    @property
    def is_binary(self) -> bool:
        """True if the model gives a single score for two labels that exclude each other: that of the second one."""
        return len(self.labels) > self.tensors[LOGITS].shape[1]


_Name = Annotated[str, Meta(min_length=1)]
_Share = Annotated[float, Meta(ge=0, le=1)]


class _Tensors(Struct, frozen=True, forbid_unknown_fields=True):
    """The tensors IMAGE, LOGITS and FEATURES."""

    image: Tensor
    logits: Tensor
    features: Tensor | UnsetType = UNSET


class _Quantization(Struct, frozen=True):
    weight_bits: WeightBits | UnsetType = UNSET


class _File(Struct, frozen=True):
    sha256: str


class _Files(Struct, frozen=True):
    model: _File = msgspec.field(name=MODEL)
    head: _File | None = msgspec.field(name=HEAD, default=None)
    familiarity: _File | None = msgspec.field(name=FAMILIARITY, default=None)


class _Base(Struct, frozen=True):
    backbone: _Name


class _Learning(Struct, frozen=True):
    base: _Base


class _Manifest(Struct, frozen=True):
    """The fields of manifest.json that serving needs. Others are allowed."""

    name: _Name
    version: _Name
    labels: Annotated[tuple[_Name, ...], Meta(min_length=1)]
    preprocessing: Preprocessing
    files: _Files
    temperature: Annotated[float, Meta(ge=0.01, le=100)]
    threshold: _Share | UnsetType = UNSET
    thresholds: Annotated[tuple[_Share, ...], Meta(min_length=1)] | UnsetType = UNSET
    quantization: _Quantization = _Quantization()
    output: Output = "logits"
    tensors: _Tensors | UnsetType = UNSET
    groups: dict[str, _Name] | None = None
    golden: tuple[GoldenImage, ...] | None = None
    learning: _Learning | None = None

    @property
    def backbone(self) -> str:
        """The identifier of the features: name, version and checksum of the bundle that they are from."""
        if self.learning:
            return self.learning.base.backbone
        return f"{self.name}/{self.version}/{self.files.model.sha256[:_CHECKSUM_DIGITS]}"

    @property
    def weight_bits(self) -> WeightBits:
        """The bits of the model's weights, which a manifest need not say for a float model; raises ValueError."""
        bits = self.quantization.weight_bits
        if bits is not UNSET:
            return bits
        if not self.tensors_by_name()[LOGITS].is_float:
            raise ValueError("the field quantization.weight_bits is missing")
        return FLOAT_BITS

    def __post_init__(self) -> None:
        """Check that the fields are consistent; raises ValueError."""
        labels = set(self.labels)
        if len(labels) != len(self.labels):
            raise ValueError("labels must be distinct")
        if self.groups and self.groups.keys() != labels:
            raise ValueError("groups must have a group for every label, and for nothing else")
        self._check_thresholds()
        self._check_shapes()
        self._check_golden(labels)
        _ = self.weight_bits

    def tensors_by_name(self) -> dict[str, Tensor]:
        """Return the tensors IMAGE, LOGITS and, if the model has it, FEATURES; raises ValueError if there are none."""
        if self.tensors is UNSET:
            raise ValueError(
                "the field tensors is missing, because an earlier litelens wrote this manifest; make the bundle again: "
                "python -m training quantize, then evaluate, report and publish"
            )
        fields = msgspec.structs.asdict(self.tensors)
        return {name: tensor for name, tensor in fields.items() if tensor is not UNSET}

    def _check_thresholds(self) -> None:
        if self.thresholds is UNSET:
            if self.threshold is UNSET:
                raise ValueError("the field threshold is missing; a multi-label model has the field thresholds instead")
            return
        if self.threshold is not UNSET:
            raise ValueError("threshold must be left out if there are thresholds, those of a multi-label model")
        if len(self.thresholds) != len(self.labels):
            raise ValueError(f"thresholds must have a number for each of the {len(self.labels)} labels")
        if self.groups:
            raise ValueError("groups must be left out if there are thresholds, because only exclusive labels add up")

    def _check_shapes(self) -> None:
        size, classes = (self.preprocessing.height, self.preprocessing.width), len(self.labels)
        is_binary = classes == 2 and self.thresholds is UNSET and not self.files.head
        shapes = {name: tensor.shape for name, tensor in self.tensors_by_name().items()}
        if shapes[IMAGE] != (1, *size, 3):
            raise ValueError(f"tensors.{IMAGE} has the shape {shapes[IMAGE]}, but preprocessing makes {size}")
        if shapes[LOGITS] != (1, classes) and not (is_binary and shapes[LOGITS] == (1, 1)):
            raise ValueError(f"tensors.{LOGITS} has the shape {shapes[LOGITS]}, but there are {classes} labels")
        if FEATURES in shapes and len(shapes[FEATURES]) != 4:
            raise ValueError(f"tensors.{FEATURES} must have four sides, not the shape {shapes[FEATURES]}")
        if (FEATURES in shapes) != (self.files.head is not None):
            raise ValueError(f"files must have {HEAD} if tensors has {FEATURES}, and only then")
        if self.files.familiarity and not self.files.head:
            raise ValueError(f"files must have {HEAD} if it has {FAMILIARITY}")
        if self.files.head and self.output != "logits":
            raise ValueError(f"output must be logits if files has {HEAD}, which computes them")

    def _check_golden(self, labels: set[str]) -> None:
        golden = self.golden or ()
        if len({image.file for image in golden}) != len(golden):
            raise ValueError("golden must not have the same file twice")
        for index, image in enumerate(golden):
            if image.label not in labels:
                raise ValueError(f"golden.{index}.label must be one of labels, not {image.label!r}")


def load_bundle(folder: Path) -> Bundle:
    """Load the bundle in that folder, and verify the checksums of its files.

    Raises BundleError, naming the file, if one is missing or damaged, or if the manifest is not valid.
    """
    document, manifest = _read_manifest(folder / MANIFEST)
    files = {MODEL: manifest.files.model, HEAD: manifest.files.head, FAMILIARITY: manifest.files.familiarity}
    for name, file in files.items():
        if file:
            _verify(folder / name, file.sha256)
    tensors = manifest.tensors_by_name()
    channels = tensors[FEATURES].shape[3] if FEATURES in tensors else 0
    return Bundle(
        folder=folder,
        manifest=document,
        sha256=manifest.files.model.sha256,
        name=manifest.name,
        version=manifest.version,
        weight_bits=manifest.weight_bits,
        tensors=tensors,
        labels=manifest.labels,
        groups=manifest.groups or {},
        preprocessing=manifest.preprocessing,
        temperature=manifest.temperature,
        threshold=None if manifest.threshold is UNSET else manifest.threshold,
        thresholds=() if manifest.thresholds is UNSET else manifest.thresholds,
        output=manifest.output,
        backbone=manifest.backbone,
        head=load_head(folder / HEAD, len(manifest.labels), channels) if manifest.files.head else None,
        familiarity=_load_familiarity(folder, manifest, channels),
        golden=manifest.golden or (),
    )


def _load_familiarity(folder: Path, manifest: _Manifest, channels: int) -> Familiarity | None:
    if not manifest.files.familiarity:
        return None
    return load_familiarity(folder / FAMILIARITY, len(manifest.labels), channels)


def _read_manifest(path: Path) -> tuple[dict[str, Any], _Manifest]:
    """Read the whole document, and the fields that serving needs; raises BundleError."""
    try:
        document = msgspec.json.decode(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON: {error}") from error
    if has_old_model(document):
        raise BundleError(
            f"{path} was written by an earlier litelens; convert the bundle: litelens convert {path.parent}"
        )
    try:
        return document, msgspec.convert(document, _Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(f"{path} is not a litelens manifest: {explain(error, _Manifest, document)}") from error


def has_old_model(document: Any) -> bool:
    """Return whether the model has a class activation map instead of features, as in earlier versions of litelens."""
    tensors = document.get("tensors") if isinstance(document, dict) else None
    return isinstance(tensors, dict) and OLD_MAP in tensors


def _verify(path: Path, expected: str) -> None:
    """Raise BundleError if the file is missing or has another checksum."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if found != expected:
        raise BundleError(f"{path} has the sha256 {found}, but the manifest says {expected}")
