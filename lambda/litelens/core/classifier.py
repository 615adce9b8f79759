"""Classification: from an image's bytes to a prediction with calibrated confidences."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import IMAGE, LOGITS, MAP, Bundle
from litelens.core.engines import load_engine
from litelens.core.errors import InvalidOption
from litelens.core.images import DecodedImage, Limits, decode

DEFAULT_TOP_K = 5


@dataclass(frozen=True)
class Options:
    """The options of one classification.

    `top_k` is the number of labels; if the model has fewer, the prediction has all of them. `threshold` (0 to 1)
    replaces the bundle's threshold. With `heat_map`, the prediction has a heat map of the most confident label, or of
    `heat_map_label` if it is given.
    """

    top_k: int = DEFAULT_TOP_K
    threshold: float | None = None
    heat_map: bool = False
    heat_map_label: str | None = None


_DEFAULTS = Options()


@dataclass(frozen=True)
class Candidate:
    """A label with its index in the model's output and its confidence, a calibrated probability from 0 to 1.

    `group` is the label's coarse group, or None if the bundle has no groups.
    """

    label: str
    index: int
    confidence: float
    group: str | None = None


@dataclass(frozen=True)
class Group:
    """A coarse group with the sum of its labels' confidences."""

    label: str
    confidence: float


@dataclass(frozen=True)
class HeatMap:
    """A label's class activation map: scores, float32 `(h, w)`, higher where the image shows the label.

    `box` (left, top, right, bottom) is the part of the upright photo, in pixels, that the scores cover.
    """

    label: str
    scores: NDArray[np.float32]
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Timing:
    """Milliseconds spent on decoding and preprocessing, on inference, and in total."""

    decode: float
    inference: float
    total: float


@dataclass(frozen=True)
class Prediction:
    """The most confident labels, best first. The prediction is `uncertain` if the best is below the threshold.

    `group` is the coarse group with the highest confidence, or None if the bundle has no groups. `entropy` is the
    Shannon entropy in bits of the confidences p of all labels, the sum of p * log2(1 / p). It is 0 if one label has a
    confidence of 1, and log2 of the number of labels if all are equally confident. `width` and `height` are those of
    the upright photo, in pixels.
    """

    candidates: tuple[Candidate, ...]
    group: Group | None
    uncertain: bool
    entropy: float
    heat_map: HeatMap | None
    image_format: str
    width: int
    height: int
    timing: Timing


@dataclass(frozen=True)
class _Scores:
    """The logits, float32 `(classes,)`, and the class activation maps, float32 `(h, w, classes)`, if there are any."""

    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None


class Classifier:
    """A loaded bundle that classifies images. Not safe for concurrent use."""

    def __init__(self, bundle: Bundle, limits: Limits, threads: int, engine: str = "litert") -> None:
        """Load the bundle's model into an engine, one of engines.ENGINES; raises BundleError if that fails."""
        self.bundle = bundle
        self._limits = limits
        self._engine = load_engine(engine, bundle, threads)
        self._input_levels = bundle.tensors[IMAGE].quantize(bundle.preprocessing.normalization_table())

    def warm_up(self) -> float:
        """Run one inference on a black image; returns the milliseconds that it took."""
        spec = self.bundle.preprocessing
        started = time.perf_counter()
        self.logits(np.zeros((spec.height, spec.width, 3), np.uint8))
        return _milliseconds(time.perf_counter() - started)

    def check(self, options: Options) -> None:
        """Raise InvalidOption if an option is out of range or asks for something that this model does not have."""
        if options.top_k < 1:
            raise InvalidOption("top_k must be a whole number above 0.")
        if options.threshold is not None and not 0 <= options.threshold <= 1:
            raise InvalidOption("threshold must be a number from 0 to 1.")
        if options.heat_map and MAP not in self.bundle.tensors:
            raise InvalidOption("This model gives no heat maps.")
        if options.heat_map_label is not None and options.heat_map_label not in self.bundle.labels:
            raise InvalidOption("heatmap_label must be one of the model's labels, which GET /v1/model lists.")

    def decode(self, data: bytes) -> DecodedImage:
        """Decode an image at its full size, within this classifier's limits; raises ImageError."""
        return decode(data, self._limits)

    def classify(self, data: bytes, options: Options = _DEFAULTS) -> Prediction:
        """Classify the image in these bytes; raises InputError."""
        self.check(options)
        return self._predict(data, options)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the class scores, float32 `(classes,)`, of the input's pixels, uint8 `(height, width, 3)`.

        If the model has a class activation map, they are its mean. The output LOGITS is the same mean, but rounded to
        int8 once more, which makes similar scores equal.
        """
        return self._scores(pixels).logits

    def heat_map(self, pixels: NDArray[np.uint8], index: int) -> NDArray[np.float32] | None:
        """Return the scores of a class over the input, float32 `(h, w)`, a coarse grid; their mean is the class score.

        `pixels` are the input's, uint8 `(height, width, 3)`. Returns None if the model has no class activation map.
        """
        maps = self._scores(pixels).maps
        return None if maps is None else maps[:, :, index]

    def _scores(self, pixels: NDArray[np.uint8]) -> _Scores:
        channels = enumerate(self._input_levels.T)
        values = np.stack([levels.take(pixels[:, :, channel]) for channel, levels in channels], axis=-1)
        outputs = self._engine.run(values[np.newaxis])
        if MAP not in outputs:
            return _Scores(self.bundle.tensors[LOGITS].dequantize(outputs[LOGITS][0]), None)
        maps = self.bundle.tensors[MAP].dequantize(outputs[MAP][0])
        return _Scores(maps.mean(axis=(0, 1)), maps)

    def _predict(self, data: bytes, options: Options) -> Prediction:
        started = time.perf_counter()
        image = decode(data, self._limits, self.bundle.preprocessing)
        pixels = image.pixels(self.bundle.preprocessing)
        decoded = time.perf_counter()
        scores = self._scores(pixels)
        confidences = softmax(scores.logits / np.float32(self.bundle.temperature))
        inferred = time.perf_counter()
        best_first = np.argsort(-confidences, kind="stable")
        best = float(confidences[best_first[0]])
        threshold = self.bundle.threshold if options.threshold is None else options.threshold
        return Prediction(
            candidates=tuple(self._candidate(int(index), confidences) for index in best_first[: options.top_k]),
            group=self._best_group(confidences),
            uncertain=best < threshold,
            entropy=entropy(confidences),
            heat_map=self._heat_map(int(best_first[0]), scores, image, options),
            image_format=image.format,
            width=image.width,
            height=image.height,
            timing=Timing(
                decode=_milliseconds(decoded - started),
                inference=_milliseconds(inferred - decoded),
                total=_milliseconds(inferred - started),
            ),
        )

    def _candidate(self, index: int, confidences: NDArray[np.float32]) -> Candidate:
        label = self.bundle.labels[index]
        return Candidate(label, index, float(confidences[index]), self.bundle.groups.get(label))

    def _best_group(self, confidences: NDArray[np.float32]) -> Group | None:
        if not self.bundle.groups:
            return None
        sums: dict[str, float] = {}
        for label, confidence in zip(self.bundle.labels, confidences, strict=True):
            group = self.bundle.groups[label]
            sums[group] = sums.get(group, 0) + float(confidence)
        best = max(sums, key=sums.__getitem__)
        return Group(best, min(sums[best], 1))

    def _heat_map(self, best: int, scores: _Scores, image: DecodedImage, options: Options) -> HeatMap | None:
        if not options.heat_map or scores.maps is None:
            return None
        label = options.heat_map_label or self.bundle.labels[best]
        box = self.bundle.preprocessing.crop_box(image.width, image.height)
        return HeatMap(label, scores.maps[:, :, self.bundle.labels.index(label)], box)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn scores into probabilities over the last axis, float32."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


def entropy(probabilities: NDArray[np.float32]) -> float:
    """Return the Shannon entropy, in bits, of probabilities `(classes,)`."""
    # In float64, because 1 / p of the smallest float32 numbers overflows float32.
    possible = probabilities[probabilities > 0].astype(np.float64)
    return float((possible * np.log2(1 / possible)).sum())


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
