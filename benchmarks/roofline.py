"""The least time that the network's products can take on this CPU, and how far each contestant is from it.

`python benchmarks/roofline.py` prints how many billions of float32 products a second a matrix product adds up.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import FP32, KERAS
from benchmarks.report import Options, cpu_flags, short, table

_SIDE, _REPETITIONS = 2048, 20

# What the libraries that NumPy may be built with read.
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Int8:
    """Instructions that add up products of int8, and how many times as many as FMA does of float32 in the same time."""

    flag: str
    factor: float
    reason: str


# The best first. Widths and ports of x86: https://uops.info/table.html. The three instructions without VNNI: Rodriguez
# et al. 2018, "Lower Numerical Precision Deep Learning Inference and Training", Intel.
_INT8 = (
    Int8("amx_int8", 32, "AMX adds up 16,384 products in 16 cycles, two AVX-512 FMAs 32 in one"),
    Int8("avx512_vnni", 4, "VPDPBUSD adds up four products where FMA adds one, at the same rate"),
    Int8("avx_vnni", 4, "VPDPBUSD adds up four products where FMA adds one, at the same rate"),
    Int8("avx512bw", 4 / 3, "64 products take VPMADDUBSW, VPMADDWD and VPADDD, the ports of three FMAs of 16"),
    Int8("avx2", 2, "32 products take VPMADDUBSW and VPMADDWD, the ports of two FMAs of 8; VPADDD finds another port"),
    Int8("i8mm", 8, "SMMLA adds up 32 products, FMLA 4"),
    Int8("asimddp", 4, "SDOT adds up 16 products, FMLA 4"),
)
_NONE = Int8("", 1, "no instruction for int8 is known to be faster than those for float32")


def measure(options: Options) -> dict[str, Any]:
    """Billions of float32 products added up a second, by the number of threads, and what int8 makes of that."""
    int8 = instructions(cpu_flags())
    threads = [count for count in (1, 2) if count <= (os.cpu_count() or 1)]
    return {
        "fp32_billions": {str(count): _fastest(count) for count in threads},
        "int8_factor": int8.factor,
        "int8_reason": int8.reason,
    }


def instructions(flags: Iterable[str]) -> Int8:
    """The best that a CPU with these flags has."""
    return next((int8 for int8 in _INT8 if int8.flag in flags), _NONE)


def least_milliseconds(multiply_adds: int, roofline: Mapping[str, Any], threads: int, *, int8: bool) -> float:
    """How long the products take if nothing else takes any time."""
    billions: float = roofline["fp32_billions"][str(threads)] * (roofline["int8_factor"] if int8 else 1)
    return multiply_adds / billions / 1e6


def render(results: Mapping[str, Any]) -> str:
    """The peak, and how many times the least time each contestant takes."""
    roofline, contest = results["roofline"], results.get("contest", {"timings": [], "networks": []})
    peaks = " and ".join(f"{short(peak)} with {count}" for count, peak in roofline["fp32_billions"].items())
    products = {network["side"]: network["multiply_adds"] for network in contest["networks"]}
    rows = [
        [
            str(timing["side"]),
            str(timing["threads"]),
            timing["contestant"],
            f"{short(least)} ms",
            f"{short(timing['invoke']['median'])} ms",
            f"{timing['invoke']['median'] / least:.1f}",
        ]
        for timing in contest["timings"]
        if (least := _least_of(timing, products, roofline))
    ]
    return "\n\n".join(
        [
            "## Roofline",
            f"In the fastest matrix product the CPU adds up this many billions of float32 products a second: {peaks} "
            f"threads. Of int8 it could be {roofline['int8_factor']:.2g} times as many: {roofline['int8_reason']}. If "
            "the network's products took all the time and memory none, an image would take the least time here.",
            table(["pixels", "threads", "", "least", "invoke", "times the least"], rows),
        ]
    )


def _least_of(timing: Mapping[str, Any], products: Mapping[int, int], roofline: Mapping[str, Any]) -> float | None:
    """None where the peak with so many threads is not known."""
    if str(timing["threads"]) not in roofline["fp32_billions"]:
        return None
    int8 = timing["contestant"] not in (KERAS, FP32)
    return least_milliseconds(products[timing["side"]], roofline, timing["threads"], int8=int8)


def _fastest(threads: int) -> float:
    """The libraries read how many threads they may have when they are loaded, so that each count has a process."""
    environment = {**os.environ, **{name: str(threads) for name in _THREADS}}
    printed = subprocess.run([sys.executable, Path(__file__)], env=environment, check=True, capture_output=True)
    return float(printed.stdout)


def _billions_a_second() -> float:
    left, right = np.random.default_rng(1).random((2, _SIDE, _SIDE), dtype=np.float32)
    seconds = []
    for _ in range(_REPETITIONS):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return _SIDE**3 / min(seconds) / 1e9


if __name__ == "__main__":
    print(_billions_a_second())
