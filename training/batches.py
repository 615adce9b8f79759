"""Batches of images and one-hot labels, read when they are needed."""

import math
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from litelens_client.learning.errors import DatasetError
from training.augmentation import Views, apply_views, draw_views
from training.dataset import Split
from training.preset import Augmentation
from training.teacher import SoftLabels

Batch = tuple[dict[str, NDArray[np.uint8] | NDArray[np.float32]]]


@dataclass(frozen=True)
class _EpochViews:
    """The view of each image in one epoch and, with a teacher, its logits for these views, `(n, classes)`."""

    views: Views
    padding: int
    teacher_logits: NDArray[np.float16] | None


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """A split in the given order, as `images`, uint8 `(n, h, w, 3)`, and `labels`, float32 `(n, classes)`.

    With a teacher there is also `teacher`, its logits, float32 `(n, classes)`. The last batch may be smaller. It is
    filled up to a multiple of `devices` with black images whose labels are all 0, which have no effect on the loss.
    `error` is set if an image cannot be read.
    """

    def __init__(
        self,
        split: Split,
        classes: int,
        size: int,
        order: NDArray[np.int64],
        devices: int = 1,
        views: _EpochViews | None = None,
    ) -> None:
        super().__init__()
        self._split = split
        self._classes = classes
        self._size = size
        self._order = order
        self._devices = devices
        self._views = views
        self.error: DatasetError | None = None

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._size)

    def __getitem__(self, index: int) -> Batch:
        chosen = self._order[index * self._size : (index + 1) * self._size]
        images = self._read(chosen)
        labels = np.eye(self._classes, dtype=np.float32)[self._split.classes[chosen]]
        missing = -len(chosen) % self._devices
        if missing:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
            labels = np.concatenate([labels, np.zeros((missing, self._classes), np.float32)])
        batch: dict[str, NDArray[np.uint8] | NDArray[np.float32]] = {"images": images, "labels": labels}
        if self._views and self._views.teacher_logits is not None:
            batch["teacher"] = self._views.teacher_logits[chosen].astype(np.float32)
        return (batch,)

    def _read(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        try:
            images = self._split.images.pixels(chosen)
        except DatasetError as error:
            # Keras' backends raise an error of their own instead of this one.
            self.error = error
            raise
        if self._views is None:
            return images
        return apply_views(images, self._views.views.take(chosen), self._views.padding)


def training_batches(
    split: Split,
    classes: int,
    size: int,
    seed: int,
    augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
    soft_labels: SoftLabels | None = None,
    epoch: int = 1,
) -> Batches:
    """Divide a split into batches in a random order; images left over after the last full batch are omitted.

    The seed determines the order and a view of each image. With soft labels, the views are those that the teacher
    classified for the epoch.
    """
    order = np.random.default_rng(seed).permutation(len(split))
    used = len(order) // size * size
    if soft_labels:
        views, logits = soft_labels.views(epoch), soft_labels.logits(epoch)
    else:
        views, logits = draw_views(len(split), augmentation, seed + 1), None
    return Batches(split, classes, size, order[:used], views=_EpochViews(views, augmentation.crop_padding, logits))


def all_batches(split: Split, classes: int, size: int, devices: int = 1) -> Batches:
    """Divide a whole split into batches in its own order, without augmentation."""
    return Batches(split, classes, size, np.arange(len(split)), devices)


def class_weights(split: Split, classes: int) -> NDArray[np.float32]:
    """Compute weights, float32 `(classes,)`, that give all classes the same influence and average 1 over the images."""
    counts = np.bincount(split.classes, minlength=classes)
    return (len(split) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)
