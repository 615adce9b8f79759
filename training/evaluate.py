"""The step evaluate: measure the fp32 network and the int8 model, the latter with the serving code."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import Bundle
from litelens.core.classifier import Classifier, Options
from litelens.core.probabilities import softmax
from litelens_client.learning.calibration import (
    best_temperature,
    calibration_error,
    choose_threshold,
    coverage_curve,
    reliability,
)
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.metrics import (
    ClassScore,
    class_scores,
    confusion_matrix,
)
from litelens_client.learning.photos import LIMITS
from litelens_client.learning.progress import progress
from training.dataset import Dataset, Split, find_copies
from training.preset import Preset
from training.quantize import unpublished_bundle
from training.run import Metrics, Run

TOP = 5
_BATCH = 64


@dataclass(frozen=True)
class Predictions:
    """The classes of each image, int64 `(n, classes)`, best first, and their confidences in that order, float64."""

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

    def correct(self, truth: NDArray[np.int64], within: int = 1) -> NDArray[np.bool_]:
        """Return True for each image whose true class is among the `within` best ones."""
        correct: NDArray[np.bool_] = (self.ranking[:, :within] == truth[:, np.newaxis]).any(axis=1)
        return correct

    def logits(self) -> NDArray[np.float64]:
        """Compute logits by class index, whose softmax are the confidences."""
        scores = np.empty_like(self.confidences)
        np.put_along_axis(scores, self.ranking, np.log(self.confidences.clip(1e-30)), axis=1)
        return scores


@dataclass(frozen=True)
class Evaluation:
    """All measurements: the metrics, and on the test split figures by class, pair of classes and confidence.

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
        """Convert all fields into JSON values."""
        return {**dataclasses.asdict(self), "confusion": self.confusion.tolist()}


def evaluate(run: Run, network: keras.Model, dataset: Dataset) -> Evaluation:
    """Measure network and int8 model on the test split; choose temperature and threshold on the validation split.

    Without labelled images, only the agreement of the two is measured. Raises DatasetError if no test image is left
    after the removal of duplicates.
    """
    if not dataset.labelled:
        return _evaluate_unlabelled(run, network, dataset)
    test, duplicates = remove_duplicates(dataset.test, dataset.train, dataset.validation)
    if not len(test):
        raise DatasetError("every test image also occurs for training or validation; give other test images")
    bundle = load_run_bundle(run)
    uncalibrated = Classifier(bundle, LIMITS, threads=1)
    uncalibrated_logits = classify_split(uncalibrated, dataset.validation).logits()
    temperature = best_temperature(uncalibrated_logits, dataset.validation.classes)
    calibrated = Classifier(dataclasses.replace(bundle, temperature=temperature), LIMITS, threads=1)

    validation = classify_split(calibrated, dataset.validation)
    validation_correct = validation.correct(dataset.validation.classes)
    threshold = choose_threshold(validation.confidence, validation_correct, run.preset.answered_accuracy)
    answered = validation.confidence >= threshold

    truth = test.classes
    fp32 = _rank_with_network(network, test, run.preset)
    int8 = classify_split(calibrated, test)
    correct = int8.correct(truth)
    openvino = _classify_with_openvino(calibrated.bundle, test)
    uncalibrated_confidence = softmax((int8.logits() * temperature).astype(np.float32)).max(axis=1)
    confusion = confusion_matrix(truth, int8.best, len(run.labels))
    metrics = Metrics(
        test_images=len(test),
        test_duplicates=len(duplicates),
        fp32_top1=float((fp32[:, 0] == truth).mean()),
        fp32_top5=float((fp32[:, :TOP] == truth[:, np.newaxis]).any(axis=1).mean()),
        int8_top1=float(correct.mean()),
        int8_top5=float(int8.correct(truth, within=TOP).mean()),
        int8_group_top1=_group_accuracy(run, truth, int8.best),
        agreement=float((int8.best == fp32[:, 0]).mean()),
        openvino_top1=None if openvino is None else float(openvino.correct(truth).mean()),
        openvino_agreement=None if openvino is None else float((openvino.best == int8.best).mean()),
        calibration_error_uncalibrated=calibration_error(uncalibrated_confidence, correct),
        calibration_error=calibration_error(int8.confidence, correct),
        validation_images=len(dataset.validation),
        temperature=temperature,
        threshold=threshold,
        answered_share=float(answered.mean()),
        answered_accuracy=float(validation_correct[answered].mean()),
    )
    return Evaluation(
        metrics=metrics,
        duplicates=duplicates,
        classes=class_scores(confusion, run.labels),
        confusion=confusion,
        reliability=reliability(int8.confidence, correct),
        reliability_uncalibrated=reliability(uncalibrated_confidence, correct),
        coverage=coverage_curve(int8.confidence, correct),
    )


def classify_split(classifier: Classifier, split: Split) -> Predictions:
    """Classify each image with the serving code, from the file that a client would send."""
    classes = len(classifier.bundle.labels)
    files = (split.images.encoded(i) for i in range(len(split)))
    shape = (len(split), classes)
    predictions = Predictions(np.zeros(shape, np.int64), np.zeros(shape))
    for row, data in enumerate(progress(files, len(split), "Classifying in int8")):
        candidates = classifier.classify(data, Options(top_k=classes)).candidates
        predictions.ranking[row] = [candidate.index for candidate in candidates]
        predictions.confidences[row] = [candidate.confidence for candidate in candidates]
    return predictions


def remove_duplicates(split: Split, *others: Split) -> tuple[Split, tuple[str, ...]]:
    """Return the split without copies of images in other splits, and the names of those copies."""
    repeated = np.zeros(len(split), bool)
    for other in others:
        repeated |= find_copies(split.images, other.images)
    return split.take(np.flatnonzero(~repeated)), tuple(
        split.images.name(index) for index in np.flatnonzero(repeated).tolist()
    )


def load_run_bundle(run: Run, temperature: float = 1.0, threshold: float = 0.0) -> Bundle:
    """Load the run's int8 model as a bundle that the serving code can use."""
    return unpublished_bundle(run.folder, run.labels, run.preset.preprocessing, temperature, threshold)


def _evaluate_unlabelled(run: Run, network: keras.Model, dataset: Dataset) -> Evaluation:
    confidence = run.preset.confidence
    bundle = load_run_bundle(run, confidence.temperature, confidence.threshold)
    int8 = classify_split(Classifier(bundle, LIMITS, threads=1), dataset.test)
    fp32 = _rank_with_network(network, dataset.test, run.preset)
    openvino = _classify_with_openvino(bundle, dataset.test)
    metrics = Metrics(
        test_images=len(dataset.test),
        test_duplicates=0,
        fp32_top1=None,
        fp32_top5=None,
        int8_top1=None,
        int8_top5=None,
        int8_group_top1=None,
        agreement=float((int8.best == fp32[:, 0]).mean()),
        openvino_top1=None,
        openvino_agreement=None if openvino is None else float((openvino.best == int8.best).mean()),
        calibration_error_uncalibrated=None,
        calibration_error=None,
        validation_images=0,
        temperature=confidence.temperature,
        threshold=confidence.threshold,
        answered_share=float((int8.confidence >= confidence.threshold).mean()),
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


def _classify_with_openvino(bundle: Bundle, split: Split) -> Predictions | None:
    """Classify each image with OpenVINO; None for models of 8-bit weights, which OpenVINO does not run."""
    if bundle.weight_bits == 8:
        return None
    return classify_split(Classifier(bundle, LIMITS, threads=1, engine="openvino"), split)


def _rank_with_network(network: keras.Model, split: Split, preset: Preset) -> NDArray[np.int64]:
    """Return the network's classes for each image, best first, int64 `(n, classes)`."""
    parts = []
    starts = range(0, len(split), _BATCH)
    for start in progress(starts, len(starts), "Classifying in fp32, batches"):
        pixels = split.images.pixels(range(start, min(start + _BATCH, len(split))))
        parts.append(network.predict_on_batch(preset.preprocessing.normalize(pixels))["logits"])
    return np.argsort(-np.concatenate(parts), axis=1, kind="stable")


def _group_accuracy(run: Run, truth: NDArray[np.int64], best: NDArray[np.int64]) -> float | None:
    """Return the share of images whose best class is in the true class's coarse group; None without groups."""
    groups = run.preset.label_groups()
    if not groups:
        return None
    group_of = np.array([groups[label] for label in run.labels])
    return float((group_of[truth] == group_of[best]).mean())
