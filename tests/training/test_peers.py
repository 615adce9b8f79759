"""Tests of the peers in benchmarks/ and of the network that they run; no test depends on a time."""

from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from PIL import Image
from support import CIFAR_BUNDLE, ROCKET, encoded

from benchmarks import comparison, fit, network
from benchmarks.events import json_request
from benchmarks.models import Models, write_models
from benchmarks.peers.process import (
    KERAS,
    LIMITED_OPENVINO,
    LITELENS_LITERT,
    LITELENS_OPENVINO,
    MINIMAL_LITERT,
    MINIMAL_PEER,
    ONNX_INT8,
    ONNX_INT8_REDUCED,
    PEERS,
    TFLITE_RUNTIME,
    Peer,
    PeerError,
    running,
)
from benchmarks.photos import Images
from benchmarks.report import Options
from litelens.core.bundle import load_bundle
from litelens.core.head import Head
from litelens.core.preprocessing import Preprocessing

MODEL = CIFAR_BUNDLE / "model.tflite"
COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def body() -> keras.Model:
    return network.dequantized(MODEL.read_bytes(), 32, pooled_stem=False)


@pytest.fixture(scope="module")
def bundled(body: keras.Model) -> keras.Model:
    head = load_bundle(CIFAR_BUNDLE).head
    assert head
    return network.with_head(body, head)


def colour_photo(colour: str, size: tuple[int, int] = (50, 40)) -> bytes:
    return encoded(Image.new("RGB", size, colour), "PNG")


@pytest.fixture(scope="module")
def colour_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A network that classifies colours, in every format."""
    spec = Preprocessing(16, 16, 1.0, "bicubic", (128 / 255,) * 3, (0.5,) * 3)
    image = keras.Input((16, 16, 3), name="image")
    hidden = layers.Conv2D(3, 1, activation="relu", name="hidden")
    body = keras.Model(image, hidden(image))
    identity, ones = np.eye(3, dtype=np.float32), np.ones(3, np.float32)
    hidden.set_weights([identity[None, None], ones])
    model = network.with_head(body, Head(identity, ones))
    pixels = np.stack([np.asarray(Image.new("RGB", (16, 16), colour)) for colour in COLOURS])
    folder = tmp_path_factory.mktemp("colours")
    return write_models(model, spec.normalize(pixels), COLOURS, spec, folder)


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


def test_the_network_of_224_pixels_has_the_map_sizes_of_resnet50() -> None:
    enlarged = network.dequantized(MODEL.read_bytes(), 224, pooled_stem=True)
    sides = {layer.output.shape[1] for layer in enlarged.layers if isinstance(layer, layers.Conv2D)}
    assert sides == {112, 56, 28, 14, 7}


def test_other_operators_are_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    image = keras.Input((8, 8, 3))
    model = keras.Model(image, {"features": layers.MaxPooling2D()(image)})
    model.export(tmp_path, format="tf_saved_model", verbose=False)
    converted = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path)).convert()
    with pytest.raises(ValueError, match="which is neither a convolution nor an addition"):
        network.dequantized(converted, 8, pooled_stem=False)


def test_a_head_scores_pooled_features(body: keras.Model, noise: np.random.Generator) -> None:
    head = Head(noise.normal(size=(2, 2048)).astype(np.float32), np.array([1, -1], np.float32))
    inputs = noise.uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    features = network.pooled_features(body, inputs)
    logits = network.with_head(body, head).predict_on_batch(inputs)["logits"]
    assert features.shape == (3, 2048)
    assert logits == pytest.approx(np.stack([head.logits(pooled) for pooled in features]), abs=1e-3)


def test_a_fitted_head_uses_the_feature_that_separates_the_classes(noise: np.random.Generator) -> None:
    classes = np.repeat([0, 1, 2], 40)
    features = noise.normal(size=(120, 500)).astype(np.float32)
    features[np.arange(120), classes] += 6
    head = network.fit_head(features[::2], classes[::2])
    found = np.array([head.logits(pooled).argmax() for pooled in features[1::2]])
    assert (found == classes[1::2]).mean() > 0.9


def test_leave_one_out_predictions_are_those_of_fits_without_the_image(noise: np.random.Generator) -> None:
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


def test_every_peer_takes_the_same_event_and_gives_the_same_labels(colour_models: Models, tmp_path: Path) -> None:
    for peer in [*PEERS, MINIMAL_PEER, renamed_runtime(tmp_path)]:
        with running(peer, colour_models, threads=1, pinned=True) as process:
            answers = [process.handle(json_request(colour_photo(colour)), times=2) for colour in COLOURS]
            assert (peer.name, [label for _, label in answers]) == (peer.name, list(COLOURS))
            assert [len(times) for times, _ in answers] == [2, 2, 2]
            assert len(process.invoke(colour_photo("red"), times=3)) == 3
            assert process.started.keys() == {"import", "load"}


def renamed_runtime(folder: Path) -> Peer:
    """Return the peer for tflite-runtime, running on LiteRT, which is tflite-runtime renamed."""
    (folder / "tflite_runtime").mkdir()
    (folder / "tflite_runtime" / "interpreter.py").write_text("from ai_edge_litert.interpreter import Interpreter\n")
    return Peer(TFLITE_RUNTIME, "tflite_runtime", "tflite", environment={"PYTHONPATH": str(folder)})


def test_a_peer_that_ends_is_reported_with_its_last_output(colour_models: Models) -> None:
    broken = Peer("Nobody", "onnxruntime", "tflite")
    with pytest.raises(PeerError, match=r"^Nobody ended: .*onnx"), running(broken, colour_models, 1, pinned=False):
        pass


def test_accuracy_is_measured_through_the_handlers(colour_models: Models) -> None:
    files = tuple(colour_photo(colour) for colour in (*COLOURS, "red"))
    peers = [peer for peer in PEERS if peer.name in (KERAS, ONNX_INT8)]
    for classes, top1 in ((np.array([0, 1, 2, 2]), 0.75), (None, None)):
        found = comparison.measure_accuracy(peers, colour_models, Images(files, classes), reference=KERAS)
        assert [(each.peer, each.top1, each.agreement) for each in found] == [
            (KERAS, top1, 1.0),
            (ONNX_INT8, top1, 1.0),
        ]


def test_peers_are_timed_and_compared_in_the_same_run(colour_models: Models) -> None:
    peers = [peer for peer in PEERS if peer.name in (ONNX_INT8, ONNX_INT8_REDUCED)]
    found = comparison.measure_time(peers, colour_models, rounds=3, calls=2, reference=ONNX_INT8_REDUCED)
    assert [each.peer for each in found] == [ONNX_INT8, ONNX_INT8_REDUCED]
    assert found[0].ratio > 0
    assert found[1].ratio == 1
    for each in found:
        assert min(each.import_ms, each.load_ms, each.first_ms) > 0
        for taken in (each.invoke, each.answer):
            assert 0 < taken["min"] <= taken["median"] <= taken["max"]


def test_any_bundle_is_measured_with_each_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_IMAGES", 2)
    monkeypatch.setattr(comparison, "_BUNDLE_CALLS", 1)
    by_cpu = comparison.measure_bundle(Options(rounds=1, data=None, cache=tmp_path), CIFAR_BUNDLE)
    ((_, measured),) = by_cpu.items()
    assert (measured["name"], measured["side"], measured["count"]) == (CIFAR_BUNDLE.name, 32, 2)
    first, second, *limited, last = [row["peer"] for row in measured["rows"]]
    assert (first, second, last) == (LITELENS_LITERT, LITELENS_OPENVINO, MINIMAL_LITERT)
    expected = {"AMX": ["VNNI", "AVX2"], "VNNI": ["AVX2"]}.get(measured["instructions"], [])
    assert limited == [LIMITED_OPENVINO[each].name for each in expected]
    assert [row["ratio"] for row in measured["rows"] if row["peer"] == LITELENS_LITERT] == [1]
    page = comparison.render_bundle({"bundle": by_cpu})
    assert f"The bundle {CIFAR_BUNDLE.name} at 32 pixels: 1 rounds" in page
    assert f"| {LITELENS_LITERT} | 100.0% |" in page


def test_plain_torch_trains_the_network_of_the_preset() -> None:
    """Check the number of parameters and the size of the features."""
    torch = pytest.importorskip("torch")
    from benchmarks.fit_steps import ResNet50
    from training.network import build_network
    from training.preset import load_preset

    preset = load_preset(fit.PRESET)
    own = build_network(preset.network, preset.preprocessing, 100)
    plain = ResNet50(100, stride=1)
    assert sum(parameter.numel() for parameter in plain.parameters()) == sum(
        int(np.prod(weight.shape)) for weight in own.trainable_weights
    )
    features = plain.eval().features(torch.zeros(1, 3, 32, 32))
    assert tuple(features.shape[1:]) == (own.output["features"].shape[3], *own.output["features"].shape[1:3])
