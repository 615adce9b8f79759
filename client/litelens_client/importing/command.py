"""`litelens import`: make a bundle of a classifier that was made elsewhere."""

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from litelens.core.bundle import REPORT
from litelens.core.errors import LitelensError
from litelens_client.importing.bundle import Imported, Request, check_target, import_model
from litelens_client.importing.expectations import Given
from litelens_client.importing.formats import TensorFlowModel, find_tensorflow_model, require_tflite
from litelens_client.importing.lines import classes_row, input_row, input_type, next_steps, row
from litelens_client.importing.tensorflow_models import answer as tensorflow_answer
from litelens_client.importing.tensorflow_models import can_convert, import_tensorflow_model
from litelens_client.importing.tensorflow_models import summary as tensorflow_summary
from litelens_client.learning.errors import TrainingError
from litelens_client.learning.learn import check_name
from litelens_client.learning.metrics import chance_warnings, wilson_interval
from litelens_client.learning.report import is_multi_label
from litelens_client.output import printable, write_output
from litelens_client.quantizing.imported import Quantized, require_quantizer
from litelens_client.settings import models_folder

_SHOWN_FILES = 5

# If a measurement has fewer photos, the summary warns that its figures are not reliable.
_FEW = 50


def run(arguments: Namespace) -> int:
    """Run the command and return its exit code; ends the process if the model cannot be imported."""
    target = models_folder() / arguments.name
    given = Given(arguments.mean, arguments.std, arguments.crop, arguments.interpolation)
    request = Request(
        arguments.model,
        arguments.labels,
        given,
        arguments.data,
        arguments.quantize,
        arguments.multi_label,
        arguments.scores,
    )
    try:
        check_name(arguments.name)
        if (model := find_tensorflow_model(arguments.model)) and can_convert():
            return _print(_import_with_tensorflow(model, arguments, target))
        require_tflite(arguments.model, arguments.name)
        if arguments.quantize:
            require_quantizer()
        check_target(target)
        imported = import_model(request, target, _command(arguments))
    except (LitelensError, TrainingError) as error:
        sys.exit(printable(_sentence(str(error), arguments.model)))
    except OSError as error:
        sys.exit(printable(f"{error.filename or target}: {error.strerror or error}"))
    return _print(
        [json.dumps(_answer(imported, target))] if arguments.json else summary(imported, target, arguments.model)
    )


def _import_with_tensorflow(model: TensorFlowModel, arguments: Namespace, target: Path) -> list[str]:
    manifest = import_tensorflow_model(model, arguments)
    if arguments.json:
        return [json.dumps(tensorflow_answer(manifest, model, target))]
    return [*tensorflow_summary(manifest, model, target), *next_steps(target)]


def _print(lines: Iterable[str]) -> int:
    return 0 if write_output(f"{printable(line)}\n" for line in lines) else 1


def summary(imported: Imported, target: Path, model: Path) -> list[str]:
    """Return the lines that are printed: what the model is, what was assumed, what was measured, and what to do."""
    manifest = imported.manifest
    details, labels = manifest["imported"], manifest["labels"]
    exporter = f", exported by {details['exporter']}" if details["exporter"] else ""
    bits = manifest["quantization"]["weight_bits"]
    engines = "LiteRT only, because its weights have 8 bits" if bits == 8 else "LiteRT and OpenVINO"
    return [
        f"{model.name}: a photo classifier, {details['network']}{exporter}",
        input_row(manifest),
        classes_row(labels),
        *(row(each.subject, f"{each.value} ({each.source})") for each in imported.assumptions),
        row("Engines", engines),
        row("Time", f"{_milliseconds(imported):.1f} ms for an inference on this machine, with one thread"),
        *(_quantization(imported.quantized) if imported.quantized else ()),
        *_measurements(imported.document),
        "",
        f"{target} was written."
        + (f" Its report: {target / REPORT}" if imported.document else " It gives no heat maps and no embeddings."),
        *next_steps(target),
    ]


def _milliseconds(imported: Imported) -> float:
    """Return the time of an inference of the model in the bundle."""
    quantized = imported.quantized
    if quantized and quantized.after and quantized.is_used:
        return quantized.after.milliseconds
    return imported.tried.milliseconds


def _measurements(document: Mapping[str, Any] | None) -> list[str]:
    if document is None:
        return [row("Accuracy", "not measured; give --data FOLDER, with photos in class folders named like the labels")]
    metrics = document["metrics"]
    if is_multi_label(document):
        return _label_measurements(document)
    low, high = wilson_interval(metrics["int8_top1"], metrics["test_images"])
    lines = [
        row(
            "Accuracy",
            f"{metrics['int8_top1']:.1%} on {metrics['test_images']:,} photos (95% interval: {low:.1%} to {high:.1%})",
        ),
        row("Photos", document["split"]),
        row(
            "Uncertain",
            f"{1 - metrics['test_answered_share']:.1%} of these have a confidence below {metrics['threshold']:.2f} "
            f"(temperature {metrics['temperature']:.2f})",
        ),
    ]
    if metrics["test_images"] < _FEW:
        lines.append(row("Few photos", f"{metrics['test_images']} are too few to rely on these figures"))
    if document["duplicates"]:
        lines.append(row("Copies", f"{metrics['test_duplicates']:,} photos are copies of others and were left out"))
    skipped = document["skipped"]
    lines += [row("Unreadable", f"{each['file']}: {each['reason']}") for each in skipped["listed"][:_SHOWN_FILES]]
    return lines + [row("Warning", warning) for warning in chance_warnings(document)]


def _quantization(quantized: Quantized) -> list[str]:
    """Return the lines about the int8 model: size, time and agreement before and after."""
    before, after = quantized.before, quantized.after
    unreadable = [row("Unreadable", f"{each.file}: {each.reason}") for each in quantized.unreadable[:_SHOWN_FILES]]
    if quantized.rejected:
        return [row("Not int8", f"{quantized.rejected}. The float model is kept"), *unreadable]
    if after is None or quantized.agreement is None:
        return unreadable
    size = f"{after.bytes / 1e6:.1f} MB instead of {before.bytes / 1e6:.1f} MB"
    agreement = f"{quantized.agreement:.1%} of {quantized.compared:,} photos have the same best label as before"
    if before.top1 is not None and after.top1 is not None:
        agreement += f"; {after.top1:.1%} of them are correct, {before.top1:.1%} before"
    return [
        row("Int8", f"{size}, {after.milliseconds:.1f} ms instead of {before.milliseconds:.1f} ms"),
        row("Agreement", agreement),
        row("Calibrated", f"on {quantized.calibrated:,} photos"),
        *unreadable,
    ]


def _label_measurements(document: Mapping[str, Any]) -> list[str]:
    """Return the lines about labels that do not exclude each other."""
    metrics, skipped = document["metrics"], document["skipped"]
    lines = [
        row("Precision", f"{_share(metrics['mean_average_precision'])} mean average precision"),
        row("All right", f"all labels of {metrics['exact_match']:.1%} of {metrics['test_images']:,} photos"),
        row("Thresholds", f"one for each label, by its F1; mean F1 {_share(metrics['mean_f1'])}"),
        row("Photos", document["split"]),
        row("Uncertain", f"{1 - metrics['answered_share']:.1%} of these have no label above its threshold"),
    ]
    if metrics["test_images"] < _FEW:
        lines.append(row("Few photos", f"{metrics['test_images']} are too few to rely on these figures"))
    return lines + [row("Unreadable", f"{each['file']}: {each['reason']}") for each in skipped["listed"][:_SHOWN_FILES]]


def _share(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"


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
        "input": {"width": spec["width"], "height": spec["height"], "dtype": input_type(manifest)},
        "labels": manifest["labels"],
        "output": manifest["output"],
        "assumptions": [msgspec.to_builtins(each) for each in imported.assumptions],
        "inference_ms": _milliseconds(imported),
        "temperature": manifest["temperature"],
        **{name: manifest[name] for name in ("threshold", "thresholds") if name in manifest},
        "metrics": imported.document["metrics"] if imported.document else None,
        "quantized": msgspec.to_builtins(imported.quantized),
        "next": f"make run BUNDLE={target}",
    }


def _sentence(message: str, model: Path) -> str:
    """Return the message with the file's name in front, unless it has it."""
    return message if str(model) in message else f"{model}: {message}"


def _command(arguments: Namespace) -> str:
    """Return the command that repeats this run, with names instead of paths on this disk."""
    command = ["litelens", "import", arguments.model.name]
    for option in ("labels", "data", "quantize"):
        if path := getattr(arguments, option):
            command += [f"--{option}", path.resolve().name]
    for option in ("mean", "std"):
        if numbers := getattr(arguments, option):
            command += [f"--{option}", ",".join(f"{number:g}" for number in numbers)]
    for option in ("crop", "interpolation", "scores"):
        if (value := getattr(arguments, option)) is not None:
            command += [f"--{option}", f"{value}"]
    if arguments.multi_label is not None:
        command.append("--multi-label" if arguments.multi_label else "--no-multi-label")
    return printable(shlex.join([*command, "--name", arguments.name]))
