"""tflite-runtime, LiteRT's predecessor."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tflite_runtime.interpreter import Interpreter

from benchmarks.peers.base import PeerHandler, dequantize, quantize


class Handler(PeerHandler):
    """Runs an int8 .tflite file."""

    def __init__(self, model: Path, threads: int) -> None:
        self._interpreter = Interpreter(str(model), num_threads=threads)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        self._logits = next(output for output in self._interpreter.get_output_details() if len(output["shape"]) == 2)
        super().__init__(model, self._input["shape"][1])

    def convert(self, values: NDArray[np.float32]) -> NDArray[np.int8]:
        return quantize(values, *self._input["quantization"])

    def invoke(self, values: NDArray[Any]) -> NDArray[np.float32]:
        self._interpreter.set_tensor(self._input["index"], values)
        self._interpreter.invoke()
        return dequantize(self._interpreter.get_tensor(self._logits["index"])[0], *self._logits["quantization"])
