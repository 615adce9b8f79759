"""Quantize a fitted network: build several int8 .tflite files, measure them, and choose the best."""

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from litelens.core.bundle import FEATURES, LOGITS, MODEL, Bundle, Tensor
from litelens.core.classifier import Classifier
from litelens.core.errors import BundleError
from litelens.core.head import HEAD, Head, load_head
from litelens.core.images import Limits
from litelens.core.preprocessing import Preprocessing
from litelens_client.learning.files import write_file
from litelens_client.learning.progress import progress
from litelens_client.learning.tflite import read_tensors
from training.candidates import (
    Candidate,
    CandidateBuilder,
    Converter,
    WeightBits,
    candidate_builder,
    convert_for_openvino,
    count_weight_bits,
)
from training.errors import QuantizationError, first_line
from training.head import read_head

INTEGER_TYPES = (np.int8, np.int32)

_BATCH = 128


@dataclass(frozen=True)
class Score:
    """A candidate's settings and its measurements; shares are from 0 to 1.

    `agreement` is the share of images with the same best class as the float network, `divergence` the mean
    Kullback-Leibler divergence, in nats, of its softmax from the float network's, `top1` the share of images whose best
    class is the true one (None if the true classes are unknown). `error` is the reason, in a sentence, why a candidate
    cannot be used; it then has no measurements.
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
        raise QuantizationError(
            "TFLite export needs Keras' tensorflow backend; set KERAS_BACKEND for the step fit only"
        )


def quantize(
    network: keras.Model,
    candidates: Sequence[Candidate],
    calibration: NDArray[np.float32],
    pixels: NDArray[np.uint8],
    spec: Preprocessing,
    truth: NDArray[np.int64] | None,
) -> tuple[bytes, tuple[Score, ...]]:
    """Build and measure the candidates; return the best, as a .tflite file, and the scores of all.

    The file has int8 activations and per-channel int8 weights. `network` takes `image`, float32
    `(n, height, width, 3)`, and returns a dictionary with `logits` `(n, classes)` and, if it has them, `features`; the
    file's outputs have the same names. `calibration` holds inputs, float32 `(n, height, width, 3)`; a candidate uses
    the first `calibration_images` of them, or all if there are fewer. `pixels`, uint8 `(n, height, width, 3)`, are
    images from `Preprocessing.pixels`, used neither for training nor for testing, and `truth` their classes, int64
    `(n,)`.
    Candidates are measured with the serving code.

    The best candidate is the one that agrees most often with the float network. If several agree equally often, it is
    the one of them with the lowest divergence. Agreement p on n images has a standard error of sqrt(p * (1 - p) / n),
    which is 0.4% for 96% of 2,000 images. A smaller lead may be chance, so it does not prove that the settings are
    better. Top-1 is not used, because between candidates of similar agreement it differs only by chance.

    If a candidate cannot be built, has tensors other than integers or cannot be served, its score has the error. Raises
    QuantizationError, with the reasons, if no candidate can be used.
    """
    require_export_backend()
    if not len(pixels):
        raise QuantizationError("there are no images to measure the candidates on")
    distinct = dict.fromkeys(
        dataclasses.replace(candidate, calibration_images=min(candidate.calibration_images, len(calibration)))
        for candidate in candidates
    )
    scorer = _Scorer(network, pixels, spec, truth)
    models: dict[Score, bytes] = {}
    scores: list[Score] = []
    with _export(network, calibration) as builder:
        for candidate in distinct:
            try:
                model = _build(builder, candidate, set(network.output))
                score = scorer.score(candidate, model)
                models[score] = model
            except (QuantizationError, BundleError) as error:
                score = Score(**dataclasses.asdict(candidate), error=str(error))
            print(f"{candidate}: {_summarize(score)}", flush=True)
            scores.append(score)
    best = choose_best(scores)
    return models[best], tuple(dataclasses.replace(score, chosen=score is best) for score in scores)


def choose_best(scores: Sequence[Score]) -> Score:
    """Return the score with the highest agreement; among equals the lowest divergence decides, then the order.

    Raises QuantizationError, with the reasons, if all candidates have failed.
    """
    ranked = [
        (-score.agreement, score.divergence, score)
        for score in scores
        if score.agreement is not None and score.divergence is not None
    ]
    if not ranked:
        reasons = "; ".join(f"{_candidate(score)}: {score.error}" for score in scores)
        raise QuantizationError(f"all candidates have failed: {reasons}")
    return min(ranked, key=lambda entry: entry[:2])[2]


def check_integer_only(model: bytes) -> None:
    """Raise QuantizationError, naming the tensor, if a .tflite file has a tensor that is not int8 or an int32 bias."""
    interpreter = _interpreter(model)
    for tensor in interpreter.get_tensor_details():
        if tensor["dtype"] not in INTEGER_TYPES:
            raise QuantizationError(f"tensor '{tensor['name']}' is {np.dtype(tensor['dtype'])}, not int8")
    for tensor in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        if tensor["dtype"] is not np.int8:
            raise QuantizationError(f"the input or output '{tensor['name']}' is {np.dtype(tensor['dtype'])}, not int8")


def save_model(folder: Path, model: bytes, head: Head | None) -> None:
    """Write a .tflite file to a folder, and the head if the model has features."""
    if head:
        write_file(folder / HEAD, head.to_bytes())
    write_file(folder / MODEL, model)


def unpublished_bundle(
    folder: Path, labels: tuple[str, ...], spec: Preprocessing, temperature: float = 1.0, threshold: float = 0.0
) -> Bundle:
    """Describe the model in a folder, which `save_model` wrote, as a bundle for the serving code.

    Raises BundleError if the model has features, and its head is missing or damaged.
    """
    model = (folder / MODEL).read_bytes()
    tensors = read_tensors(model)
    return Bundle(
        folder=folder,
        manifest={},
        sha256="",
        name="unpublished",
        version="",
        weight_bits=count_weight_bits(model),
        tensors=tensors,
        labels=labels,
        groups={},
        preprocessing=spec,
        temperature=temperature,
        threshold=threshold,
        head=_load_head(folder, tensors),
    )


def _load_head(folder: Path, tensors: Mapping[str, Tensor]) -> Head | None:
    if FEATURES not in tensors:
        return None
    return load_head(folder / HEAD, classes=tensors[LOGITS].shape[1], channels=tensors[FEATURES].shape[3])


class _Scorer:
    """Compares models with the float network on the same images."""

    def __init__(
        self,
        network: keras.Model,
        pixels: NDArray[np.uint8],
        spec: Preprocessing,
        truth: NDArray[np.int64] | None,
    ) -> None:
        self._head = read_head(network)
        self._pixels = pixels
        self._spec = spec
        self._truth = truth
        self._expected = np.concatenate(
            [
                network.predict(spec.normalize(batch), verbose=0)[LOGITS]
                for batch in np.split(pixels, range(_BATCH, len(pixels), _BATCH))
            ]
        )

    def score(self, candidate: Candidate, model: bytes) -> Score:
        """Measure a candidate on all images; raises BundleError if its model cannot be served."""
        found = self._serve(model, str(candidate))
        best = found.argmax(axis=1)
        return Score(
            **dataclasses.asdict(candidate),
            bytes=len(model),
            top1=None if self._truth is None else float((best == self._truth).mean()),
            agreement=float((best == self._expected.argmax(axis=1)).mean()),
            divergence=divergence(self._expected, found),
        )

    def _serve(self, model: bytes, name: str) -> NDArray[np.float32]:
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder), model, self._head)
            labels = tuple(str(label) for label in range(self._expected.shape[1]))
            bundle = unpublished_bundle(Path(folder), labels, self._spec)
            classifier = Classifier(bundle, Limits(), threads=os.cpu_count() or 1)
            return np.stack([classifier.logits(image) for image in progress(self._pixels, len(self._pixels), name)])


def divergence(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Compute the mean Kullback-Leibler divergence, in nats, of the softmax of `found` from that of `expected`.

    Both are logits `(n, classes)`. The divergence is 0 if the softmaxes are equal.
    """
    log_expected, log_found = _log_softmax(expected), _log_softmax(found)
    return float((np.exp(log_expected) * (log_expected - log_found)).sum(axis=1).mean())


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


@contextmanager
def _export(network: keras.Model, calibration: NDArray[np.float32]) -> Iterator[CandidateBuilder]:
    with ExitStack() as stack:
        try:
            builder = stack.enter_context(candidate_builder(network, calibration))
        # TensorFlow has its own error types, for example for a full disk.
        except Exception as error:
            raise QuantizationError(f"the network cannot be exported: {first_line(error)}") from error
        yield builder


def _build(builder: CandidateBuilder, candidate: Candidate, outputs: set[str]) -> bytes:
    try:
        model = builder.build(candidate)
    except Exception as error:
        # The converters raise errors of any type.
        raise QuantizationError(f"{type(error).__name__}: {first_line(error)}") from error
    check_integer_only(model)
    found = set(_interpreter(model).get_signature_runner().get_output_details())
    if found != outputs:
        raise QuantizationError(f"its outputs are {', '.join(sorted(found))}, not {', '.join(sorted(outputs))}")
    try:
        return convert_for_openvino(model)
    except ValueError as error:
        raise QuantizationError(f"it has more than one graph or signature: {error}") from error


def _candidate(score: Score) -> Candidate:
    return Candidate(score.converter, score.weight_bits, score.calibration_images)


def _summarize(score: Score) -> str:
    if score.error is not None:
        return f"failed: {score.error}"
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
