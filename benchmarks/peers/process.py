"""The peers to compare, and the processes that they run in."""

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.models import Models
from benchmarks.photos import ROOT
from benchmarks.report import BenchmarkError

KERAS, ONNX = "Keras, fp32", "ONNX Runtime, fp32"
ONNX_INT8, ONNX_INT8_REDUCED = "ONNX Runtime, int8", "ONNX Runtime, int8, reduce_range"
TFLITE_RUNTIME, OPENVINO = "tflite-runtime, int8", "OpenVINO, int8"
LITELENS_LITERT, LITELENS_OPENVINO = "litelens with LiteRT", "litelens with OpenVINO"
MINIMAL_LITERT = "minimal handler with LiteRT"


class PeerError(BenchmarkError):
    """The process of a peer ended; the message has its last output."""


@dataclass(frozen=True)
class Peer:
    """A module of benchmarks.peers, the property of Models that it loads, and the interpreter that runs it."""

    name: str
    module: str
    model: str
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)


# The peers that run in this environment.
PEERS = (
    Peer(KERAS, "keras", "keras"),
    Peer(ONNX, "onnxruntime", "onnx"),
    Peer(ONNX_INT8, "onnxruntime", "onnx_int8"),
    Peer(ONNX_INT8_REDUCED, "onnxruntime", "onnx_int8_reduced"),
    Peer(OPENVINO, "openvino", "tflite"),
    Peer(LITELENS_LITERT, "litelens", "bundle", environment={"LITELENS_ENGINE": "litert"}),
    Peer(LITELENS_OPENVINO, "litelens", "bundle", environment={"LITELENS_ENGINE": "openvino"}),
)

# Shows what litelens adds to the model's own time.
MINIMAL_PEER = Peer(MINIMAL_LITERT, "litert", "bundle")

# OpenVINO on a CPU with more instructions for int8 products, by the class that it is limited to. LiteRT has no such
# limit: https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
LIMITED_OPENVINO = {
    instructions: Peer(
        f"{LITELENS_OPENVINO}, limited to {instructions}",
        "litelens",
        "bundle",
        environment={"LITELENS_ENGINE": "openvino", "ONEDNN_MAX_CPU_ISA": limit},
    )
    for instructions, limit in (("VNNI", "AVX512_CORE_VNNI"), ("AVX2", "AVX2"))
}


def available_peers() -> tuple[list[Peer], list[str]]:
    """Return the peers that run on this machine, and the reasons why others do not."""
    python = os.environ.get("LITELENS_TFLITE_RUNTIME_PYTHON")
    if python:
        return [Peer(TFLITE_RUNTIME, "tflite_runtime", "tflite", python), *PEERS], []
    return list(PEERS), [
        "tflite-runtime is left out: set LITELENS_TFLITE_RUNTIME_PYTHON to the interpreter of a Python 3.11 "
        'environment with tflite-runtime==2.14.0, "numpy<2" and pillow.'
    ]


class PeerProcess:
    """A peer that has loaded its model; `started` has the milliseconds of its import and its load."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", errors: IO[str]) -> None:
        assert process.stdin
        assert process.stdout
        self._name, self._errors = name, errors
        self._commands, self._answers = process.stdin, process.stdout
        self.started: dict[str, float] = self._read()

    def handle(self, event: Mapping[str, Any], times: int) -> tuple[list[float], str]:
        """Call the handler `times` times; return the milliseconds of each call, and the best label."""
        answer = self._send({"handle": event, "times": times})
        return answer["milliseconds"], answer["label"]

    def invoke(self, photo: bytes, times: int) -> list[float]:
        """Run the model alone `times` times; return the milliseconds of each run."""
        command = {"invoke": base64.b64encode(photo).decode(), "times": times}
        milliseconds: list[float] = self._send(command)["milliseconds"]
        return milliseconds

    def peak_megabytes(self) -> float | None:
        megabytes: float | None = self._send({"memory": True})["megabytes"]
        return megabytes

    def _send(self, command: Mapping[str, Any]) -> Any:
        print(json.dumps(command), file=self._commands, flush=True)
        return self._read()

    def _read(self) -> Any:
        line = self._answers.readline()
        if not line:
            self._errors.seek(0)
            raise PeerError(f"{self._name} ended: {self._errors.read().strip()[-500:]}")
        return json.loads(line)


@contextmanager
def running(peer: Peer, models: Models, threads: int, *, pinned: bool) -> Iterator[PeerProcess]:
    """Run a peer in its own process until the block ends, if `pinned` on no more cores than it has threads."""
    model: Path = getattr(models, peer.model)
    command = [peer.python, "-m", "benchmarks.peers.worker", peer.module, str(model), str(threads)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **peer.environment}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [*command, "--pin"] if pinned else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=ROOT,
            text=True,
        ) as process,
    ):
        try:
            yield PeerProcess(peer.name, process, errors)
        finally:
            process.kill()
