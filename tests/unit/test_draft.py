"""The draft of a model: classes and photos in a folder, what is learned from them, and what can go wrong."""

import contextlib
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import add_bundle
from class_folders import BASE, one_thread, photo
from PIL import Image
from support import encoded

from litelens.core.bundle import MANIFEST, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.errors import BundleError, CorruptImage, ImageError, ImageMissing, ImageTooLarge, NotAnImage
from litelens.core.formats import FORMAT_NAMES, IMAGE_FORMATS, format_of
from litelens.core.images import Limits
from litelens_client.learning import draft as draft_module
from litelens_client.learning import learned_bundle, regression
from litelens_client.learning.draft import Draft, DraftBusy, DraftClass, DraftError, NameTaken, NotInDraft
from litelens_client.learning.embeddings import EmbeddingCache
from litelens_client.learning.errors import DatasetError

UNKNOWN_ID = "0" * 32

# None of these can be the name of a folder on every system, or be printed.
REFUSED_NAMES = [
    "",
    " ",
    ".",
    "..",
    ".hidden",
    "...",
    "../cat",
    "a/b",
    "/tmp",
    "a\\b",
    "C:",
    "a:b",
    "what?",
    "a*",
    '"a"',
    "<a>",
    "a|b",
    " cat",
    "cat ",
    "cat\n",
    "a\nb",
    "a\0b",
    "a\x1b[31mb",
    "a\u202eb",
    "a\u200bb",
    "\udce9",
    "c" * 61,
]
NAMES = ["cat", "Tabby Cat", "2", "café", "猫", "🐈 🐕", "a.b", "cat-2_x", "c" * 60, "🐈" * 60, "train", "test", "100%"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try one regularization, and leave out the golden images, for which OpenVINO compiles the model."""
    monkeypatch.setattr(regression, "REGULARIZATIONS", (1e-2,))
    monkeypatch.setattr(learned_bundle, "add_golden_images", lambda folder: [])


@pytest.fixture(scope="module")
def cache() -> Iterator[EmbeddingCache]:
    with contextlib.closing(EmbeddingCache()) as cache:
        yield cache


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    """An empty draft."""
    return Draft(tmp_path / "models" / ".draft", BASE, tmp_path / "models")


@pytest.fixture
def pets(draft: Draft) -> Draft:
    """A draft with two classes of two photos."""
    for label in ("cat", "coffee"):
        draft.add_class(label)
        add(draft, label, 2)
    return draft


def test_a_draft_is_outdated_once_its_photos_have_changed(pets: Draft, cache: EmbeddingCache) -> None:
    assert pets.is_outdated()
    pets.learn(cache)
    assert not pets.is_outdated()
    (added,) = add(pets, "cat", 1, first=7)
    assert pets.is_outdated()
    pets.remove_photo("cat", added)
    assert not pets.is_outdated()


def test_the_photos_of_a_draft_have_a_limit_of_bytes(pets: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft_module, "MAX_BYTES", 10)
    with pytest.raises(DraftError):
        add(pets, "cat", 1, first=7)


def png(label: str, number: int) -> bytes:
    return encoded(photo(label, number), "PNG", compress_level=1)


def add(draft: Draft, label: str, count: int, first: int = 0) -> list[str]:
    """Add photos of a sample to the class of the same name, and return their ids."""
    return [draft.add_photo(label, png(label, number)) for number in range(first, first + count)]


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def as_json(document: dict[str, Any]) -> Any:
    """Return a document as it is read from a file, with lists instead of tuples."""
    return json.loads(json.dumps(document))


def best_label(draft: Draft, label: str, number: int = 40) -> str:
    return draft.classify(png(label, number))[1].candidates[0].label


def fail(error: BaseException) -> Callable[..., Any]:
    def failing(*_: object, **__: object) -> Any:
        raise error

    return failing


# Classes and photos.


def test_a_new_draft_is_empty_and_has_no_folder(draft: Draft, tmp_path: Path) -> None:
    assert draft.classes() == []
    assert draft.measurements() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_class_can_have_any_name_that_a_folder_can_have(name: str, draft: Draft) -> None:
    draft.add_class(name)
    draft.add_class(name)
    identifier = draft.add_photo(name, png("cat", 0))
    assert draft.classes() == [DraftClass(name, (identifier,))]
    draft.remove_class(name)
    assert draft.classes() == []


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_a_name_that_could_be_a_path_or_cannot_be_printed_is_refused(name: str, pets: Draft, tmp_path: Path) -> None:
    before = contents(tmp_path)
    with pytest.raises(DraftError):
        pets.add_class(name)
    for use in (
        lambda: pets.remove_class(name),
        lambda: pets.add_photo(name, png("cat", 5)),
        lambda: pets.read_photo(name, UNKNOWN_ID),
        lambda: pets.remove_photo(name, UNKNOWN_ID),
    ):
        with pytest.raises(NotInDraft):
            use()
    assert contents(tmp_path) == before


def test_classes_are_listed_by_name_and_photos_by_age(draft: Draft) -> None:
    for label in ("coffee", "cat"):
        draft.add_class(label)
    ids = {label: add(draft, label, 5) for label in ("cat", "coffee")}
    assert draft.classes() == [DraftClass("cat", tuple(ids["cat"])), DraftClass("coffee", tuple(ids["coffee"]))]


def test_the_draft_is_found_again_after_a_restart(pets: Draft, tmp_path: Path) -> None:
    assert Draft(tmp_path / "models" / ".draft", BASE, tmp_path / "models").classes() == pets.classes()


def test_files_that_are_no_photos_of_the_draft_are_not_listed(pets: Draft, tmp_path: Path) -> None:
    before, folder = pets.classes(), tmp_path / "models" / ".draft" / "photos"
    for path in (folder / "cat" / ".DS_Store", folder / "cat" / f".{UNKNOWN_ID}.png.partial", folder / "note.txt"):
        path.write_text("hello")
    assert pets.classes() == before


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_a_photo_of_each_format_is_kept_as_it_is(name: str, pets: Draft) -> None:
    data = encoded(photo("cat", 9), name)
    read, suffix = pets.read_photo("cat", pets.add_photo("cat", data))
    (expected,) = [each for each in IMAGE_FORMATS if each.name == name]
    assert (read, suffix) == (data, expected.suffixes[0])
    assert format_of(read) == expected


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ImageMissing),
        (b"hello", NotAnImage),
        (b"%PDF-1.7", NotAnImage),
        (png("cat", 1)[:2000], CorruptImage),
        (b"\xff\xd8\xff" + bytes(100), CorruptImage),
    ],
)
def test_a_file_that_is_no_readable_photo_is_refused(data: bytes, error: type[ImageError], pets: Draft) -> None:
    before = pets.classes()
    with pytest.raises(error):
        pets.add_photo("cat", data)
    assert pets.classes() == before


def test_the_number_of_classes_is_limited(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft_module, "MAX_CLASSES", 2)
    for name in ("cat", "coffee", "cat"):
        draft.add_class(name)
    with pytest.raises(DraftError):
        draft.add_class("rocket")
    draft.remove_class("cat")
    draft.add_class("rocket")
    assert [each.name for each in draft.classes()] == ["coffee", "rocket"]


def test_the_number_of_photos_of_all_classes_is_limited(pets: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft_module, "MAX_PHOTOS", 5)
    add(pets, "cat", 1, first=7)
    with pytest.raises(DraftError):
        add(pets, "coffee", 1, first=7)
    pets.remove_photo("cat", pets.classes()[0].photos[0])
    add(pets, "coffee", 1, first=7)
    assert [len(each.photos) for each in pets.classes()] == [2, 3]


def test_the_size_of_a_photo_is_limited(pets: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    data = png("cat", 8)
    monkeypatch.setattr(draft_module, "MAX_PHOTO_BYTES", len(data))
    pets.add_photo("cat", data)
    with pytest.raises(ImageTooLarge):
        pets.add_photo("cat", data + b"\0")


def test_a_photo_can_be_removed_once(pets: Draft) -> None:
    first, second = pets.classes()[0].photos
    pets.remove_photo("cat", first)
    assert pets.classes()[0].photos == (second,)
    for use in (pets.remove_photo, pets.read_photo):
        with pytest.raises(NotInDraft):
            use("cat", first)


@pytest.mark.parametrize(
    "identifier", ["", ".", "..", "*", "../cat", UNKNOWN_ID, UNKNOWN_ID.upper(), f"{UNKNOWN_ID}.png"]
)
def test_an_id_that_no_photo_has_is_not_found(identifier: str, pets: Draft) -> None:
    before = pets.classes()
    for use in (pets.read_photo, pets.remove_photo):
        with pytest.raises(NotInDraft):
            use("cat", identifier)
    assert pets.classes() == before


def test_a_photo_of_another_class_is_not_found(pets: Draft) -> None:
    with pytest.raises(NotInDraft):
        pets.read_photo("coffee", pets.classes()[0].photos[0])


def test_a_class_is_removed_with_its_photos(pets: Draft) -> None:
    pets.remove_class("cat")
    assert [each.name for each in pets.classes()] == ["coffee"]
    with pytest.raises(NotInDraft):
        pets.remove_class("cat")


def test_a_class_is_renamed_with_its_photos(pets: Draft) -> None:
    photos = pets.classes()[0].photos
    pets.rename_class("cat", "Tabby Cat")
    assert [each.name for each in pets.classes()] == ["Tabby Cat", "coffee"]
    assert pets.classes()[0].photos == photos
    pets.rename_class("Tabby Cat", "tabby cat")
    pets.rename_class("tabby cat", "tabby cat")
    assert [each.name for each in pets.classes()] == ["coffee", "tabby cat"]
    with pytest.raises(NotInDraft):
        pets.rename_class("cat", "dog")


@pytest.mark.parametrize("name", ["coffee", "Coffee", "COFFEE"])
def test_a_class_cannot_get_the_name_of_another(name: str, pets: Draft) -> None:
    before = pets.classes()
    with pytest.raises(NameTaken):
        pets.rename_class("cat", name)
    assert pets.classes() == before


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_a_class_cannot_get_a_name_that_no_folder_can_have(name: str, pets: Draft, tmp_path: Path) -> None:
    before = contents(tmp_path)
    with pytest.raises(DraftError):
        pets.rename_class("cat", name)
    assert contents(tmp_path) == before


def test_a_photo_is_moved_to_another_class(pets: Draft) -> None:
    first, second = pets.classes()[0].photos
    data = pets.read_photo("cat", first)
    pets.move_photo("cat", first, "coffee")
    assert pets.read_photo("coffee", first) == data
    assert pets.classes()[0].photos == (second,)
    assert len(pets.classes()[1].photos) == 3


@pytest.mark.parametrize(("name", "other"), [("cat", "dog"), ("dog", "coffee"), ("cat", ".."), ("coffee", "cat")])
def test_a_photo_is_moved_only_between_classes_of_the_draft(name: str, other: str, pets: Draft) -> None:
    before = pets.classes()
    with pytest.raises(NotInDraft):
        pets.move_photo(name, before[0].photos[0], other)
    assert pets.classes() == before


def test_renamed_classes_and_moved_photos_make_the_draft_outdated(pets: Draft, cache: EmbeddingCache) -> None:
    pets.learn(cache)
    identifier = pets.classes()[0].photos[0]
    pets.move_photo("cat", identifier, "coffee")
    assert pets.is_outdated()
    pets.move_photo("coffee", identifier, "cat")
    assert not pets.is_outdated()
    pets.rename_class("cat", "dog")
    assert pets.is_outdated()


def test_everything_can_be_discarded(pets: Draft, cache: EmbeddingCache, tmp_path: Path) -> None:
    pets.learn(cache)
    pets.discard()
    assert (pets.classes(), pets.measurements()) == ([], None)
    for use in (pets.archive, lambda: pets.classify(png("cat", 1))):
        with pytest.raises(NotInDraft):
            use()
    assert list((tmp_path / "models").iterdir()) == []
    pets.discard()
    pets.add_class("cat")
    assert pets.classes() == [DraftClass("cat", ())]


def test_files_that_disappear_while_they_are_listed_or_read_are_left_out(
    pets: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, second), stat, read = pets.classes()[0].photos, Path.stat, Path.read_bytes

    def gone(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.stem == first:
            raise FileNotFoundError(2, "No such file", str(path))
        return stat(path, *arguments, **options)

    def unreadable(path: Path) -> bytes:
        if path.stem == second:
            raise FileNotFoundError(2, "No such file", str(path))
        return read(path)

    monkeypatch.setattr(Path, "stat", gone)
    monkeypatch.setattr(Path, "read_bytes", unreadable)
    assert pets.classes()[0].photos == (second,)
    with pytest.raises(NotInDraft):
        pets.read_photo("cat", second)


# Learning, keeping, downloading.


def test_what_is_learned_classifies_photos(pets: Draft, cache: EmbeddingCache) -> None:
    document = as_json(pets.learn(cache))
    assert pets.measurements() == document
    assert document["distribution"] == {"train": [2, 2]}
    bundle, prediction = pets.classify(png("coffee", 40))
    assert bundle.labels == ("cat", "coffee")
    assert prediction.candidates[0].label == "coffee"
    with pytest.raises(NotAnImage):
        pets.classify(b"hello")


def test_the_model_is_loaded_again_after_it_is_learned_again(pets: Draft, cache: EmbeddingCache) -> None:
    pets.learn(cache)
    assert best_label(pets, "rocket") in ("cat", "coffee")
    pets.add_class("rocket")
    add(pets, "rocket", 3)
    assert pets.classify(png("rocket", 40))[0].labels == ("cat", "coffee")
    pets.learn(cache)
    assert best_label(pets, "rocket") == "rocket"
    assert pets.classify(png("rocket", 40))[0].version == "1.1.0"


def test_what_was_learned_is_found_again_after_a_restart(pets: Draft, cache: EmbeddingCache, tmp_path: Path) -> None:
    document = as_json(pets.learn(cache))
    restarted = Draft(tmp_path / "models" / ".draft", BASE, tmp_path / "models")
    assert restarted.measurements() == document
    assert best_label(restarted, "cat") == "cat"


def test_classes_can_be_named_like_the_splits_of_a_data_set(draft: Draft, cache: EmbeddingCache) -> None:
    for name, label in (("train", "cat"), ("test", "coffee")):
        draft.add_class(name)
        for number in range(2):
            draft.add_photo(name, png(label, number))
    draft.learn(cache)
    assert best_label(draft, "cat") == "train"
    assert best_label(draft, "coffee") == "test"


def without_a_class(draft: Draft) -> None:
    draft.remove_class("cat")


def with_an_empty_class(draft: Draft) -> None:
    draft.add_class("rocket")


def with_a_single_photo(draft: Draft) -> None:
    draft.remove_photo("cat", draft.classes()[0].photos[0])


@pytest.mark.parametrize("change", [Draft.discard, without_a_class, with_an_empty_class, with_a_single_photo])
def test_too_few_classes_or_photos_are_an_error_that_changes_nothing(
    change: Callable[[Draft], None], pets: Draft, cache: EmbeddingCache, tmp_path: Path
) -> None:
    change(pets)
    before = contents(tmp_path)
    for use in (lambda: pets.learn(cache), lambda: pets.keep("pets", cache)):
        with pytest.raises(DatasetError):
            use()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("draft.learn", MemoryError()),
        ("learned_bundle.replace_head", KeyboardInterrupt()),
        ("learned_bundle.render", OSError(28, "No space left on device")),
    ],
)
def test_a_crash_leaves_what_was_learned_before(
    place: str,
    error: BaseException,
    pets: Draft,
    cache: EmbeddingCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document = as_json(pets.learn(cache))
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(f"litelens_client.learning.{place}", fail(error))
        with pytest.raises(type(error)):
            pets.learn(cache)
    assert contents(tmp_path) == before
    assert pets.measurements() == document
    assert best_label(pets, "cat") == "cat"


def test_a_photo_that_cannot_be_written_is_not_in_the_draft(
    pets: Draft, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pets.classes()
    with monkeypatch.context() as patch:
        patch.setattr("litelens_client.learning.files.os.replace", fail(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            add(pets, "cat", 1, first=9)
    assert pets.classes() == before
    assert pets.learn(cache)["skipped"]["images"] == 0


def test_a_kept_model_is_a_bundle_with_its_own_name(pets: Draft, cache: EmbeddingCache, tmp_path: Path) -> None:
    document = pets.keep("pets", cache)
    bundle = load_bundle(tmp_path / "models" / "pets")
    assert (bundle.name, bundle.version, bundle.labels) == ("pets", "1.0.0", ("cat", "coffee"))
    assert document["name"] == "pets"
    assert bundle.backbone == load_bundle(BASE).backbone
    assert pets.measurements() is None
    assert len(pets.classes()) == 2


def test_a_kept_model_is_replaced_by_its_next_version(pets: Draft, cache: EmbeddingCache, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        pets.keep("pets", cache)
        assert load_bundle(tmp_path / "models" / "pets").version == version
    assert {path.name for path in (tmp_path / "models").iterdir()} == {".draft", "pets"}


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".draft", "../pets", "a/b", "Pets", "-pets", "my pets", "pets\n", "p" * 65, "zoé", "everyday"],
)
def test_a_name_that_a_model_cannot_have_is_refused(
    name: str, pets: Draft, cache: EmbeddingCache, tmp_path: Path
) -> None:
    before = contents(tmp_path)
    with pytest.raises(DatasetError):
        pets.keep(name, cache)
    assert contents(tmp_path) == before


def test_a_model_that_was_not_learned_is_never_replaced(pets: Draft, cache: EmbeddingCache, tmp_path: Path) -> None:
    add_bundle(tmp_path / "models", "trained", BASE)
    (tmp_path / "models" / "folder").mkdir()
    before = contents(tmp_path)
    for name in ("trained", "folder"):
        with pytest.raises(NameTaken):
            pets.keep(name, cache)
    assert contents(tmp_path) == before


def test_the_archive_contains_a_bundle(pets: Draft, cache: EmbeddingCache, tmp_path: Path) -> None:
    with pytest.raises(NotInDraft):
        pets.archive()
    pets.learn(cache)
    with zipfile.ZipFile(BytesIO(pets.archive())) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "unpacked")
    bundle = load_bundle(tmp_path / "unpacked")
    prediction = Classifier(bundle, Limits(), threads=1).classify(png("cat", 40))
    expected = pets.classify(png("cat", 40))[1]
    assert [each.label for each in prediction.candidates] == [each.label for each in expected.candidates]
    assert prediction.candidates[0].confidence == pytest.approx(expected.candidates[0].confidence)
    assert contents(tmp_path / "unpacked") == contents(tmp_path / "models" / ".draft" / "draft")


def test_a_base_without_features_is_an_error(pets: Draft, cache: EmbeddingCache, tmp_path: Path) -> None:
    elsewhere = Draft(tmp_path / "models" / ".draft", tmp_path / "none", tmp_path / "models")
    with pytest.raises(BundleError):
        elsewhere.learn(cache)
    (tmp_path / "models" / ".draft" / "draft").mkdir()
    (tmp_path / "models" / ".draft" / "draft" / MANIFEST).write_text("{")
    with pytest.raises(NotInDraft):
        pets.classify(png("cat", 1))


# Several requests at the same time.


def test_nothing_can_be_changed_while_the_draft_is_learned_from(
    pets: Draft, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_module, "_WAIT_SECONDS", 0.01)
    identifier = pets.classes()[0].photos[0]
    changes: list[Callable[[], object]] = [
        lambda: pets.add_class("rocket"),
        lambda: pets.remove_class("cat"),
        lambda: pets.rename_class("cat", "dog"),
        lambda: pets.add_photo("cat", png("cat", 9)),
        lambda: pets.move_photo("cat", identifier, "coffee"),
        lambda: pets.remove_photo("cat", identifier),
        lambda: pets.learn(cache),
        lambda: pets.keep("pets", cache),
        pets.discard,
        pets.archive,
        lambda: pets.classify(png("cat", 9)),
    ]
    refused, load = [], draft_module.load_base

    def meanwhile(base: Path) -> Any:
        for change in changes:
            with pytest.raises(DraftBusy):
                change()
            refused.append(change)
        assert pets.is_learning
        assert [len(each.photos) for each in pets.classes()] == [2, 2]
        assert pets.read_photo("cat", identifier)[1] == ".png"
        return load(base)

    monkeypatch.setattr(draft_module, "load_base", meanwhile)
    assert pets.learn(cache)["distribution"] == {"train": [2, 2]}
    assert refused == changes
    assert not pets.is_learning
    changes[0]()
    assert [each.name for each in pets.classes()] == ["cat", "coffee", "rocket"]


def test_a_short_change_is_waited_for(pets: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    started, write = threading.Event(), draft_module.write_file

    def slowly(path: Path, content: bytes) -> None:
        if not started.is_set():
            started.set()
            second.start()
            second.join(0.05)
            assert second.is_alive()
        write(path, content)

    second = threading.Thread(target=add, args=(pets, "coffee", 1, 7))
    monkeypatch.setattr(draft_module, "write_file", slowly)
    add(pets, "cat", 1, first=7)
    second.join()
    assert [len(each.photos) for each in pets.classes()] == [3, 3]


def test_photos_are_classified_one_at_a_time(
    pets: Draft, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets.learn(cache)
    inside, most, predict = [], [], Classifier.predict

    def counted(self: Classifier, *arguments: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        prediction = predict(self, *arguments)
        inside.pop()
        return prediction

    monkeypatch.setattr(Classifier, "predict", counted)
    large = encoded(Image.fromarray(np.tile(np.asarray(photo("cat", 3)), (8, 8, 1))), "PNG")
    threads = [threading.Thread(target=pets.classify, args=(large,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
