"""`litelens export`: write a bundle as one .tflite file for phones, browsers and other programs."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from litelens.core.bundle import IMAGE, Bundle, load_bundle
from litelens.core.errors import LitelensError
from litelens_client.exporting.errors import ExportRefused
from litelens_client.exporting.graph import CONFIDENCES
from litelens_client.exporting.metadata import LABELS
from litelens_client.exporting.model import Exported, export_model
from litelens_client.importing.lines import row
from litelens_client.importing.metadata import FACTS
from litelens_client.learning.files import write_file
from litelens_client.output import printable, write_output
from litelens_client.settings import bundle_folder


def run(arguments: Namespace) -> int:
    """Run the command and return its exit code; ends the process if the model cannot be exported."""
    folder = bundle_folder(arguments.model)
    target = arguments.output or Path(f"{folder.resolve().name}.tflite")
    try:
        bundle = load_bundle(folder)
        _check_target(target, folder, force=arguments.force)
        exported = export_model(bundle)
    except (LitelensError, ExportRefused) as error:
        sys.exit(printable(str(error)))
    except OSError as error:
        sys.exit(printable(f"{error.filename or folder} cannot be read: {error.strerror or error}"))
    try:
        write_file(target, exported.content)
    except OSError as error:
        sys.exit(printable(f"{error.filename or target} cannot be written: {error.strerror or error}"))
    lines = [json.dumps(_answer(exported, bundle, target))] if arguments.json else _summary(exported, bundle, target)
    return 0 if write_output(f"{printable(line)}\n" for line in lines) else 1


def _check_target(target: Path, folder: Path, *, force: bool) -> None:
    """Raise ExportRefused if the file cannot be written, before time is spent on it."""
    if target.is_dir():
        raise ExportRefused(f"{target} is a folder; give --output FILE.tflite")
    if not target.parent.is_dir():
        raise ExportRefused(f"there is no folder {target.parent}; make it, or give another --output")
    if target.resolve().is_relative_to(folder.resolve()):
        raise ExportRefused(f"{target} is inside the bundle; give an --output outside of it")
    if target.exists() and not force:
        raise ExportRefused(f"{target} exists; give another --output, or --force to replace it")


def _summary(exported: Exported, bundle: Bundle, target: Path) -> list[str]:
    """Return the lines that are printed: what the file takes and gives, and what is not inside."""
    spec, normalization = bundle.preprocessing, exported.normalization
    values = f"(pixel - {normalization.mean:g}) / {normalization.std:g}, RGB, pixels from 0 to 255"
    part = "" if spec.crop == 1 else f", its sides times {spec.crop:g}"
    shape = "square" if spec.width == spec.height else "part with the input's aspect ratio"
    return [
        f"{target} was written: {len(exported.content) / 1e6:.1f} MB, {len(bundle.labels):,} labels inside.",
        row("Input", f"{IMAGE}, float32 (1, {spec.height}, {spec.width}, 3): {values}"),
        row("Crop", f"the largest centred {shape}{part}, resized with {spec.interpolation} interpolation"),
        row("Output", f"{CONFIDENCES}, float32 (1, {len(bundle.labels)}), with the temperature {bundle.temperature:g}"),
        row(
            "Compared",
            f"{exported.images} images give the confidences of {bundle.name} (largest difference: "
            f"{exported.difference:.0e})",
        ),
        row("Not inside", "; ".join(_not_inside(bundle))),
        "docs/export.md shows how to use it in Python, on Android and in browsers.",
    ]


def _not_inside(bundle: Bundle) -> list[str]:
    """Return what a program that runs the file must do itself, or cannot have."""
    missing = [
        "decoding, rotation and colour profiles of photos",
        f"the thresholds of the labels, which {FACTS} in the file has"
        if bundle.is_multi_label
        else f"the threshold {bundle.threshold:.2f} for uncertain answers, which {FACTS} in the file has",
    ]
    if bundle.groups:
        missing.append(f"the sums of groups, which {FACTS} has")
    if bundle.head:
        missing.append("heat maps and embeddings")
    if bundle.familiarity:
        missing.append("the check for unfamiliar photos")
    return missing


def _answer(exported: Exported, bundle: Bundle, target: Path) -> dict[str, Any]:
    """Return the JSON object that is printed."""
    spec, normalization = bundle.preprocessing, exported.normalization
    return {
        "file": str(target),
        "bytes": len(exported.content),
        "name": bundle.name,
        "version": bundle.version,
        "input": {
            "name": IMAGE,
            "width": spec.width,
            "height": spec.height,
            "dtype": "float32",
            "mean": normalization.mean,
            "std": normalization.std,
            "crop": spec.crop,
            "interpolation": spec.interpolation,
        },
        "output": {"name": CONFIDENCES, "classes": len(bundle.labels), "dtype": "float32"},
        "files": [LABELS, FACTS],
        "temperature": bundle.temperature,
        "compared_images": exported.images,
        "largest_difference": exported.difference,
        "not_inside": _not_inside(bundle),
    }
