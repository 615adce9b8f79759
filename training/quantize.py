"""Quantization: from a fitted network to a full-int8 .tflite file."""

import tempfile
from collections.abc import Callable, Iterator

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray
from PIL import Image

from litelens.preprocessing import Preprocessing

INTEGER_TYPES = (np.int8, np.int32)


class QuantizationError(Exception):
    """The network could not be made into a model of integers only; the message says why."""


def require_export_backend() -> None:
    """Raise QuantizationError on a Keras backend that cannot export TFLite."""
    if keras.config.backend() != "tensorflow":
        raise QuantizationError("TFLite export needs Keras' tensorflow backend; unset KERAS_BACKEND, but for fit alone")


def model_inputs(images: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.float32]:
    """The network's input for images, uint8 `(n, h, w, 3)`, made by the code that serves."""
    values = spec.values()
    pixels = np.stack([spec.pixels(Image.fromarray(image)) for image in images])
    return values[pixels, np.arange(3)]


def quantize(network: keras.Model, calibration: NDArray[np.float32]) -> bytes:
    """A .tflite file of int8 activations and per-channel int8 weights, its outputs named as the network's.

    `calibration` holds inputs, float32 `(n, height, width, 3)`, from which the activations' ranges are taken.
    Raises QuantizationError.
    """
    require_export_backend()
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        signature = keras.InputSpec(shape=(1, *calibration.shape[1:]), dtype="float32", name="image")
        network.export(folder, format="tf_saved_model", input_signature=[signature], verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = _one_by_one(calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
        model = bytes(converter.convert())
    check_integer_only(model)
    return model


def check_integer_only(model: bytes) -> None:
    """Raise QuantizationError, naming a tensor, when a .tflite file holds any that is not int8 or an int32 bias."""
    try:
        interpreter = Interpreter(
            model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
    except ValueError as error:
        raise QuantizationError(f"this is not a TFLite model: {error}") from error
    for tensor in interpreter.get_tensor_details():
        if tensor["dtype"] not in INTEGER_TYPES:
            raise QuantizationError(f"tensor '{tensor['name']}' is {np.dtype(tensor['dtype'])}, not int8")
    for tensor in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        if tensor["dtype"] is not np.int8:
            raise QuantizationError(f"'{tensor['name']}' goes in or out as {np.dtype(tensor['dtype'])}, not int8")


def _one_by_one(inputs: NDArray[np.float32]) -> Callable[[], Iterator[list[NDArray[np.float32]]]]:
    return lambda: ([values[np.newaxis]] for values in inputs)
