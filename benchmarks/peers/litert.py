"""LiteRT without litelens: a minimal handler for a bundle."""

import json
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from benchmarks.peers.base import TFLiteHandler


class Handler(TFLiteHandler):
    """Runs the int8 model of a bundle. `model` is the bundle's folder, beside labels.txt.

    The first channel's mean and standard deviation apply to all channels.
    """

    def __init__(self, model: Path, threads: int) -> None:
        steps = json.loads((model / "manifest.json").read_text())["preprocessing"]
        self.crop, self.mean, self.std = steps["crop"], steps["mean"][0] * 255, steps["std"][0] * 255
        super().__init__(Interpreter(str(model / "model.tflite"), num_threads=threads), model)
