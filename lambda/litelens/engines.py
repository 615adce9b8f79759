"""What runs a .tflite file."""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray


class LiteRT:
    """One int8 model with one input and named outputs, run by LiteRT. Not safe for concurrent use."""

    def __init__(self, model: Path, threads: int) -> None:
        """Load the model; raises ValueError when the file is not one that LiteRT runs."""
        self._interpreter = Interpreter(model_path=str(model), num_threads=threads)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_signature_runner().get_output_details()
        if {tensor["dtype"] for tensor in (self._input, *self._outputs.values())} != {np.int8}:
            raise ValueError("its input and outputs are not all int8")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self._input["shape"])

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(int(n) for n in details["shape"]) for name, details in self._outputs.items()}

    def quantize(self, values: NDArray[np.float32]) -> NDArray[np.int8]:
        """Real values as the input's int8 ones, by its scale and zero point."""
        scale, zero_point = self._input["quantization"]
        # In float32, evenly spaced levels meet ties, and rounding those to even would merge neighbours.
        quantized: NDArray[np.int8] = (
            (values.astype(np.float64) / scale + zero_point).round().clip(-128, 127).astype(np.int8)
        )
        return quantized

    def run(self, values: NDArray[np.int8]) -> dict[str, NDArray[np.float32]]:
        """Each output by its name, as real values, from an input of `input_shape`."""
        self._interpreter.set_tensor(self._input["index"], values)
        self._interpreter.invoke()
        return {name: self._real(details) for name, details in self._outputs.items()}

    def _real(self, details: dict[str, Any]) -> NDArray[np.float32]:
        scale, zero_point = details["quantization"]
        quantized = self._interpreter.get_tensor(details["index"]).astype(np.float32)
        real: NDArray[np.float32] = (quantized - np.float32(zero_point)) * np.float32(scale)
        return real
