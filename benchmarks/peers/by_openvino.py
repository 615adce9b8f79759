"""OpenVINO behind API Gateway, for int8 .tflite models."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from PIL import Image

TOP = 5


class Handler:
    """`model` is an int8 .tflite file beside labels.txt and int8.json, the scales and zero points of its tensors."""

    def __init__(self, model: Path, threads: int) -> None:
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.Core().compile_model(model, "CPU", options)
        self._request = compiled.create_infer_request()
        self._logits = next(output for output in compiled.outputs if len(output.shape) == 2)
        self._quantization = json.loads(model.with_name("int8.json").read_text())
        self._labels = model.with_name("labels.txt").read_text().splitlines()
        self._side = compiled.input().shape[1]

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

    def preprocess(self, photo: bytes) -> NDArray[np.int8]:
        image = Image.open(BytesIO(photo)).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        size, box = (self._side, self._side), (left, top, left + side, top + side)
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC, box), np.float32)
        scale, zero_point = self._quantization["image"]
        levels: NDArray[np.float32] = (pixels - 128) / 127.5 / scale + zero_point
        return levels.round().clip(-128, 127).astype(np.int8)[np.newaxis]

    def invoke(self, levels: NDArray[np.int8]) -> NDArray[np.float32]:
        self._request.infer([levels], share_inputs=True)
        scale, zero_point = self._quantization["logits"]
        logits: NDArray[np.float32] = self._request.get_tensor(self._logits).data[0].astype(np.float32)
        return (logits - np.float32(zero_point)) * np.float32(scale)
