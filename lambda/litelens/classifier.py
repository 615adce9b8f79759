"""From an image's bytes to a prediction: the whole of what litelens does, in one place."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litelens.bundle import Bundle
from litelens.engines import LiteRT
from litelens.errors import BundleError, InvalidOption
from litelens.images import DecodedImage, Limits, decode

DEFAULT_TOP_K = 5

# The model's outputs; the second is not there in models whose head has no such map.
LOGITS, MAP = "logits", "class_activation_map"


@dataclass(frozen=True)
class Candidate:
    """A label with its index in the model's output and its calibrated probability (0 to 1)."""

    label: str
    index: int
    confidence: float


@dataclass(frozen=True)
class Timing:
    """Milliseconds spent on decoding (to model input), on inference, and altogether."""

    decode: float
    inference: float
    total: float


@dataclass(frozen=True)
class Prediction:
    """The likeliest labels, best first; `uncertain` when the best is below the bundle's threshold."""

    candidates: tuple[Candidate, ...]
    uncertain: bool
    image_format: str
    width: int
    height: int
    timing: Timing


class Classifier:
    """A bundle made ready to answer. Not safe for concurrent use."""

    def __init__(self, bundle: Bundle, limits: Limits, threads: int) -> None:
        """Load the bundle's model; raises BundleError when it is not what the manifest says."""
        self.bundle = bundle
        self._limits = limits
        self._engine = _load_engine(bundle, threads)
        self._input_levels = self._engine.quantize(bundle.preprocessing.values())

    def warm_up(self) -> float:
        """Run one real inference; returns the milliseconds it took."""
        spec = self.bundle.preprocessing
        started = time.perf_counter()
        self.logits(np.zeros((spec.height, spec.width, 3), np.uint8))
        return _milliseconds(time.perf_counter() - started)

    def classify(self, data: bytes, top_k: int = DEFAULT_TOP_K) -> Prediction:
        """What the image in these bytes shows; raises InputError."""
        if not 1 <= top_k <= len(self.bundle.labels):
            raise InvalidOption(f"top_k must be a whole number from 1 to {len(self.bundle.labels)}.")
        started = time.perf_counter()
        image = decode(data, self._limits)
        pixels = self.bundle.preprocessing.pixels(image.rgb)
        decoded = time.perf_counter()
        confidences = softmax(self.logits(pixels) / np.float32(self.bundle.temperature))
        inferred = time.perf_counter()
        timing = Timing(
            decode=_milliseconds(decoded - started),
            inference=_milliseconds(inferred - decoded),
            total=_milliseconds(inferred - started),
        )
        return self._prediction(image, confidences, top_k, timing)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The class scores, float32 `(classes,)`, of the input's pixels, uint8 `(height, width, 3)`.

        They are the mean of the class activation map where the model has one: the `logits` output is the same, but
        rounded to int8 once more, which makes ties of near scores.
        """
        outputs = self._run(pixels)
        maps = outputs.get(MAP)
        scores: NDArray[np.float32] = outputs[LOGITS][0] if maps is None else maps[0].mean(axis=(0, 1))
        return scores

    def heat_map(self, pixels: NDArray[np.uint8], index: int) -> NDArray[np.float32] | None:
        """Where in the input a class scores, float32 `(h, w)` on a coarser grid, whose mean is the class's score.

        None when the model has no class activation map.
        """
        maps = self._run(pixels).get(MAP)
        return None if maps is None else maps[0, :, :, index]

    def _run(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        values = self._input_levels[pixels, np.arange(3)]
        return self._engine.run(values[np.newaxis])

    def _prediction(
        self, image: DecodedImage, confidences: NDArray[np.float32], top_k: int, timing: Timing
    ) -> Prediction:
        best_first = np.argsort(-confidences, kind="stable")[:top_k]
        return Prediction(
            candidates=tuple(
                Candidate(self.bundle.labels[index], int(index), float(confidences[index])) for index in best_first
            ),
            uncertain=float(confidences[best_first[0]]) < self.bundle.threshold,
            image_format=image.format,
            width=image.rgb.width,
            height=image.rgb.height,
            timing=timing,
        )


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities over the last axis, as float32."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


def _load_engine(bundle: Bundle, threads: int) -> LiteRT:
    try:
        engine = LiteRT(bundle.model, threads)
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"{bundle.model} is not a model that can be run here: {error}") from error
    spec = bundle.preprocessing
    expected_input = (1, spec.height, spec.width, 3)
    if engine.input_shape != expected_input:
        raise BundleError(f"{bundle.model} takes input {engine.input_shape}, but the manifest says {expected_input}")
    logits = engine.output_shapes.get(LOGITS)
    if logits != (1, len(bundle.labels)):
        raise BundleError(f"{bundle.model} gives logits {logits}, but the manifest has {len(bundle.labels)} labels")
    maps = engine.output_shapes.get(MAP)
    if maps is not None and (len(maps) != 4 or maps[3] != len(bundle.labels)):
        raise BundleError(f"{bundle.model} gives maps {maps}, but the manifest has {len(bundle.labels)} labels")
    return engine


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
