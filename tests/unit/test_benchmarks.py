"""The benchmarks measure what they say; no test depends on a time."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from PIL import Image
from support import CIFAR_BUNDLE, ROCKET, encoded

from benchmarks import __main__, contest, contest_page, fit, network, photos, report
from benchmarks.contest import Accuracy, Timing, ratio, reference
from benchmarks.contestants import (
    FIELD,
    KERAS,
    LITELENS_OPENVINO,
    LITERT,
    ONNX_INT8,
    ONNX_INT8_REDUCED,
    TFLITE_RUNTIME,
    Contestant,
    ContestError,
    working,
)
from benchmarks.models import Models, write_models
from benchmarks.photos import Images
from benchmarks.report import Options, Part
from litelens.preprocessing import Preprocessing

MODEL = CIFAR_BUNDLE / "model.tflite"
COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def bundled() -> keras.Model:
    return network.dequantized(MODEL.read_bytes(), 32, pooled_stem=False)


@pytest.fixture(scope="module")
def enlarged() -> keras.Model:
    return network.dequantized(MODEL.read_bytes(), 224, pooled_stem=True)


def colour_photo(colour: str, size: tuple[int, int] = (50, 40)) -> bytes:
    return encoded(Image.new("RGB", size, colour), "PNG")


@pytest.fixture(scope="module")
def colour_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A network that tells the colours apart, in every form."""
    spec = Preprocessing(16, 16, 1.0, "bicubic", (128 / 255,) * 3, (0.5,) * 3)
    image = keras.Input((16, 16, 3), name="image")
    hidden = layers.Conv2D(3, 1, activation="relu", name="hidden")
    maps = layers.Conv2D(3, 1, name="class_activation_map")
    drawn = maps(hidden(image))
    for layer in (hidden, maps):
        layer.set_weights([np.eye(3, dtype=np.float32)[None, None], np.ones(3, np.float32)])
    logits = layers.GlobalAveragePooling2D(name="logits")(drawn)
    model = keras.Model(image, {"logits": logits, "class_activation_map": drawn})
    pixels = np.stack([np.asarray(Image.new("RGB", (16, 16), colour)) for colour in COLOURS])
    folder = tmp_path_factory.mktemp("colours")
    return write_models(model, spec.normalized(pixels), COLOURS, spec, folder)


def test_the_float_network_gives_the_answers_of_the_int8_file(bundled: keras.Model, noise: np.random.Generator) -> None:
    interpreter = Interpreter(model_path=str(MODEL))
    run = interpreter.get_signature_runner()
    scale, zero_point = run.get_output_details()["logits"]["quantization"]
    images = noise.integers(-128, 128, (10, 32, 32, 3), dtype=np.int8)
    with Image.open(ROCKET) as photo:
        for index in range(5):
            crop = photo.resize((32, 32), box=(50 * index, 0, 50 * index + 300, 300))
            images[index] = (np.asarray(crop).astype(int) - 128).astype(np.int8)
    found = bundled.predict_on_batch(images / np.float32(127.5))["logits"]
    for levels, logits in zip(images, found, strict=True):
        expected = (run(image=levels[np.newaxis])["logits"][0].astype(np.float32) - zero_point) * scale
        assert np.abs(logits - expected).max() < 0.05 * np.ptp(expected)


def test_a_models_score_is_the_mean_of_its_map(bundled: keras.Model, noise: np.random.Generator) -> None:
    outputs = bundled.predict_on_batch(noise.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32))
    assert outputs["logits"] == pytest.approx(outputs["class_activation_map"].mean(axis=(1, 2)), abs=1e-4)


def test_the_network_of_224_pixels_has_the_maps_and_the_work_of_resnet50(enlarged: keras.Model) -> None:
    sides = {layer.output.shape[1] for layer in enlarged.layers if isinstance(layer, layers.Conv2D)}
    assert sides == {112, 56, 28, 14, 7}
    # ResNet-50 has 4.1 billion with a stem of 7x7, of which a stem of 3x3 saves 0.1.
    assert network.multiply_adds(enlarged) == pytest.approx(4.0e9, rel=0.01)


def test_every_product_of_a_convolution_is_counted() -> None:
    image = keras.Input((6, 6, 4))
    model = keras.Model(image, layers.Conv2D(8, 3, padding="same", strides=2)(image))
    assert network.multiply_adds(model) == 3 * 3 * 8 * (3 * 3 * 4)


def test_other_operators_are_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten()])
    model.export(tmp_path, format="tf_saved_model", verbose=False)
    converted = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path)).convert()
    with pytest.raises(ValueError, match="which is no convolution, addition or mean"):
        network.dequantized(converted, 8, pooled_stem=False)


def test_a_new_head_scores_pooled_features(bundled: keras.Model, noise: np.random.Generator) -> None:
    kernel, bias = noise.normal(size=(2048, 2)).astype(np.float32), np.array([1, -1], np.float32)
    inputs = noise.uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    features = network.pooled_features(bundled, inputs)
    logits = network.with_head(bundled, kernel, bias).predict_on_batch(inputs)["logits"]
    assert features.shape == (3, 2048)
    assert logits == pytest.approx(features @ kernel + bias, abs=1e-3)


def test_a_head_finds_the_feature_that_tells_the_classes_apart(noise: np.random.Generator) -> None:
    classes = np.repeat([0, 1, 2], 40)
    features = noise.normal(size=(120, 500)).astype(np.float32)
    features[np.arange(120), classes] += 6
    kernel, bias = network.fit_head(features[::2], classes[::2])
    assert ((features[1::2] @ kernel + bias).argmax(axis=1) == classes[1::2]).mean() > 0.9


def test_what_is_left_out_of_a_fit_is_what_a_fit_without_it_says(noise: np.random.Generator) -> None:
    features, targets = noise.normal(size=(12, 30)), noise.normal(size=(12, 2))
    centred = features - features.mean(axis=0)
    _, left_out = network.ridge(centred @ centred.T, targets, 3.0)
    for index in range(12):
        rest = np.delete(np.arange(12), index)
        means = features[rest].mean(axis=0)
        others = features[rest] - means
        deviations = targets[rest] - targets[rest].mean(axis=0)
        kernel = np.linalg.solve(others.T @ others + 3.0 * np.eye(30), others.T @ deviations)
        assert left_out[index] == pytest.approx((features[index] - means) @ kernel + targets[rest].mean(axis=0))


def test_every_contestant_takes_the_same_event_and_says_the_same(colour_models: Models, tmp_path: Path) -> None:
    field = [*FIELD, renamed_runtime(tmp_path)]
    for contestant in field:
        with working(contestant, colour_models, threads=1, pinned=True) as worker:
            answers = [worker.handle(contest.event_of(colour_photo(colour)), times=2) for colour in COLOURS]
            assert (contestant.name, [label for _, label in answers]) == (contestant.name, list(COLOURS))
            assert [len(times) for times, _ in answers] == [2, 2, 2]
            assert len(worker.invoke(colour_photo("red"), times=3)) == 3
            assert worker.started.keys() == {"import", "load"}


def renamed_runtime(folder: Path) -> Contestant:
    """The handler for tflite-runtime on LiteRT, which is tflite-runtime renamed."""
    (folder / "tflite_runtime").mkdir()
    (folder / "tflite_runtime" / "interpreter.py").write_text("from ai_edge_litert.interpreter import Interpreter\n")
    return Contestant(TFLITE_RUNTIME, "by_tflite_runtime", "tflite", environment={"PYTHONPATH": str(folder)})


def test_a_contestant_that_ends_says_why(colour_models: Models) -> None:
    broken = Contestant("Nobody", "by_onnxruntime", "tflite")
    with pytest.raises(ContestError, match=r"^Nobody ended: .*onnx"), working(broken, colour_models, 1, pinned=False):
        pass


def test_accuracy_is_measured_through_the_handlers(colour_models: Models) -> None:
    files = tuple(colour_photo(colour) for colour in (*COLOURS, "red"))
    field = [each for each in FIELD if each.name in (KERAS, ONNX_INT8)]
    known = photos.Dataset("colours", Images(files, np.array([0, 1, 2, 2])), Images((), None))
    unknown = photos.Dataset("colours", Images(files, None), Images((), None))
    for found, top1 in (
        (contest.measure_accuracy(field, colour_models, known), 0.75),
        (contest.measure_accuracy(field, colour_models, unknown), None),
    ):
        assert [(each.contestant, each.images, each.top1, each.agreement) for each in found] == [
            (KERAS, 4, top1, 1.0),
            (ONNX_INT8, 4, top1, 1.0),
        ]


def test_all_take_turns_and_are_compared_in_the_same_run(colour_models: Models) -> None:
    field = [each for each in FIELD if each.name in (ONNX_INT8, ONNX_INT8_REDUCED)]
    found = contest.measure_time(field, colour_models, 1, rounds=3, calls=2, compared=ONNX_INT8_REDUCED)
    assert [each.contestant for each in found] == [ONNX_INT8, ONNX_INT8_REDUCED]
    assert found[0].ratio > 0
    assert found[1].ratio == 1
    for each in found:
        assert (each.side, each.threads) == (16, 1)
        assert min(each.import_ms, each.load_ms, each.first_ms) > 0
        for taken in (each.invoke, each.answer):
            assert 0 < taken["min"] <= taken["median"] <= taken["max"]


def test_any_bundle_is_measured_by_each_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "_IMAGES", 2)
    monkeypatch.setattr(contest, "_BUNDLE_CALLS", 1)
    measured = contest.measure_bundle(Options(rounds=1, data=None, cache=tmp_path), CIFAR_BUNDLE)
    assert (measured["name"], measured["side"], measured["count"]) == (CIFAR_BUNDLE.name, 32, 2)
    assert [each["contestant"] for each in measured["timings"]] == [LITERT, LITELENS_OPENVINO]
    assert [each["ratio"] for each in measured["timings"] if each["contestant"] == LITERT] == [1]
    page = contest_page.render_bundle({"bundle": measured})
    assert f"{CIFAR_BUNDLE.name}, of 32 pixels, by each engine of litelens" in page
    assert f"| {LITERT} | 100.0% |" in page


def test_the_ratio_is_that_of_the_same_round() -> None:
    quiet, noisy, noisiest = [10.0, 11.0, 30.0], [20.0, 22.0, 21.0], [400.0, 440.0, 420.0]
    other = [[value / 2 for value in values] for values in (quiet, noisy, noisiest)]
    assert ratio([quiet, noisy, noisiest], other) == 2
    assert ratio([[1.0], [9.0], [4.0]], [[1.0], [3.0], [2.0]]) == 2


def test_all_are_compared_with_onnx_runtimes_better_int8_model() -> None:
    found = [accuracy(KERAS, 1.0), accuracy(ONNX_INT8, 0.7), accuracy(ONNX_INT8_REDUCED, 0.96), accuracy(LITERT, 0.97)]
    assert reference(found) == ONNX_INT8_REDUCED
    assert reference([accuracy(ONNX_INT8, 0.99), accuracy(ONNX_INT8_REDUCED, 0.98)]) == ONNX_INT8


def accuracy(contestant: str, agreement: float, top1: float | None = 0.5) -> Accuracy:
    return Accuracy(224, contestant, 200, top1, agreement, 120.0)


def timing(contestant: str, milliseconds: float, ratio: float, threads: int = 1) -> Timing:
    taken = {"median": milliseconds, "min": milliseconds - 1, "max": milliseconds + 1}
    return Timing(224, threads, contestant, 100.0, 20.0, 3.0, taken, taken, ratio)


def results(*, labelled: bool = True) -> dict[str, Any]:
    """Values that were not measured, in the form of those that are."""
    top1 = 0.5 if labelled else None
    contest_values = {
        "network": {
            "side": 224,
            "multiply_adds": 4_000_000_000,
            "images": "photos",
            "count": 200,
            "calibration": 100,
            "fitted": 600 if labelled else 0,
            "labelled": labelled,
        },
        "accuracies": [asdict(accuracy(KERAS, 1.0, top1)), asdict(accuracy(LITELENS_OPENVINO, 0.97, top1))],
        "timings": [asdict(timing(KERAS, 200, 4.0)), asdict(timing(LITELENS_OPENVINO, 50, 1.0))],
        "rounds": 3,
        "left_out": ["tflite-runtime is left out: there is no wheel."],
    }
    return {"contest": contest_values}


def test_accuracy_stands_beside_every_speed() -> None:
    page = contest_page.render(results())
    assert f"| {KERAS} | 50.0% | 100.0% | 200 (199 to 201) | 200 (199 to 201) | 4.00 |" in page
    assert f"| {LITELENS_OPENVINO} | 50.0% | 97.0% | 50 (49 to 51) | 50 (49 to 51) | 1.00 |" in page
    assert f"| {KERAS} | 100 | 20 | 3 | 123 | 120 |" in page
    assert "fp32 has its int8 weights times their scales" in page
    assert "tflite-runtime is left out: there is no wheel." in page
    assert "a head fitted anew to 600 photos: 4.00 billion products" in page


def test_what_was_not_measured_is_said() -> None:
    page = contest_page.render(results(labelled=False))
    assert f"| {KERAS} | not measured | 100.0% |" in page
    assert "top-1 is not measured, for want of labelled images" in page
    assert "fitted anew" not in page


def test_parts_that_are_not_measured_again_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__main__, "FOLDER", tmp_path)
    monkeypatch.setattr(__main__, "PARTS", (counting_part("first"), counting_part("second")))
    __main__.main(["--rounds", "1"])
    __main__.main(["--rounds", "2", "--only", "second"])
    written = json.loads((tmp_path / "results.json").read_text())
    assert (written["first"], written["second"]) == ({"rounds": 1}, {"rounds": 2})
    assert written["about"].keys() == {"first", "second"}
    page = (tmp_path / "results.md").read_text()
    assert page.index("## first\n\n1 rounds") < page.index("## second\n\n2 rounds") < page.index("## Where")
    assert f"- first, second: {written['about']['first']['date']}" in page


def test_a_part_that_lacks_something_is_left_out_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = replace(counting_part("second"), missing=lambda: "Install it.")
    monkeypatch.setattr(__main__, "FOLDER", tmp_path)
    monkeypatch.setattr(__main__, "PARTS", (counting_part("first"), lacking))
    __main__.main([])
    assert json.loads((tmp_path / "results.json").read_text()).keys() == {"first", "about"}
    assert "Install it." in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^Install it\.$"):
        __main__.main(["--only", "second"])


def test_training_steps_ask_for_torch_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fit.missing() == (
        "To measure training steps, install torch: .venv-dev/bin/python -m pip install torch==2.13.0"
    )


def test_training_steps_are_shown_with_their_share_of_plain_torch() -> None:
    row = {
        "stem_stride": 2,
        "contestant": fit.LITELENS,
        "images_per_second": {"median": 90.0, "min": 80.0, "max": 95.0},
        "ratio": 0.9,
    }
    facts = {
        "preset": "cifar100-cpu",
        "batch": 128,
        "precision": "float32",
        "torch": "2.13.0",
        "rounds": 4,
        "load": 0.1,
    }
    about = {"fit": {**report.about(), "flags": ["avx2", "fma"]}}
    page = fit.render({"fit": {**facts, "steps": {"2": 6}, "rows": [row]}, "about": about})
    assert "| 2 | litelens | 90 (80 to 95) | 90% |" in page
    assert "has of the instructions that matter: avx2, fma." in page
    assert "4 rounds of 6 steps with stride 2" in page


def test_plain_torch_trains_the_presets_network() -> None:
    """Both have the same number of parameters and the same size of features."""
    torch = pytest.importorskip("torch")
    from benchmarks.fit_contestants import ResNet50
    from training.assemble import build_network
    from training.preset import load_preset

    own = build_network(load_preset(fit.PRESET), 100)
    plain = ResNet50(100, stride=1)
    assert sum(parameter.numel() for parameter in plain.parameters()) == sum(
        int(np.prod(weight.shape)) for weight in own.trainable_weights
    )
    features = plain.eval().features(torch.zeros(1, 3, 32, 32))
    assert tuple(features.shape[2:]) == own.output["class_activation_map"].shape[1:3]


def test_json_is_printed_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(__main__, "FOLDER", tmp_path)
    monkeypatch.setattr(__main__, "PARTS", (counting_part("first"),))
    __main__.main(["--rounds", "4", "--json"])
    assert json.loads(capsys.readouterr().out)["first"] == {"rounds": 4}
    assert list(tmp_path.iterdir()) == []


def counting_part(name: str) -> Part:
    def render(values: Mapping[str, Any]) -> str:
        return f"## {name}\n\n{values[name]['rounds']} rounds"

    return Part(name, lambda options: {"rounds": options.rounds}, render)


def test_a_data_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELENS_DATA", "no/such/folder")
    with pytest.raises(SystemExit, match="LITELENS_DATA names no/such/folder"):
        __main__.main([])


def test_crops_are_the_same_each_time_and_of_no_known_class() -> None:
    first, second = photos.crops(5), photos.crops(5)
    assert first.test.files == second.test.files
    assert len(set(first.test.files)) == 5
    assert not set(first.test.files) & set(first.calibration.files)
    assert (first.test.classes, first.labels, first.fitting) == (None, None, None)
    assert photos.cats_and_dogs(None, 5).test.files == first.test.files


def test_as_many_photos_of_each_class_are_taken(tmp_path: Path) -> None:
    for split, colours in (("train", 30), ("test", 10)):
        for label in ("cat", "dog"):
            folder = tmp_path / "dogs-vs-cats" / split / label
            folder.mkdir(parents=True)
            for number in range(colours):
                (folder / f"{number:02}.png").write_bytes(f"{split} {label} {number}".encode())
    dataset = photos.cats_and_dogs(tmp_path, 10)
    assert dataset.labels == ("cat", "dog")
    assert dataset.test.files[:2] == (b"test cat 0", b"test cat 2")
    assert dataset.test.classes is not None
    assert dataset.test.classes.tolist() == [0] * 5 + [1] * 5
    assert dataset.fitting is not None
    assert len(dataset.fitting) == 60
    assert set(dataset.calibration.files) <= set(dataset.fitting.files)
