"""Prepare an untrusted .tflite file and run it for the first time, in a process of its own with limits.

The file is parsed in that process too, because a damaged flatbuffer can make a parser use any amount of memory. If the
process crashes, is killed or takes too long, the file is refused.
"""

import contextlib
import multiprocessing
import os
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from litelens.core.bundle import Output, Tensor
from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.formats import MAX_BYTES
from litelens_client.importing.graph import Graph, examine, parse
from litelens_client.importing.metadata import NAME, Metadata, read_metadata
from litelens_client.learning.tflite import empty_unused_buffers, name_tensors, write_model

MAX_SECONDS = 120
MAX_MEMORY = 2_000_000_000
_MAX_ANSWER = 10_000_000
_GRACE_SECONDS = 5

# Ranges of inputs for a float model.
_RANGES = ((-1.0, 1.0), (0.0, 1.0))
_SAMPLES = 3
# Probabilities add up to 1, but for the rounding of integers.
_FLOAT_ERROR, _INTEGER_ERROR = 0.001, 0.05
_MAX_RUNS = 10
_MAX_RUN_SECONDS = 2.0


class Tried(Struct, frozen=True):
    """A model that ran: its graph, its metadata, what its output has, and the milliseconds of an inference.

    `output` is that of labels that exclude each other. `is_share` says whether all scores that were seen are from 0 to
    1, as probabilities are. The time is the median with one thread.
    """

    graph: Graph
    metadata: Metadata
    output: Output
    is_share: bool
    milliseconds: float


class _Answer(Struct, frozen=True):
    """The process's answer: one of the two."""

    tried: Tried | None = None
    refused: str | None = None


def try_model(source: Path, target: Path) -> Tried:
    """Write the model in the file `source` to `target`, with the tensors' names that bundles need, and run it.

    Raises ImportRefused if it is damaged, is not a photo classifier, or needs more than MAX_SECONDS or MAX_MEMORY.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(source, target, sender), daemon=True)
    process.start()
    sender.close()
    try:
        answer = _receive(receiver)
        process.join(_GRACE_SECONDS)
    finally:
        process.kill()
        process.join()
    if answer is None:
        raise ImportRefused(_explain_exit(process.exitcode))
    if answer.refused is not None:
        raise ImportRefused(answer.refused)
    if answer.tried is None:
        raise ImportRefused("the process that tried the model gave no answer")
    return answer.tried


def _receive(receiver: Connection) -> _Answer | None:
    """Return the answer; None if the process ended or was too slow."""
    with contextlib.suppress(EOFError, OSError, msgspec.MsgspecError):
        if receiver.poll(MAX_SECONDS):
            return msgspec.json.decode(receiver.recv_bytes(_MAX_ANSWER), type=_Answer)
    return None


def _explain_exit(code: int | None) -> str:
    limits = f"{MAX_MEMORY / 1e9:.0f} GB of memory and {MAX_SECONDS} seconds"
    if code is not None and code < 0:
        return (
            f"the model cannot be run: the process that tried it was ended by signal {-code}; the file is damaged, or "
            f"needs more than {limits}"
        )
    return f"the model cannot be run within {limits}"


def _run(source: Path, target: Path, sender: Connection) -> None:
    """Try the model; this is the other process."""
    _limit()
    try:
        answer = _Answer(tried=_try(source, target))
    except ImportRefused as error:
        answer = _Answer(refused=str(error))
    except MemoryError:
        answer = _Answer(refused=f"the model needs more than {MAX_MEMORY / 1e9:.0f} GB of memory")
    # LiteRT raises ValueError and RuntimeError, and a damaged graph fails anywhere.
    except Exception as error:
        answer = _Answer(refused=f"LiteRT cannot run the model: {_first_line(error)}")
    sender.send_bytes(msgspec.json.encode(answer))
    sender.close()


def _first_line(error: Exception) -> str:
    """Return the first line of an error; LiteRT's have no text if memory ran out."""
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else f"perhaps it needs more than {MAX_MEMORY / 1e9:.0f} GB of memory"


def _limit() -> None:
    """Limit the process's memory, time and files, where the system can, and hide what libraries print."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    if sys.platform == "win32":
        return
    import resource

    # RLIMIT_DATA, because LiteRT maps files, which RLIMIT_AS would count.
    limits = {
        resource.RLIMIT_DATA: MAX_MEMORY,
        resource.RLIMIT_CPU: MAX_SECONDS,
        resource.RLIMIT_FSIZE: 2 * MAX_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _try(source: Path, target: Path) -> Tried:
    content = source.read_bytes()
    parsed = parse(content)
    graph = examine(parsed)
    metadata = _take_metadata(parsed, content)
    name_tensors(parsed)
    empty_unused_buffers(parsed)
    target.write_bytes(write_model(parsed))
    del parsed
    scores, milliseconds = _measure(target, graph)
    is_share = bool((scores >= 0).all() and (scores <= 1 + _FLOAT_ERROR).all())
    error = _FLOAT_ERROR if graph.logits.is_float else _INTEGER_ERROR
    adds_up = is_share and scores.shape[1] > 1 and bool((np.abs(scores.sum(axis=1) - 1) <= error).all())
    output: Output = "probabilities" if graph.ends_in or adds_up else "logits"
    return Tried(graph, metadata, output, is_share, milliseconds)


def _take_metadata(parsed: Any, content: bytes) -> Metadata:
    """Return the metadata, and remove them: they name files behind the model, which are not copied."""
    entries = parsed.metadata or []
    found = [parsed.buffers[entry.buffer].data for entry in entries if entry.name == NAME]
    parsed.metadata = [entry for entry in entries if entry.name != NAME]
    return read_metadata(bytes(found[0]), content) if found and found[0] is not None else Metadata()


def _measure(model: Path, graph: Graph) -> tuple[NDArray[np.float32], float]:
    """Run the model on random inputs; return its scores, `(inputs, classes)`, and the time of an inference."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=1)
    interpreter.allocate_tensors()
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(values: NDArray[Any]) -> NDArray[np.float32]:
        interpreter.set_tensor(image["index"], values)
        interpreter.invoke()
        found = interpreter.get_tensor(logits["index"])
        if found.shape != graph.logits.shape:
            raise ImportRefused(
                f"the model's output has the shape {tuple(found.shape)}, but its file says {graph.logits.shape}"
            )
        scores: NDArray[np.float32] = graph.logits.dequantize(found)[0]
        return scores

    inputs = _inputs(graph.image)
    scores = np.stack([run(values) for values in inputs])
    if not np.isfinite(scores).all():
        raise ImportRefused("the model's scores are not finite numbers; it is damaged, or was trained without success")
    times: list[float] = []
    while len(times) < _MAX_RUNS and sum(times) < _MAX_RUN_SECONDS:
        started = time.perf_counter()
        run(inputs[0])
        times.append(time.perf_counter() - started)
    return scores, round(statistics.median(times) * 1000, 3)


def _inputs(image: Tensor) -> list[NDArray[Any]]:
    """Return random inputs of the model's type and shape."""
    random = np.random.default_rng(1)
    if not image.is_float:
        limits = np.iinfo(image.dtype)
        return [random.integers(limits.min, limits.max, image.shape, image.dtype, True) for _ in range(_SAMPLES)]
    return [random.uniform(*limits, image.shape).astype(np.float32) for limits in _RANGES for _ in range(_SAMPLES)]
