"""ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.peers.base import PeerHandler


class Handler(PeerHandler):
    """Runs an .onnx file, whose input has its channels first."""

    def __init__(self, model: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        super().__init__(model, self._session.get_inputs()[0].shape[2])

    def convert(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def invoke(self, values: NDArray[Any]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(["logits"], {"image": values})[0][0]
        return logits
