"""The handler that all peers share. It needs NumPy and Pillow only, so that it runs in tflite-runtime's environment."""

import base64
import json
from abc import ABC, abstractmethod
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_TOP = 5


class PeerHandler(ABC):
    """A Lambda handler that classifies a photo sent to API Gateway as base64 in JSON.

    `model` is a file beside labels.txt; `side` is the width and height of its input in pixels.
    """

    def __init__(self, model: Path, side: int) -> None:
        self._labels = model.with_name("labels.txt").read_text().splitlines()
        self._side = side

    @abstractmethod
    def invoke(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Run the model on one input and return its logits, float32 `(classes,)`."""

    def convert(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Convert normalized pixels, float32 `(1, height, width, 3)`, to the model's input."""
        return values

    def preprocess(self, photo: bytes) -> NDArray[Any]:
        """Crop, resize and normalize a photo."""
        image = Image.open(BytesIO(photo)).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        size, box = (self._side, self._side), (left, top, left + side, top + side)
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC, box), np.float32)
        return self.convert(((pixels - 128) / 127.5)[np.newaxis])

    def __call__(self, event: dict[str, Any], context: object) -> dict[str, Any]:
        photo = base64.b64decode(json.loads(event["body"])["image"])
        logits = self.invoke(self.preprocess(photo))
        powers = np.exp(logits - logits.max())
        confidences = powers / powers.sum()
        best = np.argsort(-confidences)[:_TOP]
        predictions = [{"label": self._labels[i], "confidence": float(confidences[i])} for i in best]
        return {
            "statusCode": 200,
            "headers": {"Content-Type": "application/json"},
            "body": json.dumps({"predictions": predictions}),
        }


def quantize(values: NDArray[np.float32], scale: float, zero_point: int) -> NDArray[np.int8]:
    return (values / scale + zero_point).round().clip(-128, 127).astype(np.int8)


def dequantize(levels: NDArray[np.int8], scale: float, zero_point: int) -> NDArray[np.float32]:
    return (levels.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
