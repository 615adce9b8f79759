import dataclasses
import shutil
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from small_models import SIDE, small_model
from support import DEFAULT_BUNDLE

from litelens.core.bundle import FEATURES, IMAGE, LOGITS, Bundle, Tensor, load_bundle
from litelens.core.engines import ENGINES, Engine, LiteRT, OpenVINO, compile_ahead, load_engine
from litelens.core.errors import BundleError
from litelens_client.learning.tflite import name_tensors, parse_model, read_tensors, write_model


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(DEFAULT_BUNDLE)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Engine:
    return load_engine(request.param, bundle, threads=1)


@pytest.fixture
def copied(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy of the bundle that a test may change."""
    folder = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, folder)
    return dataclasses.replace(bundle, folder=folder)


def some_levels(noise: np.random.Generator) -> NDArray[np.int8]:
    return noise.integers(-128, 128, (1, 260, 260, 3), dtype=np.int8)


def test_the_manifest_has_the_tensors_of_the_model(bundle: Bundle) -> None:
    signature = Interpreter(model_path=str(bundle.model)).get_signature_runner()
    tensors = {**signature.get_input_details(), **signature.get_output_details()}
    assert set(bundle.tensors) == set(tensors) == {IMAGE, LOGITS, FEATURES}
    for name, details in tensors.items():
        tensor = bundle.tensors[name]
        assert tensor.shape == tuple(details["shape"])
        assert (tensor.scale, tensor.zero_point) == pytest.approx(details["quantization"])


def test_every_engine_returns_all_outputs(engine: Engine, bundle: Bundle, noise: np.random.Generator) -> None:
    outputs = engine.run(some_levels(noise))
    assert {name: output.shape for name, output in outputs.items()} == {
        name: tensor.shape for name, tensor in bundle.tensors.items() if name != IMAGE
    }
    assert {output.dtype for output in outputs.values()} == {np.dtype(np.int8)}


def test_a_run_does_not_change_the_outputs_of_the_one_before(engine: Engine, noise: np.random.Generator) -> None:
    first = engine.run(some_levels(noise))
    before = {name: output.copy() for name, output in first.items()}
    engine.run(some_levels(noise))
    assert all(np.array_equal(first[name], before[name]) for name in first)


def test_the_same_input_gives_the_same_outputs_after_other_inputs(engine: Engine, noise: np.random.Generator) -> None:
    levels = some_levels(noise)
    first = engine.run(levels)[LOGITS]
    engine.run(some_levels(noise))
    assert np.array_equal(engine.run(levels)[LOGITS], first)


def test_engines_differ_by_rounding_only(bundle: Bundle, noise: np.random.Generator) -> None:
    """If sums of products saturated, as with 8-bit weights, the scores would differ by dozens of levels."""
    litert, openvino = LiteRT(bundle, threads=1), OpenVINO(bundle, threads=1)
    for _ in range(20):
        levels = some_levels(noise)
        found, expected = openvino.run(levels)[LOGITS].astype(int), litert.run(levels)[LOGITS].astype(int)
        assert np.abs(found - expected).mean() < 1.5
        assert np.abs(found - expected).max() <= 12


def test_litert_returns_the_outputs_of_its_interpreter(bundle: Bundle, noise: np.random.Generator) -> None:
    interpreter = Interpreter(model_path=str(bundle.model))
    runner = interpreter.get_signature_runner()
    levels = some_levels(noise)
    expected = runner(image=levels)
    outputs = LiteRT(bundle, threads=1).run(levels)
    assert all(np.array_equal(outputs[name], expected[name]) for name in (LOGITS, FEATURES))


def test_tensors_are_allocated_once(bundle: Bundle, noise: np.random.Generator) -> None:
    litert, openvino = LiteRT(bundle, threads=1), OpenVINO(bundle, threads=1)
    interpreter = litert._interpreter

    def addresses() -> list[int]:
        tensors = [interpreter.tensor(index)() for index in (litert._input, *litert._outputs.values())]
        request = openvino._request
        ports = [request.get_input_tensor().data, *(request.get_output_tensor(index).data for index in range(2))]
        return [tensor.ctypes.data for tensor in (*tensors, *ports)]

    before = addresses()
    for _ in range(3):
        litert.run(some_levels(noise))
        openvino.run(some_levels(noise))
    assert addresses() == before


def test_more_threads_give_the_same_outputs(bundle: Bundle, noise: np.random.Generator) -> None:
    levels = some_levels(noise)
    for make in ENGINES.values():
        assert np.array_equal(make(bundle, 2).run(levels)[LOGITS], make(bundle, 1).run(levels)[LOGITS])


def test_the_compiled_model_is_loaded_instead_of_the_model(
    copied: Bundle, noise: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    levels = some_levels(noise)
    expected = OpenVINO(copied, threads=1).run(levels)
    compile_ahead("openvino", copied)
    copied.model.unlink()
    found = OpenVINO(copied, threads=1).run(levels)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert not caplog.messages


@pytest.mark.parametrize("spoilt", ["another version", "another kind of CPU", "cut short", "no such file"])
def test_an_unusable_compiled_model_is_compiled_again_with_a_warning(
    copied: Bundle, noise: np.random.Generator, caplog: pytest.LogCaptureFixture, spoilt: str
) -> None:
    compile_ahead("openvino", copied)
    compiled = copied.folder / f"{copied.sha256}.openvino"
    content = compiled.read_bytes()
    files = {
        "another version": content.replace(b"ov=20", b"ov=19", 1),
        "another kind of CPU": content.replace(b"isa=", b"isa=6502 and ", 1),
        "cut short": content[: len(content) // 2],
        "no such file": b"no such file" * 1000,
    }
    assert files[spoilt] != content
    compiled.write_bytes(files[spoilt])
    levels = some_levels(noise)
    expected = LiteRT(copied, threads=1).run(levels)[LOGITS].argmax()
    assert OpenVINO(copied, threads=1).run(levels)[LOGITS].argmax() == expected
    assert compiled.name in caplog.text


def test_litert_does_not_compile_ahead(copied: Bundle) -> None:
    before = sorted(path.name for path in copied.folder.iterdir())
    compile_ahead("litert", copied)
    assert sorted(path.name for path in copied.folder.iterdir()) == before


@pytest.mark.parametrize("name", ENGINES)
def test_tensors_that_differ_from_the_manifest_are_refused(bundle: Bundle, name: str) -> None:
    changed = {**bundle.tensors, LOGITS: msgspec.structs.replace(bundle.tensors[LOGITS], shape=(1, 10))}
    with pytest.raises(BundleError, match=r"model.tflite .* logits int8 \(1, 1000\).* says .* logits int8 \(1, 10\)"):
        load_engine(name, dataclasses.replace(bundle, tensors=changed), threads=1)


@pytest.mark.parametrize("name", ENGINES)
def test_a_file_that_is_not_a_model_is_refused(copied: Bundle, name: str) -> None:
    copied.model.write_bytes(b"no model")
    with pytest.raises(BundleError, match=rf"model.tflite is not a model that {name} can run here"):
        load_engine(name, copied, threads=1)


def test_openvino_refuses_weights_of_eight_bits(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"its weights have 8 bits; quantize it with weight_bits = \[7\], or"):
        load_engine("openvino", dataclasses.replace(bundle, weight_bits=8), threads=1)


@pytest.mark.parametrize(("name", "package"), [("litert", "ai_edge_litert"), ("openvino", "openvino")])
def test_an_engine_that_is_not_installed_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BundleError, match=rf"The engine {name} .*: pip install 'litelens\[openvino\]'$"):
        load_engine(name, bundle, threads=1)


def test_quantizing_rounds_to_the_nearest_level_and_reverses_dequantizing() -> None:
    tensor = Tensor(shape=(256,), scale=0.0078125, zero_point=-3)
    levels = np.arange(-128, 128).astype(np.int8)
    real = tensor.dequantize(levels)
    assert real.dtype == np.float32
    assert real == pytest.approx((levels.astype(float) + 3) * 0.0078125)
    assert tensor.quantize(real).dtype == np.int8
    assert tensor.quantize(real).tolist() == levels.tolist()
    assert tensor.quantize(real + np.float32(0.4 * 0.0078125)).tolist() == levels.tolist()
    assert tensor.quantize(np.array([-1e9, 1e9], np.float32)).tolist() == [-128, 127]


def test_uint8_levels_are_from_0_to_255() -> None:
    tensor = Tensor(shape=(256,), scale=0.0078125, zero_point=128, dtype="uint8")
    levels = np.arange(256).astype(np.uint8)
    real = tensor.dequantize(levels)
    assert real.dtype == np.float32
    assert real == pytest.approx((levels.astype(float) - 128) * 0.0078125)
    assert tensor.quantize(real).dtype == np.uint8
    assert tensor.quantize(real).tolist() == levels.tolist()
    assert tensor.quantize(np.array([-1e9, 1e9], np.float32)).tolist() == [0, 255]


def test_float_values_are_not_rounded() -> None:
    tensor = Tensor(shape=(3,), dtype="float32")
    values = np.array([-1e9, 0.12345678, 1e9], np.float32)
    assert tensor.quantize(values).dtype == tensor.dequantize(values).dtype == np.float32
    assert tensor.quantize(values).tolist() == tensor.dequantize(values).tolist() == values.tolist()


@pytest.fixture(params=["float32", "int8"])
def small(request: pytest.FixtureRequest, bundle: Bundle, tmp_path: Path) -> Bundle:
    """The bundle of a tiny model of this type, without features."""
    model, tensors = named_model(request.param)
    (tmp_path / "model.tflite").write_bytes(model)
    bits = 32 if request.param == "float32" else 8
    return dataclasses.replace(bundle, folder=tmp_path, tensors=tensors, weight_bits=bits)


def named_model(kind: str) -> tuple[bytes, dict[str, Tensor]]:
    """Return a tiny model with the names that bundles have, and its tensors."""
    parsed = parse_model(small_model(kind))
    name_tensors(parsed)
    model = write_model(parsed)
    return model, read_tensors(model)


def test_tensors_of_every_type_are_compared_with_the_manifest(small: Bundle) -> None:
    dtype = small.tensors[IMAGE].dtype
    values = small.tensors[IMAGE].quantize(np.zeros((1, SIDE, SIDE, 3), np.float32))
    assert LiteRT(small, threads=1).run(values)[LOGITS].dtype == np.dtype(dtype)
    other = Tensor((1, SIDE, SIDE, 3), 1 / 255, 0, "uint8")
    with pytest.raises(BundleError, match=rf"image {dtype} .* image uint8 "):
        load_engine("litert", dataclasses.replace(small, tensors={**small.tensors, IMAGE: other}), threads=1)


def test_openvino_runs_float_models(bundle: Bundle, tmp_path: Path, noise: np.random.Generator) -> None:
    model, tensors = named_model("float32")
    (tmp_path / "model.tflite").write_bytes(model)
    small = dataclasses.replace(bundle, folder=tmp_path, tensors=tensors, weight_bits=32)
    values = noise.uniform(-1, 1, (1, SIDE, SIDE, 3)).astype(np.float32)
    found, expected = (engine(small, 1).run(values)[LOGITS] for engine in (OpenVINO, LiteRT))
    assert found == pytest.approx(expected, abs=1e-5)
