"""`litelens learn` with photos that have several labels: class folders, tables of labels, bundle, report, summary."""

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from class_folders import BASE, add_classes, one_thread, photo
from PIL import Image
from support import encoded

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.engines import ENGINES
from litelens.core.golden import mismatch
from litelens.core.images import Limits
from litelens_client.__main__ import main
from litelens_client.learn import summary
from litelens_client.learning import labelled_photos, multi_label
from litelens_client.learning.embeddings import EmbeddingCache
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.labelled_photos import list_labelled_photos, read_label_table
from litelens_client.learning.learn import load_base
from litelens_client.learning.learn_labels import LearnedLabels, learn_labels

COUNT = 14


@dataclass(frozen=True)
class Run:
    """A bundle that `litelens learn` wrote, and the JSON that it printed."""

    folder: Path
    document: dict[str, Any]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def cache() -> Iterator[EmbeddingCache]:
    with contextlib.closing(EmbeddingCache()) as cache:
        yield cache


@pytest.fixture(autouse=True)
def work(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, without the variables of the person who runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("LITELENS_MODELS", raising=False)
    monkeypatch.setattr(multi_label, "REGULARIZATIONS", (1e-2, 1e-1))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the golden images, for which OpenVINO compiles the model."""
    monkeypatch.setattr("litelens_client.learning.learned_bundle.add_golden_images", lambda folder: [])


def both(number: int) -> Image.Image:
    """Return a photo with a cat on the left and coffee on the right."""
    image = Image.new("RGB", (192, 96))
    image.paste(photo("cat", number), (0, 0))
    image.paste(photo("coffee", number), (96, 0))
    return image.resize((96, 96), Image.Resampling.BICUBIC)


def add_scenes(root: Path) -> Path:
    """Write photos of a cat, of coffee, of both and of neither; return the folder."""
    root.mkdir(parents=True)
    for number in range(COUNT):
        photo("cat", number).save(root / f"cat-{number}.png", compress_level=1)
        photo("coffee", number).save(root / f"coffee-{number}.png", compress_level=1)
        both(number).save(root / f"both-{number}.png", compress_level=1)
        photo("rocket", number).save(root / f"none-{number}.png", compress_level=1)
    return root


LABELS = {"cat": "cat", "coffee": "coffee", "both": "cat;coffee", "none": ""}


def write_table(root: Path, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    lines = [f"{path.name},{LABELS[path.stem.partition('-')[0]]}" for path in sorted(root.glob("*.png"))]
    table = root / name
    table.write_bytes("\r\n".join(["file,labels", *lines, ""]).encode(encoding))
    return table


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(add_scenes(tmp_path_factory.mktemp("scenes") / "photos"))


@pytest.fixture(scope="module")
def learned(scenes: Path, cache: EmbeddingCache) -> LearnedLabels:
    return learn_labels(scenes, load_base(BASE), cache)


def run_learn(source: Path, *options: str) -> int:
    return main(["learn", str(source), "--name", "scenes", "--base", str(BASE), *options])


def test_photos_with_both_labels_have_both(learned: LearnedLabels) -> None:
    assert learned.labels == ("cat", "coffee")
    by_name = dict(zip((path.name for path in learned.train.paths), learned.train.classes.tolist(), strict=True))
    assert by_name["both-3.png"] == [True, True]
    assert by_name["none-3.png"] == [False, False]
    assert by_name["cat-3.png"] == [True, False]


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The bundle that the command learns from the table."""
    folder, printed = tmp_path_factory.mktemp("work"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.delenv("LITELENS_MODELS", raising=False)
        patch.setattr(multi_label, "REGULARIZATIONS", (1e-2, 1e-1))
        patch.chdir(folder)
        assert run_learn(scenes, "--json") == 0
    return Run(folder / "models" / "scenes", json.loads(printed.getvalue()))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_bundle_says_of_new_photos_which_labels_are_present(run: Run, engine: str) -> None:
    classifier = Classifier(load_bundle(run.folder), Limits(), threads=1, engine=engine)
    assert classifier.bundle.is_multi_label
    right = 0
    for number in range(40, 46):
        for image, labels in (
            (photo("cat", number), {"cat"}),
            (photo("coffee", number), {"coffee"}),
            (both(number), {"cat", "coffee"}),
        ):
            prediction = classifier.classify(encoded(image, "PNG"))
            right += {each.label for each in prediction.candidates if each.present} == labels
    assert right >= 15


def test_the_golden_images_of_the_bundle_are_answered_with_both_engines(run: Run) -> None:
    bundle = load_bundle(run.folder)
    assert bundle.golden
    for engine in ENGINES:
        classifier = Classifier(bundle, Limits(), threads=1, engine=engine)
        for image in bundle.golden:
            found = classifier.classify(image.read(run.folder)).candidates
            assert mismatch(image, {each.label: each.confidence for each in found}) is None


def test_the_measurements_are_printed_and_kept(run: Run) -> None:
    document = run.document
    assert document == json.loads((run.folder / "metrics.json").read_text())
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert manifest["thresholds"] == document["metrics"]["thresholds"]
    assert "threshold" not in manifest
    assert document["metrics"]["mean_average_precision"] > 0.8
    assert document["distribution"]["train"] == [2 * COUNT, 2 * COUNT]
    assert [row["images"] for row in document["classes"]] == [2 * COUNT, 2 * COUNT]


def test_the_report_and_the_summary_speak_of_labels(run: Run) -> None:
    printed = "\n".join(summary(run.document, run.folder, 1.0))
    assert "2 labels" in printed
    assert "mean average precision" in printed
    report = (run.folder / "report.html").read_text()
    assert "cat, coffee" in report
    assert "no label" in report
    assert 'id="confusion"' not in report
    assert "None" not in report


def test_a_photo_in_several_class_folders_has_all_their_labels(tmp_path: Path, cache: EmbeddingCache) -> None:
    root = add_classes(tmp_path / "photos", 4)
    for label in ("cat", "coffee"):
        for number in (30, 31):
            both(number).save(root / label / f"both-{number}-{label}.png")
    found = learn_labels(root, load_base(BASE), cache)
    assert len(found.train) == 10
    assert found.train.classes.sum(axis=0).tolist() == [6, 6]
    assert found.train.classes.all(axis=1).sum() == 2


def test_without_the_option_a_photo_in_two_folders_is_named_with_the_option(
    tmp_path: Path, fast: None, capsys: pytest.CaptureFixture[str]
) -> None:
    root = add_classes(tmp_path / "photos", 4)
    for label in ("cat", "coffee"):
        both(30).save(root / label / "both.png")
    assert run_learn(root) == 0
    assert "--multi-label" in capsys.readouterr().out
    assert run_learn(root, "--multi-label") == 0
    assert "in several class folders" not in capsys.readouterr().out


def test_the_test_split_is_measured(tmp_path: Path, cache: EmbeddingCache) -> None:
    add_classes(tmp_path / "photos" / "train", 5)
    for number, label in enumerate(("cat", "coffee")):
        (tmp_path / "photos" / "test" / label).mkdir(parents=True)
        photo(label, 50 + number).save(tmp_path / "photos" / "test" / label / "1.png")
        both(52).save(tmp_path / "photos" / "test" / label / "both.png")
    found = learn_labels(tmp_path / "photos", load_base(BASE), cache)
    photos, logits = found.measured
    assert len(found.train) == 10
    assert logits.shape == (3, 2)
    assert photos.classes.sum(axis=0).tolist() == [2, 2]


def test_a_learned_multi_label_bundle_tells_unfamiliar_photos(learned: LearnedLabels) -> None:
    assert learned.familiarity is not None
    assert learned.familiarity.thresholds.shape == (2,)


def table(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png", "c, d.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    path = folder / "labels.csv"
    path.write_bytes(content)
    return path


def read(path: Path) -> dict[str, list[str]]:
    found = read_label_table(path)
    return {photo.name: [found.labels[at] for at in sorted(given)] for photo, given in found.photos.items()}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"file,labels\na.png,cat;dog\nb.png,dog\n", {"a.png": ["cat", "dog"], "b.png": ["dog"]}),
        (b"file,label\r\na.png,cat\r\na.png,dog\r\n", {"a.png": ["cat", "dog"]}),
        (b"\xef\xbb\xbffile,labels\na.png, cat ; ;dog\nb.png,\n\n", {"a.png": ["cat", "dog"], "b.png": []}),
        (b'Image,Labels\n"c, d.png","hot, dog;cat"\n', {"c, d.png": ["cat", "hot, dog"]}),
        (b'file;labels\r\na.png;"cat;dog"\r\n', {"a.png": ["cat", "dog"]}),
        (b"file\tlabels\na.png\tcat;dog\n", {"a.png": ["cat", "dog"]}),
        (b"file,dog,cat\na.png,1,0\nb.png,TRUE,1.0\n", {"a.png": ["dog"], "b.png": ["dog", "cat"]}),
        (b"file,dog\na.png,1\nb.png,\n", {"a.png": ["dog"], "b.png": []}),
        (b"file,labels\n.\\a.png,cat\n", {"a.png": ["cat"]}),
        (b"sep=;\r\nfile;labels\r\na.png;cat\r\n", {"a.png": ["cat"]}),
        (b"sep=|\nfile|dog\na.png|1\n", {"a.png": ["dog"]}),
    ],
)
def test_common_tables_are_read(tmp_path: Path, content: bytes, expected: dict[str, list[str]]) -> None:
    assert read(table(tmp_path / "photos", content)) == expected


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "first line"),
        (b"file\na.png\n", "first line"),
        (b"file,labels\n", "no photos"),
        (b"file,labels\na.png,\n", "no labels"),
        (b"file,labels\na.png,cat\nmissing.png,cat\n", "line 3 of labels.csv names 'missing.png'"),
        (b"file,labels\na.png,cat\n,cat\n", "line 3 of labels.csv names no photo"),
        (b"file,labels\n../labels.csv,cat\n", "does not exist"),
        (b"file,labels\n../outside.png,cat\n", "outside"),
        (b"file,labels\na.png,cat,dog\n", "line 2 of labels.csv has 3 cells instead of 2"),
        (b'file,labels\n"a.png,cat\n', "line"),
        (b"file,labels\na.png,c\x00at\n", "line 2"),
        (b"file,cat,dog\na.png,1,maybe\n", "line 2 of labels.csv has 'maybe' for the label 'dog'"),
        (b"file,cat,dog\na.png,1,0\na.png,0,1\n", "line 3 of labels.csv names 'a.png' a second time"),
        (b"file,cat,cat\na.png,1,0\n", "'cat' twice"),
        (b"a.png,cat\nb.png,dog\n", "first line of .* names a photo"),
        (b"sep=;\nfile;labels\nmissing.png;cat\n", "line 3 of labels.csv names 'missing.png'"),
        (b"file,cat,\na.png,1,0\n", "column 3"),
        ("file,labels\na.png,caf\u00e9\n".encode("latin-1"), "UTF-8"),
        (b"file,labels\na.png," + b"x" * 201 + b"\n", "line 2"),
    ],
)
def test_tables_that_are_wrong_are_refused_with_the_line(tmp_path: Path, content: bytes, named: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    with pytest.raises(DatasetError, match=named):
        read_label_table(table(tmp_path / "photos", content))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"file,labels\na.png,Cat\nb.png,cat\n", "'Cat' and 'cat'"),
        (b"file,Cat,cat\na.png,1,0\n", "'Cat' and 'cat'"),
        (b'file,cat,"hot;dog"\na.png,1,0\n', "'hot;dog'"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(tmp_path: Path, content: bytes, named: str) -> None:
    with pytest.raises(DatasetError, match=named):
        list_labelled_photos(table(tmp_path / "photos", content))


def test_a_class_folder_with_the_separator_of_labels_in_csv_is_refused(tmp_path: Path) -> None:
    for label in ("cat", "hot;dog"):
        (tmp_path / label).mkdir()
    with pytest.raises(DatasetError, match="'hot;dog'"):
        list_labelled_photos(tmp_path)


@pytest.mark.parametrize("content", [b"file,a,b,c\na.png,1,0,1\n", b"file,labels\na.png,a;b;c\n"])
def test_a_table_with_too_many_labels_is_refused(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(tmp_path / "photos", content)
    monkeypatch.setattr(labelled_photos, "MAX_LABELS", 3)
    assert len(read_label_table(path).labels) == 3
    monkeypatch.setattr(labelled_photos, "MAX_LABELS", 2)
    with pytest.raises(DatasetError, match="3 labels"):
        read_label_table(path)


def test_a_table_in_the_current_folder_names_nothing_outside_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    path = table(tmp_path / "photos", b"file,labels\n../secret.png,cat\n")
    monkeypatch.chdir(path.parent)
    with pytest.raises(DatasetError, match="outside"):
        read_label_table(Path("labels.csv"))


@pytest.mark.parametrize("is_linked", [False, True])
def test_absolute_paths_in_the_folder_are_accepted(
    tmp_path: Path, is_linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("photos")
    folder = tmp_path / ("link" if is_linked else "photos")
    path = table(tmp_path / "photos", f"file,labels\n{folder}/a.png,cat\n".encode())
    monkeypatch.chdir(path.parent)
    assert read(Path("labels.csv")) == {"a.png": ["cat"]}


def test_a_table_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        read_label_table(tmp_path / "labels.csv")


def test_images_that_are_not_in_the_table_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_labelled_photos(table(tmp_path / "photos", b"file,labels\na.png,cat\n"))
    assert "2 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (["cat", "dog", "dog", ""], "the label 'cat' has 1 readable photo"),
        (["cat", "cat", "cat", ""], "3 of 4 photos have the label 'cat'"),
    ],
)
def test_labels_of_too_few_or_too_many_photos_are_refused(
    tmp_path: Path, cache: EmbeddingCache, labels: list[str], named: str
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(4):
        photo("cat", number).save(root / f"{number}.png")
    rows = [f"{number}.png,{label}" for number, label in enumerate(labels)]
    (root / "labels.csv").write_text("\n".join(["file,labels", *rows]))
    with pytest.raises(DatasetError, match=named):
        learn_labels(root / "labels.csv", load_base(BASE), cache)


def test_a_photo_that_cannot_be_read_is_listed(tmp_path: Path, fast: None, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_table(add_scenes(tmp_path / "photos"))
    (tmp_path / "photos" / "cat-0.png").write_bytes(b"hello")
    assert run_learn(table) == 0
    assert "cat-0.png" in capsys.readouterr().out
