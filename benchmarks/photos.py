"""Labelled images to measure on: real ones where LITELENS_DATA names a folder that has them, or crops of samples."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from settings import DEFAULT_MODEL

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "tests" / "images" / "rocket.jpg"

# The model to measure: make's BUNDLE, or the one that is deployed by default.
BUNDLE = ROOT / (os.environ.get("LITELENS_BUNDLE") or f"models/{DEFAULT_MODEL}")

Item = TypeVar("Item")

_FITTED, _CALIBRATING = 600, 100


@dataclass(frozen=True)
class Images:
    """Images as files, and their classes' indices, int64 `(n,)`, or None where nobody knows them."""

    files: tuple[bytes, ...]
    classes: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Dataset:
    """Images to measure on, and what the models are made with: `calibration` shows quantization which values occur.

    To `fitting` a head is fitted that knows `labels`; both are None where the bundle's own head and labels stay.
    """

    name: str
    test: Images
    calibration: Images
    fitting: Images | None = None
    labels: tuple[str, ...] | None = None


def cats_and_dogs(data: Path | None, count: int) -> Dataset:
    """So many photos from the folders dogs-vs-cats/test/CLASS, or crops where there are none."""
    if data is None or not (data / "dogs-vs-cats").is_dir():
        return crops(count)
    folder = data / "dogs-vs-cats"
    labels = tuple(sorted(path.name for path in (folder / "train").iterdir()))
    fitting = _class_folders(folder / "train", labels, _FITTED)
    return Dataset(
        "photos of cats and dogs",
        test=_class_folders(folder / "test", labels, count),
        calibration=Images(tuple(_spread(fitting.files, _CALIBRATING)), None),
        fitting=fitting,
        labels=labels,
    )


def crops(count: int) -> Dataset:
    """Squares of scikit-image's photos, at places and of sizes that are always the same; nobody knows their classes."""
    from skimage import data

    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
    photos = [Image.open(Path(data.data_dir) / name).convert("RGB") for name in names]
    generator = np.random.default_rng(1)
    files = tuple(_crop(photos[number % len(photos)], generator) for number in range(_CALIBRATING + count))
    return Dataset(
        "crops of scikit-image's photos", Images(files[_CALIBRATING:], None), Images(files[:_CALIBRATING], None)
    )


def sample(width: int, height: int) -> bytes:
    """The sample photo as a JPEG of that size."""
    with Image.open(SAMPLE) as photo:
        return _as_jpeg(photo.resize((width, height), Image.Resampling.BICUBIC))


def _class_folders(folder: Path, labels: Sequence[str], count: int) -> Images:
    """So many images, as many of each class."""
    each = count // len(labels)
    paths = [_spread(sorted((folder / label).iterdir()), each) for label in labels]
    classes = np.repeat(np.arange(len(labels)), [len(part) for part in paths])
    return Images(tuple(path.read_bytes() for part in paths for path in part), classes)


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """So many of them, evenly taken."""
    return [items[index * len(items) // count] for index in range(min(count, len(items)))]


def _crop(photo: Image.Image, generator: np.random.Generator) -> bytes:
    side = int(generator.integers(100, min(photo.size)))
    left, top = (int(generator.integers(0, length - side + 1)) for length in photo.size)
    return _as_jpeg(photo.crop((left, top, left + side, top + side)))


def _as_jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
