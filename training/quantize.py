"""Quantize a fitted network: build several int8 .tflite files, measure them, and choose the best.

A network with layers that have no int8 form becomes a float32 .tflite file instead.
"""

import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from litelens.core.bundle import FEATURES, LOGITS, MODEL, Bundle, Tensor, WeightBits
from litelens.core.classifier import Classifier
from litelens.core.errors import BundleError
from litelens.core.head import HEAD, Head, load_head
from litelens.core.images import Limits
from litelens.core.preprocessing import Preprocessing
from litelens_client.learning.files import write_file
from litelens_client.learning.progress import progress
from litelens_client.learning.tflite import read_tensors
from litelens_client.quantizing.comparison import divergence
from litelens_client.quantizing.int8 import convert_for_openvino, count_weight_bits
from training.candidates import (
    FLOAT,
    Candidate,
    CandidateBuilder,
    Converter,
    candidate_builder,
)
from training.errors import QuantizationError, first_line
from training.head import read_head
from training.saved_model_import import FrozenGraph

INTEGER_TYPES = (np.int8, np.int32)

_BATCH = 128
_MAX_NAMED = 5

# The converters convert to float and back around operations without an int8 form, under these names.
_CONVERSION = re.compile(r"_(de)?quant\d*$|^tfl\.(de)?quantize\d*$")


@dataclass(frozen=True)
class Score:
    """A candidate's settings and its measurements; shares are from 0 to 1.

    `agreement` is the share of images with the same best class as the float network, `divergence` the mean
    Kullback-Leibler divergence, in nats, of its softmax from the float network's, `top1` the share of images whose best
    class is the true one (None if the true classes are unknown). `error` is the reason, in a sentence, why a candidate
    cannot be used; it then has no measurements. `float_layers` names the layers without an int8 form, for which the
    float32 candidate was made.
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
    float_layers: tuple[str, ...] = ()


class _FloatTensorsError(QuantizationError):
    """An int8 model still has float tensors, `names`."""

    def __init__(self, names: Sequence[str], kind: str) -> None:
        super().__init__(f"tensor '{names[0]}' is {kind}, not int8")
        self.names = tuple(names)


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

    The file has int8 activations and per-channel int8 weights. If no candidate can have them, because the network has
    layers without an int8 form, the file is float32, and the layers are printed; so it is if the only candidate is not
    quantized. `network` takes `image`, float32 `(n, height, width, 3)`, and returns a dictionary with `logits`
    `(n, classes)` and, if it has them, `features`; the file's outputs have the same names. `calibration` holds inputs,
    float32 `(n, height, width, 3)`; a candidate uses the first `calibration_images` of them, or all if there are fewer.
    `pixels`, uint8 `(n, height, width, 3)`, are images from `Preprocessing.pixels`, used neither for training nor for
    testing, and `truth` their classes, int64 `(n,)`. Candidates are measured with the serving code.

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
        if candidate.converter != "none"
    )
    scorer = _Scorer(network, pixels, spec, truth)
    models: dict[Score, bytes] = {}
    scores: list[Score] = []
    float_tensors: list[str] = []
    with _export(network, calibration) as builder:

        def measure(candidate: Candidate, float_layers: tuple[str, ...] = ()) -> None:
            try:
                model = _build(builder, candidate, set(network.output))
                score = dataclasses.replace(scorer.score(candidate, model), float_layers=float_layers)
                models[score] = model
            except (QuantizationError, BundleError) as error:
                score = Score(**dataclasses.asdict(candidate), error=str(error))
                float_tensors.extend(error.names if isinstance(error, _FloatTensorsError) else ())
            print(f"{candidate}: {_summarize(score)}", flush=True)
            scores.append(score)

        for candidate in distinct:
            measure(candidate)
        if not models and (float_tensors or not distinct):
            layers = name_layers(float_tensors, network)
            if layers:
                print(f"Not quantized, because layers have no int8 form: {describe_layers(layers)}.", flush=True)
            measure(FLOAT, layers)
    best = choose_best(scores)
    return models[best], tuple(dataclasses.replace(score, chosen=score is best) for score in scores)


def name_layers(tensors: Sequence[str], network: keras.Model) -> tuple[str, ...]:
    """Return the layers that compute these tensors of a .tflite file, as "Kind 'name'", or as a name inside a graph.

    The name of a tensor has those of its layer and of the models around it: network_1/layer_1/operation.
    """
    kinds = {layer.name: type(layer).__name__ for layer in network.operations}
    found: dict[str, None] = {}
    for tensor in tensors:
        if _CONVERSION.search(tensor):
            continue
        for name in tensor.split(";"):
            *scopes, _ = name.split("/")
            if not scopes:
                continue
            known = [layer for scope in scopes if (layer := _find_name(scope, kinds)) and not _is_graph(layer, kinds)]
            found[f"{kinds[known[-1]]} '{known[-1]}'" if known else f"'{scopes[-1]}'"] = None
    return tuple(found)


def describe_layers(layers: Sequence[str]) -> str:
    """List the first few layers."""
    return ", ".join(layers[:_MAX_NAMED]) + (f" and {more} more" if (more := len(layers) - _MAX_NAMED) > 0 else "")


def _find_name(scope: str, names: Mapping[str, str]) -> str | None:
    """Return the layer of a scope, to which Keras' export may have added a number."""
    return scope if scope in names else next((n for n in (re.sub(r"_\d+$", "", scope),) if n in names), None)


def _is_graph(layer: str, kinds: Mapping[str, str]) -> bool:
    """Return True for the layer that has all operations of a SavedModel, whose own scopes are inside its scope."""
    return kinds[layer] == str(FrozenGraph.__name__)


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
    others = [tensor for tensor in interpreter.get_tensor_details() if tensor["dtype"] not in INTEGER_TYPES]
    if others:
        raise _FloatTensorsError([tensor["name"] for tensor in others], str(np.dtype(others[0]["dtype"])))
    for tensor in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        if tensor["dtype"] is not np.int8:
            raise QuantizationError(f"the input or output '{tensor['name']}' is {np.dtype(tensor['dtype'])}, not int8")


def check_floats_only(model: bytes) -> None:
    """Raise QuantizationError if the inputs or outputs of a .tflite file are not float32."""
    interpreter = _interpreter(model)
    for tensor in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        if tensor["dtype"] is not np.float32:
            raise QuantizationError(
                f"the input or output '{tensor['name']}' is {np.dtype(tensor['dtype'])}, not float32"
            )


def is_float(model: bytes) -> bool:
    """Return True if a .tflite file takes floats; raises QuantizationError if it is not a .tflite file."""
    return any(tensor["dtype"] is np.float32 for tensor in _interpreter(model).get_input_details())


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
    (check_floats_only if candidate == FLOAT else check_integer_only)(model)
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
