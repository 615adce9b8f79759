"""Run one peer as a process that reads commands from standard input, one JSON line each, and answers in JSON lines.

python -m benchmarks.peers.worker MODULE MODEL THREADS [--pin]

The first line of output has the milliseconds of the import and of the load. The commands and their answers are

    {"handle": EVENT, "times": 3}   the milliseconds of each call, and the best label
    {"invoke": PHOTO, "times": 3}   the milliseconds of each run of the model; the photo is in base64
    {"memory": true}                the peak memory in megabytes

It imports only the standard library and the peer, so that it runs in any environment.
"""

import base64
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    module, model, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if "--pin" in sys.argv and hasattr(os, "sched_setaffinity"):
        # Some libraries start more threads than requested. In Lambda, the share of CPU limits all of them.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    answers = os.fdopen(os.dup(1), "w")
    # Handlers log to standard output.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    importing = time.perf_counter()
    peer = importlib.import_module(f"benchmarks.peers.{module}")
    loading = time.perf_counter()
    handler = peer.Handler(model, threads)
    started = {"import": _milliseconds(importing, loading), "load": _milliseconds(loading, time.perf_counter())}
    print(json.dumps(started), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(handler, json.loads(line))), file=answers, flush=True)


def _answer(handler: Any, command: dict[str, Any]) -> dict[str, Any]:
    if "memory" in command:
        return {"megabytes": _peak_megabytes()}
    if "invoke" in command:
        values = handler.preprocess(base64.b64decode(command["invoke"]))
        times, _ = _timed(lambda: handler.invoke(values), command["times"])
        return {"milliseconds": times}
    times, answer = _timed(lambda: handler(command["handle"], None), command["times"])
    return {"milliseconds": times, "label": json.loads(answer["body"])["predictions"][0]["label"]}


def _timed(call: Callable[[], Any], times: int) -> tuple[list[float], Any]:
    milliseconds, answer = [], None
    for _ in range(times):
        started = time.perf_counter()
        answer = call()
        milliseconds.append(_milliseconds(started, time.perf_counter()))
    return milliseconds, answer


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)


def _peak_megabytes() -> float | None:
    """Read the peak from /proc, None where there is none. getrusage would count the parent's memory before exec."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    (kilobytes,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return round(int(kilobytes) * 1024 / 1e6, 1)


if __name__ == "__main__":
    main()
