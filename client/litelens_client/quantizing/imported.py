"""Make the model of an imported bundle int8, and keep it only if it agrees with the float model."""

import contextlib
import dataclasses
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from litelens.core.bundle import IMAGE, MANIFEST, MODEL, Bundle, Output
from litelens.core.classifier import Classifier
from litelens.core.errors import LitelensError
from litelens_client.importing.measure import Measured
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.files import sha256, write_file, write_json
from litelens_client.learning.photos import LIMITS, Unreadable, read_photos, read_pixels
from litelens_client.learning.progress import progress
from litelens_client.learning.tflite import read_tensors
from litelens_client.quantizing.comparison import LEAST_AGREEMENT, MOST_LOST, divergence, exceeds
from litelens_client.quantizing.errors import NotQuantizable, QuantizerMissing
from litelens_client.quantizing.graph import float_tensors, prepare
from litelens_client.quantizing.int8 import (
    convert_for_openvino,
    convert_with_litert_quantizer,
    count_weight_bits,
    reduce_to_seven_bits,
)

_FLOAT_KINDS = ("float32", "float16 weights")
MIN_PHOTOS = 10

_PACKAGE = "litert_quantizer"
_MAX_CALIBRATION, _MAX_COMPARED = 200, 1000
# Fewer photos if their pixels, or the model's inputs in float32, would need more memory than this.
_MAX_BYTES = 1_000_000_000
_MAX_RUNS, _MAX_RUN_SECONDS = 10, 2.0
_MAX_NAMED = 3
_SEED = 1


class Model(Struct, frozen=True):
    """A model's bytes, the median milliseconds of an inference with one thread, and its top-1 on photos of --data.

    The top-1 is None without such photos.
    """

    bytes: int
    milliseconds: float
    top1: float | None


class Quantized(Struct, frozen=True):
    """The int8 model beside the float one; shares are from 0 to 1.

    `rejected` is the reason, in a sentence, why the float model was kept; it is empty if the int8 model replaced it.
    Without an int8 model, `after`, `agreement` and `divergence` are None. `compared` is the number of photos on which
    `agreement`, the share with the same best label, and `divergence`, in nats, were measured.
    """

    rejected: str
    calibrated: int
    compared: int
    agreement: float | None
    divergence: float | None
    before: Model
    after: Model | None
    unreadable: tuple[Unreadable, ...]

    @property
    def is_used(self) -> bool:
        """True if the int8 model replaced the float one."""
        return not self.rejected


@dataclass(frozen=True)
class _Compared:
    """Pixels for the comparison, uint8 `(n, height, width, 3)`, the float model's scores, float32 `(n, classes)`, and
    the classes, int64 `(n,)`; None if they are unknown.
    """

    pixels: NDArray[np.uint8]
    expected: NDArray[np.float32]
    classes: NDArray[np.int64] | None


@dataclass(frozen=True)
class _Converted:
    """The int8 models, with weights of seven bits first, which both engines serve, and what their output has."""

    models: tuple[bytes, ...]
    output: Output


@dataclass(frozen=True)
class _Comparison:
    """The number of photos for calibration, those for comparison, the unreadable ones, and the float model."""

    calibrated: int
    compared: _Compared
    unreadable: tuple[Unreadable, ...]
    before: Model

    def refuse(self, reason: str) -> Quantized:
        """Return the result without an int8 model."""
        return self._result(rejected=reason, agreement=None, divergence=None, after=None)

    def judge(self, candidate: Bundle) -> Quantized:
        """Compare an int8 model with the float one; the result says whether it may replace it."""
        try:
            scores = _scores(candidate, self.compared.pixels)
        except LitelensError as error:
            return self.refuse(f"LiteRT cannot run the int8 model: {_first_line(error.__cause__ or error)}")
        after = Model(candidate.model.stat().st_size, _milliseconds(candidate), _top1(scores, self.compared.classes))
        agreement = float((self.compared.expected.argmax(axis=1) == scores.argmax(axis=1)).mean())
        return self._result(
            rejected=_reject(self.before, after, agreement, len(scores)),
            agreement=agreement,
            divergence=divergence(self.compared.expected, scores),
            after=after,
        )

    def _result(
        self, *, rejected: str, agreement: float | None, divergence: float | None, after: Model | None
    ) -> Quantized:
        return Quantized(
            rejected=rejected,
            calibrated=self.calibrated,
            compared=len(self.compared.pixels),
            agreement=agreement,
            divergence=divergence,
            before=self.before,
            after=after,
            unreadable=self.unreadable,
        )


def require_quantizer() -> None:
    """Raise QuantizerMissing if the package is not installed, before time is spent on anything else."""
    if find_spec(_PACKAGE) is None:
        raise QuantizerMissing(
            "--quantize needs the package litert-quantizer; install it: pip install 'litelens[quantize]' (in a "
            "checkout, .venv-train has it)"
        )


def quantize_bundle(bundle: Bundle, photos: Path, measured: Measured | None) -> Quantized:
    """Replace the float model of an unpublished bundle by an int8 one, unless that answers differently.

    Up to 200 of the photos in a folder, at any depth, give the ranges of the activations. Up to 1,000 photos compare
    the models: those that the float model has classified, or else the other half of the photos. If the photos' pixels
    are many, fewer photos are used. Raises DatasetError if there are too few photos; see also require_float().
    """
    calibration, comparison = _read(bundle, photos, measured)
    try:
        converted = _convert(bundle, calibration)
    except NotQuantizable as error:
        return comparison.refuse(str(error))
    with tempfile.TemporaryDirectory() as workspace:
        for model in converted.models:
            candidate = _write(bundle, Path(workspace), model, converted.output)
            quantized = comparison.judge(candidate)
            if not quantized.rejected:
                _replace(bundle, candidate, quantized)
                break
    return quantized


def require_float(bundle: Bundle) -> None:
    """Raise NotQuantizable if the model is not a float one, or if its labels do not exclude each other."""
    kind = bundle.manifest["quantization"]["scheme"]
    if kind not in _FLOAT_KINDS:
        raise NotQuantizable(f"--quantize makes a float model int8, but this model is {kind}; leave --quantize out")
    if bundle.is_multi_label:
        raise NotQuantizable("--quantize is for labels that exclude each other; leave it out for a multi-label model")


def _read(bundle: Bundle, root: Path, measured: Measured | None) -> tuple[NDArray[np.uint8], _Comparison]:
    """Return the pixels for calibration, uint8 `(n, height, width, 3)`, and the comparison with the float model."""
    photos, unreadable = read_photos(root, bundle.preprocessing)
    order = np.random.default_rng(_SEED).permutation(len(photos))
    needed = MIN_PHOTOS if measured else 2 * MIN_PHOTOS
    if len(photos) < needed:
        named = "".join(f"; {each.file}: {each.reason}" for each in unreadable[:_MAX_NAMED])
        use = "calibrate the model" if measured else "calibrate the model and compare it with the float one"
        raise DatasetError(f"{root} has {len(photos)} readable photos; {needed} or more are needed to {use}{named}")
    count = min(_limit(_MAX_CALIBRATION, bundle, np.float32), len(photos) if measured else len(photos) // 2)
    if measured:
        compared = _read_labelled(bundle, measured)
    else:
        pixels = photos.pixels(order[count : count + _limit(_MAX_COMPARED, bundle, np.uint8)])
        compared = _Compared(pixels, _scores(bundle, pixels), None)
    before = Model(bundle.model.stat().st_size, _milliseconds(bundle), _top1(compared.expected, compared.classes))
    return photos.pixels(order[:count]), _Comparison(count, compared, unreadable, before)


def _limit(count: int, bundle: Bundle, dtype: type[np.generic]) -> int:
    """Return the number of inputs of this type, at most `count`, that need no more than _MAX_BYTES; MIN_PHOTOS do."""
    spec = bundle.preprocessing
    each = spec.height * spec.width * 3 * np.dtype(dtype).itemsize
    return max(MIN_PHOTOS, min(count, _MAX_BYTES // each))


def _read_labelled(bundle: Bundle, measured: Measured) -> _Compared:
    """Return the pixels of classified photos; raises DatasetError if a photo can no longer be read."""
    paths = [*measured.calibration.paths, *measured.test.paths]
    scores = np.concatenate([measured.calibration.logits, measured.test.logits]).astype(np.float32)
    classes = np.concatenate([measured.calibration.classes, measured.test.classes])
    chosen = np.random.default_rng(_SEED).permutation(len(paths))[: _limit(_MAX_COMPARED, bundle, np.uint8)]
    pixels = [read_pixels(bundle.preprocessing, paths[index]) for index in chosen]
    return _Compared(np.stack(pixels), scores[chosen], classes[chosen])


def _convert(bundle: Bundle, calibration: NDArray[np.uint8]) -> _Converted:
    """Return the int8 models; raises NotQuantizable, with the reason."""
    try:
        float_model, is_cut = prepare(bundle.model.read_bytes(), is_binary=bundle.is_binary)
        model = convert_with_litert_quantizer(float_model, bundle.preprocessing.normalize(calibration))
    # Both raise errors of any type.
    except Exception as error:
        raise NotQuantizable(f"litert-quantizer cannot quantize it: {_first_line(error)}") from error
    if others := float_tensors(model):
        listed = ", ".join(others[:_MAX_NAMED]) + (" ..." if len(others) > _MAX_NAMED else "")
        raise NotQuantizable(f"operators have no int8 form: {listed}")
    models = [convert_for_openvino(model)]
    # The quantizer may have changed more than the type of the weights.
    with contextlib.suppress(ValueError):
        models.insert(0, convert_for_openvino(reduce_to_seven_bits(model, float_model)))
    return _Converted(tuple(models), "logits" if is_cut else bundle.output)


def _write(bundle: Bundle, workspace: Path, model: bytes, output: Output) -> Bundle:
    """Write an int8 model into a folder; return it as a bundle."""
    write_file(workspace / MODEL, model)
    return dataclasses.replace(
        bundle,
        folder=workspace,
        sha256=sha256(model),
        weight_bits=count_weight_bits(model),
        tensors=read_tensors(model),
        output=output,
    )


def _reject(before: Model, after: Model, agreement: float, images: int) -> str:
    """Return the reason why the int8 model is not used; empty if it is."""
    if agreement < LEAST_AGREEMENT:
        return (
            f"it agrees with the float model on only {agreement:.1%} of {images:,} photos; {LEAST_AGREEMENT:.0%} are "
            "required"
        )
    if before.top1 is None or after.top1 is None:
        return ""
    lost = before.top1 - after.top1
    too_much = f"it loses {lost:.2%} top-1 on {images:,} photos; the limit is {MOST_LOST:.2%}"
    return too_much if exceeds(lost, MOST_LOST, images) else ""


def _replace(bundle: Bundle, candidate: Bundle, quantized: Quantized) -> None:
    """Write the int8 model into the bundle, and what is known about it into the manifest."""
    model = candidate.model.read_bytes()
    shutil.copyfile(candidate.model, bundle.model)
    manifest = dict(bundle.manifest)
    figures: Mapping[str, Any] = msgspec.to_builtins(quantized)
    changed = {
        "description": f"{bundle.manifest['description']} It was then quantized to int8.",
        "output": candidate.output,
        "quantization": {
            "scheme": "int8",
            "weights": "per channel",
            "activations": "per tensor",
            "bias": "int32",
            "converter": "litert-quantizer",
            "weight_bits": candidate.weight_bits,
            "calibration_images": quantized.calibrated,
            **{name: figures[name] for name in ("compared", "agreement", "divergence", "before", "after")},
        },
        "tensors": {name: msgspec.to_builtins(tensor) for name, tensor in candidate.tensors.items()},
        "files": {MODEL: {"sha256": candidate.sha256, "bytes": len(model)}},
    }
    write_json(bundle.folder / MANIFEST, {name: changed.get(name, value) for name, value in manifest.items()})


def _scores(bundle: Bundle, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the class scores of images, uint8 `(n, height, width, 3)`, float32 `(n, classes)`."""
    classifier = Classifier(bundle, LIMITS, threads=1)
    name = "Comparing the models" if bundle.tensors[IMAGE].is_float else "Comparing the int8 model"
    return np.stack([classifier.logits(image) for image in progress(images, len(images), name)])


def _top1(scores: NDArray[np.float32], classes: NDArray[np.int64] | None) -> float | None:
    return None if classes is None else float((scores.argmax(axis=1) == classes).mean())


def _milliseconds(bundle: Bundle) -> float:
    """Return the median time of an inference with one thread."""
    classifier = Classifier(bundle, LIMITS, threads=1)
    classifier.warm_up()
    spec = bundle.preprocessing
    pixels = np.random.default_rng(_SEED).integers(0, 256, (spec.height, spec.width, 3), np.uint8)
    times: list[float] = []
    while len(times) < _MAX_RUNS and sum(times) < _MAX_RUN_SECONDS:
        started = time.perf_counter()
        classifier.logits(pixels)
        times.append(time.perf_counter() - started)
    return round(statistics.median(times) * 1000, 3)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
