"""Candidates for the int8 model: the ways in which one can be made, and the making."""

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from litelens.native_logs import hide_native_logs

Converter = Literal["TFLiteConverter", "litert-quantizer"]
WeightBits = Literal[8, 7]

_WEIGHTED = {
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
}


@dataclass(frozen=True)
class Candidate:
    """One way to make the int8 model, from the ranges that so many calibration images show."""

    converter: Converter
    weight_bits: WeightBits
    calibration_images: int

    def __str__(self) -> str:
        return f"{self.converter}, {self.weight_bits}-bit weights, {self.calibration_images:,} calibration images"


class Workshop:
    """Makes candidates of one network; what several of them share is made once."""

    def __init__(self, saved_model: Path, calibration: NDArray[np.float32]) -> None:
        """`calibration` holds inputs, float32 `(n, height, width, 3)`; a candidate takes the first ones."""
        self.saved_model = saved_model
        self._calibration = calibration
        self._eight_bit: dict[tuple[Converter, int], bytes] = {}

    def make(self, candidate: Candidate) -> bytes:
        """The candidate as a .tflite file. Whatever the converters raise passes through."""
        model = self._with_eight_bits(candidate.converter, candidate.calibration_images)
        return model if candidate.weight_bits == 8 else with_seven_bit_weights(model, self._float_model)

    def _with_eight_bits(self, converter: Converter, images: int) -> bytes:
        key = (converter, images)
        if key not in self._eight_bit:
            inputs = self._calibration[:images]
            if converter == "TFLiteConverter":
                self._eight_bit[key] = by_tflite_converter(self.saved_model, inputs)
            else:
                self._eight_bit[key] = by_litert_quantizer(self._float_model, inputs)
        return self._eight_bit[key]

    @cached_property
    def _float_model(self) -> bytes:
        return float_tflite(self.saved_model)


@contextlib.contextmanager
def opened_workshop(network: keras.Model, calibration: NDArray[np.float32]) -> Iterator[Workshop]:
    """A workshop for the network, whose exported copy lasts as long as the block."""
    signature = keras.InputSpec(shape=(1, *calibration.shape[1:]), dtype="float32", name="image")
    with tempfile.TemporaryDirectory() as folder:
        network.export(folder, format="tf_saved_model", input_signature=[signature], verbose=False)
        yield Workshop(Path(folder), calibration)


def float_tflite(saved_model: Path) -> bytes:
    """The float32 .tflite file of a saved model."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    with hide_native_logs():
        return bytes(converter.convert())


def by_tflite_converter(saved_model: Path, inputs: NDArray[np.float32]) -> bytes:
    """The 8-bit .tflite file that TensorFlow's own converter makes, with the lowest and highest values as ranges."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = _one_by_one(inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    with hide_native_logs():
        return bytes(converter.convert())


def by_litert_quantizer(float_model: bytes, inputs: NDArray[np.float32]) -> bytes:
    """The 8-bit .tflite file that litert-quantizer makes by its recipe static_wi8_ai8.

    The ranges are the lowest and highest values, as TFLiteConverter has them: litert-quantizer's own choice, a moving
    average of each image's, cuts off the highest logits, which are those that matter.
    """
    from litert_quantizer import quantizer, recipe
    from litert_quantizer.calibrator import CalibrationMode, Calibrator
    from litert_quantizer.recipe_manager import RecipeManager
    from litert_quantizer.utils.qsv_utils import min_max_update

    (signature,) = Interpreter(model_content=float_model).get_signature_list()
    recipes = RecipeManager()
    recipes.load_quantization_recipe(recipe.static_wi8_ai8())
    with _without_chatter(), hide_native_logs():
        calibrator = Calibrator(
            float_model,
            num_threads=os.cpu_count() or 1,
            mode=CalibrationMode.CALIBRATION_PROFILER_BASED,
            qsv_update_func=min_max_update,
        )
        calibrator.calibrate({signature: [{"image": values[np.newaxis]} for values in inputs]}, recipes)
        made = quantizer.Quantizer(float_model, recipe.static_wi8_ai8())
        result = made.quantize(calibrator.get_model_qsvs(), enable_progress_report=False)
    return bytes(result.quantized_model)


def with_seven_bit_weights(model: bytes, float_model: bytes) -> bytes:
    """The 8-bit .tflite file with the weights of convolutions and dense layers from -64 to 64, rounded anew.

    Where there are no instructions for 8-bit products summed in 32 bits (AVX-512 VNNI and its like), OpenVINO and
    ONNX Runtime sum two products of an activation (0 to 255) and a weight in 16 bits, which saturates. Weights of
    seven bits cannot reach that, 2 * 255 * 64 being below 2**15, so that every engine gives the same answers.

    The weights come from `float_model`, of which `model` was made: halving 8-bit ones would round them twice. Their
    scales are doubled, and so are the biases' scales, which stay the input's scale times the weights'.
    Raises ValueError when the weights of `float_model` are others.
    """
    quantized = _parsed(model)
    originals = _float_weights(_parsed(float_model))
    for graph in quantized.subgraphs:
        weights, biases = _weights_and_biases(quantized, graph)
        for tensor in weights:
            _give(quantized, tensor, _seven_bits(tensor, _levels(quantized, tensor, np.int8), originals))
        for tensor in biases:
            _give(quantized, tensor, np.rint(_levels(quantized, tensor, np.int32) / 2).astype(np.int32))
        for tensor in (*weights, *biases):
            tensor.quantization.scale = [2 * scale for scale in tensor.quantization.scale]
    _empty_unused_buffers(quantized)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(quantized))


def weight_bits(model: bytes) -> WeightBits:
    """How many bits the weights of convolutions and dense layers of a .tflite file take."""
    parsed = _parsed(model)
    weights = [tensor for graph in parsed.subgraphs for tensor in _weights_and_biases(parsed, graph)[0]]
    largest = max(
        (np.abs(_levels(parsed, tensor, np.int8).astype(int)).max(initial=0) for tensor in weights), default=0
    )
    return 7 if largest <= 64 else 8


def portable(model: bytes) -> bytes:
    """The same .tflite file as OpenVINO reads it.

    Its constants are inside of the flatbuffer, where litert-quantizer puts them behind it, and the tensors that go in
    or out have the names that the signature gives them, which OpenVINO does not read.
    """
    parsed = _parsed(model)
    (signature,), (graph,) = parsed.signatureDefs, parsed.subgraphs
    for named in (*signature.inputs, *signature.outputs):
        graph.tensors[named.tensorIndex].name = named.name
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))


def _seven_bits(tensor: Any, levels: NDArray[np.int8], originals: list[NDArray[np.float32]]) -> NDArray[np.int8]:
    scales = _along_channels(tensor)
    for original in originals:
        # Half a level is what rounding can do, and a little more is float32's own.
        if original.shape == levels.shape and (np.abs(original - levels * scales) <= 0.51 * scales).all():
            halved = np.divide(original, 2 * scales, out=np.zeros_like(original), where=scales > 0)
            rounded: NDArray[np.int8] = np.rint(halved).clip(-64, 64).astype(np.int8)
            return rounded
    raise ValueError(f"the float model has no weights like those of '{tensor.name.decode()}'")


def _along_channels(tensor: Any) -> NDArray[np.float32]:
    """The scales in a shape that multiplies the tensor's levels."""
    shape = [1] * len(tensor.shape)
    scales = np.array(tensor.quantization.scale, np.float32)
    shape[tensor.quantization.quantizedDimension] = len(scales)
    return scales.reshape(shape)


def _parsed(model: bytes) -> Any:
    return flatbuffer_utils.read_model_from_bytearray(bytearray(model))


def _float_weights(model: Any) -> list[NDArray[np.float32]]:
    weights = (tensor for graph in model.subgraphs for tensor in _weights_and_biases(model, graph)[0])
    return [_levels(model, tensor, np.float32) for tensor in weights]


def _weights_and_biases(model: Any, graph: Any) -> tuple[list[Any], list[Any]]:
    """The constant weights and biases of the graph's convolutions and dense layers, shared ones once."""
    weights: dict[int, Any] = {}
    biases: dict[int, Any] = {}
    for operator in graph.operators:
        code = flatbuffer_utils.get_builtin_code_from_operator_code(model.operatorCodes[operator.opcodeIndex])
        if code in _WEIGHTED and _is_constant(model, graph.tensors[operator.inputs[1]]):
            weights[operator.inputs[1]] = graph.tensors[operator.inputs[1]]
            if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
                biases[operator.inputs[2]] = graph.tensors[operator.inputs[2]]
    return list(weights.values()), list(biases.values())


def _is_constant(model: Any, tensor: Any) -> bool:
    return model.buffers[tensor.buffer].data is not None


def _levels(model: Any, tensor: Any, kind: type[np.generic]) -> NDArray[Any]:
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), kind).reshape(tensor.shape)


def _give(model: Any, tensor: Any, levels: NDArray[Any]) -> None:
    """A buffer of its own for the tensor: tensors of equal levels but other scales may have shared one."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(levels.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1


def _empty_unused_buffers(model: Any) -> None:
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {metadata.buffer for metadata in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Keeps away progress bars, which have no switch, and a warning of memory that is needed on purpose."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        yield


def _one_by_one(inputs: NDArray[np.float32]) -> Callable[[], Iterator[list[NDArray[np.float32]]]]:
    return lambda: ([values[np.newaxis]] for values in inputs)
