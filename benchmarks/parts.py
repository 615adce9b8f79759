"""Parts of `make bench` whose modules the tests use too: decoding, memory, and paths."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmarks import bulk, decoding, memory
from benchmarks.report import Options, milliseconds, short, table

# Of each path as the template sets it up, with photos of the usual size: the path, images in a batch, and threads.
_PATHS = (("bulk", 10, 10), ("backfill", 100, 10), ("api", 1, 1))
_USUAL_MEGAPIXELS, _AWS_SECONDS = 0.3, 0.02
_PATH_SECONDS, _PATH_REPETITIONS = 2.0, 3


def measure_decoding(options: Options) -> list[dict[str, Any]]:
    print("Decoding photos of all sizes ...", file=sys.stderr)
    return [asdict(measured) for measured in decoding.measure(repetitions=options.rounds)]


def render_decoding(results: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{each['width']}x{each['height']}",
            f"{each['file_bytes'] / 1e6:.2f} MB",
            _milliseconds(each["litelens"]),
            _milliseconds(each["plain"]),
            f"{each['ratio']:.2f}",
            f"{each['mean_difference']:.2f} ({each['largest_difference']})",
        ]
        for each in results["decoding"]
    ]
    return "\n\n".join(
        [
            "## Decoding",
            "From a JPEG's bytes to an input of 224 pixels, against Pillow's plain open, convert and resize; "
            "differences are in levels of 255, from the input that the same specification makes of all pixels.",
            table(["photo", "file", "litelens, ms", "plain, ms", "ratio", "difference, mean (most)"], rows),
        ]
    )


def measure_memory(options: Options) -> Any:
    return json.loads(json.dumps(asdict(memory.measure())))


def render_memory(results: Mapping[str, Any]) -> str:
    measured = results["memory"]
    named = {"a JPEG of 12 megapixels, 10 requests": measured["large"]} | {
        f"photos of all kinds, {int(requests):,} requests": after for requests, after in measured["after"].items()
    }
    rows = [[name, f"{each['resident']:.0f} MB", f"{each['peak']:.0f} MB"] for name, each in named.items()]
    return "\n\n".join(
        ["## Memory", "Of the process that answers, by LiteRT.", table(["served", "resident", "peak"], rows)]
    )


def measure_bulk(options: Options) -> list[dict[str, Any]]:
    """The least that costs are computed from; `benchmarks/bulk.py` alone measures more settings."""
    print("Measuring uploads, backfills and requests ...", file=sys.stderr)
    settings = [bulk.Setting(path, _USUAL_MEGAPIXELS, _AWS_SECONDS, batch, threads) for path, batch, threads in _PATHS]
    return [asdict(bulk.measure(setting, _PATH_SECONDS, _PATH_REPETITIONS)) for setting in settings]


def render_bulk(results: Mapping[str, Any]) -> str:
    rows = [
        [each["setting"]["path"], f"{short(each['median'])} ({short(each['least'])} to {short(each['most'])})"]
        for each in results["bulk"]
    ]
    return "\n\n".join(
        [
            "## Paths",
            f"Images a second that one core classifies, photos of {_USUAL_MEGAPIXELS} megapixels, by the bundled "
            f"model and LiteRT; each call of AWS takes {_AWS_SECONDS * 1000:.0f} ms. "
            "[docs/scale.md](../docs/scale.md) has more settings.",
            table(["path", "images/s"], rows),
        ]
    )


def _milliseconds(times: Mapping[str, float]) -> str:
    return milliseconds({"median": times["median"], "min": times["least"], "max": times["most"]})
