"""tflite-runtime, LiteRT's predecessor."""

from pathlib import Path

from tflite_runtime.interpreter import Interpreter

from benchmarks.peers.base import TFLiteHandler


class Handler(TFLiteHandler):
    """Runs an int8 .tflite file."""

    def __init__(self, model: Path, threads: int) -> None:
        super().__init__(Interpreter(str(model), num_threads=threads), model)
