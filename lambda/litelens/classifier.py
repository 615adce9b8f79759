"""From an image's bytes to a prediction: the whole of what litelens does, in one place."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litelens.bundle import IMAGE, LOGITS, MAP, Bundle
from litelens.engines import load_engine
from litelens.errors import InvalidOption
from litelens.images import DecodedImage, Limits, decode

DEFAULT_TOP_K = 5


@dataclass(frozen=True)
class Options:
    """What is asked of a prediction: how many labels (or all, if the model has fewer), and whether with a heat map.

    `threshold` (0 to 1) replaces the bundle's; the heat map is of the best label unless `heat_map_label` names one.
    """

    top_k: int = DEFAULT_TOP_K
    threshold: float | None = None
    heat_map: bool = False
    heat_map_label: str | None = None


_DEFAULTS = Options()


@dataclass(frozen=True)
class Candidate:
    """A label with its index in the model's output and its calibrated probability (0 to 1).

    `group` is the coarse group that the label belongs to, where the bundle has groups.
    """

    label: str
    index: int
    confidence: float
    group: str | None = None


@dataclass(frozen=True)
class Group:
    """A coarse group with the sum of its labels' probabilities."""

    label: str
    confidence: float


@dataclass(frozen=True)
class HeatMap:
    """Where a label scores: float32 `(h, w)`, and the box (left, top, right, bottom) that it covers in the photo."""

    label: str
    scores: NDArray[np.float32]
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Timing:
    """Milliseconds spent on decoding (to model input), on inference, and altogether."""

    decode: float
    inference: float
    total: float


@dataclass(frozen=True)
class Prediction:
    """The likeliest labels, best first; `uncertain` when the best is below the threshold.

    `entropy` is that of all labels' confidences p, the sum of p * log2(1 / p), in bits: 0 when one label has it all,
    log2 of the number of labels when each has the same.
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
    """The class scores, float32 `(classes,)`, and their maps, float32 `(h, w, classes)`, where the model has them."""

    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None


class Classifier:
    """A bundle made ready to answer. Not safe for concurrent use."""

    def __init__(self, bundle: Bundle, limits: Limits, threads: int, engine: str = "litert") -> None:
        """Load the bundle's model into one of engines.ENGINES; raises BundleError when that cannot be done."""
        self.bundle = bundle
        self._limits = limits
        self._engine = load_engine(engine, bundle, threads)
        self._input_levels = bundle.tensors[IMAGE].levels(bundle.preprocessing.values())

    def warm_up(self) -> float:
        """Run one real inference; returns the milliseconds it took."""
        spec = self.bundle.preprocessing
        started = time.perf_counter()
        self.logits(np.zeros((spec.height, spec.width, 3), np.uint8))
        return _milliseconds(time.perf_counter() - started)

    def check(self, options: Options) -> None:
        """Raises InvalidOption when this model cannot do what is asked."""
        if options.top_k < 1:
            raise InvalidOption("top_k must be a whole number above 0.")
        if options.threshold is not None and not 0 <= options.threshold <= 1:
            raise InvalidOption("threshold must be a number from 0 to 1.")
        if options.heat_map and MAP not in self.bundle.tensors:
            raise InvalidOption("This model gives no heat maps.")
        if options.heat_map_label is not None and options.heat_map_label not in self.bundle.labels:
            raise InvalidOption("heatmap_label must be one of the model's labels, which GET /v1/model lists.")

    def decode(self, data: bytes) -> DecodedImage:
        """The whole image in these bytes, held to this classifier's limits; raises ImageError."""
        return decode(data, self._limits)

    def classify(self, data: bytes, options: Options = _DEFAULTS) -> Prediction:
        """What the image in these bytes shows; raises InputError."""
        self.check(options)
        return self._predict(data, options)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The class scores, float32 `(classes,)`, of the input's pixels, uint8 `(height, width, 3)`.

        They are the mean of the class activation map where the model has one: the `logits` output is the same, but
        rounded to int8 once more, which makes ties of near scores.
        """
        return self._scores(pixels).logits

    def heat_map(self, pixels: NDArray[np.uint8], index: int) -> NDArray[np.float32] | None:
        """Where in the input a class scores, float32 `(h, w)` on a coarser grid, whose mean is the class's score.

        None when the model has no class activation map.
        """
        maps = self._scores(pixels).maps
        return None if maps is None else maps[:, :, index]

    def _scores(self, pixels: NDArray[np.uint8]) -> _Scores:
        channels = enumerate(self._input_levels.T)
        values = np.stack([levels.take(pixels[:, :, channel]) for channel, levels in channels], axis=-1)
        outputs = self._engine.run(values[np.newaxis])
        if MAP not in outputs:
            return _Scores(self.bundle.tensors[LOGITS].values(outputs[LOGITS][0]), None)
        maps = self.bundle.tensors[MAP].values(outputs[MAP][0])
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
            heat_map=self._map_of(int(best_first[0]), scores, image, options),
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

    def _map_of(self, best: int, scores: _Scores, image: DecodedImage, options: Options) -> HeatMap | None:
        if not options.heat_map or scores.maps is None:
            return None
        label = options.heat_map_label or self.bundle.labels[best]
        box = self.bundle.preprocessing.box(image.width, image.height)
        return HeatMap(label, scores.maps[:, :, self.bundle.labels.index(label)], box)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities over the last axis, as float32."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


def entropy(probabilities: NDArray[np.float32]) -> float:
    """Shannon's entropy in bits, of probabilities `(classes,)`."""
    # In float64, as 1 / p of the least float32 is none.
    possible = probabilities[probabilities > 0].astype(np.float64)
    return float((possible * np.log2(1 / possible)).sum())


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
