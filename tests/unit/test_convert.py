"""`litelens convert`: bundles in the form of an earlier litelens."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from class_folders import BASE, photo
from damage import put_file
from old_bundle import add_old_bundle
from support import encoded

from litelens.core.bundle import MANIFEST, MODEL, OLD_MAP, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.errors import BundleError
from litelens.core.golden import GOLDEN
from litelens.core.images import Limits
from litelens_client.__main__ import main


@pytest.fixture(scope="module")
def old_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in the old form, which tests copy."""
    return add_old_bundle(tmp_path_factory.mktemp("old"))


@pytest.fixture
def old(old_bundle: Path, tmp_path: Path) -> Path:
    """A bundle in the old form in a folder of its own."""
    return shutil.copytree(old_bundle, tmp_path / "models" / "old")


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder, at any depth, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def convert(*folders: Path) -> int:
    return main(["convert", *map(str, folders)])


def change_manifest(bundle: Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def test_an_old_bundle_names_the_command_that_converts_it(old: Path) -> None:
    with pytest.raises(BundleError) as raised:
        load_bundle(old)
    assert f"litelens convert {old}" in str(raised.value)


def test_a_converted_bundle_answers_like_the_original(old: Path) -> None:
    assert convert(old) == 0
    bundle = load_bundle(old)
    assert bundle.head
    image = encoded(photo("cat", 2), "PNG")
    found, expected = (Classifier(each, Limits(), threads=1).classify(image) for each in (bundle, load_bundle(BASE)))
    assert found.candidates == expected.candidates


def test_the_golden_images_keep_their_files_and_get_answers_of_the_new_head(old: Path) -> None:
    change_manifest(old, lambda manifest: manifest["golden"][0].update(confidence=0.123, lead=0.1))
    images = contents(old / GOLDEN)
    assert convert(old) == 0
    assert contents(old / GOLDEN) == images
    assert load_bundle(old).golden == load_bundle(BASE).golden


def test_the_rest_of_the_bundle_stays(old: Path) -> None:
    before, manifest = contents(old), json.loads((old / MANIFEST).read_text())
    assert convert(old) == 0
    after = contents(old)
    assert after["report.html"] == before["report.html"]
    converted, measured = json.loads(after[MANIFEST]), json.loads(after["metrics.json"])
    assert converted["converted_from"] == manifest["files"][MODEL]["sha256"]
    assert measured["model"] == converted["files"][MODEL]["sha256"]
    assert measured["version"] == converted["version"] != manifest["version"]
    assert measured["metrics"] == json.loads(before["metrics.json"])["metrics"]
    for field in ("name", "labels", "groups", "temperature", "threshold", "metrics"):
        assert converted[field] == manifest[field]
    assert [path.name for path in old.parent.iterdir()] == ["old"]


def test_a_converted_bundle_stays_as_it_is(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(old) == 0
    before = contents(old)
    assert convert(old) == 0
    assert contents(old) == before
    assert capsys.readouterr().out.count(str(old)) == 2


@pytest.mark.parametrize("path", [".", "../old", "../old/"])
def test_the_bundle_can_be_the_current_folder(path: str, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old)
    assert main(["convert", path]) == 0
    assert load_bundle(old).head
    assert [path.name for path in old.parent.iterdir()] == ["old"]


def test_a_link_to_a_bundle_stays_a_link(old: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(old)
    assert convert(link) == 0
    assert link.is_symlink()
    assert load_bundle(old).head


def test_a_bundle_that_cannot_be_converted_does_not_stop_the_others(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tmp_path / "absent", old) == 1
    captured = capsys.readouterr()
    assert str(tmp_path / "absent") in captured.err
    assert str(old) in captured.out
    assert load_bundle(old).head


def break_map(bundle: Path) -> None:
    """Say that a model of the current form is an old one."""
    put_file(bundle, MODEL, (BASE / MODEL).read_bytes())


def change_byte(bundle: Path) -> None:
    content = bytearray((bundle / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / MODEL).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda bundle: (bundle / MODEL).unlink(), MODEL),
        (lambda bundle: put_file(bundle, MODEL, b""), MODEL),
        (lambda bundle: put_file(bundle, MODEL, b"not a model"), MODEL),
        (lambda bundle: put_file(bundle, MODEL, (bundle / MODEL).read_bytes()[:1000]), MODEL),
        (change_byte, MODEL),
        (break_map, MODEL),
        (lambda bundle: change_manifest(bundle, lambda m: m.pop("files")), MANIFEST),
        (lambda bundle: change_manifest(bundle, lambda m: m.update(files=[])), MANIFEST),
        (lambda bundle: change_manifest(bundle, lambda m: m.pop("labels")), MANIFEST),
        (lambda bundle: change_manifest(bundle, lambda m: m.update(tensors=3)), MANIFEST),
        (lambda bundle: change_manifest(bundle, lambda m: m.update(tensors=OLD_MAP)), MANIFEST),
        (lambda bundle: (bundle / MANIFEST).write_text("{"), MANIFEST),
        (lambda bundle: (bundle / MANIFEST).write_text("[" * 100_000), MANIFEST),
        (lambda bundle: (bundle / MANIFEST).write_text("[]"), MANIFEST),
        (lambda bundle: (bundle / MANIFEST).unlink(), MANIFEST),
        (lambda bundle: next((bundle / GOLDEN).iterdir()).unlink(), GOLDEN),
    ],
)
def test_a_damaged_bundle_is_named_and_stays_as_it_is(
    damage: Callable[[Path], object], named: str, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(old)
    before = contents(old)
    assert convert(old) == 1
    assert named in capsys.readouterr().err
    assert contents(old) == before
    assert [path.name for path in old.parent.iterdir()] == ["old"]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (OSError(28, "No space left on device"), 1)])
@pytest.mark.parametrize("place", ["renew_golden_answers", "write_file"])
def test_an_interrupted_conversion_changes_nothing(
    place: str, error: BaseException, code: int, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise error

    before = contents(old)
    monkeypatch.setattr(f"litelens_client.convert.{place}", stop)
    assert convert(old) == code
    assert contents(old) == before
    assert [path.name for path in old.parent.iterdir()] == ["old"]


def test_a_bundle_stays_if_the_new_one_cannot_take_its_place(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, before = Path.rename, contents(old)

    def fail(path: Path, target: Path) -> Path:
        if path.name == "bundle":
            raise OSError(28, os.strerror(28))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    assert convert(old) == 1
    assert contents(old) == before
    assert [path.name for path in old.parent.iterdir()] == ["old"]
