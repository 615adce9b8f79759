"""`litelens import`: make a bundle of a .tflite classifier that was made elsewhere."""

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from litelens.core.bundle import REPORT
from litelens.core.errors import BundleError
from litelens_client.importing.bundle import Imported, Request, check_target, import_model
from litelens_client.importing.expectations import Given
from litelens_client.importing.formats import require_tflite
from litelens_client.learning.errors import TrainingError
from litelens_client.learning.learn import check_name
from litelens_client.learning.metrics import chance_warnings, wilson_interval
from litelens_client.output import printable, write_output
from litelens_client.settings import models_folder

_SHOWN_LABELS = 5
_SHOWN_FILES = 5

# If a measurement has fewer photos, the summary warns that its figures are not reliable.
_FEW = 50


def run(arguments: Namespace) -> int:
    """Run the command and return its exit code; ends the process if the model cannot be imported."""
    target = models_folder() / arguments.name
    given = Given(arguments.mean, arguments.std, arguments.crop, arguments.interpolation)
    request = Request(arguments.model, arguments.labels, given, arguments.data)
    try:
        check_name(arguments.name)
        require_tflite(arguments.model, arguments.name)
        check_target(target)
        imported = import_model(request, target, _command(arguments))
    except (BundleError, TrainingError) as error:
        sys.exit(printable(_sentence(str(error), arguments.model)))
    except OSError as error:
        sys.exit(printable(f"{error.filename or target}: {error.strerror or error}"))
    lines = [json.dumps(_answer(imported, target))] if arguments.json else summary(imported, target, arguments.model)
    return 0 if write_output(f"{printable(line)}\n" for line in lines) else 1


def summary(imported: Imported, target: Path, model: Path) -> list[str]:
    """Return the lines that are printed: what the model is, what was assumed, what was measured, and what to do."""
    manifest, tried = imported.manifest, imported.tried
    details, labels = manifest["imported"], manifest["labels"]
    spec = manifest["preprocessing"]
    shown = ", ".join(labels[:_SHOWN_LABELS]) + (", ..." if len(labels) > _SHOWN_LABELS else "")
    exporter = f", exported by {details['exporter']}" if details["exporter"] else ""
    bits = manifest["quantization"]["weight_bits"]
    engines = "LiteRT only, because its weights have 8 bits" if bits == 8 else "LiteRT and OpenVINO"
    return [
        f"{model.name}: a photo classifier, {details['network']}{exporter}",
        _row("Input", f"{spec['width']}x{spec['height']} pixels, {tried.graph.image.dtype}"),
        _row("Classes", shown),
        *(_row(each.subject, f"{each.value} ({each.source})") for each in imported.assumptions),
        _row("Engines", engines),
        _row("Time", f"{tried.milliseconds:.1f} ms for an inference on this machine, with one thread"),
        *_measurements(imported.document, manifest),
        "",
        f"{target} was written."
        + (f" Its report: {target / REPORT}" if imported.document else " It gives no heat maps and no embeddings."),
        f"Try it:      litelens classify --model {target.name} photo.jpg",
        f"Serve it:    make run BUNDLE={target}  (or litelens serve --model {target.name})",
        f"Deploy it:   set Model={target.name} in samconfig.toml, then make deploy ENV=dev",
    ]


def _measurements(document: Mapping[str, Any] | None, manifest: Mapping[str, Any]) -> list[str]:
    if document is None:
        return [
            _row("Accuracy", "not measured; give --data FOLDER, with photos in class folders named like the labels"),
            _row("Uncertain", f"answers below {manifest['threshold']:.2f}, which is not calibrated"),
        ]
    metrics = document["metrics"]
    low, high = wilson_interval(metrics["int8_top1"], metrics["test_images"])
    lines = [
        _row(
            "Accuracy",
            f"{metrics['int8_top1']:.1%} on {metrics['test_images']:,} photos (95% interval: {low:.1%} to {high:.1%})",
        ),
        _row("Photos", document["split"]),
        _row(
            "Uncertain",
            f"{1 - metrics['test_answered_share']:.1%} of these have a confidence below {metrics['threshold']:.2f} "
            f"(temperature {metrics['temperature']:.2f})",
        ),
    ]
    if metrics["test_images"] < _FEW:
        lines.append(_row("Few photos", f"{metrics['test_images']} are too few to rely on these figures"))
    if document["duplicates"]:
        lines.append(_row("Copies", f"{metrics['test_duplicates']:,} photos are copies of others and were left out"))
    skipped = document["skipped"]
    lines += [_row("Unreadable", f"{row['file']}: {row['reason']}") for row in skipped["listed"][:_SHOWN_FILES]]
    return lines + [_row("Warning", warning) for warning in chance_warnings(document)]


def _row(title: str, text: str) -> str:
    return f"{title + ':':12} {text}"


def _answer(imported: Imported, target: Path) -> dict[str, Any]:
    """Return the JSON object that is printed."""
    manifest = imported.manifest
    spec = manifest["preprocessing"]
    return {
        "name": manifest["name"],
        "version": manifest["version"],
        "folder": str(target),
        "network": manifest["imported"]["network"],
        "exporter": manifest["imported"]["exporter"],
        "input": {"width": spec["width"], "height": spec["height"], "dtype": imported.tried.graph.image.dtype},
        "labels": manifest["labels"],
        "output": manifest["output"],
        "assumptions": [msgspec.to_builtins(each) for each in imported.assumptions],
        "inference_ms": imported.tried.milliseconds,
        "temperature": manifest["temperature"],
        "threshold": manifest["threshold"],
        "metrics": imported.document["metrics"] if imported.document else None,
        "next": f"make run BUNDLE={target}",
    }


def _sentence(message: str, model: Path) -> str:
    """Return the message with the file's name in front, unless it has it."""
    return message if str(model) in message else f"{model}: {message}"


def _command(arguments: Namespace) -> str:
    """Return the command that repeats this run, with names instead of paths on this disk."""
    command = ["litelens", "import", arguments.model.name]
    for option in ("labels", "data"):
        if path := getattr(arguments, option):
            command += [f"--{option}", path.resolve().name]
    for option in ("mean", "std"):
        if numbers := getattr(arguments, option):
            command += [f"--{option}", ",".join(f"{number:g}" for number in numbers)]
    for option in ("crop", "interpolation"):
        if (value := getattr(arguments, option)) is not None:
            command += [f"--{option}", f"{value}"]
    return printable(shlex.join([*command, "--name", arguments.name]))
