"""Measure an imported model on photos with known labels: some calibrate its confidences, the others measure it."""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import Bundle, load_bundle
from litelens.core.classifier import Classifier
from litelens_client.learning.calibration import best_temperature, choose_threshold
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.labelled_photos import is_label_table, list_labelled_photos, merge_copies, to_matrix
from litelens_client.learning.learn import ANSWERED_ACCURACY, Truth, confidences_of
from litelens_client.learning.metrics import Floats
from litelens_client.learning.multi_label import best_label_temperature, choose_thresholds, label_confidences
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
class Scored(Generic[Truth]):
    """Photos with their classes, as in learn.EmbeddedSplit, and the model's class scores, float64 `(n, classes)`."""

    paths: tuple[Path, ...]
    classes: NDArray[Truth]
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
    calibration: Scored[np.int64]
    test: Scored[np.int64]
    split: str
    temperature: float
    threshold: float
    copies: tuple[Path, ...]
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True)
class MeasuredLabels:
    """The same of a multi-label model, with a threshold for each label. Copies of a photo are one photo."""

    root: Path
    calibration: Scored[np.bool_]
    test: Scored[np.bool_]
    split: str
    temperature: float
    thresholds: tuple[float, ...]
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True)
class _Found:
    """A photo that the model has classified, with the indices of its classes: one, unless it has several labels."""

    path: Path
    classes: tuple[int, ...]
    digest: bytes
    logits: NDArray[np.float32]


def measure(bundle: Bundle, root: Path) -> Measured:
    """Classify the photos in `root/CLASS`, or in `root/test/CLASS` and `root/validation/CLASS` or `root/train/CLASS`.

    Folders are named like the labels; upper and lower case do not matter. With a folder `test`, its photos measure the
    model and the others calibrate it. Without one, half of the photos of each class do the one and half the other.
    Raises DatasetError if a folder is not named like a label, or if there are too few photos.
    """
    if is_label_table(root):
        raise DatasetError(f"{root} is a table of labels, but the model's labels exclude each other; use class folders")
    listed = list_class_folders(root, _as_spelled(root, bundle.labels))
    splits, unreadable, copies = _classify(bundle, root, listed.files)
    calibration, test, split = _divide(root, splits)
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


def measure_labels(bundle: Bundle, source: Path) -> MeasuredLabels:
    """Classify photos of a multi-label model, in class folders as for measure() or in a table of labels.

    A photo that is in several class folders has all their labels. Raises DatasetError as measure() does.
    """
    is_table = is_label_table(source)
    listed = list_labelled_photos(source, bundle.labels if is_table else _as_spelled(source, bundle.labels))
    scores, unreadable = _score_all(bundle, listed.root, listed.paths)
    splits: dict[str, list[_Found]] = {}
    known: set[bytes] = set()
    # The test split comes first, so that its photos are kept and their copies elsewhere are left out.
    for split in sorted(listed.files):
        files = [(path, labels) for path, labels in listed.files[split].items() if path in scores]
        merged = merge_copies([(scores[path][0], labels) for path, labels in files])
        found = [_Found(files[at][0], tuple(sorted(labels)), *scores[files[at][0]]) for at, labels in merged]
        splits[split] = [photo for photo in found if photo.digest not in known]
        known |= {photo.digest for photo in found}
    calibration, test, split = _divide(source, splits)
    scored = _scored_labels(calibration, len(bundle.labels))
    temperature = best_label_temperature(scored.logits, scored.classes, smoothing=1 / (len(scored) + 2))
    return MeasuredLabels(
        root=listed.root,
        calibration=scored,
        test=_scored_labels(test, len(bundle.labels)),
        split=split,
        temperature=temperature,
        thresholds=choose_thresholds(label_confidences(scored.logits, temperature), scored.classes),
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
    scores, unreadable = _score_all(bundle, root, [path for _, path, _ in listed])
    splits: dict[str, list[_Found]] = {split: [] for split in files}
    copies, known = [], set[bytes]()
    for split, path, index in listed:
        if path not in scores:
            continue
        digest, logits = scores[path]
        if digest in known:
            copies.append(path)
        else:
            known.add(digest)
            splits[split].append(_Found(path, (index,), digest, logits))
    return splits, unreadable, tuple(copies)


def _score_all(
    bundle: Bundle, root: Path, paths: Sequence[Path]
) -> tuple[Mapping[Path, tuple[bytes, NDArray[np.float32]]], tuple[Unreadable, ...]]:
    """Return the digest and the class scores of each photo that can be read, and the unreadable files."""
    in_parallel = len(paths) >= _MIN_PARALLEL
    threads = 1 if in_parallel else os.cpu_count() or 1
    score = functools.partial(_score, bundle.folder, bundle.sha256, threads)
    found, unreadable = {}, []
    try:
        results = map_photos(score, paths, in_parallel=in_parallel)
        for path, result in zip(paths, progress(results, len(paths), "Classifying photos"), strict=True):
            if isinstance(result, str):
                unreadable.append(Unreadable(printable_path(path, root), result))
            else:
                found[path] = result
    finally:
        end_processes()
        _classifier.cache_clear()
    return found, tuple(unreadable)


def _score(folder: Path, sha256: str, threads: int, path: Path) -> tuple[bytes, NDArray[np.float32]] | str:
    """Return the digest of the photo's pixels and its class scores, or the reason why it cannot be read."""
    classifier = _classifier(folder, sha256, threads)
    pixels = try_decode(classifier.bundle.preprocessing, path)
    return pixels if isinstance(pixels, str) else (digest(pixels), classifier.logits(pixels))


@functools.lru_cache(maxsize=1)
def _classifier(folder: Path, sha256: str, threads: int) -> Classifier:
    """Load the bundle once in each process."""
    return Classifier(load_bundle(folder), LIMITS, threads)


def _divide(root: Path, splits: dict[str, list[_Found]]) -> tuple[list[_Found], list[_Found], str]:
    """Return the photos for calibration, those for the measurement, and a sentence about how they were divided.

    Raises DatasetError if there are too few.
    """
    calibration, test, how = _parts(splits)
    for part in (calibration, test):
        if len(part) < MIN_PHOTOS:
            raise DatasetError(
                f"{root} has too few photos: {len(calibration)} to calibrate the model and {len(test)} to measure it; "
                f"{MIN_PHOTOS} of each are needed, better a hundred"
            )
    return calibration, test, how


def _parts(splits: dict[str, list[_Found]]) -> tuple[list[_Found], list[_Found], str]:
    for measured in ("test", "validation"):
        others = [split for split in ("validation", "train") if split != measured and splits.get(split)]
        if splits.get(measured) and others:
            calibration, test = splits[others[0]], splits[measured]
            how = (
                f"{len(calibration):,} photos of '{others[0]}' calibrated it, {len(test):,} of '{measured}' measured it"
            )
            return calibration, test, how
    photos = [photo for found in splits.values() for photo in found]
    # The order of digests is random, but the same for the same photos. Those of a class are divided evenly.
    ordered = sorted(photos, key=lambda photo: (photo.classes, photo.digest))
    calibration, test = ordered[::2], ordered[1::2]
    how = f"{len(calibration):,} of the photos calibrated it, the other {len(test):,} measured it"
    return calibration, test, how


def _scored(photos: Sequence[_Found]) -> Scored[np.int64]:
    return Scored(
        tuple(photo.path for photo in photos),
        np.array([photo.classes[0] for photo in photos], np.int64),
        np.stack([photo.logits for photo in photos]).astype(np.float64),
    )


def _scored_labels(photos: Sequence[_Found], count: int) -> Scored[np.bool_]:
    return Scored(
        tuple(photo.path for photo in photos),
        to_matrix([frozenset(photo.classes) for photo in photos], count),
        np.stack([photo.logits for photo in photos]).astype(np.float64),
    )
