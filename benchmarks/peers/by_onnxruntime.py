"""ONNX Runtime behind API Gateway, for any model."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

TOP = 5


class Handler:
    """`model` is an .onnx file beside labels.txt."""

    def __init__(self, model: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._labels = model.with_name("labels.txt").read_text().splitlines()
        (image,) = self._session.get_inputs()
        self._side = image.shape[2]

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
        return np.ascontiguousarray(((pixels - 128) / 127.5).transpose(2, 0, 1))[np.newaxis]

    def invoke(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(["logits"], {"image": values})[0][0]
        return logits
