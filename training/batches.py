"""Batches of images and one-hot classes, read as they are wanted."""

import math
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from training.dataset import Split
from training.errors import DatasetError
from training.preset import Augmentation
from training.teacher import Lessons
from training.views import Views, draw_views, show

Batch = tuple[dict[str, NDArray[np.uint8] | NDArray[np.float32]]]


@dataclass(frozen=True)
class _Shown:
    """One epoch's view of each image of a split, and the teacher's logits for it, `(n, classes)`, if there is one."""

    views: Views
    padding: int
    answers: NDArray[np.float16] | None


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """A split in the given order, as `images`, uint8 `(n, h, w, 3)`, and `labels`, float32 `(n, classes)`.

    With a teacher there is also `teacher`, its logits, float32 `(n, classes)`. The last batch may be smaller, but is
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
        shown: _Shown | None = None,
    ) -> None:
        super().__init__()
        self._split = split
        self._classes = classes
        self._size = size
        self._order = order
        self._devices = devices
        self._shown = shown
        self.error: DatasetError | None = None

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._size)

    def __getitem__(self, index: int) -> Batch:
        chosen = self._order[index * self._size : (index + 1) * self._size]
        images = self._pixels(chosen)
        labels = np.eye(self._classes, dtype=np.float32)[self._split.classes[chosen]]
        missing = -len(chosen) % self._devices
        if missing:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
            labels = np.concatenate([labels, np.zeros((missing, self._classes), np.float32)])
        batch: dict[str, NDArray[np.uint8] | NDArray[np.float32]] = {"images": images, "labels": labels}
        if self._shown and self._shown.answers is not None:
            batch["teacher"] = self._shown.answers[chosen].astype(np.float32)
        return (batch,)

    def _pixels(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        try:
            images = self._split.images.pixels(chosen)
        except DatasetError as error:
            # A backend that calls from a pipeline of its own makes another error of it.
            self.error = error
            raise
        return show(images, self._shown.views.take(chosen), self._shown.padding) if self._shown else images


def training_batches(
    split: Split,
    classes: int,
    size: int,
    seed: int,
    augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
    lessons: Lessons | None = None,
    epoch: int = 1,
) -> Batches:
    """The split in a random order drawn by the seed, without the images left over after the last full batch.

    The seed also draws a view of each image. With a teacher's lessons, the views are those of the epoch.
    """
    order = np.random.default_rng(seed).permutation(len(split))
    whole = len(order) // size * size
    views = lessons.views(epoch) if lessons else draw_views(len(split), augmentation, seed + 1)
    answers = lessons.answers(epoch) if lessons else None
    return Batches(split, classes, size, order[:whole], shown=_Shown(views, augmentation.crop_padding, answers))


def all_batches(split: Split, classes: int, size: int, devices: int = 1) -> Batches:
    """The whole split in its own order, without augmentation."""
    return Batches(split, classes, size, np.arange(len(split)), devices)


def class_weights(split: Split, classes: int) -> NDArray[np.float32]:
    """Weights, float32 `(classes,)`, that make each class count alike and average 1 over the images."""
    counts = np.bincount(split.classes, minlength=classes)
    return (len(split) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)
