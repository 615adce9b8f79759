"""TensorFlow and Keras behind API Gateway."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

TOP = 5


class Handler:
    """`model` is a .keras file beside labels.txt."""

    def __init__(self, model: Path, threads: int) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self._model = tf.keras.models.load_model(model, compile=False)
        self._labels = model.with_name("labels.txt").read_text().splitlines()
        self._side = self._model.input_shape[1]

    def __call__(self, event: dict[str, Any], context: object) -> dict[str, Any]:
        photo = base64.b64decode(json.loads(event["body"])["image"])
        logits = self.invoke(self.preprocess(photo))
        powers = np.exp(logits - logits.max())
        confidences = powers / powers.sum()
        best = np.argsort(-confidences)[:TOP]
        predictions = [{"label": self._labels[i], "confidence": float(confidences[i])} for i in best]
        return {
            "statusCode": 200,
            "headers": {"Content-Type": "application/json"},
            "body": json.dumps({"predictions": predictions}),
        }

    def preprocess(self, photo: bytes) -> NDArray[np.float32]:
        image = Image.open(BytesIO(photo)).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        size, box = (self._side, self._side), (left, top, left + side, top + side)
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC, box), np.float32)
        return ((pixels - 128) / 127.5)[np.newaxis]

    def invoke(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._model.predict_on_batch(values)["logits"][0]
        return logits
