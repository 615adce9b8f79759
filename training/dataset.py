"""Data sets: labelled images from folders, arrays or a download, divided into training, validation and test splits."""

import dataclasses
import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from litelens.core.preprocessing import Preprocessing
from litelens_client.learning.duplicates import find_near, group_near, near_thumbnail_limit
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.photos import ClassFolders, Unreadable, digest, read_class_folders, read_photos
from training.preset import Preset

Indices = Sequence[int] | NDArray[np.int64]

# https://www.microsoft.com/en-us/download/details.aspx?id=54765
_CATS_VS_DOGS = (
    "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
    "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
)
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_MIN_UNLABELLED = 4

# More copies of one image than this are never held out, because they would count as many times in a measurement.
_MAX_COPIES = 10

# More than the error of a product of floats, less than any remainder.
_ROUNDING = 1e-9


class Images(Protocol):
    """Images by index."""

    @property
    def digests(self) -> Sequence[bytes]:
        """A digest of each image's pixels at the network's input size; equal digests mean equal images."""

    @property
    def thumbnails(self) -> NDArray[np.uint8] | None:
        """The images' thumbnails as duplicates.thumbnail() returns them; None if only equal images are copies."""

    def __len__(self) -> int: ...

    def take(self, indices: Indices) -> "Images": ...

    def pixels(self, indices: Indices) -> NDArray[np.uint8]:
        """Return the images at the network's input size, uint8 `(n, height, width, 3)`."""

    def encoded(self, index: int) -> bytes:
        """Return the image as a file, as a client would send it."""

    def name(self, index: int) -> str:
        """Return a name by which people recognize the image."""


@dataclass(frozen=True)
class Pixels:
    """Images of one size in memory, uint8 `(n, h, w, 3)`; without a `spec`, this is the network's input size."""

    array: NDArray[np.uint8]
    spec: Preprocessing | None = None

    @property
    def digests(self) -> Sequence[bytes]:
        return [digest(image) for image in self.array]

    @property
    def thumbnails(self) -> None:
        """None: arrays are published data sets, whose results are compared with others on the same images."""

    def __len__(self) -> int:
        return len(self.array)

    def take(self, indices: Indices) -> "Pixels":
        return Pixels(self.array[indices], self.spec)

    def pixels(self, indices: Indices) -> NDArray[np.uint8]:
        images = self.array[indices]
        return resize_images(images, self.spec) if self.spec else images

    def encoded(self, index: int) -> bytes:
        file = BytesIO()
        Image.fromarray(self.array[index]).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def name(self, index: int) -> str:
        return f"number {index}"


def resize_images(images: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.uint8]:
    """Crop and resize images, uint8 `(n, h, w, 3)`, to uint8 `(n, height, width, 3)` with the serving code."""
    if images.shape[1:3] == (spec.height, spec.width) and spec.crop == 1:
        return images
    return np.stack([spec.pixels(Image.fromarray(image)) for image in images])


@dataclass(frozen=True)
class Split:
    """Images and their class indices, int64 `(n,)`."""

    images: Images
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Indices) -> "Split":
        return Split(self.images.take(indices), self.classes[indices])


@dataclass(frozen=True)
class Dataset:
    """The splits of a data set and the names of its classes.

    Quantization takes the ranges of activations from the `calibration` images; their classes do not matter.
    If `labelled` is false, the classes of all images are unknown, and given as 0.
    """

    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    calibration: Split
    unreadable: tuple[Unreadable, ...] = ()
    labelled: bool = True

    def digest(self) -> str:
        """Compute a digest of the images and classes of all splits except the calibration images."""
        whole = hashlib.blake2b(digest_size=16)
        for split in (self.train, self.validation, self.test):
            for image in split.images.digests:
                whole.update(image)
            whole.update(split.classes.tobytes())
        return whole.hexdigest()


def load_dataset(preset: Preset, data: Path | None, calibration: Path | None = None) -> Dataset:
    """Load the preset's data set from `data`, or download it.

    `data` is a folder of class folders or a file in Keras' npz layout (x_train, y_train, x_test, y_test).
    `calibration` is a folder of photos, with or without classes, that quantization uses instead of the training images.
    Without `data`, some of these photos are held out to measure the quantized model. Raises DatasetError.
    """
    if calibration is not None and data is None:
        return _load_unlabelled(preset, calibration)
    dataset = _load_labelled(preset, data)
    if calibration is None:
        return dataset
    photos, unreadable = read_photos(calibration, preset.preprocessing)
    return dataclasses.replace(
        dataset, calibration=_without_classes(photos), unreadable=dataset.unreadable + unreadable
    )


def hold_out(classes: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw that share of each class by the seed; return the indices drawn and the others, both ascending.

    Where a share is no whole number, some classes, drawn too, give one image more than others, so that the shares of
    many small classes add up. Each class keeps one image or more.
    """
    generator = np.random.default_rng(seed)
    members = [generator.permutation(np.flatnonzero(classes == index)) for index in np.unique(classes)]
    counts = _apportion(np.array([len(indices) for indices in members], np.int64), share, generator)
    drawn = [indices[:count] for indices, count in zip(members, counts, strict=True)]
    held_out = np.sort(np.concatenate([np.zeros(0, np.int64), *drawn]))
    return held_out, np.setdiff1d(np.arange(len(classes)), held_out)


def _apportion(sizes: NDArray[np.int64], share: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return how many images to draw from each class, by the largest remainders of `share` times its size; a class
    without a remainder gives no more than its share.
    """
    exact = share * sizes
    counts: NDArray[np.int64] = np.minimum(np.floor(exact + _ROUNDING), sizes - 1).astype(np.int64)
    order = np.lexsort((generator.random(len(sizes)), counts - exact))
    order = order[(counts[order] < sizes[order] - 1) & (counts[order] < exact[order] - _ROUNDING)]
    counts[order[: max(0, round(share * sizes.sum()) - counts.sum())]] += 1
    return counts


def _load_labelled(preset: Preset, data: Path | None) -> Dataset:
    if data is None:
        return _download(preset)
    if data.is_dir():
        return _from_folders(preset, read_class_folders(data, preset.preprocessing, preset.label_names()))
    return _from_arrays(preset, _read_npz(data))


def _load_unlabelled(preset: Preset, folder: Path) -> Dataset:
    labels = preset.label_names()
    if not labels:
        raise DatasetError(
            "photos without class folders do not name the classes; give --labels FILE with one name per line"
        )
    if preset.recipe.phases:
        raise DatasetError("fitting needs labelled images; give --data FOLDER with one folder per class")
    photos, unreadable = read_photos(folder, preset.preprocessing)
    if len(photos) < _MIN_UNLABELLED:
        raise DatasetError(
            f"{folder} holds {len(photos)} readable photos; give a few hundred that are like those you will classify"
        )
    order = np.random.default_rng(preset.recipe.seed).permutation(len(photos))
    tested = min(max(1, round(preset.test_share * len(order))), len(order) - 1)
    test, rest = (_without_classes(photos.take(np.sort(part))) for part in np.split(order, [tested]))
    return Dataset(labels, rest, rest, test, calibration=rest, unreadable=unreadable, labelled=False)


def _without_classes(images: Images) -> Split:
    return Split(images, np.zeros(len(images), np.int64))


def _from_folders(preset: Preset, folders: ClassFolders) -> Dataset:
    splits = {name: Split(photos, classes) for name, (photos, classes) in folders.splits.items()}
    dataset = _complete(preset, folders.labels, splits, folders.unreadable)
    missing = np.flatnonzero(np.bincount(dataset.train.classes, minlength=len(dataset.labels)) == 0)
    if preset.recipe.phases and len(missing):
        raise DatasetError(f"the class '{dataset.labels[missing[0]]}' has no training photo; add some")
    return dataset


def _from_arrays(preset: Preset, arrays: Mapping[str, NDArray[Any]]) -> Dataset:
    labels = preset.label_names()
    if not labels:
        raise DatasetError("arrays do not name their classes; give --labels FILE with one name per line")
    splits = {}
    for name, title in (("train", "training"), ("test", "test")):
        images, classes = arrays[f"x_{name}"], arrays[f"y_{name}"].reshape(-1)
        _check_arrays(title, images, classes, preset, labels)
        splits[name] = Split(Pixels(images, preset.preprocessing), classes.astype(np.int64))
    return _complete(preset, labels, splits, ())


def _complete(
    preset: Preset, labels: tuple[str, ...], splits: dict[str, Split], unreadable: tuple[Unreadable, ...]
) -> Dataset:
    """Draw the splits that the data lacks from its training images."""
    if len(labels) < 2:
        raise DatasetError(f"there is a single label, '{labels[0]}'; a classifier needs two or more")
    for name, split in splits.items():
        if not len(split):
            raise DatasetError(f"the {name} split of the data has no image; fill it, or remove its folder")
    train, validation_share = splits["train"], preset.validation_share
    if "test" not in splits:
        splits["test"], train = _draw(train, preset.test_share, preset.recipe.seed)
        validation_share /= 1 - preset.test_share
    if "validation" not in splits:
        splits["validation"], train = _draw(train, validation_share, preset.recipe.seed)
    for name, split in (("training", train), ("validation", splits["validation"]), ("test", splits["test"])):
        if not len(split):
            raise DatasetError(
                f"there are too few images: none is left for the {name} split; add some, or change validation_share "
                "and test_share"
            )
    return Dataset(labels, train, splits["validation"], splits["test"], calibration=train, unreadable=unreadable)


def _draw(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Draw that share of each class; copies of an image, of whatever class, stay together.

    They are drawn with the probability of their share among the images that would be drawn, unless there are many of
    them or a class would lose its last image.
    """
    held_out, kept = hold_out(split.classes, share, seed)
    is_drawn = np.zeros(len(split), bool)
    is_drawn[held_out] = True
    left = np.bincount(split.classes[kept], minlength=int(split.classes.max(initial=0)) + 1)
    generator = np.random.default_rng(seed)
    for copies in _groups_of_copies(split.images, held_out):
        others = copies[~is_drawn[copies]]
        if not len(others):
            continue
        leaving = np.bincount(split.classes[others], minlength=len(left))
        is_likely = generator.random() < 1 - len(others) / len(copies)
        joins = is_likely and len(copies) <= _MAX_COPIES and bool((left - leaving)[leaving > 0].all())
        left = left - leaving if joins else left + np.bincount(split.classes[copies], minlength=len(left)) - leaving
        is_drawn[copies] = joins
    return split.take(np.flatnonzero(is_drawn)), split.take(np.flatnonzero(~is_drawn))


def _groups_of_copies(images: Images, indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the groups of two copies or more of one image, each as indices, in which one of these images is."""
    groups = _group_copies(images, indices)
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    has_one = np.isin(groups[order][starts], groups[indices])
    return [
        order[start : start + size] for start, size in zip(starts[has_one], sizes[has_one], strict=True) if size > 1
    ]


def _group_copies(images: Images, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the group of each image, int64 `(n,)`: equal ones, and those that are nearly equal to one of these."""
    digests, thumbnails = images.digests, images.thumbnails
    numbers: dict[bytes, int] = {}
    distinct = np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], np.int64)
    if thumbnails is None:
        return distinct
    _, firsts = np.unique(distinct, return_index=True)
    # Equal images have equal thumbnails.
    near = group_near(thumbnails[firsts], distinct[indices], near_thumbnail_limit(thumbnails, digests))
    return near[distinct]


def find_copies(images: Images, others: Images) -> NDArray[np.bool_]:
    """Find the images that are equal to one of the others, or nearly; returns `(n,)`."""
    known = set(others.digests)
    copies = np.array([digest in known for digest in images.digests], bool)
    if images.thumbnails is not None and others.thumbnails is not None:
        limit = near_thumbnail_limit(others.thumbnails, others.digests)
        copies |= find_near(images.thumbnails, others.thumbnails, limit)
    return copies


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise DatasetError(f"there is no file or folder {path}")
    expected = "a folder of class folders or an .npz file with x_train, y_train, x_test and y_test"
    if not zipfile.is_zipfile(path):
        raise DatasetError(f"{path} is not {expected}")
    try:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in _ARRAYS}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{path} is not {expected} ({error})") from error


def _download(preset: Preset) -> Dataset:
    """Download the data set from its official site; Keras verifies the checksum."""
    name = preset.dataset
    if name == "folder":
        raise DatasetError("this preset has no images of its own; give --data FOLDER, with a folder for each class")
    try:
        if name == "cats-vs-dogs":
            url, checksum = _CATS_VS_DOGS
            folder = Path(keras.utils.get_file(origin=url, file_hash=checksum, extract=True)) / "PetImages"
            return _from_folders(preset, read_class_folders(folder, preset.preprocessing))
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except DatasetError:
        raise
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise DatasetError(
            f"{name} could not be downloaded ({error}); give --data, an .npz file with x_train, y_train, x_test and "
            "y_test or a folder with a folder for each class"
        ) from error
    return _from_arrays(preset, dict(zip(_ARRAYS, (x_train, y_train, x_test, y_test), strict=True)))


def _check_arrays(
    name: str, images: NDArray[Any], classes: NDArray[Any], preset: Preset, labels: tuple[str, ...]
) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise DatasetError(
            f"the {name} images must be uint8 of shape (n, height, width, 3), not {images.dtype} of shape "
            f"{images.shape}"
        )
    if not np.issubdtype(classes.dtype, np.integer):
        raise DatasetError(f"the {name} classes must be whole numbers, not {classes.dtype}")
    if len(images) != len(classes):
        raise DatasetError(f"there are {len(images)} {name} images but {len(classes)} classes")
    if len(classes) and (classes.min() < 0 or classes.max() >= len(labels)):
        raise DatasetError(f"the {name} classes must be from 0 to {len(labels) - 1}, one for each of {preset.labels}")
