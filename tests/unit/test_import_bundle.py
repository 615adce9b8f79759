"""`litelens import`: the bundle of each kind of model, what it answers, and what the manifest says about it."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from small_models import KINDS, LABELS, SIDE, Builder, metadata_of, small_model, with_files
from support import CAT, DEFAULT_BUNDLE, encoded

from litelens.core.bundle import LOGITS, load_bundle
from litelens.core.classifier import Classifier, Options
from litelens.core.engines import ENGINES
from litelens.core.errors import BundleError
from litelens.core.images import Limits
from litelens_client.__main__ import main
from litelens_client.importing.bundle import Imported, Request, import_model
from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.expectations import Given
from litelens_client.learning.errors import TrainingError
from litelens_client.learning.tflite import read_tensor

# The probability of the right colour for a photo of one colour, whose logits are 4, -4 and -4.
SURE = 1 / (1 + 2 * math.exp(-8))
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
# Values from -1 to 1, as the small models take them.
PLAIN = Given(mean=(0.5,) * 3, std=(0.5,) * 3)


def add_model(folder: Path, model: bytes, labels: str | None = "red\ngreen\nblue\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.tflite"
    path.write_bytes(model)
    if labels is not None:
        (folder / "labels.txt").write_text(labels)
    return path


def imported(folder: Path, model: bytes, given: Given = PLAIN, **options: Any) -> Imported:
    path = add_model(folder / "source", model, **options)
    return import_model(Request(path, None, given), folder / "mine", "litelens import")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that returns the bundle of a kind of model; each is imported once."""

    @functools.cache
    def get(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("imported")
        imported(folder, small_model(kind))
        return folder / "mine"

    return get


def photo(colour: str) -> bytes:
    return encoded(Image.new("RGB", (40, 30), COLOURS[colour]), "PNG")


def answers(bundle: Path, engine: str = "litert") -> dict[str, dict[str, float]]:
    """Return the confidences for a photo of each colour."""
    classifier = Classifier(load_bundle(bundle), Limits(), threads=1, engine=engine)
    found = {colour: classifier.classify(photo(colour), Options(top_k=3)).candidates for colour in COLOURS}
    return {
        colour: {candidate.label: candidate.confidence for candidate in candidates}
        for colour, candidates in found.items()
    }


def add_photos(root: Path, count: int, folders: tuple[str, ...] = LABELS, seed: int = 3) -> Path:
    """Write noisy photos of each colour into class folders; others for another seed."""
    random = np.random.default_rng(seed)
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        colour = np.array(COLOURS[folder.lower()])
        for number in range(count):
            pixels = colour * 0.5 + random.integers(0, 120, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / folder / f"{number}.png")
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_each_kind_answers_with_its_own_probabilities(bundles: Callable[[str], Path], kind: str) -> None:
    manifest = load_bundle(bundles(kind)).manifest
    assert manifest["imported"]["network"] == kind
    assert manifest["output"] == "probabilities"
    for colour, confidences in answers(bundles(kind)).items():
        assert confidences[colour] == pytest.approx(SURE, abs=0.01)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_model_without_softmax_gives_logits(tmp_path: Path, kind: str) -> None:
    assert imported(tmp_path, small_model(kind, softmax=False)).manifest["output"] == "logits"
    for colour, confidences in answers(tmp_path / "mine").items():
        assert confidences[colour] == pytest.approx(SURE, abs=0.01)


def test_a_model_whose_scores_overflow_on_a_photo_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELENS_MODELS", str(tmp_path / "models"))
    # 4 * gain + bias, the score of a red photo for red, is above the largest float32; those of random pixels are not.
    path = add_model(tmp_path, small_model(softmax=False, gain=6e37, bias=1.5e38))
    for colour in COLOURS:
        (tmp_path / "photos" / colour).mkdir(parents=True)
        (tmp_path / "photos" / colour / "0.png").write_bytes(photo(colour))
    options = ["--name", "mine", "--mean", "0.5", "--std", "0.5", "--data", str(tmp_path / "photos")]
    with pytest.raises(SystemExit, match=r"model\.tflite.*finite"):
        main(["import", str(path), *options])
    assert not (tmp_path / "models" / "mine").exists()


@pytest.mark.parametrize("group", ["", "a\x1b[2J", "x" * 1000])
def test_groups_of_an_exported_file_are_checked_like_labels(tmp_path: Path, group: str) -> None:
    facts = json.dumps({"groups": dict.fromkeys(LABELS, group)}).encode()
    with pytest.raises(ImportRefused, match="group"):
        imported(tmp_path, with_files(small_model(metadata=metadata_of()), litelens_json=facts))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("int8", "uint8")])
def test_a_float_model_answers_alike_with_both_engines(bundles: Callable[[str], Path], kind: str) -> None:
    first, second = (answers(bundles(kind), engine) for engine in ("litert", "openvino"))
    for colour in COLOURS:
        assert first[colour] == pytest.approx(second[colour], abs=1e-3)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_openvino_refuses_an_integer_model_of_eight_bits(bundles: Callable[[str], Path], kind: str) -> None:
    bundle = load_bundle(bundles(kind))
    assert bundle.weight_bits == 8
    with pytest.raises(BundleError, match="litert"):
        Classifier(bundle, Limits(), threads=1, engine="openvino")


@pytest.mark.parametrize("kind", KINDS)
def test_the_answers_equal_those_of_a_plain_interpreter(bundles: Callable[[str], Path], kind: str) -> None:
    model, bundle = small_model(kind), load_bundle(bundles(kind))
    with Image.open(CAT) as opened:
        cat = opened.convert("RGB")
    side = min(cat.size)
    left, top = (cat.width - side) / 2, (cat.height - side) / 2
    box = (left, top, left + side, top + side)
    pixels = np.asarray(cat.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))
    values: Any = pixels.astype(np.float32) / 127.5 - 1
    if kind == "uint8":
        values = pixels
    elif kind == "int8":
        values = (pixels.astype(int) - 128).astype(np.int8)
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    (image,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(image["index"], values[np.newaxis])
    interpreter.invoke()
    expected = bundle.tensors[LOGITS].dequantize(interpreter.get_tensor(scores["index"])[0])
    # A PNG, because a JPEG would be decoded at a reduced size.
    found = Classifier(bundle, Limits(), 1).classify(encoded(cat, "PNG"), Options(top_k=3)).candidates
    confidences = {candidate.index: candidate.confidence for candidate in found}
    # Integer models round their probabilities, which then add up to nearly 1.
    tolerance = 1e-5 if "int" not in kind else 0.01
    assert [confidences[index] for index in range(3)] == pytest.approx(expected / expected.sum(), abs=tolerance)


def test_a_dynamic_batch_becomes_one(tmp_path: Path) -> None:
    imported(tmp_path, small_model(batch=-1))
    interpreter = Interpreter(model_path=str(tmp_path / "mine" / "model.tflite"))
    (image,) = interpreter.get_input_details()
    assert list(image["shape"]) == list(image["shape_signature"]) == [1, SIDE, SIDE, 3]
    assert answers(tmp_path / "mine", "openvino")["red"]["red"] > 0.99


def test_names_that_the_model_has_already_do_no_harm(tmp_path: Path) -> None:
    imported(tmp_path, small_model(names=("logits", "image")))
    values = np.random.default_rng(1).uniform(-1, 1, (1, SIDE, SIDE, 3)).astype(np.float32)
    first, second = (ENGINES[name](load_bundle(tmp_path / "mine"), 1).run(values)[LOGITS] for name in ENGINES)
    assert first == pytest.approx(second, abs=1e-5)
    assert first.sum() == pytest.approx(1, abs=1e-5)


def test_the_weights_are_those_of_the_file(bundles: Callable[[str], Path]) -> None:
    before = Interpreter(model_content=small_model("int8"))
    after = Interpreter(model_path=str(bundles("int8") / "model.tflite"))
    for interpreter in (before, after):
        interpreter.allocate_tensors()
    names = {each["name"]: each for each in after.get_tensor_details()}
    for each in before.get_tensor_details():
        if each["name"] in ("weights", "bias"):
            found = names[each["name"]]
            assert found["quantization"] == each["quantization"]
            assert np.array_equal(before.get_tensor(each["index"]), after.get_tensor(found["index"]))


def test_independent_scores_of_exclusive_labels_are_divided_by_their_sum(tmp_path: Path) -> None:
    path = add_model(tmp_path / "source", small_model(softmax=False, logistic=True))
    result = import_model(Request(path, None, PLAIN, multi_label=False), tmp_path / "mine", "litelens import")
    assert result.manifest["output"] == "probabilities"
    confidences = answers(tmp_path / "mine")["green"]
    high, low = 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))
    assert confidences["green"] == pytest.approx(high / (high + 2 * low), abs=1e-4)


def test_a_model_that_normalizes_pixels_itself_gets_pixels(tmp_path: Path) -> None:
    result = imported(tmp_path, small_model(pixels=True), Given())
    spec = load_bundle(tmp_path / "mine").preprocessing
    assert spec.normalization_table()[255].tolist() == pytest.approx([255] * 3)
    assert answers(tmp_path / "mine")["red"]["red"] > 0.99
    assert "0 to 255" in {each.value for each in result.assumptions}


def test_a_uint8_input_without_quantization_has_the_values_of_pixels() -> None:
    builder = Builder()
    pixels = builder.tensor("image", (1, 8, 8, 3), schema.TensorType.UINT8)
    found = read_tensor(builder.graph.tensors[pixels])
    assert found.quantize(np.array([0, 0.5, 1], np.float32)).tolist() == [0, 128, 255]
    other = builder.tensor("image", (1, 8, 8, 3), schema.TensorType.INT8)
    with pytest.raises(ValueError, match="int8"):
        read_tensor(builder.graph.tensors[other])


def test_a_float_model_of_unknown_range_is_refused_with_the_options(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--mean .* --std"):
        imported(tmp_path, small_model(), Given())
    assert not (tmp_path / "mine").exists()


TEACHABLE = ("sequential_1_input", "sequential_3/dense_Dense2/Softmax")


def test_only_an_input_of_224_pixels_is_taken_for_teachable_machine(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--mean"):
        imported(tmp_path, small_model(names=TEACHABLE), Given())


def test_metadata_give_labels_and_normalization(tmp_path: Path) -> None:
    metadata = metadata_of(mean=[127.5], std=[127.5], label_file="classes.txt", author="Ada")
    model = with_files(small_model(metadata=metadata), classes_txt=b"red\ngreen\nblue\n")
    result = imported(tmp_path, model, Given(), labels=None)
    assert result.manifest["labels"] == list(LABELS)
    assert result.manifest["imported"]["metadata"] == {"author": "Ada"}
    assert answers(tmp_path / "mine")["green"]["green"] > 0.99


def test_metadata_that_do_not_fit_an_integer_input_are_not_used(tmp_path: Path) -> None:
    """AutoML writes a mean of 0 and a standard deviation of 1; quantized so, nearly all pixels would be 255."""
    model = small_model("uint8", metadata=metadata_of(mean=[0], std=[1]))
    imported(tmp_path, model, Given())
    for colour, confidences in answers(tmp_path / "mine").items():
        assert confidences[colour] > 0.99


def test_options_replace_what_is_known(tmp_path: Path) -> None:
    metadata = metadata_of(mean=[0], std=[255])
    given = Given(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 0.5), crop=0.5, interpolation="lanczos")
    imported(tmp_path, small_model(metadata=metadata), given)
    spec = load_bundle(tmp_path / "mine").preprocessing
    assert (spec.crop, spec.interpolation, spec.std) == (0.5, "lanczos", (0.25, 0.5, 0.5))


def test_the_manifest_says_where_the_model_is_from_and_nothing_about_accuracy(bundles: Callable[[str], Path]) -> None:
    bundle = load_bundle(bundles("float32"))
    details = bundle.manifest["imported"]
    assert details["file"] == "model.tflite"
    assert details["bytes"] == len(small_model())
    known = {"Labels", "Scores", "Values", "Crop", "Resizing", "Uncertain"}
    assert {each["subject"] for each in details["assumptions"]} == known
    assert "metrics" not in bundle.manifest
    assert not (bundle.folder / "report.html").exists()
    assert bundle.golden


def test_importing_again_raises_the_version(tmp_path: Path) -> None:
    versions = [imported(tmp_path, small_model()).manifest["version"] for _ in range(2)]
    assert versions == ["1.0.0", "1.1.0"]


def test_only_an_imported_bundle_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(DEFAULT_BUNDLE)
    with pytest.raises(TrainingError, match="mine"):
        imported(tmp_path, small_model())


def test_photos_calibrate_and_measure_the_model(tmp_path: Path) -> None:
    path = add_model(tmp_path / "source", small_model())
    photos = add_photos(tmp_path / "photos", 10)
    (photos / "red" / "broken.jpg").write_bytes(b"no photo")
    result = import_model(Request(path, None, PLAIN, photos), tmp_path / "mine", "litelens import")
    assert result.document is not None
    metrics = result.document["metrics"]
    assert (metrics["test_images"], metrics["validation_images"]) == (15, 15)
    assert metrics["int8_top1"] == 1
    assert result.document["distribution"] == {"validation": [5] * 3, "test": [5] * 3}
    bundle = load_bundle(tmp_path / "mine")
    assert (bundle.temperature, bundle.threshold) == (metrics["temperature"], metrics["threshold"])
    assert bundle.temperature != 1
    assert json.loads((tmp_path / "mine" / "metrics.json").read_text())["skipped"]["images"] == 1
    assert "red" in (tmp_path / "mine" / "report.html").read_text()


def test_a_test_split_measures_and_the_other_photos_calibrate(tmp_path: Path) -> None:
    path = add_model(tmp_path / "source", small_model(), labels="Red\nGreen\nBlue")
    photos = tmp_path / "photos"
    add_photos(photos / "train", 4)
    add_photos(photos / "test", 3, ("red", "blue"), seed=4)
    # The third is also a training photo.
    copy = (photos / "train" / "red" / "0.png").read_bytes()
    (photos / "test" / "red" / "2.png").write_bytes(copy)
    result = import_model(Request(path, None, PLAIN, photos), tmp_path / "mine", "litelens import")
    assert result.document is not None
    assert result.manifest["labels"] == ["Red", "Green", "Blue"]
    assert result.document["distribution"] == {"validation": [3, 4, 4], "test": [3, 0, 3]}
    assert result.document["metrics"]["test_duplicates"] == 1


def test_folders_that_are_no_labels_are_named(tmp_path: Path) -> None:
    path = add_model(tmp_path / "source", small_model())
    photos = add_photos(tmp_path / "photos", 2)
    (photos / "purple").mkdir()
    with pytest.raises(TrainingError, match="purple"):
        import_model(Request(path, None, PLAIN, photos), tmp_path / "mine", "litelens import")
    assert not (tmp_path / "mine").exists()


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    monkeypatch.setenv("LITELENS_MODELS", str(folder / "models"))
    return main(["import", *arguments])


PLAIN_OPTIONS = ("--name", "mine", "--mean", "0.5", "--std", "0.5,0.5,0.5")


def test_the_summary_names_what_was_assumed_and_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = add_model(tmp_path, small_model("float16 weights"))
    assert run(monkeypatch, tmp_path, str(path), *PLAIN_OPTIONS) == 0
    printed = capsys.readouterr().out
    for expected in ("float16 weights", f"{SIDE}x{SIDE}", "red, green, blue", "-1 to 1", "labels.txt", "SOFTMAX"):
        assert expected in printed
    assert f"make run BUNDLE={tmp_path / 'models' / 'mine'}" in printed


def test_the_summary_is_json_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = add_model(tmp_path, small_model())
    photos = add_photos(tmp_path / "photos", 6)
    assert run(monkeypatch, tmp_path, str(path), *PLAIN_OPTIONS, "--data", str(photos), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["name"], document["network"], document["labels"]) == ("mine", "float32", list(LABELS))
    assert document["metrics"]["int8_top1"] == 1
    assert document["inference_ms"] > 0
    assert {each["subject"]: each["value"] for each in document["assumptions"]}["Values"] == "-1 to 1"


@pytest.mark.parametrize(
    "options",
    [
        ("--mean", "0.5"),
        ("--std", "0.5"),
        ("--mean", "127.5", "--std", "127.5"),
        ("--mean", "1,2", "--std", "1"),
        ("--mean", "nan", "--std", "1"),
        ("--mean", "0", "--std", "0"),
        ("--crop", "0"),
        ("--crop", "1.5"),
        ("--interpolation", "magic"),
    ],
)
def test_options_that_cannot_be_right_are_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["import", "model.tflite", "--name", "mine", *options])
    assert raised.value.code == 2


LABELS_WITH_MARKUP = ("<img src=x onerror=alert(1)>", "=cmd|'/c calc'!A0", "\U0001f408 Katze & Kater")


def test_labels_with_markup_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_model(tmp_path, small_model(), labels="\n".join(LABELS_WITH_MARKUP))
    photos = tmp_path / "photos"
    # The name of a folder has no slash.
    names = tuple(label for label in LABELS_WITH_MARKUP if "/" not in label)
    for name, colour in zip(names, ("red", "blue"), strict=True):
        add_photos(tmp_path, 6, (colour,))
        photos.mkdir(exist_ok=True)
        (tmp_path / colour).rename(photos / name)
    path = str(tmp_path / "model.tflite")
    assert run(monkeypatch, tmp_path, path, *PLAIN_OPTIONS, "--data", str(photos)) == 0
    report = (tmp_path / "models" / "mine" / "report.html").read_text()
    assert "<img src=x" not in report
    assert "&lt;img src=x" in report
    (tmp_path / "green.png").write_bytes(photo("green"))
    capsys.readouterr()
    assert main(["classify", str(tmp_path / "green.png"), "--model", "mine", "--csv"]) == 0
    (row,) = capsys.readouterr().out.splitlines()[1:]
    assert ",'=cmd" in row
