"""Quantization: from a fitted network to a full-int8 .tflite file, the best of several that are made and measured."""

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from litelens.bundle import MODEL, Bundle, Tensor
from litelens.classifier import Classifier
from litelens.errors import BundleError
from litelens.images import Limits
from litelens.preprocessing import Preprocessing
from training.candidates import Candidate, Converter, WeightBits, Workshop, opened_workshop, portable, weight_bits
from training.errors import QuantizationError
from training.progress import progress

INTEGER_TYPES = (np.int8, np.int32)

_AT_ONCE = 128


@dataclass(frozen=True)
class Quantization:
    """The candidates for the int8 model: every combination of what is listed. Raises ValueError.

    `weight_bits` 7 makes weights from -64 to 64, with which OpenVINO gives the same answers as LiteRT; it is not for
    models of 8 bits. `calibration_images` are so many images, from which the activations' ranges are taken.
    """

    converters: tuple[Converter, ...]
    weight_bits: tuple[WeightBits, ...]
    calibration_images: tuple[int, ...]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{field.name} must be a list of one or more, each of them once")
        if not set(self.converters) <= set(get_args(Converter)):
            raise ValueError(f"converters must be of {', '.join(get_args(Converter))}")
        if not set(self.weight_bits) <= set(get_args(WeightBits)):
            raise ValueError("weight_bits must be of 8 and 7")
        if not all(images >= 1 for images in self.calibration_images):
            raise ValueError("calibration_images must be at least 1")

    def candidates(self) -> tuple[Candidate, ...]:
        """All combinations, the last field changing fastest."""
        return tuple(
            itertools.starmap(Candidate, itertools.product(self.converters, self.weight_bits, self.calibration_images))
        )


@dataclass(frozen=True)
class Score:
    """What a candidate is and what was measured of it; shares are from 0 to 1.

    `agreement` is how often its best class is the float network's, `divergence` the mean Kullback-Leibler divergence,
    in nats, of its softmax from the float network's, `top1` how often its best class is the true one (None where the
    truth is not known). `error` says in a sentence why a candidate is of no use; nothing is measured of such a one.
    """

    converter: Converter
    weight_bits: WeightBits
    calibration_images: int
    bytes: int | None = None
    top1: float | None = None
    agreement: float | None = None
    divergence: float | None = None
    error: str | None = None
    chosen: bool = False


def require_export_backend() -> None:
    """Raise QuantizationError on a Keras backend that cannot export TFLite."""
    if keras.config.backend() != "tensorflow":
        raise QuantizationError("TFLite export needs Keras' tensorflow backend; unset KERAS_BACKEND, but for fit alone")


def quantize(
    network: keras.Model,
    candidates: Sequence[Candidate],
    calibration: NDArray[np.float32],
    pixels: NDArray[np.uint8],
    spec: Preprocessing,
    truth: NDArray[np.int64] | None,
) -> tuple[bytes, tuple[Score, ...]]:
    """The best candidate, a .tflite file of int8 activations and per-channel int8 weights, and every one's score.

    `network` takes `image`, float32 `(n, height, width, 3)`, and gives a dictionary with `logits` `(n, classes)`; the
    file's outputs have the names of the network's. `calibration` holds inputs, float32 `(n, height, width, 3)`, of
    which a candidate takes the first so many, or all there are. `pixels`, uint8 `(n, height, width, 3)`, are images as
    `Preprocessing.pixels` makes them, neither trained on nor tested on, and `truth` their classes, int64 `(n,)`.
    Candidates are measured through the code that serves.

    The best is the one that agrees most often with the float network, and among equals the one whose divergence is
    lowest, which tells candidates apart where counting images cannot. Agreement p on n images has a standard error of
    sqrt(p * (1 - p) / n), 0.4% for 96% of 2,000: a smaller lead is chance, harmless to follow but no proof that the
    settings are better. Top-1 does not decide, as it differs by chance alone among candidates that agree alike.

    A candidate that cannot be made, is not of integers only or cannot be served is reported in its score.
    Raises QuantizationError when all are such, naming the reasons.
    """
    require_export_backend()
    if not len(pixels):
        raise QuantizationError("There are no images to measure the candidates on")
    possible = dict.fromkeys(
        dataclasses.replace(candidate, calibration_images=min(candidate.calibration_images, len(calibration)))
        for candidate in candidates
    )
    examiner = _Examiner(network, pixels, spec, truth)
    models: dict[Score, bytes] = {}
    scores: list[Score] = []
    with _workshop(network, calibration) as workshop:
        for candidate in possible:
            try:
                model = _made(workshop, candidate, set(network.output))
                score = examiner.score(candidate, model)
                models[score] = model
            except (QuantizationError, BundleError) as error:
                score = Score(**dataclasses.asdict(candidate), error=str(error))
            print(f"{candidate}: {_in_words(score)}", flush=True)
            scores.append(score)
    winner = best(scores)
    return models[winner], tuple(dataclasses.replace(score, chosen=score is winner) for score in scores)


def best(scores: Sequence[Score]) -> Score:
    """The score of the highest agreement; among equals of the lowest divergence; among equals still, the first.

    Raises QuantizationError, naming the reasons, when none of the candidates is of use.
    """
    ranked = [
        (-score.agreement, score.divergence, score)
        for score in scores
        if score.agreement is not None and score.divergence is not None
    ]
    if not ranked:
        reasons = "; ".join(f"{_candidate(score)}: {score.error}" for score in scores)
        raise QuantizationError(f"None of the candidates is of use: {reasons}")
    return min(ranked, key=lambda entry: entry[:2])[2]


def check_integer_only(model: bytes) -> None:
    """Raise QuantizationError, naming a tensor, when a .tflite file holds any that is not int8 or an int32 bias."""
    interpreter = _interpreter(model)
    for tensor in interpreter.get_tensor_details():
        if tensor["dtype"] not in INTEGER_TYPES:
            raise QuantizationError(f"tensor '{tensor['name']}' is {np.dtype(tensor['dtype'])}, not int8")
    for tensor in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        if tensor["dtype"] is not np.int8:
            raise QuantizationError(f"'{tensor['name']}' goes in or out as {np.dtype(tensor['dtype'])}, not int8")


def unpublished_bundle(folder: Path, labels: tuple[str, ...], spec: Preprocessing) -> Bundle:
    """The model in that folder as serving would load it, before it has a name, a temperature or a threshold."""
    model = (folder / MODEL).read_bytes()
    return Bundle(
        folder=folder,
        manifest={},
        sha256="",
        name="unpublished",
        version="",
        weight_bits=weight_bits(model),
        tensors=tensors_of(model),
        labels=labels,
        groups={},
        preprocessing=spec,
        temperature=1.0,
        threshold=0.0,
    )


def tensors_of(model: bytes) -> dict[str, Tensor]:
    """The input and outputs of a .tflite file, by the names of its signature."""
    signature = _interpreter(model).get_signature_runner()
    return {
        name: Tensor(
            shape=tuple(int(side) for side in details["shape"]),
            scale=float(details["quantization"][0]),
            zero_point=int(details["quantization"][1]),
        )
        for name, details in {**signature.get_input_details(), **signature.get_output_details()}.items()
    }


class _Examiner:
    """Compares models with the float network on the same images."""

    def __init__(
        self,
        network: keras.Model,
        pixels: NDArray[np.uint8],
        spec: Preprocessing,
        truth: NDArray[np.int64] | None,
    ) -> None:
        self._pixels = pixels
        self._spec = spec
        self._truth = truth
        self._expected = np.concatenate(
            [
                network.predict(spec.normalized(some), verbose=0)["logits"]
                for some in np.split(pixels, range(_AT_ONCE, len(pixels), _AT_ONCE))
            ]
        )

    def score(self, candidate: Candidate, model: bytes) -> Score:
        """The candidate's score on all images; raises BundleError when its model cannot be served."""
        found = self._served(model, str(candidate))
        best = found.argmax(axis=1)
        return Score(
            **dataclasses.asdict(candidate),
            bytes=len(model),
            top1=None if self._truth is None else float((best == self._truth).mean()),
            agreement=float((best == self._expected.argmax(axis=1)).mean()),
            divergence=divergence(self._expected, found),
        )

    def _served(self, model: bytes, name: str) -> NDArray[np.float32]:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / MODEL).write_bytes(model)
            labels = tuple(str(label) for label in range(self._expected.shape[1]))
            bundle = unpublished_bundle(Path(folder), labels, self._spec)
            classifier = Classifier(bundle, Limits(), threads=os.cpu_count() or 1)
            return np.stack([classifier.logits(image) for image in progress(self._pixels, len(self._pixels), name)])


def divergence(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The mean Kullback-Leibler divergence, in nats, of the softmax of the `found` logits `(n, classes)` from that of
    the `expected` ones: 0 where they are alike.
    """
    log_expected, log_found = _log_softmax(expected), _log_softmax(found)
    return float((np.exp(log_expected) * (log_expected - log_found)).sum(axis=1).mean())


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


@contextmanager
def _workshop(network: keras.Model, calibration: NDArray[np.float32]) -> Iterator[Workshop]:
    with ExitStack() as stack:
        try:
            workshop = stack.enter_context(opened_workshop(network, calibration))
        # A full disk, say, is an error of TensorFlow's own here.
        except Exception as error:
            raise QuantizationError(f"the network cannot be exported: {_first_line(error)}") from error
        yield workshop


def _made(workshop: Workshop, candidate: Candidate, outputs: set[str]) -> bytes:
    try:
        model = workshop.make(candidate)
    except Exception as error:
        # The converters are others' code, and raise of all kinds.
        raise QuantizationError(f"{type(error).__name__}: {_first_line(error)}") from error
    check_integer_only(model)
    found = set(_interpreter(model).get_signature_runner().get_output_details())
    if found != outputs:
        raise QuantizationError(f"its outputs are {', '.join(sorted(found))}, not {', '.join(sorted(outputs))}")
    try:
        return portable(model)
    except ValueError as error:
        raise QuantizationError(f"it has more than one graph or signature: {error}") from error


def _candidate(score: Score) -> Candidate:
    return Candidate(score.converter, score.weight_bits, score.calibration_images)


def _in_words(score: Score) -> str:
    if score.error is not None:
        return f"of no use: {score.error}"
    measures = [f"agreement {score.agreement:.1%}"]
    if score.top1 is not None:
        measures.append(f"top-1 {score.top1:.1%}")
    return ", ".join((*measures, f"{(score.bytes or 0) / 1e6:.1f} MB"))


def _interpreter(model: bytes) -> Interpreter:
    try:
        return Interpreter(
            model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
    except ValueError as error:
        raise QuantizationError(f"this is not a TFLite model: {error}") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
