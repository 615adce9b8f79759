"""Familiarity: photos that are unlike the training photos, and the file that a bundle keeps for it."""

from pathlib import Path

import numpy as np
import pytest
from bundles import add_bundle
from class_folders import BASE, photo
from damage import Arrays, damages, npz, put_file
from support import encoded

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier, Options
from litelens.core.errors import BundleError
from litelens.core.familiarity import FAMILIARITY, NEIGHBOURS, Familiarity, load_familiarity
from litelens.core.images import Limits
from litelens_client.learning.learn import (
    MAX_REFERENCES,
    MIN_FAMILIAR,
    UNFAMILIAR_SHARE,
    EmbeddedSplit,
    class_masks,
    find_familiarity,
)

CHANNELS, CLASSES = 1280, 100
DAMAGES = damages("levels")


def directions(noise: np.random.Generator, count: int, channels: int = 64, spread: float = 0.1) -> np.ndarray:
    """Embeddings of length 1 around one point."""
    found = np.eye(channels)[0] + noise.normal(0, spread, (count, channels))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def familiarity_of(embeddings: np.ndarray, groups: np.ndarray | None = None) -> Familiarity:
    groups = np.arange(len(embeddings)) if groups is None else groups
    found = find_familiarity(embeddings, np.ones((len(embeddings), 1), bool), groups)
    assert found
    return found


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that recognizes unfamiliar photos, which a test may damage."""
    folder = add_bundle(tmp_path, "pets", BASE)
    put_file(folder, FAMILIARITY, npz(familiarity_arrays()))
    return folder


def familiarity_arrays() -> Arrays:
    levels = np.random.default_rng(3).integers(-127, 128, (5, CHANNELS), dtype=np.int8)
    return {"levels": levels, "thresholds": np.full(CLASSES, 0.5, np.float32)}


def test_familiarity_is_the_mean_similarity_to_the_nearest_training_photos() -> None:
    references = np.eye(5, dtype=np.float32)
    embedding = np.array([0.6, 0.5, 0.4, 0.3, 0.2], np.float32)
    assert NEIGHBOURS == 3
    thresholds = np.array([0.49, 0.51], np.float32)
    assert Familiarity(references, thresholds).measure(embedding) == pytest.approx(0.5)
    assert Familiarity(references[:2], thresholds).measure(embedding) == pytest.approx(0.55)
    assert [Familiarity(references, thresholds).is_unfamiliar(embedding, index) for index in (0, 1)] == [False, True]


def test_a_few_photos_of_the_classes_and_most_others_are_unfamiliar(noise: np.random.Generator) -> None:
    familiarity = familiarity_of(directions(noise, 400))
    own = [familiarity.is_unfamiliar(embedding, 0) for embedding in directions(noise, 400)]
    assert np.mean(own) <= 3 * UNFAMILIAR_SHARE
    others = np.roll(directions(noise, 100), 7, axis=1)
    assert all(familiarity.is_unfamiliar(embedding, 0) for embedding in others)


def test_too_few_photos_tell_nothing_about_others(noise: np.random.Generator) -> None:
    embeddings = directions(noise, MIN_FAMILIAR)
    classes = np.zeros(MIN_FAMILIAR, np.int64)
    assert find_familiarity(embeddings, class_masks(classes), np.arange(MIN_FAMILIAR))
    assert find_familiarity(embeddings[1:], class_masks(classes[1:]), np.arange(MIN_FAMILIAR - 1)) is None


def test_photos_of_a_class_that_varies_more_are_not_unfamiliar_because_of_another_one(
    noise: np.random.Generator,
) -> None:
    varied, alike = directions(noise, 40, spread=0.2), directions(noise, 400, spread=0.02)
    classes = np.repeat([0, 1], [40, 400])
    familiarity = find_familiarity(np.concatenate([varied, alike]), class_masks(classes), np.arange(440))
    assert familiarity
    assert familiarity.thresholds[0] < familiarity.thresholds[1]
    own = [familiarity.is_unfamiliar(embedding, 0) for embedding in directions(noise, 200, spread=0.2)]
    assert np.mean(own) <= 4 * UNFAMILIAR_SHARE


def test_duplicates_count_as_one_photo(noise: np.random.Generator) -> None:
    embeddings = directions(noise, MIN_FAMILIAR)
    repeated, groups = np.concatenate([embeddings] * 4), np.tile(np.arange(MIN_FAMILIAR), 4)
    assert find_familiarity(embeddings[:10].repeat(4, axis=0), np.ones((40, 1), bool), np.arange(10).repeat(4)) is None
    found = familiarity_of(repeated, groups)
    assert len(found.references) == MIN_FAMILIAR
    assert found.thresholds == pytest.approx(familiarity_of(embeddings).thresholds, abs=0.1)


def test_what_is_kept_of_many_photos_is_small(noise: np.random.Generator) -> None:
    familiarity = familiarity_of(directions(noise, 4000, CHANNELS, spread=0.02))
    assert len(familiarity.references) == MAX_REFERENCES
    assert len(familiarity.to_bytes()) < 2_000_000


def test_what_was_saved_gives_the_same_answers(noise: np.random.Generator, tmp_path: Path) -> None:
    familiarity = familiarity_of(directions(noise, 50))
    path = tmp_path / FAMILIARITY
    path.write_bytes(familiarity.to_bytes())
    loaded = load_familiarity(path, classes=1, channels=64)
    assert loaded.thresholds == pytest.approx(familiarity.thresholds)
    assert np.linalg.norm(loaded.references, axis=1) == pytest.approx(1)
    for embedding in directions(noise, 20):
        assert loaded.measure(embedding) == pytest.approx(familiarity.measure(embedding), abs=0.01)


def test_an_embedding_of_zeros_can_be_saved_and_resembles_nothing(noise: np.random.Generator, tmp_path: Path) -> None:
    embeddings = directions(noise, 30)
    embeddings[4] = 0
    path = tmp_path / FAMILIARITY
    path.write_bytes(familiarity_of(embeddings).to_bytes())
    loaded = load_familiarity(path, classes=1, channels=64)
    assert np.isfinite(loaded.references).all()
    assert loaded.is_unfamiliar(np.zeros(64, np.float32), 0)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_by_name(damage: str, bundle: Path) -> None:
    path = put_file(bundle, FAMILIARITY, DAMAGES[damage](familiarity_arrays()))
    with pytest.raises(BundleError) as raised:
        load_bundle(bundle)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        {"levels": np.zeros((0, CHANNELS), np.int8)},
        {"thresholds": np.full(CLASSES, np.nan, np.float32)},
        {"thresholds": np.full(CLASSES + 1, 0.5, np.float32)},
        {"thresholds": np.float32(0.5)},
    ],
)
def test_an_empty_file_or_an_invalid_threshold_is_refused(change: Arrays, bundle: Path) -> None:
    path = put_file(bundle, FAMILIARITY, npz(familiarity_arrays() | change))
    with pytest.raises(BundleError) as raised:
        load_bundle(bundle)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(("threshold", "unfamiliar"), [(1.0, True), (-1.0, False)])
def test_an_unfamiliar_photo_is_always_uncertain(threshold: float, unfamiliar: bool, bundle: Path) -> None:
    put_file(bundle, FAMILIARITY, npz(familiarity_arrays() | {"thresholds": np.full(CLASSES, threshold, np.float32)}))
    classifier = Classifier(load_bundle(bundle), Limits(), threads=1)
    prediction = classifier.classify(encoded(photo("cat", 1), "PNG"), Options(threshold=0))
    assert prediction.unfamiliar is unfamiliar
    assert prediction.uncertain is unfamiliar


def test_a_bundle_without_training_photos_cannot_tell() -> None:
    classifier = Classifier(load_bundle(BASE), Limits(), threads=1)
    assert classifier.classify(encoded(photo("cat", 1), "PNG")).unfamiliar is None


def test_photos_have_embeddings_of_length_one(noise: np.random.Generator) -> None:
    pooled = np.concatenate([noise.random((3, 8)), np.zeros((1, 8))]).astype(np.float32)
    photos = EmbeddedSplit((Path("a"),) * 4, (b"",) * 4, pooled, np.zeros(4, np.int64))
    assert np.linalg.norm(photos.embeddings, axis=1) == pytest.approx([1, 1, 1, 0])
