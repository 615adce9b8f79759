"""Quantization, on a network small enough to be converted in a second or two."""

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from keras import layers
from numpy.typing import NDArray

from litelens.core.bundle import Bundle
from litelens.core.classifier import Classifier
from litelens.core.errors import BundleError
from litelens.core.images import Limits
from litelens.core.preprocessing import Preprocessing
from litelens_client.quantizing.comparison import divergence
from litelens_client.quantizing.int8 import count_weight_bits, reduce_to_seven_bits
from training.candidates import Candidate, Converter, candidate_builder, convert_to_float
from training.errors import QuantizationError
from training.head import add_head, read_head
from training.preset import Quantization
from training.quantize import (
    Score,
    check_integer_only,
    choose_best,
    quantize,
    save_model,
    unpublished_bundle,
)

SIZE, CLASSES = 32, 5
SPEC = Preprocessing(SIZE, SIZE, 1.0, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
BOTH: tuple[Converter, ...] = ("TFLiteConverter", "litert-quantizer")
WEIGHTED = (
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
)


def images(count: int, seed: int) -> NDArray[np.uint8]:
    """Blurred noise, each image around a colour of its own."""
    generator = np.random.default_rng(seed)
    colours = generator.uniform(40, 215, (count, 1, 1, 3))
    noise = generator.normal(0, 40, (count, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return (colours + noise).clip(0, 255).astype(np.uint8)


CHECK = images(64, seed=2)
CALIBRATION = SPEC.normalize(images(40, seed=1))


def network(activation: type[layers.Layer] = layers.ReLU, *, with_features: bool = True) -> keras.Model:
    """Convolutions, one used twice and one depthwise, normalization, a residual addition and a head."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = activation()(layers.BatchNormalization(momentum=0.5)(x))
    twice = layers.Conv2D(8, 3, padding="same")
    y = activation()(twice(activation()(twice(x))))
    y = layers.BatchNormalization(momentum=0.5)(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y))
    x = activation()(layers.Add()([x, y]))
    made = add_head(keras.Model(inputs, x), CLASSES)
    # The converters leave out a bias of zeros.
    made.get_layer("logits").bias.assign(np.linspace(-0.2, 0.2, CLASSES))
    if not with_features:
        made = keras.Model(inputs, {"logits": made.output["logits"]})
    for _ in range(8):
        made(CALIBRATION, training=True)
    return made


def made(
    model: keras.Model, *candidates: Candidate, calibration: NDArray[np.float32] = CALIBRATION
) -> tuple[bytes, tuple[Score, ...]]:
    return quantize(model, candidates, calibration, CHECK, SPEC, None)


@pytest.fixture(scope="module")
def fitted() -> keras.Model:
    return network()


@pytest.fixture(scope="module")
def models(fitted: keras.Model) -> dict[tuple[str, int], bytes]:
    """The .tflite file of each converter and number of bits."""
    settings = [(converter, bits) for converter in BOTH for bits in (8, 7)]
    return {(converter, bits): made(fitted, Candidate(converter, bits, 40))[0] for converter, bits in settings}


def saved(network: keras.Model, model: bytes, folder: Path) -> Bundle:
    save_model(folder, model, read_head(network))
    return unpublished_bundle(folder, tuple(str(index) for index in range(CLASSES)), SPEC)


def answers(bundle: Bundle, engine: str = "litert") -> NDArray[np.float32]:
    classifier = Classifier(bundle, Limits(), threads=1, engine=engine)
    return np.stack([classifier.logits(image) for image in CHECK])


def answers_of_the_file(bundle: Bundle) -> NDArray[np.float32]:
    """The model's own output `logits`, in real values."""
    run = Interpreter(model_path=str(bundle.model)).get_signature_runner()
    levels = bundle.tensors["image"].quantize(SPEC.normalize(CHECK))
    outputs = [run(image=image[np.newaxis])["logits"][0] for image in levels]
    return bundle.tensors["logits"].dequantize(np.stack(outputs))


def operators(model: bytes) -> list[list[Any]]:
    """The input, weights and bias of each layer with weights: levels (None where not constant) and scales."""
    parsed = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    (graph,) = parsed.subgraphs

    def read(index: int, kind: type[np.generic]) -> tuple[NDArray[Any] | None, NDArray[np.float32]]:
        tensor = graph.tensors[index]
        data = parsed.buffers[tensor.buffer].data
        levels = None if data is None else np.frombuffer(bytes(data), kind)
        return levels, np.array(tensor.quantization.scale, np.float32)

    return [
        [read(index, kind) for index, kind in zip(operator.inputs, (np.int8, np.int8, np.int32), strict=True)]
        for operator in graph.operators
        if flatbuffer_utils.get_builtin_code_from_operator_code(parsed.operatorCodes[operator.opcodeIndex]) in WEIGHTED
    ]


def test_every_candidate_has_integer_tensors_only_and_the_outputs_names(
    models: dict[tuple[str, int], bytes],
) -> None:
    for model in models.values():
        check_integer_only(model)
        outputs = Interpreter(model_content=model).get_signature_runner().get_output_details()
        assert {name: tuple(details["shape"]) for name, details in outputs.items()} == {
            "logits": (1, CLASSES),
            "features": (1, 16, 16, 8),
        }


@pytest.mark.parametrize("converter", BOTH)
def test_seven_bit_weights_are_from_minus_64_to_64(models: dict[tuple[str, int], bytes], converter: Converter) -> None:
    largest = {
        bits: max(np.abs(weights.astype(int)).max() for _, (weights, _), _ in operators(models[converter, bits]))
        for bits in (8, 7)
    }
    assert largest == {8: 127, 7: 64}


@pytest.mark.parametrize("converter", BOTH)
def test_seven_bit_weights_have_the_same_values_as_eight_bit_weights(
    models: dict[tuple[str, int], bytes], converter: Converter
) -> None:
    pairs = zip(operators(models[converter, 8]), operators(models[converter, 7]), strict=True)
    for (_, (eight, scale), (bias, _)), (_, (seven, doubled), (halved, _)) in pairs:
        assert doubled == pytest.approx(2 * scale)
        # In levels of eight bits, the value is half a one at most from `eight` and a whole one from `2 * seven`.
        assert np.abs(2 * seven.astype(int) - eight).max() <= 1
        assert np.abs(2 * halved.astype(int) - bias).max() <= 1


@pytest.mark.parametrize("converter", BOTH)
@pytest.mark.parametrize("bits", [8, 7])
def test_weights_are_rounded_once(
    fitted: keras.Model, models: dict[tuple[str, int], bytes], converter: Converter, bits: int
) -> None:
    _, (levels, scales), _ = operators(models[converter, bits])[-1]
    kernel = np.asarray(fitted.get_layer("logits").kernel).T
    assert np.abs(kernel / scales[:, np.newaxis] - levels.reshape(kernel.shape)).max() <= 0.501


def test_weights_of_another_network_are_refused(models: dict[tuple[str, int], bytes]) -> None:
    with candidate_builder(network(layers.LeakyReLU), CALIBRATION) as other:
        float_model = convert_to_float(other.saved_model)
    with pytest.raises(ValueError, match="the float model has no weights like those of"):
        reduce_to_seven_bits(models["TFLiteConverter", 8], float_model)


@pytest.mark.parametrize("converter", BOTH)
@pytest.mark.parametrize("bits", [8, 7])
def test_a_bias_has_the_scale_of_the_input_times_that_of_the_weights(
    models: dict[tuple[str, int], bytes], converter: Converter, bits: int
) -> None:
    weighted = operators(models[converter, bits])
    assert len(weighted) == 5
    for (_, input_scale), (_, weight_scales), (_, bias_scales) in weighted:
        assert bias_scales == pytest.approx(input_scale * weight_scales, rel=1e-5)


@pytest.mark.parametrize("converter", BOTH)
def test_the_answers_follow_the_float_network(
    fitted: keras.Model, models: dict[tuple[str, int], bytes], converter: Converter, tmp_path: Path
) -> None:
    expected = fitted.predict(SPEC.normalize(CHECK), verbose=0)["logits"]
    eight, seven = (answers(saved(fitted, models[converter, bits], tmp_path)) for bits in (8, 7))
    spread = expected.std()
    assert np.abs(eight - expected).mean() < 0.03 * spread
    assert np.abs(seven - expected).mean() < 0.06 * spread
    assert np.abs(seven - eight).mean() < 0.06 * spread


@pytest.mark.parametrize("converter", BOTH)
@pytest.mark.parametrize("bits", [8, 7])
def test_the_file_alone_gives_the_same_logits_but_for_rounding(
    fitted: keras.Model, models: dict[tuple[str, int], bytes], converter: Converter, bits: int, tmp_path: Path
) -> None:
    bundle = saved(fitted, models[converter, bits], tmp_path)
    by_head, by_file = answers(bundle), answers_of_the_file(bundle)
    assert np.abs(by_head - by_file).mean() < 0.06 * by_head.std()
    assert not np.array_equal(by_head, by_file)


def test_a_model_whose_head_is_damaged_is_refused(
    fitted: keras.Model, models: dict[tuple[str, int], bytes], tmp_path: Path
) -> None:
    saved(fitted, models["TFLiteConverter", 7], tmp_path)
    (tmp_path / "head.npz").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"head\.npz is damaged"):
        unpublished_bundle(tmp_path, ("cat", "dog"), SPEC)


@pytest.mark.parametrize("converter", BOTH)
def test_the_engines_agree_on_seven_bit_weights(
    fitted: keras.Model, models: dict[tuple[str, int], bytes], converter: Converter, tmp_path: Path
) -> None:
    bundle = saved(fitted, models[converter, 7], tmp_path)
    litert, openvino = (answers(bundle, engine) for engine in ("litert", "openvino"))
    assert np.abs(openvino - litert).mean() < 0.02 * litert.std()
    assert (openvino.argmax(axis=1) == litert.argmax(axis=1)).mean() >= 0.95


@pytest.mark.parametrize("converter", BOTH)
def test_the_number_of_bits_is_read_from_the_weights(
    models: dict[tuple[str, int], bytes], converter: Converter
) -> None:
    assert {bits: count_weight_bits(models[converter, bits]) for bits in (8, 7)} == {8: 8, 7: 7}


def test_the_candidate_with_the_highest_agreement_is_returned_and_marked(
    fitted: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dark_first = np.concatenate([SPEC.normalize(np.zeros((1, SIZE, SIZE, 3), np.uint8)), CALIBRATION])
    expected = fitted.predict(SPEC.normalize(CHECK), verbose=0)["logits"]
    truth = expected.argmax(axis=1)
    blind, seeing = Candidate("TFLiteConverter", 8, 1), Candidate("TFLiteConverter", 8, 41)
    model, (of_blind, of_seeing) = quantize(fitted, (blind, seeing), dark_first, CHECK, SPEC, truth)

    found = answers(saved(fitted, model, tmp_path))
    assert of_seeing == Score(
        **dataclasses.asdict(seeing),
        bytes=len(model),
        top1=(found.argmax(axis=1) == truth).mean(),
        agreement=(found.argmax(axis=1) == truth).mean(),
        divergence=of_seeing.divergence,
        chosen=True,
    )
    assert of_seeing.divergence == pytest.approx(divergence(expected, found), rel=1e-3)
    assert of_blind.agreement is not None
    assert of_seeing.agreement is not None
    assert of_blind.agreement < of_seeing.agreement
    assert not of_blind.chosen
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("TFLiteConverter, 8-bit weights, 41 calibration images: agreement ")
    assert lines[1].endswith(f", top-1 {of_seeing.top1:.1%}, 0.0 MB")


def test_candidates_that_use_the_same_images_are_built_once(fitted: keras.Model) -> None:
    candidates = [Candidate("TFLiteConverter", 8, images) for images in (40, 200, 500)]
    _, scores = made(fitted, *candidates)
    assert [(score.calibration_images, score.top1, score.chosen) for score in scores] == [(40, None, True)]


def test_a_network_without_features_has_no_head_and_answers_with_its_logits(tmp_path: Path) -> None:
    plain = network(with_features=False)
    model, (score,) = made(plain, Candidate("litert-quantizer", 7, 8))
    assert score.error is None
    bundle = saved(plain, model, tmp_path)
    assert set(bundle.tensors) == {"image", "logits"}
    assert not (tmp_path / "head.npz").exists()
    assert np.array_equal(answers(bundle), answers_of_the_file(bundle))


def test_a_candidate_with_floats_is_reported_and_the_others_are_built(capsys: pytest.CaptureFixture[str]) -> None:
    leaky = network(layers.LeakyReLU)
    model, (mixed, whole) = made(leaky, Candidate("litert-quantizer", 8, 8), Candidate("TFLiteConverter", 8, 8))
    assert mixed.error is not None
    assert mixed.error.endswith("is float32, not int8")
    assert (mixed.bytes, mixed.agreement, mixed.chosen) == (None, None, False)
    assert whole.chosen
    check_integer_only(model)
    assert f"litert-quantizer, 8-bit weights, 8 calibration images: failed: {mixed.error}" in capsys.readouterr().out


def test_the_reasons_are_reported_if_all_candidates_fail(fitted: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> bytes:
        raise RuntimeError("\n  out of order\nmore of it")

    monkeypatch.setattr("training.candidates.convert_with_tensorflow", broken)
    monkeypatch.setattr("training.candidates.convert_with_litert_quantizer", lambda *arguments: b"damaged")
    with pytest.raises(QuantizationError) as raised:
        made(fitted, *(Candidate(converter, 8, 8) for converter in BOTH))
    first, second = str(raised.value).split("; ")
    assert first.endswith("TFLiteConverter, 8-bit weights, 8 calibration images: RuntimeError: out of order")
    assert second.startswith("litert-quantizer, 8-bit weights, 8 calibration images: this is not a TFLite model")


def test_quantization_without_images_to_measure_on_is_refused(fitted: keras.Model) -> None:
    with pytest.raises(QuantizationError, match="no images to measure"):
        quantize(fitted, (Candidate("TFLiteConverter", 8, 8),), CALIBRATION, CHECK[:0], SPEC, None)


def test_equal_agreement_is_decided_by_divergence_and_then_by_order() -> None:
    def score(images: int, agreement: float | None, divergence: float | None, top1: float = 0.5) -> Score:
        error = None if agreement is not None else "broken"
        return Score("TFLiteConverter", 8, images, 1, top1, agreement, divergence, error)

    scores = (
        score(1, None, None),
        score(2, 0.9, 0.1, top1=0.9),
        score(3, 0.95, 0.3, top1=0.8),
        score(4, 0.95, 0.2),
        score(5, 0.95, 0.2),
    )
    assert choose_best(scores).calibration_images == 4


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    logits = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], np.float32))
    others = np.log(np.array([[0.25, 0.75], [0.9, 0.1]], np.float32))
    assert divergence(logits, logits + 7) == pytest.approx(0, abs=1e-6)
    assert divergence(logits, others) == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(2 / 3)) / 2, abs=1e-6)


def test_the_candidates_are_all_combinations_in_order() -> None:
    quantization = Quantization(("litert-quantizer", "TFLiteConverter"), (7, 8), (200, 50))
    assert [str(candidate) for candidate in quantization.candidates()][:3] == [
        "litert-quantizer, 7-bit weights, 200 calibration images",
        "litert-quantizer, 7-bit weights, 50 calibration images",
        "litert-quantizer, 8-bit weights, 200 calibration images",
    ]
    assert len(set(quantization.candidates())) == 8
