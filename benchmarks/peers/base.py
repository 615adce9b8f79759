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

    `model` is a file or a folder beside labels.txt; `side` is the width and height of the input in pixels. `crop` is
    the share of the shorter side that is kept; `mean` and `std` normalize the pixels.
    """

    crop, mean, std = 1.0, 128.0, 127.5

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
        side = min(image.size) * self.crop
        left, top = (image.width - side) / 2, (image.height - side) / 2
        size, box = (self._side, self._side), (left, top, left + side, top + side)
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC, box), np.float32)
        return self.convert(((pixels - self.mean) / self.std)[np.newaxis])

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


class TFLiteHandler(PeerHandler):
    """Runs an int8 .tflite file in an interpreter of LiteRT or of tflite-runtime, its predecessor."""

    def __init__(self, interpreter: Any, model: Path) -> None:
        interpreter.allocate_tensors()
        (self._input,) = interpreter.get_input_details()
        self._logits = next(output for output in interpreter.get_output_details() if len(output["shape"]) == 2)
        self._interpreter = interpreter
        super().__init__(model, self._input["shape"][1])

    def convert(self, values: NDArray[np.float32]) -> NDArray[np.int8]:
        return quantize(values, *self._input["quantization"])

    def invoke(self, values: NDArray[Any]) -> NDArray[np.float32]:
        self._interpreter.set_tensor(self._input["index"], values)
        self._interpreter.invoke()
        return dequantize(self._interpreter.get_tensor(self._logits["index"])[0], *self._logits["quantization"])


def quantize(values: NDArray[np.float32], scale: float, zero_point: int) -> NDArray[np.int8]:
    return (values / scale + zero_point).round().clip(-128, 127).astype(np.int8)


def dequantize(levels: NDArray[np.int8], scale: float, zero_point: int) -> NDArray[np.float32]:
    return (levels.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
