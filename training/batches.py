"""Batches of images and one-hot classes, read as they are wanted."""

import math

import keras
import numpy as np
from numpy.typing import NDArray

from training.dataset import Split
from training.errors import DatasetError

Batch = tuple[dict[str, NDArray[np.uint8] | NDArray[np.float32]]]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """A split in the given order, as `images`, uint8 `(n, h, w, 3)`, and `labels`, float32 `(n, classes)`.

    The last batch may be smaller, but is filled up to a multiple of `devices` with black images whose labels are all
    0, which count for nothing. `error` is why an image could not be read, once that has happened.
    """

    def __init__(self, split: Split, classes: int, size: int, order: NDArray[np.int64], devices: int = 1) -> None:
        super().__init__()
        self._split = split
        self._classes = classes
        self._size = size
        self._order = order
        self._devices = devices
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
        return ({"images": images, "labels": labels},)

    def _pixels(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        try:
            return self._split.images.pixels(chosen)
        except DatasetError as error:
            # A backend that calls from a pipeline of its own makes another error of it.
            self.error = error
            raise


def training_batches(split: Split, classes: int, size: int, seed: int) -> Batches:
    """The split in an order that the seed draws, without those left over when it is divided into batches."""
    order = np.random.default_rng(seed).permutation(len(split))
    whole = len(order) // size * size
    return Batches(split, classes, size, order[:whole])


def all_batches(split: Split, classes: int, size: int, devices: int = 1) -> Batches:
    """The whole split in its own order."""
    return Batches(split, classes, size, np.arange(len(split)), devices)


def class_weights(split: Split, classes: int) -> NDArray[np.float32]:
    """Weights, float32 `(classes,)`, that make each class count alike and average 1 over the images."""
    counts = np.bincount(split.classes, minlength=classes)
    return (len(split) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)
