"""Measure training steps on CPUs: images per second with litelens, and with plain torch on the same network.

Each implementation runs in its own process, and all take turns. They need torch, which litelens does not depend on.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from benchmarks.report import Options, in_brackets, instruction_sets, ratio, spread, table

if TYPE_CHECKING:
    from benchmarks.fit_steps import LitelensStep, PlainStep

PRESET = "cifar100-cpu"
LITELENS, PLAIN, UNTUNED = "litelens", "plain torch", "plain torch, default malloc"
IMPLEMENTATIONS = (LITELENS, PLAIN, UNTUNED)

# Steps per turn, by the stride of the stem: a step with stride 1 takes three times as long.
_STEPS = {2: 6, 1: 3}

_INSTALL = ".venv-train/bin/python -m pip install torch==2.13.0"


def missing() -> str:
    """Return an instruction to install torch; empty if it is installed."""
    if importlib.util.find_spec("torch"):
        return ""
    return f"To measure training steps, install torch: {_INSTALL}"


def measure(options: Options) -> dict[str, Any]:
    """Measure each implementation with both strides of the stem."""
    load, rows = os.getloadavg()[0], []
    for stride, steps in _STEPS.items():
        rates: dict[str, list[list[float]]] = {name: [] for name in IMPLEMENTATIONS}
        with contextlib.ExitStack() as stack:
            processes = {
                name: stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
                for name in IMPLEMENTATIONS
            }
            facts = {
                name: process.submit(_prepare, name, stride, steps).result() for name, process in processes.items()
            }
            for number in range(options.rounds):
                print(f"Training, stride {stride}, round {number + 1} of {options.rounds} ...", file=sys.stderr)
                first = number % len(IMPLEMENTATIONS)
                for name in IMPLEMENTATIONS[first:] + IMPLEMENTATIONS[:first]:
                    rates[name].append(processes[name].submit(_train, name, stride, steps).result())
        rows += [
            {
                "stem_stride": stride,
                "implementation": name,
                "images_per_second": spread(rates[name]),
                "ratio": ratio(rates[name], rates[PLAIN]),
            }
            for name in IMPLEMENTATIONS
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
    """Render images per second as Markdown."""
    fit, about = results["fit"], results["about"]["fit"]
    rows = [
        [
            str(each["stem_stride"]),
            each["implementation"],
            in_brackets(each["images_per_second"]),
            f"{each['ratio']:.0%}",
        ]
        for each in fit["rows"]
    ]
    steps = " and ".join(f"{steps} steps with stride {stride}" for stride, steps in fit["steps"].items())
    return "\n\n".join(
        [
            "## Training step",
            f"Images per second in a training step of the preset `{fit['preset']}`, in batches of {fit['batch']}, with "
            f"{fit['precision']} on {about['cpu']}, {about['cores']} cores ({instruction_sets(about)}). litelens is "
            f"Keras on torch {fit['torch']} and reads real batches; plain torch (channels_last, autocast) has its "
            f"batch in memory. In the first two, glibc keeps freed memory. All take turns in their own processes: "
            f"{fit['rounds']} rounds of {steps}. The share is the median of all rounds. The load average before the "
            f"run was {fit['load']}; above 0.5, other processes slowed the run.",
            table(["stem's stride", "", "images/s", "share of plain torch"], rows),
        ]
    )


@functools.cache
def _step(name: str, stride: int, steps: int) -> "LitelensStep | PlainStep":
    os.environ["KERAS_BACKEND"] = "torch"
    # Keras reads the variable when it is imported.
    from benchmarks.fit_steps import LitelensStep, PlainStep

    return LitelensStep(PRESET, stride, steps) if name == LITELENS else PlainStep(PRESET, stride, tuned=name == PLAIN)


def _prepare(name: str, stride: int, steps: int) -> dict[str, Any]:
    """Build the step and run it once; return its batch size and precision."""
    with contextlib.redirect_stdout(sys.stderr):
        step = _step(name, stride, steps)
        step.rates(1)
        return {"batch": step.batch, "precision": step.precision}


def _train(name: str, stride: int, steps: int) -> list[float]:
    """Train for this many steps; return the images per second of each."""
    with contextlib.redirect_stdout(sys.stderr):
        return _step(name, stride, steps).rates(steps)
