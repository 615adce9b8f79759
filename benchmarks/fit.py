"""Measure training steps on CPUs: images a second with litelens, and with plain torch on the same network.

Both need torch, on which litelens does not depend. Each runs in its own process, and all take turns.
"""

import contextlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.contest import ratio
from benchmarks.report import Options, short, spread, table
from training.progress import progress

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PRESET = "cifar100-cpu"
LITELENS, PLAIN, UNTUNED = "litelens", "plain torch", "plain torch, default malloc"
CONTESTANTS = (LITELENS, PLAIN, UNTUNED)

# Steps per turn, by the stem's stride: a step with stride 1 takes three times as long.
_STEPS = {2: 6, 1: 3}

_INSTALL = ".venv-dev/bin/python -m pip install torch==2.13.0"


def missing() -> str:
    """An instruction to install torch; empty if it is installed."""
    if importlib.util.find_spec("torch"):
        return ""
    return f"To measure training steps, install torch: {_INSTALL}"


def measure(options: Options) -> dict[str, Any]:
    """Measure each contestant's images a second, with both strides of the stem."""
    load, rows = os.getloadavg()[0], []
    for stride, steps in _STEPS.items():
        rates: dict[str, list[list[float]]] = {name: [] for name in CONTESTANTS}
        with contextlib.ExitStack() as stack:
            started = {name: stack.enter_context(_running(name, stride, steps)) for name in CONTESTANTS}
            facts = {name: connection.recv() for name, connection in started.items()}
            rounds = range(options.rounds)
            for number in progress(rounds, len(rounds), f"Training with a stem of stride {stride}, rounds"):
                first = number % len(CONTESTANTS)
                for name in CONTESTANTS[first:] + CONTESTANTS[:first]:
                    started[name].send(steps)
                    rates[name].append(started[name].recv())
        rows += [
            {
                "stem_stride": stride,
                "contestant": name,
                "images_per_second": spread(rates[name]),
                "ratio": ratio(rates[name], rates[PLAIN]),
            }
            for name in CONTESTANTS
        ]
    return {
        "preset": PRESET,
        "rounds": options.rounds,
        "steps": {str(stride): steps for stride, steps in _STEPS.items()},
        "load": round(load, 1),
        **facts[LITELENS],
        "torch": importlib.metadata.version("torch"),
        "rows": rows,
    }


def render(results: Mapping[str, Any]) -> str:
    """Images a second as Markdown."""
    fit, about = results["fit"], results["about"]["fit"]
    rows = [
        [str(each["stem_stride"]), each["contestant"], _rate(each["images_per_second"]), f"{each['ratio']:.0%}"]
        for each in fit["rows"]
    ]
    steps = " and ".join(f"{steps} steps with stride {stride}" for stride, steps in fit["steps"].items())
    return "\n\n".join(
        [
            "## Training step",
            f"Images a second that a step of the preset `{fit['preset']}` trains on, in batches of {fit['batch']}: "
            f"litelens by Keras on torch {fit['torch']}, with real batches, and the same network in plain torch "
            f"(channels_last, autocast), whose batch is in memory. Each has a process of its own; all take turns, "
            f"{fit['rounds']} rounds of {steps}. glibc keeps freed memory in the first two. Arithmetic is in "
            f"{fit['precision']}. The CPU, {about['cpu']} with {about['cores']} cores, has of the instructions that "
            f"matter: {', '.join(about['flags']) or 'none that is known'}. The share of plain torch is the median of "
            f"all rounds. The load average before was {fit['load']}; above 0.5 others slowed all contestants.",
            table(["stem's stride", "", "images/s", "share of plain torch"], rows),
        ]
    )


def _rate(value: Mapping[str, float]) -> str:
    return f"{short(value['median'])} ({short(value['min'])} to {short(value['max'])})"


@contextlib.contextmanager
def _running(name: str, stride: int, steps: int) -> "Iterator[Connection[Any, Any]]":
    """Start a contestant's process; its connection sends facts, then the rates of each number of steps it gets."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(name, stride, steps, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def _work(name: str, stride: int, steps: int, connection: "Connection[Any, Any]") -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    with contextlib.redirect_stdout(sys.stderr):
        # Keras reads the variable when it is imported.
        from benchmarks.fit_contestants import LitelensStep, PlainStep

        step = (
            LitelensStep(PRESET, stride, steps) if name == LITELENS else PlainStep(PRESET, stride, tuned=name == PLAIN)
        )
        step.rates(1)
        connection.send({"batch": step.batch, "precision": step.precision})
        with contextlib.suppress(EOFError):
            while True:
                connection.send(step.rates(connection.recv()))
