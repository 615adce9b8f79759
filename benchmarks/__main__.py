"""Run the benchmarks and write benchmarks/results.md and results.json.

What a part needs is checked before anything is measured; a part that lacks something is left out. LITELENS_DATA names a
folder with photos of cats and dogs; without it, top-1 accuracy and learning are not measured. With another bundle than
the default one (BUNDLE of make), only the parts that measure a bundle run, and the results go to build/bench/results.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import bulk, comparison, container, fit, learn, photos, report, usage
from benchmarks.photos import BUNDLE, ROOT
from benchmarks.report import BenchmarkError, Options, Part
from litelens.core.bundle import load_bundle
from litelens.core.errors import BundleError

FOLDER = photos.RESULTS

# In the order of the page. A part that is not measured keeps its earlier results.
PARTS = (
    Part("peers", comparison.measure, comparison.render, comparison.missing, comparison.left_out),
    Part(
        "bundle",
        comparison.measure_bundle,
        comparison.render_bundle,
        comparison.missing,
        uses_bundle=True,
        merge=comparison.merge_bundles,
    ),
    Part("container", container.measure, container.render, container.missing, uses_bundle=True),
    Part("bulk", bulk.measure_part, bulk.render, uses_bundle=True),
    Part("usage", usage.measure_part, usage.render, uses_bundle=True),
    Part("fit", fit.measure, fit.render, fit.missing),
    Part("learn", learn.measure, learn.render, learn.missing),
)


def main(arguments: list[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    options = Options(given.rounds, _data(), ROOT / "build" / "bench")
    parts = _measurable(_chosen(given.only))
    results, failures = report.read_results(FOLDER / "results.json"), []
    for part in parts:
        started = time.monotonic()
        try:
            measured = part.measure(options)
        except BenchmarkError as error:
            failures.append(f"{part.name} failed: {error}")
            print(failures[-1], file=sys.stderr)
            continue
        results[part.name] = part.merge(results.get(part.name), measured)
        results["about"][part.name] = report.about()
        if not given.json:
            report.write_results(results, PARTS, FOLDER)
        print(f"Measured {part.name} in {time.monotonic() - started:.0f} seconds.", file=sys.stderr)
    print(json.dumps(results, indent=1) if given.json else report.render(results, PARTS))
    if failures:
        sys.exit("\n".join(failures))


def _chosen(only: Sequence[str] | None) -> list[Part]:
    """Return the parts to run: those that are named, or all, or with a bundle of your own those that measure it."""
    if only:
        return [part for part in PARTS if part.name in only]
    return [part for part in PARTS if part.uses_bundle or photos.IS_DEFAULT_BUNDLE]


def _measurable(parts: Sequence[Part]) -> list[Part]:
    """Return the parts that lack nothing, after saying all that others lack; ends the program if none is left."""
    if any(part.uses_bundle for part in parts):
        try:
            load_bundle(BUNDLE)
        except BundleError as error:
            sys.exit(f"The bundle cannot be measured: {error}")
    missing = {part.name: part.missing() for part in parts}
    lacking = list(dict.fromkeys(text for text in missing.values() if text))
    found = [part for part in parts if not missing[part.name]]
    if not found:
        sys.exit("\n".join(lacking))
    for text in [*lacking, *(text for part in found for text in part.left_out())]:
        print(text, file=sys.stderr)
    print(f"Measuring {', '.join(part.name for part in found)}.", file=sys.stderr)
    return found


def _data() -> Path | None:
    folder = os.environ.get("LITELENS_DATA")
    if folder and not Path(folder).is_dir():
        sys.exit(f"LITELENS_DATA names {folder}, which is not a folder; set it to a folder with images, or unset it.")
    return Path(folder) if folder else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="measure only these parts")
    parser.add_argument("--rounds", type=int, default=4, help="number of rounds (default: 4)")
    parser.add_argument("--json", action="store_true", help="print JSON and write no files")
    return parser


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped. Finished parts are written; measure the others with --only.")
