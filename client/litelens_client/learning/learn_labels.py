"""Learn a multi-label classifier: photos that can have any number of labels give a head with a regression per label."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from litelens.core.bundle import Bundle
from litelens_client.learning.duplicates import find_duplicates, group_duplicates, near_duplicate_limit
from litelens_client.learning.embeddings import EmbeddedPhotos, EmbeddingCache, embed_photos
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.labelled_photos import LabelledFiles, list_labelled_photos, merge_copies, to_matrix
from litelens_client.learning.learn import (
    MIN_PHOTOS,
    MIN_UNMIRRORED,
    EmbeddedSplit,
    LearnedHead,
    Pair,
    embed_mirror_images,
    find_familiarity,
    without_repeated,
)
from litelens_client.learning.metrics import Classes
from litelens_client.learning.multi_label import (
    LabelledSamples,
    best_label_temperature,
    choose_thresholds,
    cross_validate_labels,
    fit_label_heads,
    label_confidences,
)
from litelens_client.learning.photos import Unreadable
from litelens_client.output import counted


@dataclass(frozen=True)
class LearnedLabels(LearnedHead[np.bool_]):
    """The result of learning labels that do not exclude each other.

    `thresholds` has the confidence from which each label is present.
    """

    thresholds: tuple[float, ...]

    @property
    def distinct_photos(self) -> Classes:
        """The number of training photos with each label, int64, in which duplicates count once."""
        return np.array([len(np.unique(self.groups[column])) for column in self.train.classes.T], np.int64)


def learn_labels(source: Path, base: Bundle, cache: EmbeddingCache) -> LearnedLabels:
    """Learn from the photos in a table of labels, or in class folders, in which a photo can be in several folders.

    Copies of a photo are one photo, with the labels of all. Raises DatasetError if a label has fewer than two readable
    photos, or if fewer than two are without it.
    """
    listed = list_labelled_photos(source)
    embedded = embed_photos(listed.root, listed.paths, base, cache)
    train = _split(embedded, listed, "train", "validation")
    _require_photos(train, listed.labels, embedded.unreadable)
    limit = near_duplicate_limit(train.embeddings, train.digests)
    test, repeated = without_repeated(_split(embedded, listed, "test"), train, limit)
    _, similar = find_duplicates(train.embeddings, train.digests, limit)
    groups = group_duplicates(len(train), similar)
    mirrored = int(train.classes.sum(axis=0).min()) < MIN_UNMIRRORED
    mirror_images = embed_mirror_images(listed.root, train, base, cache) if mirrored else None
    validation = cross_validate_labels(LabelledSamples(train.pooled, mirror_images, train.classes, groups))
    head = fit_label_heads(train.pooled, train.classes, validation.regularization, mirror_images)
    temperature = best_label_temperature(validation.logits, train.classes, smoothing=1 / (len(train) + 2))
    return LearnedLabels(
        base=base,
        root=listed.root,
        labels=listed.labels,
        train=train,
        test=test,
        test_logits=None if test is None else head.logits(test.pooled).astype(np.float64),
        validation=validation,
        head=head,
        familiarity=find_familiarity(train.embeddings, train.classes, groups),
        temperature=temperature,
        thresholds=choose_thresholds(label_confidences(validation.logits, temperature), train.classes),
        mirrored=mirrored,
        pairs=tuple(Pair(train.paths[first], train.paths[second], exact=False) for first, second in similar),
        groups=groups,
        repeated_in_test=repeated,
        unreadable=embedded.unreadable,
    )


def _split(embedded: EmbeddedPhotos, listed: LabelledFiles, *splits: str) -> EmbeddedSplit[np.bool_]:
    """Return the readable photos of these splits; copies of a photo are one photo."""
    files: Mapping[Path, frozenset[int]] = {
        path: labels for split in splits for path, labels in listed.files.get(split, {}).items()
    }
    found = [(path, embedded.embeddings[path]) for path in files if path in embedded.embeddings]
    merged = merge_copies([(embedding.digest, files[path]) for path, embedding in found])
    kept = [found[index] for index, _ in merged]
    return EmbeddedSplit(
        tuple(path for path, _ in kept),
        tuple(embedding.digest for _, embedding in kept),
        np.stack([embedding.pooled for _, embedding in kept]) if kept else np.zeros((0, 0), np.float32),
        to_matrix([labels for _, labels in merged], len(listed.labels)),
    )


def _require_photos(
    train: EmbeddedSplit[np.bool_], labels: tuple[str, ...], unreadable: tuple[Unreadable, ...]
) -> None:
    why = (
        f"; {len(unreadable):,} cannot be read, such as {unreadable[0].file}: {unreadable[0].reason}"
        if unreadable
        else ""
    )
    for label, count in zip(labels, train.classes.sum(axis=0).tolist(), strict=True):
        if count < MIN_PHOTOS:
            photos = counted(count, "readable photo")
            raise DatasetError(f"the label {label!r} has {photos}; {MIN_PHOTOS} or more are needed{why}")
        if len(train) - count < MIN_PHOTOS:
            raise DatasetError(
                f"{count} of {len(train)} photos have the label {label!r}; {MIN_PHOTOS} or more without it are needed, "
                f"or nothing can be learned about it{why}"
            )
