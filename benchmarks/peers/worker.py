"""One contestant, which does what lines on standard input ask, and answers in lines of JSON on standard output.

python benchmarks/peers/worker.py MODULE MODEL THREADS [--pin]

Its first line is how long importing and loading took. `{"handle": EVENT, "times": 3}` and `{"invoke": PHOTO,
"times": 3}`, the photo in base64, are answered by the milliseconds of each time, and the handler's best label;
`{"memory": true}` by the most megabytes that the process ever had. Runs in any environment: it imports nothing else.
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

CORES = getattr(os, "sched_getaffinity", lambda process: range(os.cpu_count() or 1))(0)


def main() -> None:
    module, model, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if "--pin" in sys.argv and hasattr(os, "sched_setaffinity"):
        # Libraries start threads beside those that they are asked for; a function's share of CPU bounds all of them.
        os.sched_setaffinity(0, sorted(CORES)[:threads])
    answers = os.fdopen(os.dup(1), "w")
    # Handlers log to standard output.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    importing = time.perf_counter()
    handlers = importlib.import_module(module)
    loading = time.perf_counter()
    handler = handlers.Handler(model, threads)
    started = {"import": _milliseconds(importing, loading), "load": _milliseconds(loading, time.perf_counter())}
    print(json.dumps(started), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(handler, json.loads(line))), file=answers, flush=True)


def _answer(handler: Any, asked: dict[str, Any]) -> dict[str, Any]:
    if "memory" in asked:
        return {"megabytes": _peak_megabytes()}
    if "invoke" in asked:
        values = handler.preprocess(base64.b64decode(asked["invoke"]))
        times, _ = _timed(lambda: handler.invoke(values), asked["times"])
        return {"milliseconds": times}
    times, answer = _timed(lambda: handler(asked["handle"], None), asked["times"])
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
    """None where there is no /proc to tell it. getrusage would count what the parent had before exec, too."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    (kilobytes,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return round(int(kilobytes) * 1024 / 1e6, 1)


if __name__ == "__main__":
    main()
