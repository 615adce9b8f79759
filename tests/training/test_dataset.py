import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from litelens.core.images import Limits, decode
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.photos import ClassFolders, Photos
from training.dataset import hold_out, load_dataset
from training.preset import Preset, load_preset


@pytest.fixture
def preset() -> Preset:
    return replace(load_preset("cifar100-cpu"), validation_share=0.5)


def arrays() -> dict[str, np.ndarray]:
    """Images that can be told apart: their first channel is filled with the class, the second with their number."""
    classes = np.arange(40) % 20
    images = np.zeros((40, 32, 32, 3), np.uint8)
    images[..., 0] = classes[:, None, None]
    images[..., 1] = np.arange(40)[:, None, None]
    return {"x_train": images, "y_train": classes[:, None], "x_test": images[:6], "y_test": classes[:6]}


def saved(folder: Path, **changes: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, **{**arrays(), **changes})
    return path


def test_validation_images_are_drawn_from_the_training_split(preset: Preset, tmp_path: Path) -> None:
    dataset = load_dataset(preset, saved(tmp_path))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (20, 20, 6)
    for split in (dataset.train, dataset.validation, dataset.test):
        assert (split.images.pixels(range(len(split)))[:, 0, 0, 0] == split.classes).all()
    together = np.concatenate([dataset.train.classes, dataset.validation.classes])
    assert sorted(together) == sorted(arrays()["y_train"][:, 0])


def test_the_split_depends_only_on_the_seed(preset: Preset, tmp_path: Path) -> None:
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    path = saved(tmp_path, x_train=images)
    first, again = load_dataset(preset, path), load_dataset(preset, path)
    other_seed = replace(preset, recipe=replace(preset.recipe, seed=99))
    assert first.validation.images.digests == again.validation.images.digests
    assert first.validation.images.digests != load_dataset(other_seed, path).validation.images.digests


def test_the_same_share_of_every_class_is_held_out() -> None:
    classes = np.repeat([0, 1, 2], [10, 20, 40])
    held_out, kept = hold_out(classes, 0.1, seed=1)
    assert Counter(classes[held_out].tolist()) == {0: 1, 1: 2, 2: 4}
    assert sorted([*held_out, *kept]) == list(range(70))


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=40),
    st.floats(0.01, 0.9),
    st.integers(0, 2**31 - 1),
)
def test_the_whole_share_is_held_out_as_evenly_as_possible(sizes: list[int], share: float, seed: int) -> None:
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int64)
    held_out, kept = hold_out(classes, share, seed)
    assert sorted([*held_out, *kept]) == list(range(len(classes)))
    drawn = np.bincount(classes[held_out], minlength=len(sizes))
    for size, count in zip(sizes, drawn, strict=True):
        assert count <= max(0, size - 1)
        assert abs(count - share * size) < 1 or count == size - 1
    assert len(held_out) <= round(share * len(classes)) + 1e-6
    # Fewer only if no class has an image left to give.
    open_classes = [s for s, count in zip(sizes, drawn, strict=True) if count < s - 1 and count <= share * s - 1e-6]
    assert len(held_out) == round(share * len(classes)) or not open_classes


def test_a_thousand_classes_of_three_photos_are_split() -> None:
    classes = np.repeat(np.arange(1000), 3)
    test, rest = hold_out(classes, 0.1, seed=1)
    validation, train = hold_out(classes[rest], 0.1 / 0.9, seed=1)
    assert (len(test), len(validation), len(train)) == (300, 300, 2400)
    assert len(set(classes[rest][train].tolist())) == 1000
    assert len(set(classes[test].tolist())) == 300


def test_thousands_of_copies_of_a_photo_are_split_in_little_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: np.random.Generator
) -> None:
    preset = load_preset("folder")
    count, copies = 6000, 2000
    thumbnails = noise.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    thumbnails[:copies] = thumbnails[0]
    digests = tuple(thumbnail.tobytes() for thumbnail in thumbnails)
    paths = tuple(tmp_path / str(number) for number in range(count))
    photos = Photos(paths, digests, thumbnails, preset.preprocessing, in_parallel=False)
    folders = ClassFolders(("cat", "dog"), {"train": (photos, np.arange(count) % 2)}, ())
    monkeypatch.setattr("training.dataset.read_class_folders", lambda *_: folders)
    started = time.process_time()
    dataset = load_dataset(preset, tmp_path)
    # With all pairs of copies, it took minutes.
    assert time.process_time() - started < 20
    held_out = [*dataset.validation.images.digests, *dataset.test.images.digests]
    assert digests[0] not in held_out
    assert len(held_out) == len(set(held_out)) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((40, 32, 32, 3), np.float32)}, "the training images must be uint8 .*, not float32"),
        (
            {"x_test": np.zeros((6, 32, 32), np.uint8)},
            r"the test images must be uint8 .*, not uint8 of shape \(6, 32, 32\)",
        ),
        ({"y_test": np.zeros(5, np.int64)}, "there are 6 test images but 5 classes"),
        ({"y_train": np.full(40, 100)}, "the training classes must be from 0 to 99, one for each of cifar100.txt"),
        ({"y_train": np.full(40, -1)}, "the training classes must be from 0 to 99"),
        ({"y_train": np.full(40, 0.7)}, "the training classes must be whole numbers, not float64"),
        ({"x_train": np.zeros((1, 32, 32, 3), np.uint8), "y_train": np.zeros(1, int)}, "none is left for the valid"),
        (
            {"x_test": np.zeros((0, 32, 32, 3), np.uint8), "y_test": np.zeros(0, int)},
            "the test split of the data has no image",
        ),
    ],
)
def test_unsuitable_data_is_refused_with_the_reason(
    preset: Preset, tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset(preset, saved(tmp_path, **changes))


@pytest.mark.parametrize("crop", [1.0, 0.8])
def test_images_of_another_size_are_resized_as_in_serving(
    preset: Preset, tmp_path: Path, noise: np.random.Generator, crop: float
) -> None:
    images = noise.integers(0, 256, (40, 24, 50, 3), dtype=np.uint8)
    path = saved(tmp_path, x_train=images, x_test=images[:6])
    spec = replace(preset.preprocessing, crop=crop, height=28, width=36)
    test = load_dataset(replace(preset, preprocessing=spec), path).test
    resized = test.images.pixels(range(6))
    assert resized.shape == (6, 28, 36, 3)
    for index in range(6):
        assert np.array_equal(resized[index], spec.pixels(decode(test.images.encoded(index), Limits()).rgb))


def test_images_of_the_networks_size_are_not_changed(preset: Preset, tmp_path: Path) -> None:
    test = load_dataset(preset, saved(tmp_path)).test
    assert np.array_equal(test.images.pixels(range(6)), arrays()["x_test"])


def test_a_file_in_another_format_is_refused_by_name(preset: Preset, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    for content in (b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"data.npz is not a folder of class folders or an .npz file with"):
            load_dataset(preset, path)
    np.savez_compressed(path, **arrays())
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"data.npz is not a folder"):
        load_dataset(preset, path)
    np.savez(path, x_train=np.zeros(1))
    with pytest.raises(DatasetError, match="y_train"):
        load_dataset(preset, path)
    with pytest.raises(DatasetError, match=r"nothing.npz"):
        load_dataset(preset, tmp_path / "nothing.npz")


def test_a_failed_download_suggests_local_data(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline() -> None:
        raise Exception("URL fetch failure: no route to host")

    monkeypatch.setattr("keras.datasets.cifar100.load_data", offline)
    with pytest.raises(DatasetError, match=r"cifar100 could not be downloaded .*; give --data, an .npz"):
        load_dataset(preset, None)


def test_a_failed_download_of_cats_vs_dogs_suggests_local_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**_: object) -> None:
        raise Exception("URL fetch failure: no route to host")

    monkeypatch.setattr("keras.utils.get_file", offline)
    with pytest.raises(DatasetError, match=r"cats-vs-dogs could not be downloaded .*; give --data"):
        load_dataset(load_preset("cats-vs-dogs"), None)


def test_the_preset_folder_asks_for_photos() -> None:
    with pytest.raises(DatasetError, match="give --data FOLDER, with a folder for each class"):
        load_dataset(load_preset("folder"), None)


def test_a_single_label_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\n")
    preset = load_preset("cifar10", [f"labels={tmp_path / 'labels.txt'}"])
    nothing = np.zeros(40, np.int64)
    with pytest.raises(DatasetError, match="there is a single label, 'cat'; a classifier needs two or more"):
        load_dataset(preset, saved(tmp_path, y_train=nothing, y_test=nothing[:6]))


def test_arrays_need_labels(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="give --labels FILE"):
        load_dataset(load_preset("folder"), saved(tmp_path))
