"""Measure an imported model on photos in class folders: some calibrate its confidences, the others measure it."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import Bundle, load_bundle
from litelens.core.classifier import Classifier
from litelens_client.learning.calibration import best_temperature, choose_threshold
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.learn import ANSWERED_ACCURACY, confidences_of
from litelens_client.learning.metrics import Classes, Floats
from litelens_client.learning.photos import (
    LIMITS,
    Unreadable,
    digest,
    end_processes,
    list_class_folders,
    map_photos,
    printable_path,
    try_decode,
)
from litelens_client.learning.progress import progress

# With fewer photos, starting other processes takes longer than it saves.
_MIN_PARALLEL = 200

MIN_PHOTOS = 2

CALIBRATION, TEST = "validation", "test"


@dataclass(frozen=True)
class Scored:
    """Photos with their classes, int64 `(n,)`, and the model's class scores, float64 `(n, classes)`."""

    paths: tuple[Path, ...]
    classes: Classes
    logits: Floats

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Measured:
    """The photos that calibrated the model and those that measured it, and what came of the first.

    `split` says how the photos were divided. `copies` are photos that were left out because they are equal to others
    at the model's input size.
    """

    root: Path
    calibration: Scored
    test: Scored
    split: str
    temperature: float
    threshold: float
    copies: tuple[Path, ...]
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True)
class _Found:
    """A photo that the model has classified."""

    path: Path
    index: int
    digest: bytes
    logits: NDArray[np.float32]


def measure(bundle: Bundle, root: Path) -> Measured:
    """Classify the photos in `root/CLASS`, or in `root/test/CLASS` and `root/validation/CLASS` or `root/train/CLASS`.

    Folders are named like the labels; upper and lower case do not matter. With a folder `test`, its photos measure the
    model and the others calibrate it. Without one, half of the photos of each class do the one and half the other.
    Raises DatasetError if a folder is not named like a label, or if there are too few photos.
    """
    listed = list_class_folders(root, _as_spelled(root, bundle.labels))
    splits, unreadable, copies = _classify(bundle, root, listed.files)
    calibration, test, split = _divide(splits)
    for part in (calibration, test):
        if len(part) < MIN_PHOTOS:
            raise DatasetError(
                f"{root} has too few photos: {len(calibration)} to calibrate the model and {len(test)} to measure it; "
                f"{MIN_PHOTOS} of each are needed, better a hundred"
            )
    scored = _scored(calibration)
    temperature = best_temperature(scored.logits, scored.classes, smoothing=1 / (len(scored) + 2))
    confidences = confidences_of(scored.logits, temperature)
    correct = confidences.argmax(axis=1) == scored.classes
    return Measured(
        root=root,
        calibration=scored,
        test=_scored(test),
        split=split,
        temperature=temperature,
        threshold=choose_threshold(confidences.max(axis=1), correct, ANSWERED_ACCURACY),
        copies=copies,
        unreadable=unreadable,
    )


def _as_spelled(root: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels as the class folders spell them: Cat becomes cat if there is a folder cat."""
    try:
        folders = [path.name for pattern in ("*", "*/*") for path in root.glob(pattern) if path.is_dir()]
    except OSError:
        folders = []
    spelled: dict[str, str] = {}
    for name in sorted(folders):
        spelled.setdefault(name.casefold(), name)
    known = set(folders)
    return tuple(label if label in known else spelled.get(label.casefold(), label) for label in labels)


def _classify(
    bundle: Bundle, root: Path, files: dict[str, tuple[tuple[Path, int], ...]]
) -> tuple[dict[str, list[_Found]], tuple[Unreadable, ...], tuple[Path, ...]]:
    """Classify all photos; return them by split without copies, the unreadable files and the copies."""
    # The test split comes first, so that its photos are kept and their copies elsewhere are left out.
    listed = [(split, path, index) for split in sorted(files) for path, index in files[split]]
    paths = [path for _, path, _ in listed]
    in_parallel = len(paths) >= _MIN_PARALLEL
    threads = 1 if in_parallel else os.cpu_count() or 1
    score = functools.partial(_score, bundle.folder, bundle.sha256, threads)
    splits: dict[str, list[_Found]] = {split: [] for split in files}
    unreadable, copies, known = [], [], set[bytes]()
    try:
        results = map_photos(score, paths, in_parallel=in_parallel)
        for (split, path, index), result in zip(
            listed, progress(results, len(paths), "Classifying photos"), strict=True
        ):
            if isinstance(result, str):
                unreadable.append(Unreadable(printable_path(path, root), result))
            elif result[0] in known:
                copies.append(path)
            else:
                known.add(result[0])
                splits[split].append(_Found(path, index, *result))
    finally:
        end_processes()
        _classifier.cache_clear()
    return splits, tuple(unreadable), tuple(copies)


def _score(folder: Path, sha256: str, threads: int, path: Path) -> tuple[bytes, NDArray[np.float32]] | str:
    """Return the digest of the photo's pixels and its class scores, or the reason why it cannot be read."""
    classifier = _classifier(folder, sha256, threads)
    pixels = try_decode(classifier.bundle.preprocessing, path)
    return pixels if isinstance(pixels, str) else (digest(pixels), classifier.logits(pixels))


@functools.lru_cache(maxsize=1)
def _classifier(folder: Path, sha256: str, threads: int) -> Classifier:
    """Load the bundle once in each process."""
    return Classifier(load_bundle(folder), LIMITS, threads)


def _divide(splits: dict[str, list[_Found]]) -> tuple[list[_Found], list[_Found], str]:
    """Return the photos for calibration, those for the measurement, and a sentence about how they were divided."""
    for measured in ("test", "validation"):
        others = [split for split in ("validation", "train") if split != measured and splits.get(split)]
        if splits.get(measured) and others:
            calibration, test = splits[others[0]], splits[measured]
            how = (
                f"{len(calibration):,} photos of '{others[0]}' calibrated it, {len(test):,} of '{measured}' measured it"
            )
            return calibration, test, how
    photos = [photo for found in splits.values() for photo in found]
    calibration, test = [], []
    for index in sorted({photo.index for photo in photos}):
        # The order of digests is random, but the same for the same photos.
        own = sorted((photo for photo in photos if photo.index == index), key=lambda photo: photo.digest)
        calibration += own[::2]
        test += own[1::2]
    how = f"{len(calibration):,} of the photos calibrated it, the other {len(test):,} measured it"
    return calibration, test, how


def _scored(photos: Sequence[_Found]) -> Scored:
    return Scored(
        tuple(photo.path for photo in photos),
        np.array([photo.index for photo in photos], np.int64),
        np.stack([photo.logits for photo in photos]).astype(np.float64),
    )
