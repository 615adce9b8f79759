"""Run the benchmarks and write benchmarks/results.md and results.json.

LITELENS_DATA names a folder with photos of cats and dogs; without it, top-1 accuracy and learning are not measured.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from benchmarks import bulk, comparison, container, fit, learn, report
from benchmarks.container import ContainerError
from benchmarks.peers.process import PeerError
from benchmarks.photos import ROOT
from benchmarks.report import Options, Part

FOLDER = Path(__file__).parent

# In the order of the page. A part that is not measured keeps its earlier results.
PARTS = (
    Part("peers", comparison.measure, comparison.render),
    Part("bundle", comparison.measure_bundle, comparison.render_bundle),
    Part("container", container.measure, container.render),
    Part("bulk", bulk.measure_part, bulk.render),
    Part("fit", fit.measure, fit.render, fit.missing),
    Part("learn", learn.measure, learn.render, learn.missing),
)


def main(arguments: list[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    options = Options(given.rounds, _data(), ROOT / "build" / "bench")
    results = report.read_results(FOLDER / "results.json")
    for part in PARTS:
        if given.only and part.name not in given.only:
            continue
        if missing := part.missing():
            if given.only:
                sys.exit(missing)
            print(missing, file=sys.stderr)
            continue
        started = time.monotonic()
        results[part.name] = part.measure(options)
        results["about"][part.name] = report.about()
        if not given.json:
            report.write_results(results, PARTS, FOLDER)
        print(f"Measured {part.name} in {time.monotonic() - started:.0f} seconds.", file=sys.stderr)
    print(json.dumps(results, indent=1) if given.json else report.render(results, PARTS))


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
    except (ContainerError, PeerError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped. Finished parts are written; measure the others with --only.")
