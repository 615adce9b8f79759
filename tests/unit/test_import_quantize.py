"""`litelens import --quantize`: when the int8 model is kept, what is said about it, and what is refused.

The quantizer itself is replaced here; tests/training has the tests with litert-quantizer.
"""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from PIL import Image
from small_models import LABELS, SIDE, small_model

from litelens.core.bundle import IMAGE, LOGITS, MANIFEST, MODEL, Bundle, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.images import Limits
from litelens_client.__main__ import main
from litelens_client.importing import bundle as importing
from litelens_client.importing import measure
from litelens_client.learning.tflite import name_tensors, parse_model, read_array, write_model
from litelens_client.quantizing import imported
from litelens_client.quantizing.graph import prepare

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}

Quantizer = Callable[[bytes, NDArray[np.float32]], bytes]


def int8_model(float_model: bytes, inputs: NDArray[np.float32]) -> bytes:
    """Return the int8 form of the small model, as the quantizer would."""
    assert inputs.shape[1:] == (SIDE, SIDE, 3)
    parsed = parse_model(small_model("int8", softmax=False))
    name_tensors(parsed)
    return write_model(parsed)


def other_model(float_model: bytes, inputs: NDArray[np.float32]) -> bytes:
    """Return an int8 model that takes red for green, green for blue and blue for red."""
    parsed = parse_model(int8_model(float_model, inputs))
    (weights,) = [each for each in parsed.subgraphs[0].tensors if each.name == b"weights"]
    levels = np.roll(read_array(parsed, weights, np.int8), 1, axis=0)
    parsed.buffers[weights.buffer].data = np.frombuffer(levels.tobytes(), np.uint8)
    return write_model(parsed)


def unusable(float_model: bytes, inputs: NDArray[np.float32]) -> bytes:
    """Return an int8 model with a version of an operator that LiteRT does not have."""
    parsed = parse_model(int8_model(float_model, inputs))
    parsed.operatorCodes[0].version = 99
    return write_model(parsed)


def broken(float_model: bytes, inputs: NDArray[np.float32]) -> bytes:
    raise RuntimeError("an operator is unknown\nmore of it")


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a float model, its labels and photos, and a quantizer."""
    monkeypatch.delenv("LITELENS_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(imported, "find_spec", lambda name: name)
    monkeypatch.setattr(imported, "convert_with_litert_quantizer", int8_model)
    Path("labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    Path("model.tflite").write_bytes(small_model())
    add_photos(Path("photos"), 8)
    return tmp_path


def add_photos(root: Path, count: int, seed: int = 3) -> None:
    """Write noisy photos of each colour into class folders."""
    random = np.random.default_rng(seed)
    for label, colour in COLOURS.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            pixels = np.array(colour) * 0.5 + random.integers(0, 120, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / label / f"{number}.png")


def run(*options: str) -> Bundle:
    """Import the model and return its bundle."""
    given = ["--mean", "0.5", "--std", "0.5", *options]
    assert main(["import", "model.tflite", "--name", "mine", "--quantize", "photos", *given]) == 0
    return load_bundle(Path("models/mine"))


def answer(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """Import the model and return the JSON object."""
    run("--json", *options)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.parametrize("kind", ["float32", "float16 weights"])
def test_an_int8_model_that_agrees_is_kept_and_served_by_both_engines(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("model.tflite").write_bytes(small_model(kind))
    quantized = answer(capsys)["quantized"]
    bundle = load_bundle(Path("models/mine"))
    assert (bundle.weight_bits, bundle.output, bundle.tensors[IMAGE].dtype) == (7, "logits", "int8")
    assert bundle.tensors[LOGITS].dtype == "int8"
    assert (quantized["rejected"], quantized["agreement"]) == ("", 1.0)
    assert (quantized["calibrated"], quantized["compared"]) == (12, 12)
    assert quantized["after"]["bytes"] == bundle.model.stat().st_size
    assert (quantized["before"]["top1"], quantized["after"]["top1"]) == (None, None)
    for engine in ("litert", "openvino"):
        classifier = Classifier(bundle, Limits(), threads=1, engine=engine)
        for index, colour in enumerate(COLOURS.values()):
            assert classifier.logits(np.full((SIDE, SIDE, 3), colour, np.uint8)).argmax() == index


def test_the_manifest_has_the_figures_and_the_summary_says_them(capsys: pytest.CaptureFixture[str]) -> None:
    bundle = run()
    found = bundle.manifest["quantization"]
    assert (found["scheme"], found["weight_bits"], found["calibration_images"]) == ("int8", 7, 12)
    assert found["agreement"] == 1
    assert found["before"]["bytes"] > 0
    printed = capsys.readouterr().out
    assert "100.0% of 12 photos" in printed
    assert "int8" in bundle.manifest["description"]


def test_after_the_softmax_is_removed_the_answer_is_about_the_int8_model(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys)
    assert found["output"] == "logits"
    assert found["inference_ms"] == found["quantized"]["after"]["milliseconds"]
    (scores,) = [each for each in found["assumptions"] if each["subject"] == "Scores"]
    assert scores["value"] == "logits"
    assert load_bundle(Path("models/mine")).manifest["imported"]["assumptions"] == found["assumptions"]


def test_fewer_photos_are_used_if_they_would_need_too_much_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(imported, "_MAX_BYTES", 11 * SIDE * SIDE * 3 * 4)
    quantized = answer(capsys)["quantized"]
    assert (quantized["calibrated"], quantized["compared"]) == (11, 13)


@pytest.mark.parametrize(("quantizer", "times"), [(int8_model, 2), (broken, 1)], ids=["int8", "float"])
def test_labelled_photos_are_classified_once_by_each_model_that_is_measured(
    quantizer: Quantizer, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_photos(Path("data"), 4, seed=9)
    monkeypatch.setattr(imported, "convert_with_litert_quantizer", quantizer)
    measured: list[Bundle] = []

    def counted(bundle: Bundle, root: Path) -> measure.Measured:
        measured.append(bundle)
        return measure.measure(bundle, root)

    monkeypatch.setattr(importing, "measure", counted)
    run("--data", "data")
    assert len(measured) == times


def test_a_graph_that_cannot_be_prepared_keeps_the_float_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(model: bytes, *, is_binary: bool) -> tuple[bytes, bool]:
        raise ValueError("the weights have an unknown type")

    monkeypatch.setattr(imported, "prepare", refuse)
    assert run().tensors[IMAGE].is_float
    assert "the weights have an unknown type" in capsys.readouterr().out


def test_labelled_photos_compare_the_accuracy_and_measure_the_int8_model(capsys: pytest.CaptureFixture[str]) -> None:
    add_photos(Path("data"), 8, seed=9)
    found = answer(capsys, "--data", "data")
    quantized = found["quantized"]
    assert (quantized["before"]["top1"], quantized["after"]["top1"]) == (1.0, 1.0)
    assert (quantized["calibrated"], quantized["compared"]) == (24, 24)
    assert found["metrics"]["int8_top1"] == 1.0
    metrics = json.loads(Path("models/mine/metrics.json").read_text())
    model = load_bundle(Path("models/mine"))
    assert metrics["model"] == model.sha256
    assert "--quantize photos" in shlex.join(shlex.split(metrics["command"]))


@pytest.mark.parametrize(
    ("quantizer", "reason"),
    [
        (other_model, "agrees with the float model on only 0.0% of 12 photos"),
        (broken, "an operator is unknown"),
        (unusable, "LiteRT cannot run the int8 model"),
        (lambda float_model, inputs: float_model, "no int8 form: image"),
    ],
    ids=["other answers", "an error", "no model", "float tensors"],
)
def test_otherwise_the_float_model_is_kept_and_the_reason_is_said(
    quantizer: Quantizer, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(imported, "convert_with_litert_quantizer", quantizer)
    bundle = run()
    assert bundle.tensors[IMAGE].is_float
    assert bundle.output == "probabilities"
    assert bundle.manifest["quantization"]["scheme"] == "float32"
    printed = capsys.readouterr().out
    assert reason in printed
    assert "float model is kept" in printed


def test_an_int8_model_that_loses_accuracy_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_photos(Path("data"), 8, seed=9)
    monkeypatch.setattr(imported, "convert_with_litert_quantizer", other_model)
    monkeypatch.setattr(imported, "LEAST_AGREEMENT", 0.0)
    quantized = answer(capsys, "--data", "data")["quantized"]
    assert "loses 100.00% top-1 on 24 photos" in quantized["rejected"]
    assert load_bundle(Path("models/mine")).tensors[IMAGE].is_float


def test_weights_that_cannot_have_seven_bits_have_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(model: bytes, float_model: bytes) -> bytes:
        raise ValueError("other weights")

    monkeypatch.setattr(imported, "reduce_to_seven_bits", changed)
    assert run().weight_bits == 8


def test_unreadable_photos_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/red/broken.png").write_bytes(b"no image")
    run()
    assert "red/broken.png" in capsys.readouterr().out


def test_too_few_photos_are_refused_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(Path("photos/red").iterdir()):
        path.write_bytes(b"no image")
    with pytest.raises(SystemExit, match=r"photos has 16 readable photos; 20 or more.*red/0\.png"):
        run()
    assert not Path("models/mine").exists()


@pytest.mark.parametrize("folder", ["missing", "labels.txt"])
def test_a_folder_that_does_not_exist_is_named(folder: str) -> None:
    with pytest.raises(SystemExit, match=folder):
        main(["import", "model.tflite", "--name", "mine", "--mean", "0.5", "--std", "0.5", "--quantize", folder])


def test_without_the_package_one_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'litelens\[quantize\]'"):
        run()


@pytest.mark.parametrize("kind", ["int8", "uint8", "dynamic range"])
def test_a_model_with_integer_weights_is_refused(kind: str) -> None:
    Path("model.tflite").write_bytes(small_model(kind))
    with pytest.raises(SystemExit, match=f"this model is {kind}"):
        run()


def test_the_softmax_is_removed_because_eight_bits_are_too_few_for_probabilities() -> None:
    def last(model: bytes) -> int:
        parsed = parse_model(model)
        return int(parsed.operatorCodes[parsed.subgraphs[0].operators[-1].opcodeIndex].builtinCode)

    parsed = parse_model(small_model("float16 weights"))
    name_tensors(parsed)
    prepared, is_removed = prepare(write_model(parsed), is_binary=False)
    assert is_removed
    assert last(prepared) == schema.BuiltinOperator.FULLY_CONNECTED
    types = {tensor.type for tensor in parse_model(prepared).subgraphs[0].tensors}
    assert types == {schema.TensorType.FLOAT32, schema.TensorType.INT32}


def test_numbers_of_operators_in_old_files_are_written_where_quantizers_read_them() -> None:
    parsed = parse_model(small_model())
    name_tensors(parsed)
    for code in parsed.operatorCodes:
        code.builtinCode = 0
    prepared = parse_model(prepare(write_model(parsed), is_binary=False)[0])
    assert 0 not in {code.builtinCode for code in prepared.operatorCodes}


def test_the_bundle_is_replaced_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run()
    monkeypatch.setattr(imported, "convert_with_litert_quantizer", other_model)
    after = run()
    assert (before.version, after.version) == ("1.0.0", "1.1.0")
    assert after.tensors[IMAGE].is_float
    assert sorted(path.name for path in Path("models").iterdir()) == ["mine"]
    assert {MODEL, MANIFEST} <= {path.name for path in after.folder.iterdir()}
