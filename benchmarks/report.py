"""Figures to keep: benchmarks/results.json, and the same to read, benchmarks/results.md."""

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

# Of what /proc/cpuinfo calls flags or Features, those that say how fast sums of products are.
_X86_FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
TELLING_FLAGS = (*_X86_FLAGS, "asimddp", "i8mm", "bf16")


@dataclass(frozen=True)
class Options:
    """What is asked of a benchmark: so many rounds, with the images of the folder `data` if there is one.

    What takes long to make is kept in the folder `cache`.
    """

    rounds: int
    data: Path | None
    cache: Path


@dataclass(frozen=True)
class Part:
    """A benchmark: `measure` gives JSON values, and `render` makes Markdown of all parts' values by name.

    The Markdown begins with a heading of the second level. `missing` returns an instruction to install what the
    measurement lacks, or an empty string.
    """

    name: str
    measure: Callable[[Options], Any]
    render: Callable[[Mapping[str, Any]], str]
    missing: Callable[[], str] = str


def about() -> dict[str, Any]:
    """Where and when something is measured."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in TELLING_FLAGS if flag in cpu_flags()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def cpu_flags() -> frozenset[str]:
    """What instructions the CPU says it has; nothing where there is no /proc/cpuinfo."""
    lines = _cpu_lines()
    return frozenset(lines.get("flags", lines.get("Features", "")).split())


def read_results(path: Path) -> dict[str, Any]:
    """What was measured before: values by part, and `about`, where and when, by part."""
    if not path.is_file():
        return {"about": {}}
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def write_results(results: Mapping[str, Any], parts: Sequence[Part], folder: Path) -> None:
    """results.json and results.md."""
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "results.md").write_text(render(results, parts))


def render(results: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """All parts that were measured, as Markdown."""
    measured = [part for part in parts if part.name in results]
    sections = [part.render(results).strip() for part in measured]
    return "\n\n".join(["# Measured figures", _INTRODUCTION, *sections, _places(results["about"], measured)]) + "\n"


_INTRODUCTION = (
    "`make bench` measures these and writes them down; `results.json` has the same for programs. They hold for the "
    "machine that the end of this page names: ratios carry over to others, milliseconds do not. Times are medians, "
    "with the least and the most in brackets."
)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join([row(heads), row(["---"] * len(heads)), *map(row, rows)])


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def spread(rounds: Iterable[Iterable[float]]) -> dict[str, float]:
    """The median, the least and the most of all values."""
    values = list(itertools.chain.from_iterable(rounds))
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def milliseconds(value: Mapping[str, float]) -> str:
    """A spread in words."""
    return f"{short(value['median'])} ({short(value['min'])} to {short(value['max'])})"


def short(number: float) -> str:
    """Three digits, or the whole number."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"


def _places(about: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """Where and when; parts that were measured together are named together."""
    names: dict[str, list[str]] = {}
    for part in parts:
        names.setdefault(_place(about[part.name]), []).append(part.name)
    lines = [f"- {', '.join(named)}: {place}" for place, named in names.items()]
    return "\n".join(["## Where", "", *lines])


def _place(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    flags = ", ".join(about["flags"]) or "unknown"
    return (
        f"{about['date']}, {about['cpu']}, {about['cores']} cores (instructions: {flags}), {about['system']}, "
        f"Python {about['python']}, {versions}"
    )


def _cpu_name() -> str:
    lines = _cpu_lines()
    return lines.get("model name") or platform.processor() or "an unnamed CPU"


def _cpu_lines() -> dict[str, str]:
    """What the first core says of itself."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first, _, _ = path.read_text().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
