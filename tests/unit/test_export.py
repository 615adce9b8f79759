"""`litelens export`: the file answers like the bundle, whatever made the bundle, and standard readers understand it."""

import contextlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from bundles import change_manifest
from class_folders import BASE, add_classes, one_thread
from numpy.typing import NDArray
from PIL import Image
from small_models import KINDS, LABELS, SIDE, Builder, small_model
from support import CAT, CIFAR_BUNDLE, ROCKET, ROOT, SAMPLES, encoded

from litelens.core.bundle import MANIFEST, MODEL, load_bundle
from litelens.core.classifier import Classifier, Options
from litelens.core.images import Limits
from litelens_client.__main__ import main
from litelens_client.exporting.metadata import LABELS as LABEL_FILE
from litelens_client.importing.bundle import Request, import_model
from litelens_client.importing.expectations import Given
from litelens_client.importing.metadata import FACTS, NAME, read_metadata
from litelens_client.learning.tflite import parse_model

PHOTOS = (CAT, SAMPLES / "coffee.jpg", SAMPLES / "photographer.jpg", ROCKET)
PLAIN = Given(mean=(0.5,) * 3, std=(0.5,) * 3)
COLOURS = Given(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# An integer model rounds its input; its confidences then differ by a rounding more or less.
FLOAT_ERROR, INTEGER_ERROR = 1e-5, 5e-3


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, without the variables of the person who runs the tests."""
    monkeypatch.delenv("LITELENS_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def imported(model: bytes, given: Given = PLAIN, labels: Sequence[str] = LABELS) -> Path:
    """Import a small model as models/mine and return the bundle's folder."""
    source, target = Path("source"), Path("models") / "mine"
    source.mkdir()
    (source / "model.tflite").write_bytes(model)
    (source / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    import_model(Request(source / "model.tflite", None, given), target, "litelens import")
    return target


def export(bundle: Path) -> Path:
    """Export a bundle, in place of an earlier export, and return the file."""
    file = Path("exported.tflite")
    assert main(["export", str(bundle), "--output", str(file), "--force"]) == 0
    return file


def photo_bytes(path: Path) -> bytes:
    """Return a photo as a PNG, because the API decodes a JPEG at a reduced size."""
    with Image.open(path) as photo:
        return encoded(photo.convert("RGB"), "PNG")


def expected(bundle: Path, path: Path) -> dict[str, float]:
    """Return the API's confidences of a photo."""
    classifier = Classifier(load_bundle(bundle), Limits(), threads=1)
    options = Options(top_k=len(classifier.bundle.labels))
    return {each.label: each.confidence for each in classifier.classify(photo_bytes(path), options).candidates}


def python_lines() -> str:
    (lines,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/export.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(lines)


def found(file: Path, path: Path) -> dict[str, float]:
    """Return the confidences of a photo that the lines in docs/export.md compute."""
    if file != Path("pets.tflite"):
        shutil.copyfile(file, "pets.tflite")
    Path("photo.jpg").write_bytes(photo_bytes(path))
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(python_lines(), names)
    return dict(zip(names["labels"], names["confidences"].tolist(), strict=True))


def assert_same_answers(bundle: Path, tolerance: float, file: Path | None = None) -> None:
    file = file or export(bundle)
    for path in PHOTOS:
        assert found(file, path) == pytest.approx(expected(bundle, path), abs=tolerance)


def metadata_buffer(content: bytes) -> bytes:
    parsed = parse_model(content)
    (entry,) = [each for each in parsed.metadata if each.name == NAME]
    return bytes(parsed.buffers[entry.buffer].data)


@pytest.mark.parametrize("bundle", [ROOT / "models" / "everyday", BASE, CIFAR_BUNDLE], ids=lambda path: path.name)
def test_the_lines_in_the_docs_give_the_answers_of_a_bundled_model(bundle: Path) -> None:
    assert_same_answers(bundle, FLOAT_ERROR)


def test_a_learned_model_is_exported_with_its_own_head(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(work / "cache"))
    with one_thread():
        assert main(["learn", str(add_classes(work / "photos", 10)), "--name", "pets", "--base", str(BASE)]) == 0
    assert load_bundle(Path("models/pets")).temperature != 1
    assert main(["export", "pets"]) == 0
    assert_same_answers(Path("models/pets"), FLOAT_ERROR, Path("pets.tflite"))


@pytest.mark.parametrize("softmax", [True, False], ids=["probabilities", "logits"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_imported_model_of_each_kind(kind: str, softmax: bool) -> None:
    bundle = imported(small_model(kind, softmax=softmax))
    for temperature in (1.0, 2.5):
        change_manifest(bundle, temperature=temperature)
        assert_same_answers(bundle, INTEGER_ERROR if kind in ("int8", "uint8") else FLOAT_ERROR)


def test_independent_scores_are_divided_by_their_sum_or_stay_as_they_are() -> None:
    assert_same_answers(imported(small_model(softmax=False, logistic=True)), FLOAT_ERROR)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("logistic", [True, False], ids=["probabilities", "logits"])
@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_multi_label_model_gives_each_label_its_own_confidence(
    kind: str, logistic: bool, temperature: float, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = imported(small_model(kind, softmax=False, logistic=logistic))
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest.pop("threshold", None)
    thresholds = {"red": 0.2, "green": 0.5, "blue": 0.9}
    manifest |= {"thresholds": list(thresholds.values()), "temperature": temperature, "golden": []}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    file = export(bundle)
    assert_same_answers(bundle, INTEGER_ERROR if kind == "int8" else FLOAT_ERROR, file)
    with zipfile.ZipFile(file) as files:
        assert json.loads(files.read(FACTS))["thresholds"] == thresholds
    assert "thresholds of the labels" in capsys.readouterr().out


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("logistic", [True, False], ids=["probabilities", "logits"])
@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_single_score_becomes_the_confidences_of_two_labels(kind: str, logistic: bool, temperature: float) -> None:
    bundle = imported(small_model(kind, softmax=False, logistic=logistic, classes=1), labels=("other", "red"))
    change_manifest(bundle, temperature=temperature)
    assert load_bundle(bundle).is_binary
    assert_same_answers(bundle, INTEGER_ERROR if kind == "int8" else FLOAT_ERROR)


def test_a_uint8_input_without_a_scale_takes_pixels() -> None:
    builder = Builder()
    image = builder.tensor("image", (1, SIDE, SIDE, 3), schema.TensorType.UINT8)
    values = builder.tensor("values", (1, SIDE, SIDE, 3))
    builder.operator(schema.BuiltinOperator.CAST, (image,), values, schema.CastOptionsT())
    axes = builder.tensor("axes", (2,), schema.TensorType.INT32, constant=np.array([1, 2], np.int32))
    mean, scaled, output = (builder.tensor(name, (1, 3)) for name in ("mean", "scaled", "output"))
    builder.operator(schema.BuiltinOperator.MEAN, (values, axes), mean, schema.ReducerOptionsT())
    factor = builder.tensor("factor", (1,), constant=np.array([1 / 32], np.float32))
    builder.operator(schema.BuiltinOperator.MUL, (mean, factor), scaled, schema.MulOptionsT())
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    builder.operator(schema.BuiltinOperator.SOFTMAX, (scaled,), output, softmax)
    assert_same_answers(imported(builder.build([image], [output]), Given()), FLOAT_ERROR)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_normalization_for_each_colour_is_inside(kind: str) -> None:
    bundle = imported(small_model(kind))
    change_manifest(bundle, preprocessing=preprocessing(bundle, mean=COLOURS.mean, std=COLOURS.std))
    file = export(bundle)
    metadata = read_metadata(metadata_buffer(file.read_bytes()), file.read_bytes())
    assert (metadata.mean, metadata.std) == ((0.0,), (1.0,))
    assert_same_answers(bundle, INTEGER_ERROR if kind == "int8" else FLOAT_ERROR, file)


def test_crop_and_interpolation_are_those_of_the_bundle() -> None:
    bundle = imported(small_model())
    change_manifest(bundle, preprocessing=preprocessing(bundle, crop=0.6, interpolation="lanczos"))
    assert_same_answers(bundle, FLOAT_ERROR)


def preprocessing(bundle: Path, **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((bundle / MANIFEST).read_text())["preprocessing"]
    return document | changes


def test_the_metadata_have_what_mediapipe_needs() -> None:
    file = export(BASE)
    content, bundle = file.read_bytes(), load_bundle(BASE)
    metadata = read_metadata(metadata_buffer(content), content)
    assert metadata.mean == pytest.approx((255 * bundle.preprocessing.mean[0],))
    assert metadata.std == pytest.approx((255 * bundle.preprocessing.std[0],))
    assert metadata.labels.decode().splitlines() == list(bundle.labels)
    assert metadata_buffer(content)[4:8] == b"M001"
    interpreter = Interpreter(model_content=content)
    (image,), (confidences,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert [image["dtype"], confidences["dtype"]] == [np.float32, np.float32]
    with zipfile.ZipFile(file) as files:
        assert files.testzip() is None
        assert {each.filename: each.compress_type for each in files.infolist()} == dict.fromkeys(
            (LABEL_FILE, FACTS), zipfile.ZIP_STORED
        )
        facts = json.loads(files.read(FACTS))
    assert [facts["threshold"], facts["groups"]] == [bundle.threshold, bundle.groups]


def test_an_integer_network_stays_one() -> None:
    def integer_weights(model: bytes) -> int:
        parsed = parse_model(model)
        tensors = parsed.subgraphs[0].tensors
        return sum(
            each.type == schema.TensorType.INT8 and parsed.buffers[each.buffer].data is not None for each in tensors
        )

    # Only the head's weights of seven bits are replaced.
    assert integer_weights(export(BASE).read_bytes()) == integer_weights((BASE / MODEL).read_bytes()) - 1


def test_an_exported_file_can_be_imported_again() -> None:
    again = imported_again(export(BASE))
    before, after = load_bundle(BASE), load_bundle(again)
    for name in ("labels", "groups", "threshold"):
        assert getattr(after, name) == getattr(before, name)
    assert (after.preprocessing.crop, after.preprocessing.interpolation) == (
        before.preprocessing.crop,
        before.preprocessing.interpolation,
    )
    for path in PHOTOS:
        assert expected(again, path) == pytest.approx(expected(BASE, path), abs=FLOAT_ERROR)


@pytest.mark.parametrize("classes", [1, 3])
def test_the_thresholds_of_labels_survive_an_export(classes: int) -> None:
    bundle, thresholds = several_labels(classes), [0.2, 0.5, 0.9][:classes]
    change_manifest(
        bundle, thresholds=thresholds, preprocessing=preprocessing(bundle, crop=0.6, interpolation="nearest")
    )
    after = load_bundle(imported_again(export(bundle)))
    assert list(after.thresholds) == thresholds
    assert (after.preprocessing.crop, after.preprocessing.interpolation) == (0.6, "nearest")
    origins = {each["subject"]: each["source"] for each in after.manifest["imported"]["assumptions"]}
    assert all(FACTS in origins[subject] for subject in ("Present", "Crop", "Resizing"))


def test_options_replace_what_the_exported_file_says() -> None:
    bundle = imported(small_model())
    change_manifest(bundle, threshold=0.7, preprocessing=preprocessing(bundle, crop=0.6))
    after = load_bundle(imported_again(export(bundle), Given(crop=0.9)))
    assert (after.preprocessing.crop, after.threshold) == (0.9, 0.7)


def test_facts_about_other_labels_are_not_used() -> None:
    bundle = imported(small_model())
    change_manifest(bundle, groups={"red": "warm", "green": "cold", "blue": "cold"})
    Path("others.txt").write_text("rose\nleaf\nsea\n")
    after = load_bundle(imported_again(export(bundle), labels=Path("others.txt")))
    assert (after.labels, after.groups) == (("rose", "leaf", "sea"), {})


def imported_again(file: Path, given: Given | None = None, labels: Path | None = None) -> Path:
    """Import an exported file and return the bundle's folder."""
    import_model(Request(file, labels, given or Given()), Path("models/copy"), "litelens import")
    return Path("models/copy")


def several_labels(classes: int) -> Path:
    """Import a multi-label model and return the bundle's folder."""
    Path("source").mkdir()
    Path("source/model.tflite").write_bytes(small_model(softmax=False, logistic=True, classes=classes))
    Path("source/labels.txt").write_text("\n".join(LABELS[:classes]))
    request = Request(Path("source/model.tflite"), None, PLAIN, multi_label=True)
    import_model(request, Path("models/mine"), "litelens import")
    return Path("models/mine")


def test_two_exports_are_equal() -> None:
    first = export(BASE).read_bytes()
    assert export(BASE).read_bytes() == first


def test_the_author_and_the_licence_of_an_imported_model_are_kept() -> None:
    bundle = imported(small_model())
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["imported"]["metadata"] = {"author": "Ada", "license": "CC0"}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    content = export(bundle).read_bytes()
    metadata = read_metadata(metadata_buffer(content), content)
    assert (metadata.name, metadata.author, metadata.license) == ("mine", "Ada", "CC0")


def test_the_file_has_the_models_name_in_the_current_folder(capsys: pytest.CaptureFixture[str]) -> None:
    imported(small_model())
    assert main(["export", "mine", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert Path(answer["file"]) == Path("mine.tflite")
    assert answer["bytes"] == Path("mine.tflite").stat().st_size
    assert (answer["input"]["mean"], answer["input"]["std"]) == pytest.approx((127.5, 127.5))
    assert answer["largest_difference"] < FLOAT_ERROR


def test_an_existing_file_is_replaced_only_with_force() -> None:
    bundle, file = imported(small_model()), Path("taken.tflite")
    file.write_bytes(b"precious")
    with pytest.raises(SystemExit, match=r"taken\.tflite exists"):
        main(["export", str(bundle), "--output", str(file)])
    assert file.read_bytes() == b"precious"
    assert main(["export", str(bundle), "--output", str(file), "--force"]) == 0
    assert zipfile.is_zipfile(file)


def test_a_bundle_is_never_overwritten() -> None:
    bundle = imported(small_model())
    before = (bundle / MODEL).read_bytes()
    (bundle / "golden").mkdir(exist_ok=True)
    for target in (bundle / MODEL, bundle / "golden" / "mine.tflite"):
        with pytest.raises(SystemExit, match="inside the bundle"):
            main(["export", "mine", "--output", str(target), "--force"])
    assert (bundle / MODEL).read_bytes() == before


def test_a_file_of_the_bundle_that_cannot_be_read_is_named() -> None:
    bundle = imported(small_model())
    golden = next((bundle / "golden").iterdir())
    golden.unlink()
    golden.mkdir()
    with pytest.raises(SystemExit, match=f"{golden.name} cannot be read"):
        main(["export", "mine"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nothing"], "nothing is neither"),
        (["mine", "--output", "missing/mine.tflite"], "no folder missing"),
        (["mine", "--output", "source"], "source is a folder"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], problem: str) -> None:
    imported(small_model())
    with pytest.raises(SystemExit, match=problem):
        main(["export", *arguments])


def test_a_damaged_bundle_is_named_and_nothing_is_written() -> None:
    bundle = imported(small_model())
    with (bundle / MODEL).open("ab") as file:
        file.write(b"more")
    with pytest.raises(SystemExit, match="sha256"):
        main(["export", "mine"])
    assert not Path("mine.tflite").exists()


def test_a_label_with_a_line_break_is_refused() -> None:
    change_manifest(imported(small_model()), labels=["red", "green\nblue", "blue"], golden=[])
    with pytest.raises(SystemExit, match="line break"):
        main(["export", "mine"])


def test_a_file_that_would_answer_differently_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    imported(small_model())

    def wrong(self: Classifier, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.arange(3, dtype=np.float32)

    monkeypatch.setattr(Classifier, "logits", wrong)
    with pytest.raises(SystemExit, match="answers differently"):
        main(["export", "mine"])
    assert not Path("mine.tflite").exists()
