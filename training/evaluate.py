"""Evaluation: how good the fp32 network and the int8 model are, the latter measured through the code that serves."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from litelens.bundle import Bundle
from litelens.classifier import Classifier, Options, softmax
from training.dataset import Dataset, Split
from training.errors import DatasetError
from training.metrics import (
    ClassScore,
    best_temperature,
    calibration_error,
    class_scores,
    confusion_matrix,
    coverage_curve,
    reliability,
)
from training.photos import LIMITS
from training.preset import Preset
from training.progress import progress
from training.quantize import unpublished_bundle
from training.run import Metrics, Run

TOP = 5
_AT_ONCE = 64


@dataclass(frozen=True)
class Answers:
    """Each image's classes, int64 `(n, classes)`, best first, and their confidences in that order, float64."""

    ranking: NDArray[np.int64]
    confidences: NDArray[np.float64]

    @property
    def best(self) -> NDArray[np.int64]:
        """The best class of each image."""
        best: NDArray[np.int64] = self.ranking[:, 0]
        return best

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The confidence of the best class of each image."""
        confidence: NDArray[np.float64] = self.confidences[:, 0]
        return confidence

    def right(self, truth: NDArray[np.int64], within: int = 1) -> NDArray[np.bool_]:
        """Whether each image's true class is among its best few."""
        right: NDArray[np.bool_] = (self.ranking[:, :within] == truth[:, np.newaxis]).any(axis=1)
        return right

    def logits(self) -> NDArray[np.float64]:
        """Scores by class index, of which the confidences are the softmax."""
        scores = np.empty_like(self.confidences)
        np.put_along_axis(scores, self.ranking, np.log(self.confidences.clip(1e-30)), axis=1)
        return scores


@dataclass(frozen=True)
class Evaluation:
    """The figures, and what they are made of: per class, between classes, and by confidence, of the test split.

    `duplicates` names the test images that were left out because they also occur for training or validation.
    """

    metrics: Metrics
    duplicates: tuple[str, ...]
    classes: tuple[ClassScore, ...]
    confusion: NDArray[np.int64]
    reliability: list[dict[str, float]]
    reliability_uncalibrated: list[dict[str, float]]
    coverage: list[dict[str, float]]

    def document(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**dataclasses.asdict(self), "confusion": self.confusion.tolist()}


def evaluate(run: Run, network: keras.Model, dataset: Dataset) -> Evaluation:
    """Measure both on the test split, and choose temperature and threshold on the validation split.

    Of images whose classes are unknown only the agreement of the two can be measured.
    """
    if not dataset.labelled:
        return _agreement_alone(run, network, dataset)
    test, duplicates = without_duplicates(dataset.test, dataset.train, dataset.validation)
    if not len(test):
        raise DatasetError("every test image also occurs for training or validation; give others to test on")
    bundle = bundle_of(run)
    uncalibrated = Classifier(bundle, LIMITS, threads=1)
    temperature = best_temperature(serve(uncalibrated, dataset.validation).logits(), dataset.validation.classes)
    calibrated = Classifier(dataclasses.replace(bundle, temperature=temperature), LIMITS, threads=1)

    validation = serve(calibrated, dataset.validation)
    validation_right = validation.right(dataset.validation.classes)
    threshold = threshold_for(validation.confidence, validation_right, run.preset.answered_accuracy)
    answered = validation.confidence >= threshold

    truth = test.classes
    fp32 = _ranking(network, test, run.preset)
    served = serve(calibrated, test)
    right = served.right(truth)
    by_openvino = _by_openvino(calibrated.bundle, test)
    uncalibrated_confidence = softmax((served.logits() * temperature).astype(np.float32)).max(axis=1)
    confusion = confusion_matrix(truth, served.best, len(run.labels))
    metrics = Metrics(
        test_images=len(test),
        test_duplicates=len(duplicates),
        fp32_top1=float((fp32[:, 0] == truth).mean()),
        fp32_top5=float((fp32[:, :TOP] == truth[:, np.newaxis]).any(axis=1).mean()),
        int8_top1=float(right.mean()),
        int8_top5=float(served.right(truth, within=TOP).mean()),
        int8_group_top1=_group_accuracy(run, truth, served.best),
        agreement=float((served.best == fp32[:, 0]).mean()),
        openvino_top1=None if by_openvino is None else float(by_openvino.right(truth).mean()),
        openvino_agreement=None if by_openvino is None else float((by_openvino.best == served.best).mean()),
        calibration_error_uncalibrated=calibration_error(uncalibrated_confidence, right),
        calibration_error=calibration_error(served.confidence, right),
        validation_images=len(dataset.validation),
        temperature=temperature,
        threshold=threshold,
        answered_share=float(answered.mean()),
        answered_accuracy=float(validation_right[answered].mean()),
    )
    return Evaluation(
        metrics=metrics,
        duplicates=duplicates,
        classes=class_scores(confusion, run.labels),
        confusion=confusion,
        reliability=reliability(served.confidence, right),
        reliability_uncalibrated=reliability(uncalibrated_confidence, right),
        coverage=coverage_curve(served.confidence, right),
    )


def serve(classifier: Classifier, split: Split) -> Answers:
    """What the classifier says of each image, sent as the file that a client would send."""
    everything = Options(top_k=len(classifier.bundle.labels))
    files = (split.images.encoded(i) for i in range(len(split)))
    shape = (len(split), everything.top_k)
    answers = Answers(np.zeros(shape, np.int64), np.zeros(shape))
    for row, data in enumerate(progress(files, len(split), "Classifying as serving does")):
        candidates = classifier.classify(data, everything).candidates
        answers.ranking[row] = [candidate.index for candidate in candidates]
        answers.confidences[row] = [candidate.confidence for candidate in candidates]
    return answers


def without_duplicates(split: Split, *others: Split) -> tuple[Split, tuple[str, ...]]:
    """The split without the images whose pixels also occur in the others, and the names of those."""
    seen = {digest for other in others for digest in other.images.digests}
    repeated = np.array([digest in seen for digest in split.images.digests], bool)
    return split.take(np.flatnonzero(~repeated)), tuple(
        split.images.name(index) for index in np.flatnonzero(repeated).tolist()
    )


def bundle_of(run: Run, temperature: float = 1.0, threshold: float = 0.0) -> Bundle:
    """The run's model as serving would load it, before there is a manifest."""
    bundle = unpublished_bundle(run.folder, run.labels, run.preset.preprocessing)
    return dataclasses.replace(bundle, temperature=temperature, threshold=threshold)


def threshold_for(confidence: NDArray[np.float64], right: NDArray[np.bool_], accuracy: float) -> float:
    """The lowest confidence at and above which the share of right answers reaches `accuracy`.

    When no threshold reaches it, the one that comes nearest, and of several such the lowest.
    """
    order = np.argsort(-confidence, kind="stable")
    reached = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    # Answers of equal confidence are above a threshold together, so that only the last of them is a candidate.
    is_last = np.append(np.diff(confidence[order]) < 0, True)
    candidates = np.flatnonzero(is_last)
    good = candidates[reached[candidates] >= accuracy]
    if not len(good):
        nearest = reached[candidates].max()
        good = candidates[reached[candidates] == nearest]
    return float(confidence[order][good[-1]])


def _agreement_alone(run: Run, network: keras.Model, dataset: Dataset) -> Evaluation:
    confidence = run.preset.confidence
    bundle = bundle_of(run, confidence.temperature, confidence.threshold)
    served = serve(Classifier(bundle, LIMITS, threads=1), dataset.test)
    fp32 = _ranking(network, dataset.test, run.preset)
    by_openvino = _by_openvino(bundle, dataset.test)
    metrics = Metrics(
        test_images=len(dataset.test),
        test_duplicates=0,
        fp32_top1=None,
        fp32_top5=None,
        int8_top1=None,
        int8_top5=None,
        int8_group_top1=None,
        agreement=float((served.best == fp32[:, 0]).mean()),
        openvino_top1=None,
        openvino_agreement=None if by_openvino is None else float((by_openvino.best == served.best).mean()),
        calibration_error_uncalibrated=None,
        calibration_error=None,
        validation_images=0,
        temperature=confidence.temperature,
        threshold=confidence.threshold,
        answered_share=float((served.confidence >= confidence.threshold).mean()),
        answered_accuracy=None,
    )
    return Evaluation(
        metrics=metrics,
        duplicates=(),
        classes=(),
        confusion=np.zeros((0, 0), np.int64),
        reliability=[],
        reliability_uncalibrated=[],
        coverage=[],
    )


def _by_openvino(bundle: Bundle, split: Split) -> Answers | None:
    """What the same bundle says of each image by OpenVINO, which models of 8-bit weights are not for."""
    if bundle.weight_bits != 7:
        return None
    return serve(Classifier(bundle, LIMITS, threads=1, engine="openvino"), split)


def _ranking(network: keras.Model, split: Split, preset: Preset) -> NDArray[np.int64]:
    """The network's classes for each image, best first, int64 `(n, classes)`."""
    parts = []
    starts = range(0, len(split), _AT_ONCE)
    for start in progress(starts, len(starts), "Classifying in fp32, batches"):
        pixels = split.images.pixels(range(start, min(start + _AT_ONCE, len(split))))
        parts.append(network.predict_on_batch(preset.preprocessing.normalized(pixels))["logits"])
    return np.argsort(-np.concatenate(parts), axis=1, kind="stable")


def _group_accuracy(run: Run, truth: NDArray[np.int64], best: NDArray[np.int64]) -> float | None:
    """How often the best class is of the true class's coarse group."""
    groups = run.preset.label_groups()
    if not groups:
        return None
    group_of = np.array([groups[label] for label in run.labels])
    return float((group_of[truth] == group_of[best]).mean())
