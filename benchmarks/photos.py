"""Photos to measure with: a sample at any size, and labelled photos from the folder LITELENS_DATA if it is set."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from litelens.settings import DEFAULT_MODEL

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "tests" / "images" / "rocket.jpg"

# The bundle to measure: BUNDLE of make, or the default one.
BUNDLE = ROOT / (os.environ.get("LITELENS_BUNDLE") or f"models/{DEFAULT_MODEL}")

IS_DEFAULT_BUNDLE = BUNDLE.resolve() == ROOT / "models" / DEFAULT_MODEL

# The folder of the results. Those of another bundle do not replace the repository's.
RESULTS = ROOT / "benchmarks" if IS_DEFAULT_BUNDLE else ROOT / "build" / "bench" / "results" / BUNDLE.name

Item = TypeVar("Item")

_TRAINING, _CALIBRATION = 600, 100


@dataclass(frozen=True)
class Images:
    """Image files and the indices of their classes, int64 `(n,)`, or None if the classes are unknown."""

    files: tuple[bytes, ...]
    classes: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Dataset:
    """Test images, and images to make the models with.

    `calibration` is for quantization. A new head is fitted to `training`, for the classes `labels`; without them the
    bundle's own head stays.
    """

    name: str
    test: Images
    calibration: Images
    training: Images | None = None
    labels: tuple[str, ...] | None = None


def cats_and_dogs(data: Path | None, count: int) -> Dataset:
    """Read `count` test photos from dogs-vs-cats/test/CLASS, or crop samples if there is no such folder."""
    if data is None or not (data / "dogs-vs-cats").is_dir():
        return crops(count)
    folder = data / "dogs-vs-cats"
    labels = tuple(sorted(path.name for path in (folder / "train").iterdir()))
    training = _class_folders(folder / "train", labels, _TRAINING)
    return Dataset(
        "photos of cats and dogs",
        test=_class_folders(folder / "test", labels, count),
        calibration=Images(tuple(_evenly(training.files, _CALIBRATION)), None),
        training=training,
        labels=labels,
    )


def crops(count: int) -> Dataset:
    """Crop unlabelled squares out of scikit-image's photos, always the same ones."""
    from skimage import data

    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
    photos = [Image.open(Path(data.data_dir) / name).convert("RGB") for name in names]
    generator = np.random.default_rng(1)
    files = tuple(_crop(photos[number % len(photos)], generator) for number in range(_CALIBRATION + count))
    test, calibration = files[_CALIBRATION:], files[:_CALIBRATION]
    return Dataset("crops of scikit-image's photos", Images(test, None), Images(calibration, None))


def sample(width: int, height: int, *, noise: int = 0) -> bytes:
    """Return the sample photo as a JPEG of this size, with noise of up to that many levels (of 255) in each pixel."""
    with Image.open(SAMPLE) as photo:
        resized = photo.resize((width, height), Image.Resampling.BICUBIC)
    if noise:
        levels = np.random.default_rng(7).integers(-noise, noise + 1, (height, width, 1), dtype=np.int8)
        noisy = np.asarray(resized, np.int16) + levels
        resized = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return _jpeg(resized)


def _class_folders(folder: Path, labels: Sequence[str], count: int) -> Images:
    """Read `count` images, the same number of each class."""
    paths = [_evenly(sorted((folder / label).iterdir()), count // len(labels)) for label in labels]
    classes = np.repeat(np.arange(len(labels)), [len(part) for part in paths])
    return Images(tuple(path.read_bytes() for part in paths for path in part), classes)


def _evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Take `count` items at even distances."""
    return [items[index * len(items) // count] for index in range(min(count, len(items)))]


def _crop(photo: Image.Image, generator: np.random.Generator) -> bytes:
    side = int(generator.integers(100, min(photo.size)))
    left, top = (int(generator.integers(0, length - side + 1)) for length in photo.size)
    return _jpeg(photo.crop((left, top, left + side, top + side)))


def _jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
