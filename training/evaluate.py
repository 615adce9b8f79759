"""Evaluation: how good the fp32 network and the int8 model are, the latter measured through the code that serves."""

from dataclasses import dataclass
from io import BytesIO

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from litelens.bundle import Bundle
from litelens.classifier import Classifier
from litelens.images import Limits
from training.dataset import Dataset, Split
from training.quantize import model_inputs
from training.run import Metrics, Run

TOP = 5


@dataclass(frozen=True)
class Answers:
    """The best classes of each image, int64 `(n, 5)`, best first, and the best one's confidence, float64 `(n,)`."""

    best: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def right(self, classes: NDArray[np.int64], within: int = 1) -> NDArray[np.bool_]:
        """Whether each image's class is among its best few."""
        right: NDArray[np.bool_] = (self.best[:, :within] == classes[:, np.newaxis]).any(axis=1)
        return right


def evaluate(run: Run, network: keras.Model, dataset: Dataset) -> Metrics:
    """Measure both on the test split, and choose the threshold on the validation split."""
    classifier = Classifier(_unpublished_bundle(run), Limits(), threads=1)
    served = serve(classifier, dataset.test)
    fp32 = _best_of(network, model_inputs(dataset.test.images, run.preset.preprocessing))
    validation = serve(classifier, dataset.validation)
    validation_right = validation.right(dataset.validation.classes)
    threshold = threshold_for(validation.confidence, validation_right, run.preset.answered_accuracy)
    answered = validation.confidence >= threshold
    classes = dataset.test.classes
    return Metrics(
        test_images=len(classes),
        fp32_top1=float((fp32[:, 0] == classes).mean()),
        fp32_top5=float((fp32 == classes[:, np.newaxis]).any(axis=1).mean()),
        int8_top1=float(served.right(classes).mean()),
        int8_top5=float(served.right(classes, within=TOP).mean()),
        agreement=float((served.best[:, 0] == fp32[:, 0]).mean()),
        validation_images=len(dataset.validation),
        threshold=threshold,
        answered_share=float(answered.mean()),
        answered_accuracy=float(validation_right[answered].mean()),
    )


def serve(classifier: Classifier, split: Split) -> Answers:
    """What the classifier says of each image, sent as PNG bytes like a client's."""
    predictions = [classifier.classify(png(image), TOP) for image in split.images]
    return Answers(
        best=np.array([[c.index for c in p.candidates] for p in predictions]),
        confidence=np.array([p.candidates[0].confidence for p in predictions]),
    )


def png(image: NDArray[np.uint8]) -> bytes:
    """The image, uint8 `(height, width, 3)`, as a PNG file."""
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


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


def _best_of(network: keras.Model, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
    logits = network.predict(inputs, batch_size=256, verbose=0)["logits"]
    return np.argsort(-logits, axis=1, kind="stable")[:, :TOP]


def _unpublished_bundle(run: Run) -> Bundle:
    preset = run.preset
    return Bundle(
        folder=run.folder,
        manifest={},
        name=preset.name,
        version=preset.version,
        labels=preset.label_names(),
        preprocessing=preset.preprocessing,
        threshold=0.0,
    )
