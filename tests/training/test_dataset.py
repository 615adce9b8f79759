import dataclasses
from pathlib import Path

import numpy as np
import pytest

from training.dataset import DatasetError, load_dataset
from training.preset import Preset, load_preset


@pytest.fixture
def preset() -> Preset:
    preset = load_preset("cifar100-cpu")
    return dataclasses.replace(preset, recipe=dataclasses.replace(preset.recipe, validation_images=10))


def arrays() -> dict[str, np.ndarray]:
    """Images that can be told apart: each is filled with its class."""
    classes = np.arange(40) % 20
    images = np.broadcast_to(classes[:, None, None, None], (40, 32, 32, 3)).astype(np.uint8)
    return {"x_train": images, "y_train": classes[:, None], "x_test": images[:6], "y_test": classes[:6]}


def saved(folder: Path, **changes: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, **{**arrays(), **changes})
    return path


def test_validation_images_come_out_of_the_training_split(preset: Preset, tmp_path: Path) -> None:
    dataset = load_dataset(preset, saved(tmp_path))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (30, 10, 6)
    for split in (dataset.train, dataset.validation, dataset.test):
        assert (split.images[:, 0, 0, 0] == split.classes).all()
    together = np.concatenate([dataset.train.classes, dataset.validation.classes])
    assert sorted(together) == sorted(arrays()["y_train"][:, 0])


def test_the_split_depends_on_the_seed_alone(preset: Preset, tmp_path: Path) -> None:
    path = saved(tmp_path)
    first, again = load_dataset(preset, path), load_dataset(preset, path)
    other_seed = dataclasses.replace(preset, recipe=dataclasses.replace(preset.recipe, seed=99))
    assert np.array_equal(first.validation.classes, again.validation.classes)
    assert not np.array_equal(first.validation.classes, load_dataset(other_seed, path).validation.classes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"x_train": np.zeros((40, 32, 32, 3), np.float32)}, "the training images must be uint8 .*, not float32"),
        (
            {"x_test": np.zeros((6, 32, 32), np.uint8)},
            r"the test images must be uint8 .*, not uint8 of shape \(6, 32, 32\)",
        ),
        ({"x_test": np.zeros((6, 64, 32, 3), np.uint8)}, r"of shape \(n, 32, 32, 3\), not uint8 of shape \(6, 64"),
        ({"y_test": np.zeros(5, np.int64)}, "there are 6 test images but 5 classes"),
        ({"y_train": np.full(40, 100)}, "the training classes go beyond the 100 labels of cifar100.txt"),
        ({"y_train": np.full(40, -1)}, "the training classes go beyond"),
        ({"x_train": np.zeros((8, 32, 32, 3), np.uint8), "y_train": np.zeros(8, int)}, "8 training images cannot be"),
    ],
)
def test_data_that_does_not_fit_is_named(
    preset: Preset, tmp_path: Path, changes: dict[str, np.ndarray], complaint: str
) -> None:
    with pytest.raises(DatasetError, match=complaint):
        load_dataset(preset, saved(tmp_path, **changes))


def test_a_file_that_is_no_npz_is_named(preset: Preset, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    for content in (b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"data.npz is not an .npz file with x_train"):
            load_dataset(preset, path)
    np.savez(path, x_train=np.zeros(1))
    with pytest.raises(DatasetError, match="y_train"):
        load_dataset(preset, path)
    with pytest.raises(DatasetError, match=r"nothing.npz"):
        load_dataset(preset, tmp_path / "nothing.npz")


def test_a_failed_download_says_what_to_give_instead(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline() -> None:
        raise Exception("URL fetch failure: no route to host")

    monkeypatch.setattr("keras.datasets.cifar100.load_data", offline)
    with pytest.raises(DatasetError, match=r"cifar100 could not be downloaded .*; give --data FILE.npz"):
        load_dataset(preset, None)
