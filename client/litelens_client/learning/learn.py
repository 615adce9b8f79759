"""Learn a classifier from photos in class folders: a new head for the features of another bundle's model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import MANIFEST, Bundle, load_bundle
from litelens.core.classifier import softmax
from litelens.core.errors import BundleError
from litelens.core.familiarity import NEIGHBOURS, Familiarity
from litelens.core.head import Head
from litelens.settings import DEFAULT_MODEL
from litelens_client.learning.calibration import best_temperature, choose_threshold
from litelens_client.learning.duplicates import find_duplicates, group_duplicates
from litelens_client.learning.embeddings import EmbeddedPhotos, Embedding, EmbeddingCache, embed_photos
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.metrics import Classes, Floats
from litelens_client.learning.photos import ListedFolders, Unreadable, list_class_folders, require_photos
from litelens_client.learning.regression import CrossValidation, Samples, cross_validate, fit_head

# With up to this many photos, their mirror images are used too. On cats and dogs, they add a point of accuracy with two
# photos of each class, and nothing with five or more. Each takes as long as a photo.
MAX_MIRRORED = 200

# The accuracy that predictions must reach if they are not marked uncertain; the same as in training's presets.
ANSWERED_ACCURACY = 0.95

# The bundle keeps the embeddings of at most this many photos, to recognize unfamiliar ones. With EfficientNet-Lite2,
# they take 1.3 MB, and half a millisecond for each photo to classify.
MAX_REFERENCES = 1000

# With fewer photos, their similarities say too little about how similar familiar photos are.
MIN_FAMILIAR = 20

# The share of the learned photos themselves that is called unfamiliar. With 40 to 2,000 photos of cats and as many of
# dogs, this marks 3 to 5% of 1,000 other photos of cats and dogs, and 96 to 100% of photos of other things.
UNFAMILIAR_SHARE = 0.03

MIN_PHOTOS = 2

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SEED = 1


@dataclass(frozen=True)
class Photos:
    """Photos that can be read, with their embeddings, pooled features and classes, in the same order."""

    paths: tuple[Path, ...]
    digests: tuple[bytes, ...]
    pooled: NDArray[np.float32]
    classes: Classes

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """The pooled features divided by their L2 norm."""
        norms = np.linalg.norm(self.pooled, axis=1, keepdims=True)
        embeddings: NDArray[np.float32] = self.pooled / np.maximum(norms, 1e-12)
        return embeddings

    def take(self, indices: Sequence[int]) -> "Photos":
        """Return the photos with these indices."""
        return Photos(
            tuple(self.paths[index] for index in indices),
            tuple(self.digests[index] for index in indices),
            self.pooled[list(indices)],
            self.classes[list(indices)],
        )


@dataclass(frozen=True)
class Pair:
    """Two photos that are duplicates; `exact` if their pixels are equal at the model's input size."""

    first: Path
    second: Path
    exact: bool


@dataclass(frozen=True)
class Misplaced:
    """A photo that is probably in the wrong folder: its folder, the class it looks like, and both confidences."""

    photo: Path
    label: str
    looks_like: str
    label_confidence: float
    confidence: float


@dataclass(frozen=True)
class Learned:
    """The result of learning: the head and its calibration, and what is known about the photos.

    `validation.logits` are not divided by `temperature` yet. `test` and `test_logits`, float64 `(n, classes)`, are the
    photos of the test split and their logits, or None if there is no such split.
    """

    base: Bundle
    root: Path
    labels: tuple[str, ...]
    train: Photos
    test: Photos | None
    test_logits: Floats | None
    validation: CrossValidation
    head: Head
    familiarity: Familiarity | None
    temperature: float
    threshold: float
    mirrored: bool
    pairs: tuple[Pair, ...]
    repeated_in_test: tuple[Path, ...]
    misplaced: tuple[Misplaced, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def confidences(self) -> Floats:
        """The calibrated confidences of the cross-validation, float64 `(n, classes)`."""
        return confidences_of(self.validation.logits, self.temperature)


def check_name(name: str) -> None:
    """Raise DatasetError if a bundle cannot have this name, which is also that of its folder."""
    if not _NAME.fullmatch(name):
        raise DatasetError(
            f"'{name}' cannot be a bundle's name; use up to 64 lower-case letters, digits, '-' and '_', such as 'pets'"
        )
    if name == DEFAULT_MODEL:
        raise DatasetError(f"'{name}' is the name of the model that comes with litelens; choose another")


def load_base(folder: Path) -> Bundle:
    """Load the bundle whose features are used; raises BundleError if it cannot be loaded or gives no features."""
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"there is no bundle {folder}; --base takes a bundle's name in models/ or its path")
    base = load_bundle(folder)
    if base.head is None:
        raise BundleError(f"the model of {folder} gives no features, so nothing can be learned from it; choose another")
    return base


def learn(root: Path, base: Bundle, cache: EmbeddingCache) -> Learned:
    """Learn from the photos in `root/CLASS`, or in `root/train/CLASS`, and measure on `root/test/CLASS` if it exists.

    Photos in a folder `validation` next to `train` are training photos too. Raises DatasetError if there are fewer than
    two classes, or fewer than two readable photos in a class.
    """
    listed = list_class_folders(root)
    embedded = embed_photos(root, _all_paths(listed), base, cache)
    train = _photos(embedded, [*listed.files["train"], *listed.files.get("validation", ())])
    require_photos(listed, train.classes, MIN_PHOTOS)
    test, repeated = _test_photos(embedded, listed, train)
    copies, similar = find_duplicates(train.embeddings, train.digests)
    groups = group_duplicates(len(train), [*copies, *similar])
    mirrored = len(train) <= MAX_MIRRORED
    samples = Samples(train.pooled, _mirrored(root, train, base, cache) if mirrored else None, train.classes, groups)
    validation = cross_validate(samples, len(listed.labels))
    temperature = best_temperature(validation.logits, train.classes, smoothing=1 / (len(train) + 2))
    head = fit_head(samples, len(listed.labels), validation.regularization)
    confidences = confidences_of(validation.logits, temperature)
    correct = confidences.argmax(axis=1) == train.classes
    pairs = [(*pair, True) for pair in copies] + [(*pair, False) for pair in similar]
    return Learned(
        base=base,
        root=root,
        labels=listed.labels,
        train=train,
        test=test,
        test_logits=None if test is None else (test.pooled @ head.weights.T + head.bias).astype(np.float64),
        validation=validation,
        head=head,
        familiarity=find_familiarity(train.embeddings, groups),
        temperature=temperature,
        threshold=choose_threshold(confidences.max(axis=1), correct, ANSWERED_ACCURACY),
        mirrored=mirrored,
        pairs=tuple(Pair(train.paths[first], train.paths[second], exact) for first, second, exact in pairs),
        repeated_in_test=repeated,
        misplaced=find_misplaced(train, listed.labels, confidences),
        unreadable=embedded.unreadable,
    )


def find_familiarity(embeddings: NDArray[np.float32], groups: Classes) -> Familiarity | None:
    """Choose the embeddings to keep and the threshold of the familiarity; None if there are too few photos.

    The threshold is a low quantile of the photos' own familiarity. Duplicates of a photo do not count for it.
    """
    if len(np.unique(groups)) < MIN_FAMILIAR:
        return None
    _, firsts = np.unique(groups, return_index=True)
    kept = np.sort(np.random.default_rng(_SEED).permutation(firsts)[:MAX_REFERENCES])
    similarities = embeddings @ embeddings[kept].T
    similarities[groups[:, np.newaxis] == groups[kept]] = -1
    nearest = np.partition(similarities, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    return Familiarity(embeddings[kept], float(np.quantile(nearest, UNFAMILIAR_SHARE)))


def find_misplaced(train: Photos, labels: Sequence[str], confidences: Floats) -> tuple[Misplaced, ...]:
    """Find the photos that are probably in the wrong folder, the clearest first, by confident learning.

    A photo looks like another class if its confidence for that class is higher than for all others, and at least the
    mean of that class's own photos (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068).
    """
    own = confidences[np.arange(len(train)), train.classes]
    typical = np.array([own[train.classes == label].mean() for label in range(len(labels))])
    best = confidences.argmax(axis=1)
    confidence = confidences[np.arange(len(train)), best]
    suspects = np.flatnonzero((best != train.classes) & (confidence >= typical[best]))
    order = suspects[np.argsort(own[suspects] - confidence[suspects], kind="stable")]
    return tuple(
        Misplaced(
            train.paths[index],
            labels[train.classes[index]],
            labels[best[index]],
            float(own[index]),
            float(confidence[index]),
        )
        for index in order.tolist()
    )


def confidences_of(logits: Floats, temperature: float) -> Floats:
    """Return the calibrated confidences, float64 `(n, classes)`."""
    return softmax((logits / temperature).astype(np.float32)).astype(np.float64)


def _all_paths(listed: ListedFolders) -> list[Path]:
    return [path for files in listed.files.values() for path, _ in files]


def _photos(embedded: EmbeddedPhotos, files: Sequence[tuple[Path, int]]) -> Photos:
    found: Mapping[Path, Embedding] = embedded.embeddings
    kept = [(path, index) for path, index in files if path in found]
    return Photos(
        tuple(path for path, _ in kept),
        tuple(found[path].digest for path, _ in kept),
        np.stack([found[path].pooled for path, _ in kept]) if kept else np.zeros((0, 0), np.float32),
        np.array([index for _, index in kept], np.int64),
    )


def _test_photos(
    embedded: EmbeddedPhotos, listed: ListedFolders, train: Photos
) -> tuple[Photos | None, tuple[Path, ...]]:
    """Return the test photos whose pixels differ from those of all training photos, and the paths of the others."""
    test = _photos(embedded, listed.files.get("test", ()))
    known = set(train.digests)
    repeated = [index for index, digest in enumerate(test.digests) if digest in known]
    kept = [index for index in range(len(test)) if index not in set(repeated)]
    if len(test) and not kept:
        raise DatasetError("every test photo is also a training photo; use other test photos")
    return test.take(kept) if kept else None, tuple(test.paths[index] for index in repeated)


def _mirrored(root: Path, train: Photos, base: Bundle, cache: EmbeddingCache) -> NDArray[np.float32]:
    embedded = embed_photos(root, train.paths, base, cache, mirrored=True)
    if embedded.unreadable:
        raise DatasetError(f"{embedded.unreadable[0].file} can no longer be read; run the command again")
    return np.stack([embedded.embeddings[path].pooled for path in train.paths])
