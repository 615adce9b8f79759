"""Labelled images in memory: fetched from their official place or read from a file, and split."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from training.preset import Preset


class DatasetError(Exception):
    """The data cannot be had or does not fit the preset; the message says what to do."""


@dataclass(frozen=True)
class Split:
    """Images, uint8 `(n, height, width, 3)`, and their class indices, int64 `(n,)`."""

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    train: Split
    validation: Split
    test: Split


def load_dataset(preset: Preset, data: Path | None) -> Dataset:
    """The preset's data set, from `data` (Keras' npz layout: x_train, y_train, x_test, y_test) or its official place.

    Validation images are drawn from the training split by the recipe's seed. Raises DatasetError.
    """
    train, test = _read_npz(data) if data else _download(preset.dataset)
    for name, split in (("training", train), ("test", test)):
        _check(name, split, preset)
    order = np.random.default_rng(preset.recipe.seed).permutation(len(train))
    held_out, kept = np.split(order, [preset.recipe.validation_images])
    if not len(kept) or not len(held_out):
        raise DatasetError(
            f"{len(train)} training images cannot be split into {preset.recipe.validation_images} for validation and "
            "the rest for training; change recipe.validation_images"
        )
    return Dataset(
        train=Split(train.images[kept], train.classes[kept]),
        validation=Split(train.images[held_out], train.classes[held_out]),
        test=test,
    )


def _read_npz(path: Path) -> tuple[Split, Split]:
    if not path.is_file():
        raise DatasetError(f"there is no file {path}")
    wanted = "an .npz file with x_train, y_train, x_test and y_test"
    if not zipfile.is_zipfile(path):
        raise DatasetError(f"{path} is not {wanted}")
    try:
        with np.load(path) as arrays:
            return _split(arrays["x_train"], arrays["y_train"]), _split(arrays["x_test"], arrays["y_test"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} is not {wanted} ({error})") from error


def _download(name: str) -> tuple[Split, Split]:
    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise DatasetError(
            f"{name} could not be downloaded ({error}); give --data FILE.npz with x_train, y_train, x_test and y_test"
        ) from error
    return _split(x_train, y_train), _split(x_test, y_test)


def _split(images: NDArray[np.uint8], classes: NDArray[np.integer]) -> Split:
    return Split(images, classes.reshape(-1).astype(np.int64))


def _check(name: str, split: Split, preset: Preset) -> None:
    labels = preset.label_names()
    size = (preset.preprocessing.height, preset.preprocessing.width, 3)
    if split.images.dtype != np.uint8 or split.images.shape[1:] != size:
        raise DatasetError(
            f"the {name} images must be uint8 of shape (n, {size[0]}, {size[1]}, 3), "
            f"not {split.images.dtype} of shape {split.images.shape}"
        )
    if len(split.images) != len(split.classes):
        raise DatasetError(f"there are {len(split.images)} {name} images but {len(split.classes)} classes")
    if len(split) and (split.classes.min() < 0 or split.classes.max() >= len(labels)):
        raise DatasetError(f"the {name} classes go beyond the {len(labels)} labels of {preset.labels}")
