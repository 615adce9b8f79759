"""Learn a classifier from photos in class folders: a new head for the features of another bundle's model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import MANIFEST, Bundle, load_bundle
from litelens.core.errors import BundleError
from litelens.core.familiarity import NEIGHBOURS, Familiarity
from litelens.core.head import Head
from litelens.core.probabilities import softmax
from litelens.settings import DEFAULT_MODEL
from litelens_client.learning.calibration import best_temperature, choose_threshold
from litelens_client.learning.duplicates import find_duplicates, group_duplicates, near_duplicate_limit
from litelens_client.learning.embeddings import EmbeddedPhotos, Embedding, EmbeddingCache, embed_photos
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.metrics import Classes, Floats, Labelled
from litelens_client.learning.photos import ListedFolders, Unreadable, list_class_folders, require_photos
from litelens_client.learning.regression import CrossValidation, Samples, cross_validate, fit_head

# If the smallest class has fewer photos than this, the mirror images of all photos are used too. On cats and dogs, they
# add a point of accuracy with two photos of each class, and nothing with five. Each takes as long as a photo.
MIN_UNMIRRORED = 5

# The accuracy that predictions must reach if they are not marked uncertain; the same as in training's presets.
ANSWERED_ACCURACY = 0.95

# The bundle keeps the embeddings of at most this many photos, to recognize unfamiliar ones. With EfficientNet-Lite2,
# they take 1.3 MB, and less than a tenth of a millisecond for each photo to classify.
MAX_REFERENCES = 1000

# With fewer photos, their similarities say too little about how similar familiar photos are.
MIN_FAMILIAR = 20

# The share of a class's photos that would themselves be called unfamiliar. On cats and dogs, ten choices each, 3.4% (at
# most 7.2%) of 1,000 other photos of cats and dogs were then called unfamiliar with 40 photos of each class, and 3.1%
# (at most 4.5%) with 200; of 251 photos of other things, 99.4% and 100% were. With 100 cats and 10 dogs, 15% of the
# other dogs were.
UNFAMILIAR_SHARE = 0.04

MIN_PHOTOS = 2

# The confidence from which a photo is listed as one that is probably in the wrong folder.
MIN_MISPLACED = 0.7

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SEED = 1

Truth = TypeVar("Truth", np.int64, np.bool_)


@dataclass(frozen=True)
class EmbeddedSplit(Generic[Truth]):
    """Photos that can be read, with their embeddings, pooled features and classes, in the same order.

    `classes` are the indices of their classes, int64 `(n,)`; or, if a photo can have several labels, bool
    `(n, labels)`: whether it has each label.
    """

    paths: tuple[Path, ...]
    digests: tuple[bytes, ...]
    pooled: NDArray[np.float32]
    classes: NDArray[Truth]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """The pooled features divided by their L2 norm."""
        norms = np.linalg.norm(self.pooled, axis=1, keepdims=True)
        embeddings: NDArray[np.float32] = self.pooled / np.maximum(norms, 1e-12)
        return embeddings

    def take(self, indices: Sequence[int]) -> "EmbeddedSplit[Truth]":
        """Return the photos with these indices."""
        return EmbeddedSplit(
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
    """A photo that is probably in the wrong folder: its class, the class it looks like, and the confidence of that."""

    photo: Path
    label: str
    looks_like: str
    confidence: float


@dataclass(frozen=True)
class LearnedHead(Generic[Truth]):
    """A head that was learned, its calibration, and what is known about the photos.

    `validation.logits` are not divided by `temperature` yet. `test` and `test_logits`, float64 `(n, labels)`, are the
    photos of the test split and their logits, or None if there is no such split. `groups`, int64, are equal for
    duplicates of a training photo.
    """

    base: Bundle
    root: Path
    labels: tuple[str, ...]
    train: EmbeddedSplit[Truth]
    test: EmbeddedSplit[Truth] | None
    test_logits: Floats | None
    validation: CrossValidation
    head: Head
    familiarity: Familiarity | None
    temperature: float
    mirrored: bool
    pairs: tuple[Pair, ...]
    groups: Classes
    repeated_in_test: tuple[Path, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def measured(self) -> tuple[EmbeddedSplit[Truth], Floats]:
        """The photos on which the head is measured, and their logits: the test split if there is one."""
        if self.test is None or self.test_logits is None:
            return self.train, self.validation.logits
        return self.test, self.test_logits


@dataclass(frozen=True)
class Learned(LearnedHead[np.int64]):
    """The result of learning classes that exclude each other."""

    threshold: float
    misplaced: tuple[Misplaced, ...]

    @property
    def distinct_photos(self) -> Classes:
        """The number of training photos of each class, int64, in which duplicates count once."""
        pairs = set(zip(self.train.classes.tolist(), self.groups.tolist(), strict=True))
        return np.bincount([label for label, _ in pairs], minlength=len(self.labels))

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
    train = _split(embedded, [*listed.files["train"], *listed.files.get("validation", ())])
    require_photos(listed, train.classes, embedded.unreadable, MIN_PHOTOS)
    limit = near_duplicate_limit(train.embeddings, train.digests)
    test, repeated = without_repeated(_split(embedded, listed.files.get("test", ())), train, limit)
    copies, similar = find_duplicates(train.embeddings, train.digests, limit)
    groups = group_duplicates(len(train), [*copies, *similar])
    mirrored = int(np.bincount(train.classes).min()) < MIN_UNMIRRORED
    mirror_images = embed_mirror_images(root, train, base, cache) if mirrored else None
    samples = Samples(train.pooled, mirror_images, train.classes, groups)
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
        test_logits=None if test is None else head.logits(test.pooled).astype(np.float64),
        validation=validation,
        head=head,
        familiarity=find_familiarity(train.embeddings, class_masks(train.classes), groups),
        temperature=temperature,
        threshold=choose_threshold(confidences.max(axis=1), correct, ANSWERED_ACCURACY),
        mirrored=mirrored,
        pairs=tuple(Pair(train.paths[first], train.paths[second], exact) for first, second, exact in pairs),
        groups=groups,
        repeated_in_test=repeated,
        misplaced=find_misplaced(train, listed.labels, confidences),
        unreadable=embedded.unreadable,
    )


def find_familiarity(embeddings: NDArray[np.float32], members: Labelled, groups: Classes) -> Familiarity | None:
    """Choose the embeddings to keep and the thresholds of the familiarity; None if there are too few photos.

    `members` says whether each photo is of each class. A threshold is a low quantile of the familiarity of a class's
    own photos, and at most that of all photos. Duplicates of a photo do not count for its familiarity.
    """
    if len(np.unique(groups)) < MIN_FAMILIAR:
        return None
    _, firsts = np.unique(groups, return_index=True)
    kept = np.sort(np.random.default_rng(_SEED).permutation(firsts)[:MAX_REFERENCES])
    similarities = embeddings @ embeddings[kept].T
    similarities[groups[:, np.newaxis] == groups[kept]] = -1
    nearest = np.partition(similarities, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    own = [np.quantile(nearest[member], UNFAMILIAR_SHARE) for member in members.T]
    return Familiarity(embeddings[kept], np.minimum(own, np.quantile(nearest, UNFAMILIAR_SHARE)).astype(np.float32))


def find_misplaced(train: EmbeddedSplit[np.int64], labels: Sequence[str], confidences: Floats) -> tuple[Misplaced, ...]:
    """Find the photos that are probably in the wrong folder, the clearest first, by confident learning.

    A photo looks like another class if its confidence for that class is at least the mean of that class's own photos
    (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068), and at least MIN_MISPLACED. Without the second condition,
    classes that are hard to tell apart would have many.
    """
    own = confidences[np.arange(len(train)), train.classes]
    typical = np.array([own[train.classes == label].mean() for label in range(len(labels))])
    best = confidences.argmax(axis=1)
    confidence = confidences[np.arange(len(train)), best]
    suspects = np.flatnonzero((best != train.classes) & (confidence >= np.maximum(typical[best], MIN_MISPLACED)))
    order = suspects[np.argsort(own[suspects] - confidence[suspects], kind="stable")]
    return tuple(
        Misplaced(
            train.paths[index],
            labels[train.classes[index]],
            labels[best[index]],
            float(confidence[index]),
        )
        for index in order.tolist()
    )


def confidences_of(logits: Floats, temperature: float) -> Floats:
    """Return the calibrated confidences, float64 `(n, classes)`."""
    return softmax((logits / temperature).astype(np.float32)).astype(np.float64)


def _all_paths(listed: ListedFolders) -> list[Path]:
    return [path for files in listed.files.values() for path, _ in files]


def class_masks(classes: Classes) -> Labelled:
    """Return whether each photo is of each class."""
    masks: Labelled = classes[:, np.newaxis] == np.arange(int(classes.max()) + 1)
    return masks


def _split(embedded: EmbeddedPhotos, files: Sequence[tuple[Path, int]]) -> EmbeddedSplit[np.int64]:
    found: Mapping[Path, Embedding] = embedded.embeddings
    kept = [(path, index) for path, index in files if path in found]
    return EmbeddedSplit(
        tuple(path for path, _ in kept),
        tuple(found[path].digest for path, _ in kept),
        np.stack([found[path].pooled for path, _ in kept]) if kept else np.zeros((0, 0), np.float32),
        np.array([index for _, index in kept], np.int64),
    )


def without_repeated(
    test: EmbeddedSplit[Truth], train: EmbeddedSplit[Truth], limit: float
) -> tuple[EmbeddedSplit[Truth] | None, tuple[Path, ...]]:
    """Return the test photos that are no duplicates of training photos, None if there are no test photos, and the
    paths of those that are duplicates; raises DatasetError if all are.
    """
    if not len(test):
        return None, ()
    known = set(train.digests)
    is_near = (test.embeddings @ train.embeddings.T).max(axis=1) >= limit
    repeated = [index for index, digest in enumerate(test.digests) if digest in known or is_near[index]]
    kept = sorted(set(range(len(test))) - set(repeated))
    if not kept:
        raise DatasetError("every test photo is also a training photo; give other test photos")
    return test.take(kept), tuple(test.paths[index] for index in repeated)


def embed_mirror_images(
    root: Path, train: EmbeddedSplit[Any], base: Bundle, cache: EmbeddingCache
) -> NDArray[np.float32]:
    """Return the pooled features of the photos' mirror images; raises DatasetError if a photo can no longer be read."""
    embedded = embed_photos(root, train.paths, base, cache, mirrored=True)
    if embedded.unreadable:
        raise DatasetError(f"{embedded.unreadable[0].file} can no longer be read; run the command again")
    return np.stack([embedded.embeddings[path].pooled for path in train.paths])
