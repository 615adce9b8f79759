"""`litelens learn`: from photos in class folders to a bundle, and everything that can be wrong with the photos."""

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from bundles import add_bundle, change_manifest
from class_folders import BASE, add_classes, add_photos, count_inferences, one_thread, photo
from numpy.typing import NDArray
from old_bundle import add_old_bundle
from support import encoded

from litelens.core.bundle import FEATURES, IMAGE, LOGITS, MANIFEST, METRICS, MODEL, REPORT, Bundle, load_bundle
from litelens.core.classifier import Classifier, Features, Options, Prediction
from litelens.core.engines import ENGINES
from litelens.core.familiarity import FAMILIARITY
from litelens.core.golden import mismatch
from litelens.core.head import HEAD
from litelens.core.images import Limits
from litelens.core.probabilities import softmax
from litelens_client.__main__ import main
from litelens_client.learning import regression
from litelens_client.learning.embeddings import EmbeddingCache
from litelens_client.learning.learn import MIN_UNMIRRORED, Learned, learn, load_base
from litelens_client.learning.photos import LIMITS, list_class_folders

Document = dict[str, Any]

# Names that need care in HTML, on terminals and in JSON.
ODD = """a 'cat' & <b>"x" 🐈.png"""
LINES = "two\nlines.jpg"
NOT_UTF8 = os.fsdecode(b"\xff\xfe.png")


@dataclass(frozen=True)
class Run:
    """A folder of photos, the bundle that was learned from it, and what the command printed with --json."""

    photos: Path
    folder: Path
    printed: str

    @property
    def document(self) -> Document:
        return json.loads(self.printed)

    @property
    def bundle(self) -> Bundle:
        return load_bundle(self.folder)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cache() -> Iterator[EmbeddingCache]:
    with contextlib.closing(EmbeddingCache()) as cache:
        yield cache


@pytest.fixture(autouse=True)
def work(tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, without the variables of the person who runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.delenv("LITELENS_MODELS", raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of cats and coffee with a wrong folder, duplicates, odd names and files that are no photos."""
    root = tmp_path_factory.mktemp("messy") / "photos"
    add_photos(root / "café", "coffee", 12)
    add_photos(root / "猫", "cat", 12)
    photo("cat", 20).save(root / "café" / ODD)
    photo("coffee", 23).save(root / "猫" / "wrong.png")
    photo("cat", 3).save(root / "猫" / "copy.bmp")
    photo("cat", 4).save(root / "猫" / "again.jpg", quality=98)
    (root / "猫" / LINES).write_text("hello")
    (root / "café" / "cut.jpg").write_bytes(encoded(photo("coffee", 1), "JPEG")[:700])
    if sys.platform == "linux":
        photo("cat", 24).save(root / "猫" / NOT_UTF8)
    return root


@pytest.fixture(scope="module")
def run(messy: Path, cache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The bundle that is learned from `messy`."""
    folder, printed = tmp_path_factory.mktemp("work"), StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        patch.delenv("LITELENS_MODELS", raising=False)
        patch.chdir(folder)
        assert main(["learn", str(messy), "--name", "pets", "--base", str(BASE), "--json"]) == 0
    return Run(messy, folder / "models" / "pets", printed.getvalue())


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try one regularization, and leave out the golden images, for which OpenVINO compiles the model."""
    monkeypatch.setattr(regression, "REGULARIZATIONS", (1e-2,))
    monkeypatch.setattr("litelens_client.learning.learned_bundle.add_golden_images", lambda folder: [])


def run_learn(photos: Path, *options: str, name: str = "pets", base: str | Path = BASE) -> int:
    return main(["learn", str(photos), "--name", name, "--base", str(base), *options])


def learn_document(capsys: pytest.CaptureFixture[str], photos: Path, **options: Any) -> Document:
    capsys.readouterr()
    assert run_learn(photos, "--json", **options) == 0
    return json.loads(capsys.readouterr().out)


def failure(capsys: pytest.CaptureFixture[str], photos: Path, **options: Any) -> str:
    """Return what the command prints when it fails."""
    with pytest.raises(SystemExit) as raised:
        run_learn(photos, **options)
    code = raised.value.code
    if isinstance(code, str):
        return code  # Python prints it and exits with 1
    assert code in (1, 2)
    return capsys.readouterr().err


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return the content of each file in a folder, and None for each folder in it, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def classify(bundle: Bundle, label: str, number: int, **options: Any) -> Prediction:
    classifier = Classifier(bundle, Limits(), threads=1)
    return classifier.classify(encoded(photo(label, number), "PNG"), Options(**options))


def printed_name(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")


# What is learned.


def test_photos_in_the_wrong_folder_are_listed(run: Run) -> None:
    review = run.document["review"]
    found = {row["file"]: (row["label"], row["looks_like"]) for row in review["misplaced_listed"]}
    assert found == {f"café/{ODD}": ("café", "猫"), "猫/wrong.png": ("猫", "café")}
    assert review["misplaced"] == 2


def test_duplicates_are_listed(run: Run) -> None:
    pairs = {frozenset((row["first"], row["second"])): row["exact"] for row in run.document["review"]["duplicates"]}
    assert pairs[frozenset(("猫/03.png", "猫/copy.bmp"))] is True
    assert pairs[frozenset(("猫/04.png", "猫/again.jpg"))] is False
    assert run.document["review"]["duplicate_pairs"] == len(pairs)


def test_files_that_cannot_be_read_are_listed_with_a_reason(run: Run) -> None:
    skipped = run.document["skipped"]
    assert skipped["images"] == 2
    assert {row["file"] for row in skipped["listed"]} == {f"猫/{LINES}", "café/cut.jpg"}
    assert all(row["reason"] for row in skipped["listed"])


def test_the_measurements_are_printed_and_kept(run: Run) -> None:
    assert json.loads((run.folder / METRICS).read_text()) == run.document
    counts = run.document["distribution"]["train"]
    assert run.document["metrics"]["test_images"] == sum(counts) == 28 + (sys.platform == "linux")
    assert run.document["metrics"]["int8_top1"] >= 0.9
    assert sum(map(sum, run.document["confusion"])) == sum(counts)


def test_no_document_contains_a_path_of_this_disk(run: Run) -> None:
    for name in (MANIFEST, METRICS, REPORT):
        text = (run.folder / name).read_text()
        assert str(run.photos.parent) not in text
        assert str(BASE.parent) not in text


def test_the_manifest_says_what_was_learned_from_what(run: Run) -> None:
    manifest = json.loads((run.folder / MANIFEST).read_text())
    assert manifest["labels"] == ["café", "猫"]
    assert (manifest["name"], manifest["version"]) == ("pets", "1.0.0")
    assert manifest["learning"]["base"]["backbone"] == load_bundle(BASE).backbone
    assert set(manifest["files"]) == {MODEL, HEAD, FAMILIARITY}


@pytest.fixture(scope="module", params=ENGINES)
def classifier(request: pytest.FixtureRequest, run: Run) -> Classifier:
    """The learned bundle, loaded with each engine."""
    return Classifier(run.bundle, Limits(), threads=1, engine=request.param)


def test_the_bundle_answers_its_golden_images_with_both_engines(classifier: Classifier, run: Run) -> None:
    assert run.bundle.golden
    for image in run.bundle.golden:
        prediction = classifier.classify(image.read(run.folder), Options(top_k=2))
        assert mismatch(image, {each.label: each.confidence for each in prediction.candidates}) is None


def test_new_photos_are_classified_with_both_engines(classifier: Classifier) -> None:
    for label, expected in (("cat", "猫"), ("coffee", "café")):
        found = [classifier.classify(encoded(photo(label, number), "PNG")) for number in range(40, 46)]
        assert [prediction.candidates[0].label for prediction in found] == [expected] * 6
        assert sum(prediction.unfamiliar is True for prediction in found) <= 1


def test_photos_of_other_things_are_unfamiliar_and_uncertain(classifier: Classifier) -> None:
    for number in range(6):
        prediction = classifier.classify(encoded(photo("rocket", number), "PNG"), Options(threshold=0))
        assert prediction.unfamiliar
        assert prediction.uncertain


def test_the_heat_map_of_each_label_can_be_shown(run: Run) -> None:
    heat_maps = [
        classify(run.bundle, "cat", 2, heat_map=True, heat_map_label=label).heat_map for label in ("café", "猫")
    ]
    assert all(heat_map and heat_map.scores.shape == (4, 4) for heat_map in heat_maps)


def test_the_published_model_alone_classifies_like_the_bundle(run: Run) -> None:
    """An app has model.tflite only: pixels in, class scores out."""
    bundle = run.bundle
    classifier = Classifier(bundle, Limits(), threads=1)
    interpreter = Interpreter(model_path=str(bundle.model))
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    spec = bundle.preprocessing
    for label in ("cat", "coffee"):
        for number in range(50, 56):
            values = (spec.pixels(photo(label, number)) / 255 - np.array(spec.mean)) / np.array(spec.std)
            levels = bundle.tensors[IMAGE].quantize(values.astype(np.float32))[np.newaxis]
            logits = bundle.tensors[LOGITS].dequantize(runner(image=levels)[LOGITS][0])
            confidences = softmax(logits / np.float32(bundle.temperature))
            expected = classifier.classify(encoded(photo(label, number), "PNG"))
            best = expected.candidates[0]
            assert bundle.labels[int(confidences.argmax())] == best.label
            assert confidences.max() == pytest.approx(best.confidence, abs=0.05)


class Page(HTMLParser):
    """The text of a page, the addresses that it loads, and its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.addresses, self.code, self._inside = "", [], "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag if tag in ("script", "style") else ""
        values = dict(attrs)
        self.addresses += [values[name] for name in ("src", "href", "srcset", "data") if values.get(name)]
        self.code += values.get("style") or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.code += data
        else:
            self.text += data


def test_the_report_shows_the_photos_to_check(run: Run) -> None:
    page = Page((run.folder / REPORT).read_text())
    for name in (f"café/{ODD}", "猫/wrong.png", "猫/copy.bmp", "猫/again.jpg", "café/cut.jpg", f"猫/{LINES}"):
        assert name in page.text, name


def test_the_report_loads_nothing_from_elsewhere(run: Run) -> None:
    page = Page((run.folder / REPORT).read_text())
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"url\(|@import|https?:|//", page.code)


def test_names_that_are_not_utf8_are_replaced_in_the_report(tmp_path: Path, fast: None) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has such names")
    root = add_classes(tmp_path / os.fsdecode(b"ph\xffotos"), 2)
    (root / "cat" / NOT_UTF8).write_text("no photo")
    assert run_learn(root) == 0
    document = json.loads(Path("models/pets", METRICS).read_text())
    assert document["skipped"]["listed"][0]["file"] == f"cat/{printed_name(NOT_UTF8)}"
    assert document["dataset"] == "ph�otos"


# How it is learned.


def test_duplicates_are_never_on_both_sides_of_a_fold(
    messy: Path, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assigned = []

    def record(truth: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
        assigned.append(assign(truth, groups))
        return assigned[-1]

    assign = regression.assign_folds
    monkeypatch.setattr(regression, "assign_folds", record)
    learned = learn(messy, load_base(BASE), cache)
    (folds,) = assigned
    fold_of = dict(zip(learned.train.paths, folds.tolist(), strict=True))
    assert len(learned.pairs) >= 2
    for pair in learned.pairs:
        assert fold_of[pair.first] == fold_of[pair.second]


@pytest.fixture
def inferences(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    return count_inferences(monkeypatch)


def test_only_photos_that_are_new_are_computed(tmp_path: Path, inferences: list[None]) -> None:
    root, base = add_classes(tmp_path / "photos", 6), load_base(BASE)
    with contextlib.closing(EmbeddingCache()) as cache:
        learn(root, base, cache)
        assert len(inferences) == 12
        (root / "cat" / "03.png").rename(root / "coffee" / "moved.png")
        learn(root, base, cache)
        assert len(inferences) == 12
        add_photos(root / "cat", "cat", 10, first=10)
        learn(root, base, cache)
        assert len(inferences) == 12 + 10


def test_only_if_a_class_has_few_photos_mirror_images_are_used(tmp_path: Path, cache: EmbeddingCache) -> None:
    root = add_classes(tmp_path / "photos", MIN_UNMIRRORED)
    assert not learn(root, load_base(BASE), cache).mirrored
    (root / "cat" / "00.png").unlink()
    assert learn(root, load_base(BASE), cache).mirrored


def test_two_photos_a_class_are_enough_and_the_summary_says_how_little_that_is(
    tmp_path: Path, fast: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_learn(add_classes(tmp_path / "photos", 2)) == 0
    printed = capsys.readouterr().out
    assert re.search(r"few.*\b2\b", printed, re.IGNORECASE)
    assert "unfamiliar" in printed.lower()
    assert str(Path("models/pets")) in printed
    bundle = load_bundle(Path("models/pets"))
    assert bundle.familiarity is None
    assert classify(bundle, "cat", 1).candidates[0].label == "cat"
    assert classify(bundle, "rocket", 1).unfamiliar is None


def test_the_summary_names_what_people_should_look_at(
    messy: Path, fast: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_learn(messy) == 0
    printed = capsys.readouterr().out
    for name in ("café", "猫", ODD, "wrong.png", "copy.bmp", "cut.jpg", r"two\nlines.jpg", REPORT):
        assert name in printed, name
    assert printed.isascii() or printed.replace("\n", "").isprintable()


def test_the_same_photo_in_both_classes_is_no_obstacle(tmp_path: Path, cache: EmbeddingCache) -> None:
    root = add_classes(tmp_path / "photos", 2)
    shutil.copy(root / "cat" / "00.png", root / "coffee" / "00.png")
    learned = learn(root, load_base(BASE), cache)
    assert [(pair.first.parent.name, pair.second.parent.name) for pair in learned.pairs] == [("cat", "coffee")]


def test_photos_that_are_all_the_same_give_a_bundle_with_a_warning(
    tmp_path: Path, fast: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("a", "b"):
        for number in range(3):
            (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
            photo("cat", 1).save(tmp_path / "photos" / folder / f"{number}.png")
    learn_document(capsys, tmp_path / "photos")
    assert json.loads(Path("models/pets", MANIFEST).read_text())["warnings"]
    candidates = classify(load_bundle(Path("models/pets")), "cat", 1).candidates
    assert [each.confidence for each in candidates] == pytest.approx([0.5, 0.5], abs=0.01)


def test_three_classes_are_told_apart(tmp_path: Path, cache: EmbeddingCache) -> None:
    learned = learn(add_classes(tmp_path / "photos", 4, ("cat", "coffee", "rocket")), load_base(BASE), cache)
    assert learned.labels == ("cat", "coffee", "rocket")
    assert learned.head.weights.shape[0] == 3
    assert (learned.confidences.argmax(axis=1) == learned.train.classes).mean() >= 0.9


def test_a_learned_bundle_can_be_the_base_of_another(run: Run, tmp_path: Path, cache: EmbeddingCache) -> None:
    root = add_classes(tmp_path / "photos", 2)
    from_learned, directly = (learn(root, load_base(base), cache) for base in (run.folder, BASE))
    assert np.array_equal(from_learned.train.pooled, directly.train.pooled)
    assert np.allclose(from_learned.head.weights, directly.head.weights)


def test_the_base_can_be_a_name_in_models(tmp_path: Path, fast: None, capsys: pytest.CaptureFixture[str]) -> None:
    add_bundle(Path("models"), "lite", BASE)
    document = learn_document(capsys, add_classes(tmp_path / "photos", 2), base="lite")
    assert document["network"]["backbone"] == load_bundle(BASE).backbone
    assert "--base lite" in document["command"]


@pytest.mark.parametrize("damage", [b"", b"no database" * 1000])
def test_a_damaged_cache_does_not_stop_learning(
    damage: bytes, tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "home" / "litelens" / "embeddings.sqlite"
    file.parent.mkdir(parents=True)
    file.write_bytes(damage)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert run_learn(add_classes(tmp_path / "photos", 2)) == 0
    assert load_bundle(Path("models/pets")).labels == ("cat", "coffee")


# The splits.


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """Photos with a split for tests, of which two are also training photos, and one is nearly the same as one."""
    root = tmp_path / "photos"
    for split, count, first in (("train", 4, 0), ("validation", 2, 10), ("test", 3, 20)):
        for label in ("cat", "coffee"):
            add_photos(root / split / label, label, count, first)
    shutil.copy(root / "train" / "cat" / "01.png", root / "test" / "cat" / "seen.png")
    photo("coffee", 11).save(root / "test" / "coffee" / "validated.bmp")
    photo("cat", 2).save(root / "test" / "cat" / "again.jpg", quality=98)
    return root


def test_validation_photos_are_training_photos_and_the_test_split_is_measured(
    splits: Path, fast: None, capsys: pytest.CaptureFixture[str]
) -> None:
    document = learn_document(capsys, splits)
    assert document["distribution"] == {"train": [6, 6], "test": [3, 3]}
    assert document["metrics"]["test_images"] == 6
    assert document["metrics"]["validation_images"] == 12
    assert [sum(row) for row in document["confusion"]] == [3, 3]


def test_test_photos_that_are_training_photos_are_left_out_and_named(
    splits: Path, fast: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_learn(splits) == 0
    printed = capsys.readouterr().out
    document = json.loads(Path("models/pets", METRICS).read_text())
    repeated = ["test/cat/again.jpg", "test/cat/seen.png", "test/coffee/validated.bmp"]
    assert document["duplicates"] == repeated
    assert document["metrics"]["test_duplicates"] == 3
    page = Page(Path("models/pets", REPORT).read_text())
    for name in repeated:
        assert name in printed
        assert name in page.text


def test_the_test_photos_do_not_change_what_is_learned(splits: Path, cache: EmbeddingCache) -> None:
    with_test = learn(splits, load_base(BASE), cache)
    shutil.rmtree(splits / "test")
    without: Learned = learn(splits, load_base(BASE), cache)
    assert without.test is None
    assert np.array_equal(with_test.head.weights, without.head.weights)
    assert with_test.threshold == without.threshold


# What is wrong with the photos, the name or the base.


def test_a_file_that_is_larger_than_any_photo_is_not_read(tmp_path: Path, cache: EmbeddingCache) -> None:
    root = add_classes(tmp_path / "photos", 2)
    with (root / "cat" / "video.mp4").open("wb") as file:
        file.truncate(LIMITS.bytes + 1)  # a sparse file, which takes no space
    (skipped,) = learn(root, load_base(BASE), cache).unreadable
    assert skipped.file == "cat/video.mp4"


@pytest.fixture
def earlier() -> Path:
    """A bundle of the same name, as an earlier `litelens learn` wrote it; the command never looks at more than this."""
    folder = Path("models/pets")
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({"learning": {}, "version": "1.4.0"}))
    (folder / MODEL).write_bytes(b"the earlier model")
    return folder


def empty_class(root: Path) -> None:
    add_classes(root, 2)
    (root / "bird").mkdir()


def one_photo(root: Path) -> None:
    add_classes(root, 2)
    add_photos(root / "bird", "rocket", 1)


def nothing_readable(root: Path) -> None:
    add_classes(root, 2)
    for name in ("a.jpg", "b.jpg"):
        (root / "bird").mkdir(exist_ok=True)
        (root / "bird" / name).write_text("hello")


def only_test_photos_that_are_training_photos(root: Path) -> None:
    add_classes(root / "train", 2)
    shutil.copytree(root / "train", root / "test")


def class_in_the_test_split_only(root: Path) -> None:
    add_classes(root / "train", 2)
    add_classes(root / "test", 1)
    add_photos(root / "test" / "bird", "rocket", 1)


@pytest.mark.parametrize(
    ("prepare", "named"),
    [
        (lambda root: None, "photos"),
        (lambda root: root.write_text("a file"), "photos"),
        (lambda root: root.mkdir(), "photos"),
        (lambda root: add_photos(root, "cat", 3), "photos"),
        (lambda root: add_classes(root, 3, ("cat",)), "cat"),
        (empty_class, "bird"),
        (one_photo, "bird"),
        (nothing_readable, "bird"),
        (lambda root: add_classes(root / "test", 3), "test"),
        (class_in_the_test_split_only, "bird"),
        (only_test_photos_that_are_training_photos, "test"),
    ],
)
def test_photos_that_do_not_suffice_are_an_error_that_changes_nothing(
    prepare: Callable[[Path], object], named: str, tmp_path: Path, earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    prepare(root)
    before = contents(tmp_path)
    assert named in failure(capsys, root)
    assert contents(tmp_path) == before


def test_a_class_without_readable_photos_is_refused_with_the_reason_of_one(
    tmp_path: Path, earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    nothing_readable(root)
    add_classes(root, 2)
    (root / "birds of prey").mkdir()
    (root / "birds of prey" / "owl.txt").write_text("hello")
    message = failure(capsys, root)
    assert "2 cannot be read" in message
    assert os.path.join("bird", "a.jpg") in message
    assert "owl" not in message


def test_what_systems_add_to_folders_is_neither_a_class_nor_a_photo(tmp_path: Path) -> None:
    root = add_classes(tmp_path, 2)
    expected = list_class_folders(root)
    add_photos(root / "@eaDir", "rocket", 1)
    add_photos(root / "__MACOSX" / "cat", "rocket", 1)
    add_photos(root / "cat" / "@eaDir" / "00.png", "cat", 1)
    (root / "coffee" / "Thumbs.db").write_bytes(b"of no interest")
    assert list_class_folders(root) == expected


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../pets", "a/b", "Pets", "-pets", "my pets", "pets\n", "p" * 65, "zoé"]
)
def test_a_name_that_cannot_be_one_is_an_error(
    name: str, tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = add_classes(tmp_path / "photos", 2)
    with pytest.raises(SystemExit) as raised:
        main(["learn", str(root), f"--name={name}", "--base", str(BASE)])
    assert name.strip() in str(raised.value.code)
    assert contents(work) == {}


def test_the_name_of_the_model_that_comes_with_litelens_is_taken(
    tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "everyday" in failure(capsys, add_classes(tmp_path / "photos", 2), name="everyday")
    assert contents(work) == {}


def without_features(models: Path) -> None:
    folder = add_bundle(models, "plain", BASE)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["tensors"][FEATURES], manifest["files"][HEAD]
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("prepare", "base"),
    [
        (lambda models: None, "absent"),
        (lambda models: None, "models/absent"),
        (lambda models: (models / "empty").mkdir(), "models/empty"),
        (without_features, "plain"),
        (lambda models: add_old_bundle(models, "old"), "old"),
        (lambda models: change_manifest(add_bundle(models, "bad", BASE), labels=[]), "bad"),
    ],
)
def test_a_base_that_cannot_be_used_is_an_error(
    prepare: Callable[[Path], object],
    base: str,
    tmp_path: Path,
    work: Path,
    earlier: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare(work / "models")
    root = add_classes(tmp_path / "photos", 2)
    before = contents(work)
    assert base in failure(capsys, root, base=base)
    assert contents(work) == before


def write_foreign_manifest(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text('{"name": "a web app", "icons": []}')


def damage_manifest(folder: Path) -> None:
    (add_bundle(folder.parent, folder.name, BASE) / MANIFEST).write_text("{")


def damage_model(folder: Path) -> None:
    model = add_bundle(folder.parent, folder.name, BASE) / MODEL
    model.unlink()
    model.write_bytes(b"damaged")


@pytest.mark.parametrize(
    "prepare",
    [
        lambda folder: add_bundle(folder.parent, folder.name, BASE),
        lambda folder: add_old_bundle(folder.parent, folder.name),
        damage_manifest,
        damage_model,
        write_foreign_manifest,
        lambda folder: folder.mkdir(parents=True),
        lambda folder: add_classes(folder, 1),
        lambda folder: (folder.parent.mkdir(), folder.write_text("a file")),
        lambda folder: folder.parent.write_text("a file"),
    ],
)
def test_what_was_not_learned_is_never_replaced(
    prepare: Callable[[Path], object], tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(work / "models" / "pets")
    root = add_classes(tmp_path / "photos", 2)
    before = contents(work)
    assert "models" in failure(capsys, root)
    assert contents(work) == before


# Learning again, and interruptions.


def test_learning_again_raises_the_version(tmp_path: Path, fast: None, work: Path) -> None:
    root = add_classes(tmp_path / "photos", 2)
    versions = []
    for _ in range(2):
        assert run_learn(root) == 0
        versions.append(load_bundle(Path("models/pets")).version)
    # Even if the bundle can no longer be loaded.
    (work / "models" / "pets" / MODEL).write_bytes(b"damaged")
    add_photos(root / "cat", "cat", 1, first=8)
    assert run_learn(root) == 0
    bundle = load_bundle(Path("models/pets"))
    assert [*versions, bundle.version] == ["1.0.0", "1.1.0", "1.2.0"]
    assert [path.name for path in Path("models").iterdir()] == ["pets"]


def test_an_earlier_bundle_is_replaced_as_a_whole(tmp_path: Path, fast: None, earlier: Path) -> None:
    (earlier / "note.txt").write_text("of the earlier bundle")
    assert run_learn(add_classes(tmp_path / "photos", 2)) == 0
    assert load_bundle(earlier).version == "1.5.0"
    assert not (earlier / "note.txt").exists()


PLACES = [
    "learn.cross_validate",
    "learned_bundle.replace_head",
    "learned_bundle.add_golden_images",
    "learned_bundle.load_bundle",
    "learned_bundle.render",
]


@pytest.mark.parametrize(("place", "has_earlier"), [*((place, True) for place in PLACES), (PLACES[-1], False)])
def test_an_interruption_leaves_nothing_half_written(
    place: str, has_earlier: bool, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if has_earlier:
        request.getfixturevalue("earlier")
    request.getfixturevalue("fast")
    root = add_classes(tmp_path / "photos", 2)
    before = contents(work)
    monkeypatch.setattr(f"litelens_client.learning.{place}", interrupt)
    assert run_learn(root) == 130
    assert contents(work) | {"models": None} == before | {"models": None}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError(), ValueError("a bug")])
def test_an_error_in_the_middle_leaves_nothing_half_written(
    error: Exception, tmp_path: Path, work: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    root = add_classes(tmp_path / "photos", 2)
    before = contents(work)
    monkeypatch.setattr("litelens_client.learning.learned_bundle.write_file", fail)
    with pytest.raises((SystemExit, type(error))):
        run_learn(root)
    assert contents(work) == before


def test_a_photo_that_disappears_in_the_middle_is_named(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = add_classes(tmp_path / "photos", 2)
    photo("cat", 90).save(root / "cat" / "00.png")  # not in the cache
    compute = Classifier.features

    def remove(self: Classifier, pixels: NDArray[np.uint8]) -> Features:
        (root / "cat" / "00.png").unlink(missing_ok=True)
        return compute(self, pixels)

    monkeypatch.setattr(Classifier, "features", remove)
    assert "00.png" in failure(capsys, root)
    assert contents(work) == {}


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = add_classes(tmp_path / "photos", 2)
    iterate = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path == root:
            raise PermissionError(13, "Permission denied", str(path))
        return iterate(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    message = failure(capsys, root)
    assert str(root) in message
    assert "models" not in message


def test_output_that_cannot_be_written_is_an_error(tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litelens_client.learn.write_output", lambda lines: False)
    assert run_learn(add_classes(tmp_path / "photos", 2)) == 1


def test_the_commands_of_the_summary_are_listed_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    commands: Mapping[str, str] = {"learn": "--base", "convert": "FOLDER"}
    for command, option in commands.items():
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert option in capsys.readouterr().out
