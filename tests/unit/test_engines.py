import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from support import BUNDLE

from litelens.engines import LiteRT

MODEL = BUNDLE / "model.tflite"


@pytest.fixture(scope="module")
def engine() -> LiteRT:
    return LiteRT(MODEL, threads=1)


@pytest.fixture(scope="module")
def interpreter() -> Interpreter:
    interpreter = Interpreter(model_path=str(MODEL))
    interpreter.allocate_tensors()
    return interpreter


def test_shapes_are_those_of_the_file(engine: LiteRT) -> None:
    assert engine.input_shape == (1, 32, 32, 3)
    assert engine.output_shapes["logits"] == (1, 100)
    assert engine.output_shapes["class_activation_map"][-1] == 100


def test_values_are_quantized_by_the_inputs_scale_and_zero_point(engine: LiteRT, interpreter: Interpreter) -> None:
    (details,) = interpreter.get_input_details()
    scale, zero_point = details["quantization"]
    levels = np.arange(-128, 128)
    real = ((levels - zero_point) * scale).astype(np.float32)
    assert engine.quantize(real).dtype == np.int8
    assert engine.quantize(real).tolist() == levels.tolist()
    assert engine.quantize(real + np.float32(0.4 * scale)).tolist() == levels.tolist()
    assert engine.quantize(np.array([-1e9, 1e9], np.float32)).tolist() == [-128, 127]


def test_outputs_are_real_values_by_their_scale_and_zero_point(
    engine: LiteRT, interpreter: Interpreter, noise: np.random.Generator
) -> None:
    values = noise.integers(-128, 128, (1, 32, 32, 3), dtype=np.int8)
    (input_details,) = interpreter.get_input_details()
    interpreter.set_tensor(input_details["index"], values)
    interpreter.invoke()
    outputs = engine.run(values)
    for details in interpreter.get_output_details():
        scale, zero_point = details["quantization"]
        expected = (interpreter.get_tensor(details["index"]).astype(np.float64) - zero_point) * scale
        (found,) = (output for output in outputs.values() if output.shape == expected.shape)
        assert found == pytest.approx(expected, abs=1e-4)


def test_results_of_one_run_are_not_changed_by_the_next(engine: LiteRT, noise: np.random.Generator) -> None:
    first = engine.run(noise.integers(-128, 128, (1, 32, 32, 3), dtype=np.int8))["logits"]
    before = first.copy()
    engine.run(noise.integers(-128, 128, (1, 32, 32, 3), dtype=np.int8))
    assert np.array_equal(first, before)


def test_the_interpreter_gets_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def record(**options: object) -> Interpreter:
        given.update(options)
        return Interpreter(**options)

    monkeypatch.setattr("litelens.engines.Interpreter", record)
    LiteRT(MODEL, threads=3)
    assert given["num_threads"] == 3
