import os
import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image
from support import ROCKET, encoded

from litelens.core.images import decode
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.photos import LIMITS, read_class_folders, read_photos
from training.dataset import Split, find_copies, load_dataset
from training.preset import Preset, load_preset


@pytest.fixture
def preset() -> Preset:
    preset = load_preset("folder", ["preprocessing.height=32", "preprocessing.width=32"])
    return replace(preset, validation_share=0.2, test_share=0.2)


def fill(folder: Path, count: int, first: int = 0) -> None:
    """Plain images, each of another grey."""
    folder.mkdir(parents=True)
    for grey in range(first, first + count):
        Image.new("RGB", (40, 36), (grey, grey, grey)).save(folder / f"{grey}.png")


def test_folders_are_the_classes_and_are_split_by_the_seed(preset: Preset, tmp_path: Path) -> None:
    fill(tmp_path / "cat", 10)
    fill(tmp_path / "guinea pig", 20, first=100)
    dataset = load_dataset(preset, tmp_path)
    assert dataset.labels == ("cat", "guinea pig")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (18, 6, 6)
    for split in (dataset.train, dataset.validation, dataset.test):
        greys = split.images.pixels(range(len(split)))[:, 0, 0, 0]
        assert ((greys >= 100) == (split.classes == 1)).all()
    digests = [*dataset.train.images.digests, *dataset.validation.images.digests, *dataset.test.images.digests]
    assert len(set(digests)) == 30


@pytest.mark.parametrize("validation", ["validation", "val", "Val"])
def test_existing_split_folders_are_used(preset: Preset, tmp_path: Path, validation: str) -> None:
    for split, count in (("train", 8), (validation, 3), ("test", 2)):
        fill(tmp_path / split / "cat", count)
        fill(tmp_path / split / "dog", count)
    dataset = load_dataset(preset, tmp_path)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (16, 6, 4)


def test_a_missing_split_is_drawn_from_the_training_photos(preset: Preset, tmp_path: Path) -> None:
    for name, grey in (("cat", 0), ("dog", 100)):
        fill(tmp_path / "train" / name, 10, first=grey)
        fill(tmp_path / "test" / name, 3, first=grey + 50)
    dataset = load_dataset(preset, tmp_path)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (16, 4, 6)


def test_a_class_may_be_called_train(preset: Preset, tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    fill(tmp_path / "bus", 10, first=100)
    assert load_dataset(preset, tmp_path).labels == ("bus", "train")


def test_photos_are_decoded_as_in_serving(preset: Preset, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rocket.jpg").write_bytes(ROCKET.read_bytes())
    photos, _ = read_class_folders(tmp_path, preset.preprocessing).splits["train"]
    expected = decode(ROCKET.read_bytes(), LIMITS, preset.preprocessing).pixels(preset.preprocessing)
    assert np.array_equal(photos.pixels([0])[0], expected)
    assert photos.encoded(0) == ROCKET.read_bytes()
    assert photos.digests[0] == photos.digests[1]


def test_unreadable_files_are_listed_with_the_reason_and_left_out(preset: Preset, tmp_path: Path) -> None:
    fill(tmp_path / "cat", 10)
    fill(tmp_path / "dog", 10, first=100)
    (tmp_path / "cat" / "truncated.jpg").write_bytes(ROCKET.read_bytes()[:2000])
    (tmp_path / "dog" / "notes.txt").write_text("hello")
    (tmp_path / "dog" / "empty.jpg").write_bytes(b"")
    (tmp_path / "dog" / ".DS_Store").write_bytes(b"of no interest")
    dataset = load_dataset(preset, tmp_path)
    reasons = {file.file: file.reason for file in dataset.unreadable}
    assert set(reasons) == {"cat/truncated.jpg", "dog/empty.jpg", "dog/notes.txt"}
    assert all(reason.endswith(".") for reason in reasons.values())
    assert len(set(reasons.values())) == 3
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 20


def test_many_photos_are_read_by_several_processes_in_order(
    preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litelens_client.learning.photos._MIN_PARALLEL", 10)
    fill(tmp_path / "cat", 40)
    fill(tmp_path / "dog", 40, first=100)
    (tmp_path / "cat" / "broken.png").write_bytes(encoded(Image.new("RGB", (9, 9)), "PNG")[:40])
    folders = read_class_folders(tmp_path, preset.preprocessing)
    photos, _ = folders.splits["train"]
    assert photos.in_parallel
    assert [file.file for file in folders.unreadable] == ["cat/broken.png"]
    greys = [int(path.stem) for path in photos.paths]
    assert photos.pixels(range(80))[:, 0, 0, 0].tolist() == greys


def test_a_photo_that_has_been_removed_is_named(preset: Preset, tmp_path: Path) -> None:
    fill(tmp_path / "cat", 2)
    photos, _ = read_photos(tmp_path, preset.preprocessing)
    os.remove(tmp_path / "cat" / "1.png")
    with pytest.raises(DatasetError, match=r"1.png can no longer be read"):
        photos.pixels([0, 1])


def test_folders_without_usable_classes_are_refused_with_the_reason(preset: Preset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no file or folder .*nowhere"):
        load_dataset(preset, tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="has no class folders; put the photos of each class into a folder"):
        load_dataset(preset, tmp_path)
    fill(tmp_path / "cat", 10)
    with pytest.raises(DatasetError, match="has a single class, 'cat'; a classifier needs two or more"):
        load_dataset(preset, tmp_path)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "broken.jpg").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"the class folder .*dog contains no readable photo"):
        load_dataset(preset, tmp_path)
    fill(tmp_path / "few" / "cat", 1)
    fill(tmp_path / "few" / "dog", 1)
    with pytest.raises(DatasetError, match=r"too few images: none is left for the (test|validation) split"):
        load_dataset(preset, tmp_path / "few")


def test_a_folder_beside_the_splits_is_not_mistaken_for_a_class(preset: Preset, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        fill(tmp_path / "train" / name, 5)
    fill(tmp_path / "val" / "cat", 5)
    fill(tmp_path / "__MACOSX", 1)
    fill(tmp_path / "@eaDir", 1)
    fill(tmp_path / "more", 1)
    with pytest.raises(DatasetError, match="has 'more' next to 'train', which contains the classes"):
        load_dataset(preset, tmp_path)


def test_a_test_split_without_a_training_split_is_refused(preset: Preset, tmp_path: Path) -> None:
    for name in ("cat", "dog", "test/cat", "test/dog"):
        fill(tmp_path / name, 3)
    with pytest.raises(DatasetError, match="has a folder 'test' with classes in it, but no folder 'train'"):
        load_dataset(preset, tmp_path)


def test_one_photo_per_class_is_too_few(preset: Preset, tmp_path: Path) -> None:
    fill(tmp_path / "cat", 1)
    fill(tmp_path / "dog", 1, first=100)
    with pytest.raises(DatasetError, match=r"too few images: none is left for the (test|validation) split"):
        load_dataset(replace(preset, test_share=0.6), tmp_path)


def test_a_split_without_images_is_refused(preset: Preset, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        fill(tmp_path / "train" / name, 10)
    (tmp_path / "validation").mkdir()
    with pytest.raises(DatasetError, match="the validation split of the data has no image; fill it, or"):
        load_dataset(preset, tmp_path)


def test_copies_of_a_photo_stay_in_the_training_split(preset: Preset, tmp_path: Path) -> None:
    for name, grey in (("cat", 10), ("dog", 200)):
        fill(tmp_path / name, 10, first=grey)
        for index in range(30):
            shutil.copy(tmp_path / name / f"{grey}.png", tmp_path / name / f"copy-{index}.png")
    dataset = load_dataset(preset, tmp_path)
    trained = set(dataset.train.images.digests)
    assert not trained & set(dataset.validation.images.digests)
    assert not trained & set(dataset.test.images.digests)
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 80


def photos_and_thumbnails(folder: Path, count: int, noise: np.random.Generator) -> None:
    """Photos with a copy of each, saved again at a smaller size, as NUMBER.png and NUMBER-small.jpg."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        coarse = Image.fromarray(noise.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        photo = coarse.resize((96, 96), Image.Resampling.BICUBIC)
        photo.save(folder / f"{number}.png")
        photo.resize((60, 60)).save(folder / f"{number}-small.jpg", quality=80)


def numbers(split: Split) -> set[tuple[str, str]]:
    return {(path.parent.name, path.stem.removesuffix("-small")) for path in split.images.paths}  # type: ignore[attr-defined]


def test_near_duplicates_are_never_in_two_splits(preset: Preset, tmp_path: Path, noise: np.random.Generator) -> None:
    for name in ("cat", "dog"):
        photos_and_thumbnails(tmp_path / name, 40, noise)
    for seed in range(3):
        seeded = replace(preset, recipe=replace(preset.recipe, seed=seed))
        dataset = load_dataset(seeded, tmp_path)
        splits = [numbers(split) for split in (dataset.train, dataset.validation, dataset.test)]
        assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 160
        assert all(splits)
        assert sum(map(len, splits)) == len(set.union(*splits))
        # As many as without the copies, but for chance.
        assert 16 <= len(dataset.test) <= 48


def test_thumbnails_of_a_file_server_are_no_photos(preset: Preset, tmp_path: Path) -> None:
    for name, grey in (("cat", 0), ("dog", 100)):
        fill(tmp_path / name, 10, first=grey)
        fill(tmp_path / name / "@eaDir" / "0.png", 10, first=grey)
        (tmp_path / name / "Thumbs.db").write_bytes(b"of no interest")
    dataset = load_dataset(preset, tmp_path)
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 20
    assert dataset.unreadable == ()


def test_near_duplicates_in_a_given_test_split_are_found(
    preset: Preset, tmp_path: Path, noise: np.random.Generator
) -> None:
    for name in ("cat", "dog"):
        photos_and_thumbnails(tmp_path / "all" / name, 5, noise)
        for split, kept in (("train", "*.png"), ("test", "*-small.jpg")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for path in (tmp_path / "all" / name).glob(kept):
                shutil.copy(path, tmp_path / "data" / split / name / path.name)
    folders = read_class_folders(tmp_path / "data", preset.preprocessing)
    test, train = (folders.splits[split][0] for split in ("test", "train"))
    assert find_copies(test, train).all()


def test_names_that_are_not_utf8_are_reported_readably(preset: Preset, tmp_path: Path) -> None:
    for name, grey in (("cat", 0), ("dog", 100)):
        fill(tmp_path / name, 10, first=grey)
    with open(os.fsencode(tmp_path / "cat") + b"/\xff.jpg", "wb") as file:
        file.write(b"broken")
    (unreadable,) = load_dataset(preset, tmp_path).unreadable
    assert unreadable.file == "cat/\ufffd.jpg"
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(DatasetError, match="has a folder '\ufffd' whose name is not UTF-8; rename it"):
        load_dataset(preset, tmp_path)


def test_a_label_without_photos_cannot_be_fitted(preset: Preset, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("bird\ncat\ndog\n")
    for name, grey in (("cat", 0), ("dog", 100)):
        fill(tmp_path / "data" / name, 10, first=grey)
    with pytest.raises(DatasetError, match="the class 'bird' has no training photo"):
        load_dataset(replace(preset, labels=str(tmp_path / "labels.txt")), tmp_path / "data")


def test_the_end_of_a_reading_process_is_reported_in_a_sentence(
    preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        @staticmethod
        def cache_clear() -> None: ...

        def map(self, *_: object, **__: object) -> None:
            raise BrokenProcessPool

    monkeypatch.setattr("litelens_client.learning.photos._MIN_PARALLEL", 1)
    monkeypatch.setattr("litelens_client.learning.photos._process_pool", Broken)
    fill(tmp_path / "cat", 3)
    with pytest.raises(DatasetError, match="the system ended a process that reads photos"):
        read_photos(tmp_path, preset.preprocessing)


def test_a_test_class_without_training_photos_is_named(preset: Preset, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        fill(tmp_path / "train" / name, 5)
    fill(tmp_path / "test" / "bird", 5)
    with pytest.raises(DatasetError, match=r"test has the class 'bird', which .*train lacks"):
        load_dataset(preset, tmp_path)


def test_a_folder_that_is_not_one_of_the_labels_is_named(preset: Preset, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    fill(tmp_path / "data" / "cat", 5)
    fill(tmp_path / "data" / "bird", 5)
    with pytest.raises(DatasetError, match="has the class folder 'bird', which is not one of the labels"):
        load_dataset(replace(preset, labels=str(tmp_path / "labels.txt")), tmp_path / "data")


def test_unlabelled_photos_are_divided_into_calibration_and_test(preset: Preset, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    fill(tmp_path / "photos", 9)
    imported = load_preset("imported", [f"labels={tmp_path / 'labels.txt'}"])
    dataset = load_dataset(imported, None, tmp_path / "photos")
    assert not dataset.labelled
    assert dataset.labels == ("cat", "dog")
    assert (len(dataset.calibration), len(dataset.validation), len(dataset.test)) == (4, 4, 5)
    with pytest.raises(DatasetError, match="do not name the classes; give --labels FILE"):
        load_dataset(replace(imported, labels=""), None, tmp_path / "photos")
    with pytest.raises(DatasetError, match="fitting needs labelled images"):
        load_dataset(replace(preset, labels=str(tmp_path / "labels.txt")), None, tmp_path / "photos")


def test_calibration_photos_are_not_used_for_training(preset: Preset, tmp_path: Path) -> None:
    fill(tmp_path / "photos", 3)
    for name, grey in (("cat", 0), ("dog", 100)):
        fill(tmp_path / "data" / name, 10, first=grey)
    dataset = load_dataset(preset, tmp_path / "data", tmp_path / "photos")
    assert (len(dataset.calibration), len(dataset.train), len(dataset.test)) == (3, 12, 4)
