"""Candidates for the served model: the settings to quantize a network with, and the converters that do it."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import FLOAT_BITS
from litelens.core.bundle import WeightBits as AnyWeightBits
from litelens.core.native_logs import hide_native_logs
from litelens_client.quantizing.int8 import convert_with_litert_quantizer, reduce_to_seven_bits

# TensorFlow's converter, litert-quantizer, or none of them: TensorFlow's converter then makes a float32 model.
Converter = Literal["TFLiteConverter", "litert-quantizer", "none"]
WeightBits = Literal[8, 7]


@dataclass(frozen=True)
class Candidate:
    """Settings for one model; the ranges of an int8 model's activations come from that many calibration images."""

    converter: Converter
    weight_bits: AnyWeightBits
    calibration_images: int

    def __str__(self) -> str:
        if self.converter == "none":
            return "float32, not quantized"
        return f"{self.converter}, {self.weight_bits}-bit weights, {self.calibration_images:,} calibration images"


# The only candidate that is not quantized.
FLOAT = Candidate("none", FLOAT_BITS, 0)


class CandidateBuilder:
    """Builds candidates from one network, and builds only once what several of them share."""

    def __init__(self, saved_model: Path, calibration: NDArray[np.float32]) -> None:
        """Take calibration inputs, float32 `(n, height, width, 3)`, of which a candidate uses the first ones."""
        self.saved_model = saved_model
        self._calibration = calibration
        self._eight_bit: dict[tuple[Converter, int], bytes] = {}

    def build(self, candidate: Candidate) -> bytes:
        """Build the candidate, a .tflite file. Exceptions of the converters are not caught."""
        if candidate.converter == "none":
            return self._float_model
        model = self._build_eight_bits(candidate.converter, candidate.calibration_images)
        return model if candidate.weight_bits == 8 else reduce_to_seven_bits(model, self._float_model)

    def _build_eight_bits(self, converter: Converter, images: int) -> bytes:
        key = (converter, images)
        if key not in self._eight_bit:
            inputs = self._calibration[:images]
            if converter == "TFLiteConverter":
                self._eight_bit[key] = convert_with_tensorflow(self.saved_model, inputs)
            else:
                self._eight_bit[key] = convert_with_litert_quantizer(self._float_model, inputs)
        return self._eight_bit[key]

    @cached_property
    def _float_model(self) -> bytes:
        return convert_to_float(self.saved_model)


@contextlib.contextmanager
def candidate_builder(network: keras.Model, calibration: NDArray[np.float32]) -> Iterator[CandidateBuilder]:
    """Export the network to a temporary folder and yield a builder for it."""
    signature = keras.InputSpec(shape=(1, *calibration.shape[1:]), dtype="float32", name="image")
    with tempfile.TemporaryDirectory() as folder:
        network.export(folder, format="tf_saved_model", input_signature=[signature], verbose=False)
        yield CandidateBuilder(Path(folder), calibration)


def convert_to_float(saved_model: Path) -> bytes:
    """Convert a saved model into a float32 .tflite file."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    with hide_native_logs():
        return bytes(converter.convert())


def convert_with_tensorflow(saved_model: Path, inputs: NDArray[np.float32]) -> bytes:
    """Convert a saved model into an 8-bit .tflite file with TFLiteConverter; ranges are the extreme values."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = _representative_dataset(inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    with hide_native_logs():
        return bytes(converter.convert())


def _representative_dataset(inputs: NDArray[np.float32]) -> Callable[[], Iterator[list[NDArray[np.float32]]]]:
    return lambda: ([values[np.newaxis]] for values in inputs)
