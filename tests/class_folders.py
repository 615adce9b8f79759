"""Photos in class folders, cut from the sample photos, for the tests of `litelens learn`."""

import functools
import importlib
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support import ROCKET, ROOT, SAMPLES
from threadpoolctl import threadpool_limits

from litelens.core.classifier import Classifier, Features

# The base of tests, because an inference takes a few milliseconds.
BASE = ROOT / "models" / "cifar100-efficientnet-lite2"

_SOURCES = {"cat": SAMPLES / "cat.jpg", "coffee": SAMPLES / "coffee.jpg", "rocket": ROCKET}
_SIDE = 96


def photo(label: str, number: int) -> Image.Image:
    """Return a square cut from the sample of that label, another one for each number."""
    source = _source(label)
    random = np.random.default_rng([len(label), number])
    side = int(min(source.size) * random.uniform(0.3, 0.8))
    left, top = (int(random.integers(0, length - side + 1)) for length in source.size)
    square = source.crop((left, top, left + side, top + side)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return square.rotate(90 * (number % 4))


def add_photos(folder: Path, label: str, count: int, first: int = 0) -> list[Path]:
    """Write photos of a label into a folder, as NUMBER.png, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:02}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths, start=first):
        photo(label, number).save(path, compress_level=1)
    return paths


def add_classes(root: Path, count: int, labels: tuple[str, ...] = ("cat", "coffee")) -> Path:
    """Write a class folder with photos for each label, and return the folder that contains them."""
    for label in labels:
        add_photos(root / label, label, count)
    return root


def count_inferences(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list that gets an item for each inference of features."""
    calls: list[None] = []
    compute = Classifier.features

    def count(self: Classifier, pixels: NDArray[np.uint8]) -> Features:
        calls.append(None)
        return compute(self, pixels)

    monkeypatch.setattr(Classifier, "features", count)
    return calls


def one_thread() -> AbstractContextManager[object]:
    """Fit with one thread, because threads that wait for a busy core make small fits many times slower."""
    importlib.import_module("sklearn.linear_model")  # only libraries that are loaded can be limited
    return threadpool_limits(1)


@functools.cache
def _source(label: str) -> Image.Image:
    with Image.open(_SOURCES[label]) as image:
        return image.convert("RGB")
