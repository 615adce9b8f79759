"""OpenVINO without litelens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from benchmarks.peers.base import PeerHandler, dequantize, quantize


class Handler(PeerHandler):
    """Runs an int8 .tflite file. OpenVINO does not report the tensors' scales and zero points; int8.json has them."""

    def __init__(self, model: Path, threads: int) -> None:
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.Core().compile_model(model, "CPU", options)
        self._request = compiled.create_infer_request()
        self._logits = next(output for output in compiled.outputs if len(output.shape) == 2)
        self._quantization = json.loads(model.with_name("int8.json").read_text())
        super().__init__(model, compiled.input().shape[1])

    def convert(self, values: NDArray[np.float32]) -> NDArray[np.int8]:
        return quantize(values, *self._quantization["image"])

    def invoke(self, values: NDArray[Any]) -> NDArray[np.float32]:
        self._request.infer([values], share_inputs=True)
        return dequantize(self._request.get_tensor(self._logits).data[0], *self._quantization["logits"])
