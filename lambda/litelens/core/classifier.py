"""Classification: from an image's bytes to a prediction with calibrated confidences."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import FEATURES, IMAGE, LOGITS, Bundle, Tensor
from litelens.core.engines import load_engine
from litelens.core.errors import InvalidOption, ModelUnusable
from litelens.core.images import DecodedImage, Limits, decode
from litelens.core.probabilities import entropy, log_odds, lowest_probability, sigmoid, softmax

# The memory in bytes that predict() may allocate. A decoder that runs in another thread must leave it free.
PREDICTION_BYTES = 16_000_000

# The number of labels in a prediction if the request does not say it. A multi-label model gives all labels, unless it
# has so many that the answer would be too large for the results table.
DEFAULT_TOP_K = 5
DEFAULT_MULTI_LABEL_TOP_K = 1000


@dataclass(frozen=True)
class Options:
    """The options of one classification.

    `top_k` is the number of labels; if the model has fewer, the prediction has all of them. The default is
    DEFAULT_TOP_K, or DEFAULT_MULTI_LABEL_TOP_K for a multi-label model. `threshold` (0 to 1) replaces the bundle's
    threshold, or those of all labels. With `heat_map`, the prediction has a heat map of the most confident label, or of
    `heat_map_label` if it is given. With `embedding`, it has the photo's embedding.
    """

    top_k: int | None = None
    threshold: float | None = None
    heat_map: bool = False
    heat_map_label: str | None = None
    embedding: bool = False


_DEFAULTS = Options()


@dataclass(frozen=True)
class Candidate:
    """A label with its index among the model's labels and its confidence, a calibrated probability from 0 to 1.

    `group` is the label's coarse group, or None if the bundle has no groups. `present` says whether the confidence
    reaches the label's threshold; it is None if the labels exclude each other.
    """

    label: str
    index: int
    confidence: float
    group: str | None = None
    present: bool | None = None


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
class Embedding:
    """A photo's pooled features divided by their L2 norm, float32 `(channels,)`, and what identifies the features."""

    backbone: str
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Timing:
    """Milliseconds spent on decoding and preprocessing, on inference, and in total."""

    decode: float
    inference: float
    total: float


@dataclass(frozen=True)
class Prediction:
    """The most confident labels, best first.

    The prediction is `uncertain` if no label's confidence reaches the threshold, or if the photo is unfamiliar.
    `uncertain_by_default` says the same without the option `threshold`. A photo is `unfamiliar` if it is unlike all
    photos that the model was learned from; None if the model cannot tell. `group` is the coarse group with the highest
    confidence, or None if the bundle has no groups. `entropy` is the Shannon entropy in bits of the confidences p of
    all labels, the sum of p * log2(1 / p). It is 0 if one label has a confidence of 1, and log2 of the number of labels
    if all are equally confident. In a multi-label prediction, it is the sum of the entropies of all labels, each of
    which is at most 1. `image_bytes` is the size of the file; `width` and `height` are those of the upright photo, in
    pixels. `embedding` is set if the options ask for it.
    """

    candidates: tuple[Candidate, ...]
    group: Group | None
    uncertain: bool
    uncertain_by_default: bool
    unfamiliar: bool | None
    entropy: float
    heat_map: HeatMap | None
    embedding: Embedding | None
    image_format: str
    image_bytes: int
    width: int
    height: int
    timing: Timing


@dataclass(frozen=True)
class PreparedImage:
    """An image that was prepared for the model: `levels` of the tensor IMAGE, `(1, height, width, 3)`.

    `format` (ImageFormat.name) and `bytes` are the file's format and size; `width` and `height` are those of the
    upright image, in pixels. `milliseconds` is the time that the preparation took.
    """

    levels: NDArray[Any]
    format: str
    bytes: int
    width: int
    height: int
    milliseconds: float


@dataclass(frozen=True)
class Features:
    """The model's output FEATURES for one image.

    `levels` are the raw values of `tensor`, `(h, w, channels)`. `pooled` is the mean of the real values over h and w,
    float32 `(channels,)`.
    """

    levels: NDArray[Any]
    tensor: Tensor
    pooled: NDArray[np.float32]

    @property
    def grid(self) -> NDArray[np.float32]:
        """The features as real values, float32 `(h, w, channels)`."""
        return self.tensor.dequantize(self.levels)

    @property
    def embedding(self) -> NDArray[np.float32]:
        """The pooled features divided by their L2 norm, so that the product of two embeddings is their cosine."""
        embedding: NDArray[np.float32] = self.pooled / max(float(np.linalg.norm(self.pooled)), 1e-12)
        return embedding


@dataclass(frozen=True)
class _Output:
    """The logits, float32 `(classes,)`, and the features that they were computed from, if the model has features."""

    logits: NDArray[np.float32]
    features: Features | None


class Classifier:
    """A loaded bundle that classifies images.

    Not safe for concurrent use, except that prepare() may run while predict() runs in another thread.
    """

    def __init__(self, bundle: Bundle, limits: Limits, threads: int, engine: str = "litert") -> None:
        """Load the bundle's model into an engine, one of engines.ENGINES; raises BundleError if that fails."""
        self.bundle = bundle
        self._limits = limits
        self._engine = load_engine(engine, bundle, threads)
        self._input_levels = bundle.tensors[IMAGE].quantize(bundle.preprocessing.normalization_table())
        self._byte_table = _byte_table(self._input_levels)
        groups = [bundle.groups[label] for label in bundle.labels] if bundle.groups else []
        self._group_names = list(dict.fromkeys(groups))
        self._group_indexes = np.array([self._group_names.index(group) for group in groups], np.int64)

    def warm_up(self) -> float:
        """Run one inference on a black image; returns the milliseconds that it took."""
        spec = self.bundle.preprocessing
        started = time.perf_counter()
        self.logits(np.zeros((spec.height, spec.width, 3), np.uint8))
        return _milliseconds(time.perf_counter() - started)

    def check(self, options: Options) -> None:
        """Raise InvalidOption if an option is out of range or asks for something that this model does not have."""
        if options.top_k is not None and options.top_k < 1:
            raise InvalidOption("top_k must be a whole number above 0.")
        if options.threshold is not None and not 0 <= options.threshold <= 1:
            raise InvalidOption("threshold must be a number from 0 to 1.")
        if options.heat_map and not self.bundle.head:
            raise InvalidOption("This model gives no heat maps.")
        if options.embedding and not self.bundle.head:
            raise InvalidOption("This model gives no embeddings.")
        if options.heat_map_label is not None and options.heat_map_label not in self.bundle.labels:
            raise InvalidOption("heatmap_label must be one of the model's labels, which GET /v1/model lists.")

    def decode(self, data: bytes) -> DecodedImage:
        """Decode an image at its full size, within this classifier's limits; raises ImageError."""
        return decode(data, self._limits)

    def classify(self, data: bytes, options: Options = _DEFAULTS) -> Prediction:
        """Classify the image in these bytes; raises InputError or ModelUnusable."""
        self.check(options)
        return self.predict(self.prepare(data), options)

    def prepare(self, data: bytes) -> PreparedImage:
        """Decode an image, and crop, resize and quantize it for the model; raises ImageError."""
        started = time.perf_counter()
        image = decode(data, self._limits, self.bundle.preprocessing)
        levels = self._levels(image.pixels(self.bundle.preprocessing))
        took = _milliseconds(time.perf_counter() - started)
        return PreparedImage(levels, image.format, len(data), image.width, image.height, took)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the class scores, float32 `(classes,)`, of the input's pixels, uint8 `(height, width, 3)`.

        If the bundle has a head, it computes them. The model's output LOGITS are the same scores, but rounded to int8,
        which makes similar scores equal. If the model's output has probabilities, the scores are their logarithms, or
        their log odds if the labels do not exclude each other. The scores of a binary model are -z / 2 and z / 2,
        whose softmax has the sigmoid of its only score z.
        Raises ModelUnusable if a score is not a finite number.
        """
        return self._run(self._levels(pixels)).logits

    def features(self, pixels: NDArray[np.uint8]) -> Features:
        """Return the features of the input's pixels, uint8 `(height, width, 3)`; only for a bundle with a head."""
        return self._features(self._engine.run(self._levels(pixels)))

    def heat_map(self, pixels: NDArray[np.uint8], index: int) -> NDArray[np.float32] | None:
        """Return the scores of a class over the input, float32 `(h, w)`, a coarse grid; their mean is the class score.

        `pixels` are the input's, uint8 `(height, width, 3)`. Returns None if the bundle has no head.
        """
        return self.bundle.head.activation_map(self.features(pixels).grid, index) if self.bundle.head else None

    def _levels(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        table = self._input_levels
        if self._byte_table:
            # Three times as fast as NumPy, which converts all pixels to 64-bit indices.
            data = pixels.tobytes().translate(self._byte_table)
            return np.frombuffer(data, table.dtype).reshape(1, *pixels.shape)
        values = np.stack([levels.take(pixels[:, :, channel]) for channel, levels in enumerate(table.T)], axis=-1)
        return values[np.newaxis]

    def _run(self, levels: NDArray[Any]) -> _Output:
        outputs = self._engine.run(levels)
        if self.bundle.head is None:
            return _Output(self._scores(outputs[LOGITS][0]), None)
        features = self._features(outputs)
        return _Output(self.bundle.head.logits(features.pooled), features)

    def _scores(self, output: NDArray[Any]) -> NDArray[np.float32]:
        """Return the class scores, float32 `(classes,)`, in the model's output LOGITS of one image."""
        tensor = self.bundle.tensors[LOGITS]
        scores = tensor.dequantize(output)
        if self.bundle.output == "probabilities":
            if self.bundle.is_multi_label or self.bundle.is_binary:
                scores = log_odds(scores, tensor)
            else:
                scores = np.log(np.maximum(scores, lowest_probability(tensor)))
        if self.bundle.is_binary:
            scores = np.concatenate([-scores, scores]).astype(np.float32) * np.float32(0.5)
        if not np.isfinite(scores).all():
            raise ModelUnusable(
                f"The model {self.bundle.name} cannot be used: its scores of this image are not finite numbers."
            )
        return scores

    def _features(self, outputs: Mapping[str, NDArray[Any]]) -> Features:
        levels, tensor = outputs[FEATURES][0], self.bundle.tensors[FEATURES]
        height, width, _ = levels.shape
        pooled = levels.sum(axis=(0, 1), dtype=np.float32) / np.float32(height * width)
        return Features(levels, tensor, tensor.dequantize(pooled))

    def predict(self, image: PreparedImage, options: Options = _DEFAULTS) -> Prediction:
        """Classify a prepared image with options that check() accepts; raises ModelUnusable."""
        started = time.perf_counter()
        output = self._run(image.levels)
        scores = output.logits / np.float32(self.bundle.temperature)
        confidences = sigmoid(scores) if self.bundle.is_multi_label else softmax(scores)
        best_first = np.argsort(-confidences, kind="stable")
        best = int(best_first[0])
        unfamiliar = self._is_unfamiliar(output.features, best)
        took = _milliseconds(time.perf_counter() - started)
        accepted = self._accepted(confidences, options.threshold)
        accepted_by_default = accepted if options.threshold is None else self._accepted(confidences)
        candidates = (
            self._candidate(int(index), confidences, accepted) for index in best_first[: self._top_k(options)]
        )
        return Prediction(
            candidates=tuple(candidates),
            group=self._best_group(confidences),
            uncertain=not accepted.any() or unfamiliar is True,
            uncertain_by_default=not accepted_by_default.any() or unfamiliar is True,
            unfamiliar=unfamiliar,
            entropy=entropy(
                np.concatenate([confidences, 1 - confidences]) if self.bundle.is_multi_label else confidences
            ),
            heat_map=self._heat_map(best, output.features, image, options),
            embedding=Embedding(self.bundle.backbone, output.features.embedding)
            if options.embedding and output.features
            else None,
            image_format=image.format,
            image_bytes=image.bytes,
            width=image.width,
            height=image.height,
            timing=Timing(image.milliseconds, took, round(image.milliseconds + took, 3)),
        )

    def _top_k(self, options: Options) -> int:
        if options.top_k is not None:
            return options.top_k
        return DEFAULT_MULTI_LABEL_TOP_K if self.bundle.is_multi_label else DEFAULT_TOP_K

    def _accepted(self, confidences: NDArray[np.float32], threshold: float | None = None) -> NDArray[np.bool_]:
        """Return whether each confidence reaches its threshold, bool `(labels,)`; a given threshold is for all labels.

        In float64, because rounding to float32 can raise a threshold.
        """
        usual = self.bundle.thresholds if self.bundle.is_multi_label else self.bundle.threshold
        thresholds = np.asarray(usual if threshold is None else threshold, np.float64)
        accepted: NDArray[np.bool_] = confidences.astype(np.float64) >= thresholds
        return accepted

    def _candidate(self, index: int, confidences: NDArray[np.float32], accepted: NDArray[np.bool_]) -> Candidate:
        label = self.bundle.labels[index]
        present = bool(accepted[index]) if self.bundle.is_multi_label else None
        return Candidate(label, index, float(confidences[index]), self.bundle.groups.get(label), present)

    def _best_group(self, confidences: NDArray[np.float32]) -> Group | None:
        if not self._group_names:
            return None
        sums = np.bincount(self._group_indexes, confidences)
        best = int(sums.argmax())
        return Group(self._group_names[best], min(float(sums[best]), 1))

    def _is_unfamiliar(self, features: Features | None, best: int) -> bool | None:
        familiarity = self.bundle.familiarity
        return familiarity.is_unfamiliar(features.embedding, best) if familiarity and features else None

    def _heat_map(self, best: int, features: Features | None, image: PreparedImage, options: Options) -> HeatMap | None:
        if not options.heat_map or features is None or self.bundle.head is None:
            return None
        label = options.heat_map_label or self.bundle.labels[best]
        box = self.bundle.preprocessing.crop_box(image.width, image.height)
        return HeatMap(label, self.bundle.head.activation_map(features.grid, self.bundle.labels.index(label)), box)


def _byte_table(levels: NDArray[Any]) -> bytes | None:
    """Return the 256 levels as bytes if they are bytes and the same in all channels, `(256, 3)`; None otherwise."""
    is_alike = levels.itemsize == 1 and (levels == levels[:, :1]).all()
    return levels[:, 0].tobytes() if is_alike else None


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
