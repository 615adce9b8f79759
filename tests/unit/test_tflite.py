"""Changes of .tflite files: another head, and the conversion of models of earlier versions."""

from collections.abc import Mapping

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from class_folders import BASE, photo
from numpy.typing import NDArray
from old_bundle import old_model

from litelens.core.bundle import FEATURES, IMAGE, LOGITS, OLD_MAP, Bundle, load_bundle
from litelens.core.head import Head
from litelens_client.learning.tflite import convert_old_model, parse_model, read_tensors, replace_head

CLASSES = 3
Outputs = Mapping[str, NDArray[np.int8]]


@pytest.fixture(scope="module")
def base() -> Bundle:
    return load_bundle(BASE)


@pytest.fixture(scope="module")
def original(base: Bundle) -> bytes:
    return base.model.read_bytes()


@pytest.fixture(scope="module")
def images(base: Bundle) -> list[NDArray[np.int8]]:
    """Inputs of the model."""
    spec = base.preprocessing
    pixels = [spec.pixels(photo(label, number)) for label in ("cat", "coffee", "rocket") for number in range(3)]
    values = (np.stack(pixels) / 255 - np.array(spec.mean)) / np.array(spec.std)
    levels = base.tensors[IMAGE].quantize(values.astype(np.float32))
    return list(levels[:, np.newaxis])


@pytest.fixture(scope="module")
def pooled(base: Bundle, original: bytes, images: list[NDArray[np.int8]]) -> NDArray[np.float32]:
    """The pooled features of the images."""
    features = [base.tensors[FEATURES].dequantize(outputs[FEATURES][0]) for outputs in run(original, images)]
    return np.stack([grid.mean(axis=(0, 1)) for grid in features])


@pytest.fixture(scope="module")
def head(base: Bundle) -> Head:
    """The head of three of the base's classes."""
    assert base.head
    return Head(base.head.weights[10 : 10 + CLASSES], base.head.bias[10 : 10 + CLASSES])


@pytest.fixture(scope="module")
def changed(original: bytes, head: Head, pooled: NDArray[np.float32]) -> bytes:
    return replace_head(original, head, pooled)


def run(model: bytes, images: list[NDArray[np.int8]]) -> list[Outputs]:
    """Return the outputs for each image with LiteRT."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    return [{name: array.copy() for name, array in runner(image=image).items()} for image in images]


@pytest.fixture(scope="module")
def outputs(
    changed: bytes, images: list[NDArray[np.int8]], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, list[Outputs]]:
    """The outputs of the changed model for each image, by engine."""
    import openvino

    path = tmp_path_factory.mktemp("changed") / "model.tflite"
    path.write_bytes(changed)
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    found = []
    for image in images:
        request.infer({0: image})
        found.append({output.any_name: request.get_tensor(output).data.copy() for output in compiled.outputs})
    return {"litert": run(changed, images), "openvino": found}


def test_another_head_leaves_the_features_as_they_are(
    original: bytes, changed: bytes, images: list[NDArray[np.int8]]
) -> None:
    for before, after in zip(run(original, images), run(changed, images), strict=True):
        assert set(after) == {LOGITS, FEATURES}
        assert np.array_equal(after[FEATURES], before[FEATURES])


def test_the_tensors_are_those_of_the_new_head(base: Bundle, changed: bytes) -> None:
    tensors = read_tensors(changed)
    assert tensors[IMAGE] == base.tensors[IMAGE]
    assert tensors[FEATURES] == base.tensors[FEATURES]
    assert tensors[LOGITS].shape == (1, CLASSES)


@pytest.mark.parametrize("engine", ["litert", "openvino"])
def test_the_scores_are_those_of_the_new_head_within_two_levels(
    engine: str, outputs: Mapping[str, list[Outputs]], changed: bytes, head: Head
) -> None:
    """The engines' features differ a little, so each engine's scores are compared with those of its own features."""
    tensors = read_tensors(changed)
    for found in outputs[engine]:
        assert set(found) == {LOGITS, FEATURES}
        expected = head.logits(tensors[FEATURES].dequantize(found[FEATURES][0]).mean(axis=(0, 1)))
        scores = tensors[LOGITS].dequantize(found[LOGITS][0])
        assert scores == pytest.approx(expected, abs=2 * tensors[LOGITS].scale)


def test_the_engines_give_nearly_the_same_scores(outputs: Mapping[str, list[Outputs]]) -> None:
    for litert, openvino in zip(outputs["litert"], outputs["openvino"], strict=True):
        assert np.abs(openvino[LOGITS].astype(int) - litert[LOGITS].astype(int)).max() <= 5


def test_the_file_has_about_the_same_size_and_does_not_grow_each_time(
    original: bytes, changed: bytes, head: Head, pooled: NDArray[np.float32]
) -> None:
    assert len(original) * 0.95 < len(changed) < len(original) * 1.01
    assert len(replace_head(changed, head, pooled)) - len(changed) < 1000


def test_a_model_with_another_head_can_get_another_one_again(
    original: bytes, changed: bytes, images: list[NDArray[np.int8]], head: Head, pooled: NDArray[np.float32]
) -> None:
    other = Head(-head.weights[:2], head.bias[:2])
    again, directly = replace_head(changed, other, pooled), replace_head(original, other, pooled)
    for first, second in zip(run(again, images), run(directly, images), strict=True):
        assert np.array_equal(first[LOGITS], second[LOGITS])
        assert np.array_equal(first[FEATURES], second[FEATURES])


def test_a_head_of_zeros_has_scores_of_about_zero(
    original: bytes, images: list[NDArray[np.int8]], pooled: NDArray[np.float32]
) -> None:
    head = Head(np.zeros((2, pooled.shape[1]), np.float32), np.zeros(2, np.float32))
    model = replace_head(original, head, pooled)
    logits = read_tensors(model)[LOGITS]
    assert logits.dequantize(run(model, images[:1])[0][LOGITS]) == pytest.approx(np.zeros((1, 2)), abs=1e-3)


def test_a_model_without_features_cannot_get_another_head(
    original: bytes, head: Head, pooled: NDArray[np.float32]
) -> None:
    with pytest.raises(ValueError, match=FEATURES):
        replace_head(old_model(original), head, pooled)


def test_a_converted_model_gives_the_same_answers_as_the_old_one(base: Bundle, original: bytes) -> None:
    spec = base.preprocessing
    noise = np.random.default_rng(1).integers(-128, 128, (2, 1, spec.height, spec.width, 3), dtype=np.int8)
    old = old_model(original)
    new, head = convert_old_model(old)
    tensors = read_tensors(new)
    for before, after in zip(run(old, list(noise)), run(new, list(noise)), strict=True):
        assert np.array_equal(before[LOGITS], after[LOGITS])
        features = tensors[FEATURES].dequantize(after[FEATURES][0])
        scores = head.logits(features.mean(axis=(0, 1)))
        assert scores == pytest.approx(tensors[LOGITS].dequantize(after[LOGITS][0]), abs=4 * tensors[LOGITS].scale)
        # The old map is the head's activation map, rounded.
        old_map = read_tensors(old)[OLD_MAP]
        expected = old_map.dequantize(before[OLD_MAP][0])[:, :, 7]
        assert head.activation_map(features, 7) == pytest.approx(expected, abs=2 * old_map.scale)


def test_the_head_of_a_converted_model_is_the_one_that_the_bundle_has(base: Bundle, original: bytes) -> None:
    _, head = convert_old_model(old_model(original))
    assert base.head
    assert np.array_equal(head.weights, base.head.weights)
    assert np.array_equal(head.bias, base.head.bias)


def test_a_model_without_a_class_activation_map_cannot_be_converted(original: bytes) -> None:
    with pytest.raises(ValueError, match=OLD_MAP):
        convert_old_model(original)


def test_the_weights_of_another_head_have_seven_bits(changed: bytes) -> None:
    """With eight bits, sums of products saturate in OpenVINO on older CPUs."""
    parsed = parse_model(changed)
    (graph,) = parsed.subgraphs
    (kernel,) = (tensor for tensor in graph.tensors if list(tensor.shape) == [CLASSES, 1280])
    levels = np.frombuffer(bytes(parsed.buffers[kernel.buffer].data), np.int8)
    assert np.abs(levels.astype(int)).max() == 64
