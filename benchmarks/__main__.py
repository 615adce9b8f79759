"""`python -m benchmarks`: measure everything, or some of it, and write benchmarks/results.md and results.json.

LITELENS_DATA names a folder with CIFAR-100 and photos of cats and dogs; without it no accuracy is measured.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from benchmarks import container, contest, contest_page, fit, parts, report
from benchmarks.container import ContainerError
from benchmarks.contestants import ContestError
from benchmarks.photos import ROOT
from benchmarks.report import Options, Part

FOLDER = Path(__file__).parent

# In the order of the page. A part that is not measured in a run stays as it was.
PARTS = (
    Part("contest", contest.measure, contest_page.render),
    Part("bundle", contest.measure_bundle, contest_page.render_bundle),
    Part("container", container.measure, container.render),
    Part("decoding", parts.measure_decoding, parts.render_decoding),
    Part("memory", parts.measure_memory, parts.render_memory),
    Part("bulk", parts.measure_bulk, parts.render_bulk),
    Part("fit", fit.measure, fit.render, fit.missing),
)


def main(arguments: list[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    options = Options(given.rounds, _data(), ROOT / "build" / "bench")
    results = report.read_results(FOLDER / "results.json")
    for part in PARTS:
        if not given.only or part.name in given.only:
            if lacking := part.missing():
                if given.only:
                    sys.exit(lacking)
                print(lacking, file=sys.stderr)
                continue
            started = time.monotonic()
            results[part.name] = part.measure(options)
            results["about"][part.name] = report.about()
            if not given.json:
                report.write_results(results, PARTS, FOLDER)
            print(f"Measured the {part.name} in {time.monotonic() - started:.0f} seconds.", file=sys.stderr)
    print(json.dumps(results, indent=1) if given.json else report.render(results, PARTS))


def _data() -> Path | None:
    folder = os.environ.get("LITELENS_DATA")
    if folder and not Path(folder).is_dir():
        sys.exit(f"LITELENS_DATA names {folder}, which is no folder; name one that has images, or none")
    return Path(folder) if folder else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="measure these parts alone")
    parser.add_argument("--rounds", type=int, default=4, help="how often contestants take turns (default: 4)")
    parser.add_argument("--json", action="store_true", help="print JSON, and write nothing")
    return parser


if __name__ == "__main__":
    try:
        main()
    except (ContainerError, ContestError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped. Parts that were measured are written down; --only measures the others.")
