"""Who takes part in the contest: handlers of benchmarks/peers, each in a process of its own."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.models import Models

PEERS = Path(__file__).parent / "peers"

KERAS, FP32 = "Keras, fp32", "ONNX Runtime, fp32"
ONNX_INT8, ONNX_INT8_REDUCED = "ONNX Runtime, int8", "ONNX Runtime, int8, reduce_range"
TFLITE_RUNTIME, OPENVINO = "tflite-runtime, int8", "OpenVINO, int8"
LITERT, LITELENS_OPENVINO = "litelens with LiteRT", "litelens with OpenVINO"


class ContestError(Exception):
    """A contestant could not go on; the message has its last words."""


@dataclass(frozen=True)
class Contestant:
    """A handler of `peers`, the property of Models that it reads, and where it runs."""

    name: str
    module: str
    model: str
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)


# Those that run in this environment.
FIELD = (
    Contestant(KERAS, "by_keras", "keras"),
    Contestant(FP32, "by_onnxruntime", "onnx"),
    Contestant(ONNX_INT8, "by_onnxruntime", "onnx_int8"),
    Contestant(ONNX_INT8_REDUCED, "by_onnxruntime", "onnx_int8_reduced"),
    Contestant(OPENVINO, "by_openvino", "tflite"),
    Contestant(LITERT, "by_litelens", "bundle", environment={"LITELENS_ENGINE": "litert"}),
    Contestant(LITELENS_OPENVINO, "by_litelens", "bundle", environment={"LITELENS_ENGINE": "openvino"}),
)


def contestants(cache: Path) -> tuple[list[Contestant], list[str]]:
    """Who takes part here, and why others do not."""
    try:
        python = _tflite_runtime_python(cache / "tflite-runtime")
    except ContestError as error:
        return list(FIELD), [str(error)]
    return [Contestant(TFLITE_RUNTIME, "by_tflite_runtime", "tflite", python), *FIELD], []


class Worker:
    """A contestant's process, once it has loaded; `started` has the milliseconds of its import and its load."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", errors: IO[str]) -> None:
        assert process.stdin
        assert process.stdout
        self._name, self._errors = name, errors
        self._questions, self._answers = process.stdin, process.stdout
        self.started: dict[str, float] = self._read()

    def handle(self, event: Mapping[str, Any], times: int) -> tuple[list[float], str]:
        """The milliseconds of each time, and the best label."""
        answer = self._ask({"handle": event, "times": times})
        return answer["milliseconds"], answer["label"]

    def invoke(self, photo: bytes, times: int) -> list[float]:
        """The milliseconds of each time."""
        command = {"invoke": base64.b64encode(photo).decode(), "times": times}
        milliseconds: list[float] = self._ask(command)["milliseconds"]
        return milliseconds

    def peak_megabytes(self) -> float | None:
        megabytes: float | None = self._ask({"memory": True})["megabytes"]
        return megabytes

    def _ask(self, command: Mapping[str, Any]) -> Any:
        print(json.dumps(command), file=self._questions, flush=True)
        return self._read()

    def _read(self) -> Any:
        line = self._answers.readline()
        if not line:
            self._errors.seek(0)
            raise ContestError(f"{self._name} ended: {self._errors.read().strip()[-500:]}")
        return json.loads(line)


@contextmanager
def working(contestant: Contestant, made: Models, threads: int, *, pinned: bool) -> Iterator[Worker]:
    """The contestant's process, which ends with the block; with `pinned` it has no more cores than threads."""
    model: Path = getattr(made, contestant.model)
    command = [contestant.python, str(PEERS / "worker.py"), contestant.module, str(model), str(threads)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **contestant.environment}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [*command, "--pin"] if pinned else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
        ) as process,
    ):
        try:
            yield Worker(contestant.name, process, errors)
        finally:
            process.kill()


def _tflite_runtime_python(folder: Path) -> str:
    """The Python of an environment with tflite-runtime, made the first time; raises ContestError."""
    python = folder / "bin" / "python"
    if sys.version_info >= (3, 12):
        raise ContestError("tflite-runtime is left out: its last release is for Python 3.11 at most.")
    ready = folder / ".ready"
    if not ready.is_file():
        print("Installing tflite-runtime into an environment of its own, once ...", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        options = ["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--quiet"]
        requirements = PEERS / "requirements-tflite-runtime.txt"
        done = subprocess.run(
            [python, "-m", "pip", "install", *options, "--requirement", requirements], capture_output=True, text=True
        )
        if done.returncode:
            raise ContestError(f"tflite-runtime is left out: pip could not install it: {done.stderr.strip()[-300:]}")
        ready.touch()
    return str(python)
