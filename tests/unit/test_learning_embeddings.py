"""Embeddings of photos, and the cache that keeps them."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bundles import add_bundle
from class_folders import BASE, add_photos, count_inferences, photo
from numpy.typing import NDArray
from PIL import Image, ImageOps
from support import CIFAR_BUNDLE, encoded

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier, Features
from litelens.core.images import Limits, decode
from litelens_client.learning.embeddings import EmbeddedPhotos, EmbeddingCache, default_cache, embed_photos

COUNT = 4


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    add_photos(tmp_path / "photos", "cat", COUNT)
    return tmp_path / "photos"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "embeddings.sqlite"


@pytest.fixture
def cache(file: Path) -> Iterator[EmbeddingCache]:
    cache = EmbeddingCache(file)
    yield cache
    cache.close()


@pytest.fixture
def inferences(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    return count_inferences(monkeypatch)


def embed(folder: Path, cache: EmbeddingCache, base: Path = BASE, mirrored: bool = False) -> EmbeddedPhotos:
    return embed_photos(folder, sorted(folder.iterdir()), load_bundle(base), cache, mirrored=mirrored)


def embed_again(folder: Path, file: Path) -> EmbeddedPhotos:
    """Embed the photos with a cache that is opened again, as another process would."""
    cache = EmbeddingCache(file)
    try:
        return embed(folder, cache)
    finally:
        cache.close()


def pooled(embedded: EmbeddedPhotos) -> np.ndarray:
    return np.stack([embedding.pooled for embedding in embedded.embeddings.values()])


def test_features_are_those_of_serving(photos: Path, cache: EmbeddingCache) -> None:
    classifier = Classifier(load_bundle(BASE), Limits(), threads=1)
    spec = classifier.bundle.preprocessing
    for path, found in embed(photos, cache).embeddings.items():
        pixels = decode(path.read_bytes(), Limits(), spec).pixels(spec)
        assert np.array_equal(found.pooled, classifier.features(pixels).pooled)


def test_a_mirror_image_has_the_embedding_of_the_mirrored_photo(photos: Path, cache: EmbeddingCache) -> None:
    mirrored = embed(photos, cache, mirrored=True)
    for path in photos.iterdir():
        with Image.open(path) as image:
            ImageOps.mirror(image).save(path)
    assert pooled(mirrored) == pytest.approx(pooled(embed(photos, cache)), abs=1e-6)


def test_photos_in_the_cache_cost_no_inference(photos: Path, file: Path, inferences: list[None]) -> None:
    first = embed_again(photos, file)
    assert len(inferences) == COUNT
    again = embed_again(photos, file)
    assert len(inferences) == COUNT
    assert np.array_equal(pooled(first), pooled(again))
    assert [each.digest for each in first.embeddings.values()] == [each.digest for each in again.embeddings.values()]


def test_a_renamed_photo_costs_no_inference(photos: Path, cache: EmbeddingCache, inferences: list[None]) -> None:
    embed(photos, cache)
    (photos / "00.png").rename(photos / "zoé 🐈.jpeg")
    assert photos / "zoé 🐈.jpeg" in embed(photos, cache).embeddings
    assert len(inferences) == COUNT


def test_ten_more_photos_cost_ten_inferences(photos: Path, cache: EmbeddingCache, inferences: list[None]) -> None:
    embed(photos, cache)
    add_photos(photos, "coffee", 10, first=COUNT)
    assert len(embed(photos, cache).embeddings) == COUNT + 10
    assert len(inferences) == COUNT + 10


def test_a_changed_photo_is_computed_again(photos: Path, cache: EmbeddingCache, inferences: list[None]) -> None:
    before = pooled(embed(photos, cache))
    photo("coffee", 1).save(photos / "02.png")
    after = pooled(embed(photos, cache))
    assert len(inferences) == COUNT + 1
    assert [not np.array_equal(*pair) for pair in zip(before, after, strict=True)] == [False, False, True, False]


def test_mirror_images_and_other_models_have_embeddings_of_their_own(
    photos: Path, cache: EmbeddingCache, inferences: list[None]
) -> None:
    plain = embed(photos, cache)
    mirrored, other = embed(photos, cache, mirrored=True), embed(photos, cache, CIFAR_BUNDLE)
    assert len(inferences) == 3 * COUNT
    assert not np.allclose(pooled(plain), pooled(mirrored))
    assert pooled(other).shape[1] != pooled(plain).shape[1]
    embed(photos, cache)
    embed(photos, cache, CIFAR_BUNDLE)
    assert len(inferences) == 3 * COUNT


def test_other_preprocessing_is_computed_again_even_in_the_same_folder(
    photos: Path, cache: EmbeddingCache, inferences: list[None], tmp_path: Path
) -> None:
    base = add_bundle(tmp_path / "models", "base", BASE)
    before = embed(photos, cache, base)
    manifest = json.loads((base / "manifest.json").read_text())
    manifest["preprocessing"]["crop"] = 0.5
    (base / "manifest.json").write_text(json.dumps(manifest))
    after = embed(photos, cache, base)
    assert len(inferences) == 2 * COUNT
    assert not np.allclose(pooled(before), pooled(after))


def test_a_model_that_was_replaced_in_its_folder_is_used(photos: Path, cache: EmbeddingCache, tmp_path: Path) -> None:
    base = add_bundle(tmp_path / "models", "base", BASE)
    embed(photos, cache, base)
    shutil.rmtree(base)
    add_bundle(tmp_path / "models", "base", CIFAR_BUNDLE)
    assert np.array_equal(pooled(embed(photos, cache, base)), pooled(embed(photos, cache, CIFAR_BUNDLE)))


def test_files_that_cannot_be_read_are_listed_with_a_reason(
    photos: Path, cache: EmbeddingCache, inferences: list[None]
) -> None:
    (photos / "00.png").write_text("hello")
    (photos / "01.png").write_bytes(encoded(photo("cat", 1), "JPEG")[:500])
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    found = embed(photos, cache)
    assert [file.file for file in found.unreadable] == ["00.png", "01.png", "gone.png"]
    assert all(file.reason for file in found.unreadable)
    assert [path.name for path in found.embeddings] == ["02.png", "03.png"]
    assert len(inferences) == 2


def test_the_order_is_that_of_the_photos(photos: Path, cache: EmbeddingCache) -> None:
    embed_photos(photos, [photos / "02.png"], load_bundle(BASE), cache)
    assert [path.name for path in embed(photos, cache).embeddings] == ["00.png", "01.png", "02.png", "03.png"]


def test_an_interruption_keeps_what_was_saved_before(
    photos: Path, file: Path, inferences: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litelens_client.learning.embeddings._ROWS", 1)
    counted = Classifier.features

    def interrupt(self: Classifier, pixels: NDArray[np.uint8]) -> Features:
        if len(inferences) == 2:
            raise KeyboardInterrupt
        return counted(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "features", interrupt)
        with pytest.raises(KeyboardInterrupt):
            embed_again(photos, file)
    assert len(embed_again(photos, file).embeddings) == COUNT
    assert len(inferences) == COUNT


@pytest.mark.parametrize(
    "row", [b"", b"short", b"\xff" * (16 + 4 * 1280), b"x" * (16 + 4 * 1279), None, 7, "x" * (16 + 4 * 1280)]
)
def test_a_damaged_row_is_computed_again(row: object, photos: Path, file: Path, inferences: list[None]) -> None:
    expected = pooled(embed_again(photos, file))
    database = sqlite3.connect(file)
    with database:
        database.execute("UPDATE embeddings SET row = ?", (row,))
    database.close()
    assert np.array_equal(pooled(embed_again(photos, file)), expected)
    embed_again(photos, file)
    assert len(inferences) == 2 * COUNT


@pytest.mark.parametrize("start", [0, 4096])
def test_a_file_that_is_damaged_in_the_middle_or_at_the_start_does_not_stop_the_work(
    start: int, photos: Path, cache_home: Path, inferences: list[None], capsys: pytest.CaptureFixture[str]
) -> None:
    embed_with_default(photos)
    content = bytearray(cache_home.read_bytes())
    content[start:] = b"\xee" * (len(content) - start)
    cache_home.write_bytes(content)
    assert len(embed_with_default(photos).embeddings) == COUNT
    assert len(inferences) == 2 * COUNT
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_cache_that_cannot_be_written_does_not_stop_the_work(
    photos: Path, cache: EmbeddingCache, inferences: list[None], capsys: pytest.CaptureFixture[str]
) -> None:
    cache._database.execute("PRAGMA query_only = ON")
    assert len(embed(photos, cache).embeddings) == COUNT
    embed(photos, cache)
    assert len(inferences) == 2 * COUNT
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_table_of_another_program_does_not_stop_the_work(photos: Path, file: Path) -> None:
    file.parent.mkdir()
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE embeddings (photo TEXT)")
    database.close()
    assert len(embed_again(photos, file).embeddings) == COUNT


@pytest.fixture
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the user's cache, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "litelens" / "embeddings.sqlite"


def embed_with_default(photos: Path) -> EmbeddedPhotos:
    with default_cache() as cache:
        return embed(photos, cache)


def test_the_users_cache_is_where_the_environment_says(photos: Path, cache_home: Path, inferences: list[None]) -> None:
    embed_with_default(photos)
    assert cache_home.is_file()
    embed_with_default(photos)
    assert len(inferences) == COUNT


@pytest.mark.parametrize("obstacle", ["file instead of a folder", "folder instead of the file"])
def test_without_a_usable_cache_embeddings_are_kept_in_memory(
    obstacle: str, photos: Path, cache_home: Path, inferences: list[None], capsys: pytest.CaptureFixture[str]
) -> None:
    if obstacle == "folder instead of the file":
        cache_home.mkdir(parents=True)
    else:
        cache_home.parent.parent.write_text("a file")
    with default_cache() as cache:
        embed(photos, cache)
        embed(photos, cache)
    assert len(inferences) == COUNT
    assert str(cache_home) in capsys.readouterr().err
