"""Write measured results: benchmarks/results.json for programs, benchmarks/results.md for readers."""

import importlib.metadata
import itertools
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_PACKAGES = ("ai-edge-litert", "keras", "numpy", "onnxruntime", "openvino", "pillow", "tensorflow")

# The instruction sets that decide how fast a CPU multiplies matrices, by their names in /proc/cpuinfo.
_X86_SETS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
_INSTRUCTION_SETS = (*_X86_SETS, "asimddp", "i8mm", "bf16")


@dataclass(frozen=True)
class Options:
    """Options of a run: the number of rounds, a folder of datasets (None without one) and a folder for cached files."""

    rounds: int
    data: Path | None
    cache: Path


class BenchmarkError(Exception):
    """A part cannot be measured to its end; the message says why."""


def _replace(earlier: Any, measured: Any) -> Any:
    return measured


@dataclass(frozen=True)
class Part:
    """One benchmark. `measure` returns JSON values; `render` turns the results of all parts into Markdown.

    `missing` returns an instruction to install what the benchmark needs, or an empty string; `left_out` returns
    instructions for what it can do without. `uses_bundle` says whether it measures the bundle that BUNDLE names.
    `merge` combines its earlier results (None if there are none) with new ones.
    """

    name: str
    measure: Callable[[Options], Any]
    render: Callable[[Mapping[str, Any]], str]
    missing: Callable[[], str] = str
    left_out: Callable[[], Sequence[str]] = tuple
    uses_bundle: bool = False
    merge: Callable[[Any, Any], Any] = _replace


def about() -> dict[str, Any]:
    """Describe this machine and the installed packages."""
    cpu = _cpu()
    flags = cpu.get("flags", cpu.get("Features", "")).split()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu.get("model name") or platform.processor() or "unknown CPU",
        "cores": os.cpu_count(),
        "flags": [name for name in _INSTRUCTION_SETS if name in flags],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def instruction_class(about: Mapping[str, Any]) -> str:
    """Return the class of instructions for int8 products that this machine has: AMX, VNNI, AVX2, Arm or other."""
    flags = set(about["flags"])
    if "amx_int8" in flags:
        return "AMX"
    if flags & {"avx512_vnni", "avx_vnni"}:
        return "VNNI"
    return "AVX2" if "avx2" in flags else "Arm" if "asimddp" in flags else "other"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, str]:
    """Read the first core's entry in /proc/cpuinfo; empty on systems without that file."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first, _, _ = path.read_text().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def read_results(path: Path) -> dict[str, Any]:
    """Read earlier results: the values of each part, and under `about` the machine of each part."""
    if not path.is_file():
        return {"about": {}}
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def write_results(results: Mapping[str, Any], parts: Sequence[Part], folder: Path) -> None:
    """Write results.json and results.md, in a folder that is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "results.md").write_text(render(results, parts))


_INTRODUCTION = (
    "`make bench` writes this page and the same values to `results.json`. Times are medians, with the minimum and the "
    "maximum in brackets. They hold for the machine named at the end of this page; the ratios carry over to other "
    "machines better than the times do. There is no limit of the hardware to compare with: CPUs with the same "
    "instructions differ in how many int8 products they compute per cycle, and virtual machines hide their clock."
)


def render(results: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """Render all measured parts as Markdown."""
    measured = [part for part in parts if part.name in results]
    sections = [part.render(results).strip() for part in measured]
    return "\n\n".join(["# Benchmark results", _INTRODUCTION, *sections, _machines(results["about"], measured)]) + "\n"


def _machines(about: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """List the machines; parts measured on the same one share a line."""
    names: dict[str, list[str]] = {}
    for part in parts:
        names.setdefault(_machine(about[part.name]), []).append(part.name)
    return "\n".join(["## Machine", "", *(f"- {', '.join(parts)}: {machine}" for machine, parts in names.items())])


def _machine(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['date']}, {about['cpu']}, {about['cores']} cores ({instruction_sets(about)}), {about['system']}, "
        f"Python {about['python']}, {versions}"
    )


def instruction_sets(about: Mapping[str, Any]) -> str:
    return ", ".join(about["flags"]) or "instruction sets unknown"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def spread(rounds: Iterable[Iterable[float]]) -> dict[str, float]:
    """Return the median, minimum and maximum of the values of all rounds."""
    values = list(itertools.chain.from_iterable(rounds))
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(rounds: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> float:
    """Return the median over the rounds of the ratio of the two medians of a round."""
    return statistics.median(
        statistics.median(own) / statistics.median(other) for own, other in zip(rounds, reference, strict=True)
    )


def in_brackets(value: Mapping[str, float]) -> str:
    """Format a spread: the median, with the minimum and the maximum in brackets."""
    return f"{short(value['median'])} ({short(value['min'])} to {short(value['max'])})"


def short(number: float) -> str:
    """Format a number with three digits, or as a whole number."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.1%}"
