"""TensorFlow and Keras."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks.peers.base import PeerHandler


class Handler(PeerHandler):
    """Runs a .keras file."""

    def __init__(self, model: Path, threads: int) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self._model = tf.keras.models.load_model(model, compile=False)
        super().__init__(model, self._model.input_shape[1])

    def invoke(self, values: NDArray[Any]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._model.predict_on_batch(values)["logits"][0]
        return logits
