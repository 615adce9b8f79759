"""The steps from images to a published bundle; each reads the files that earlier steps wrote to the run's folder."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litelens_client.learning.files import sha256, write_file, write_json
from litelens_client.learning.metrics import chance_warnings
from litelens_client.learning.report import render
from training.dataset import Dataset, Split, load_dataset
from training.documents import MAX_LISTED, full_description, metrics_document, precision
from training.errors import RunError
from training.evaluate import evaluate
from training.examples import choose_examples
from training.fit import fit
from training.head import read_head
from training.network import KERAS_FILE
from training.preset import Preset
from training.publish import publish
from training.quantize import is_float, quantize, require_export_backend, save_model
from training.run import (
    DataSummary,
    FitSummary,
    Metrics,
    Run,
    discard,
    load_fitted_network,
    open_run,
    parse_document,
    read_json,
    require,
    start_run,
)

_MAX_CHECKED = 1000


@dataclass(frozen=True)
class Options:
    """The options of the command line. `command` repeats the run."""

    preset: Preset
    data: Path | None
    calibration: Path | None
    folder: Path
    models: Path
    resume: bool
    examples: bool
    command: str


def run_all(options: Options) -> None:
    require_export_backend()
    run, dataset = _start(options)
    if options.preset.recipe.phases:
        _fit(run, dataset, resume=options.resume)
    _quantize(run, dataset)
    _evaluate(run, dataset, options.command)
    _report(run, dataset, examples=options.examples)
    run_publish(options)


def run_fit(options: Options) -> None:
    run, dataset = _start(options)
    if not options.preset.recipe.phases:
        print("There is nothing to fit: this preset has no phases.")
        return
    _fit(run, dataset, resume=options.resume)


def run_quantize(options: Options) -> None:
    # Without phases there is no step fit, so that this is the first step.
    _quantize(*(_continue(options) if options.preset.recipe.phases else _start(options)))


def run_evaluate(options: Options) -> None:
    require(open_run(options.folder, options.preset).model, step="quantize")
    run, dataset = _continue(options)
    _evaluate(run, dataset, options.command)


def run_report(options: Options) -> None:
    require(open_run(options.folder, options.preset).metrics, step="evaluate")
    run, dataset = _continue(options)
    _report(run, dataset, examples=options.examples)


def run_publish(options: Options) -> None:
    run = open_run(options.folder, options.preset)
    document = _read_metrics_document(run)
    require(run.report, step="report")
    metrics = _read_metrics(run, document)
    _check_same_description(run, document)
    bundle = publish(run, _read_fit_summary(run), metrics, document, options.models)
    _print_warnings(document)
    print(f"Published{' with a warning' if chance_warnings(document) else ''}: {bundle}")


STEPS: dict[str, Callable[[Options], None]] = {
    "all": run_all,
    "fit": run_fit,
    "quantize": run_quantize,
    "evaluate": run_evaluate,
    "report": run_report,
    "publish": run_publish,
}


def _start(options: Options) -> tuple[Run, Dataset]:
    dataset = _load_data(options)
    return start_run(options.folder, options.preset, _summarize(dataset)), dataset


def _continue(options: Options) -> tuple[Run, Dataset]:
    # Before the data are read, which takes long.
    open_run(options.folder, options.preset)
    dataset = _load_data(options)
    return open_run(options.folder, options.preset, _summarize(dataset)), dataset


def _summarize(dataset: Dataset) -> DataSummary:
    return DataSummary(dataset.labels, dataset.digest())


def _load_data(options: Options) -> Dataset:
    dataset = load_dataset(options.preset, options.data, options.calibration)
    sizes = (
        f"{len(dataset.train):,} training, {len(dataset.validation):,} validation, {len(dataset.test):,} test images"
    )
    print(f"Data: {len(dataset.labels)} classes; {sizes}.")
    if dataset.unreadable:
        print(f"{len(dataset.unreadable)} files cannot be read and are left out:")
        for file in dataset.unreadable[:MAX_LISTED]:
            print(f"  {file.file}: {file.reason}")
        if len(dataset.unreadable) > MAX_LISTED:
            print(f"  and {len(dataset.unreadable) - MAX_LISTED} more")
    untested = np.bincount(dataset.test.classes, minlength=len(dataset.labels)) == 0
    if dataset.labelled and untested.any() and options.preset.recipe.phases:
        names = ", ".join(f"'{dataset.labels[index]}'" for index in np.flatnonzero(untested)[:MAX_LISTED])
        print(f"There is no test image of {names}: the accuracy for these classes will be unknown.")
    return dataset


def _fit(run: Run, dataset: Dataset, *, resume: bool) -> None:
    if resume and run.fit_summary.exists() and run.weights.exists():
        print(f"Fitted already: {run.weights}")
        return
    summary = fit(run, dataset, resume=resume)
    print(f"Fitted: validation accuracy {summary.validation_accuracy:.2%}. Weights: {run.weights}")


def _quantize(run: Run, dataset: Dataset) -> None:
    quantization = run.preset.quantization
    require_export_backend()
    network = load_fitted_network(run)
    discard(run.model, run.head, run.candidates, run.metrics, run.report)
    seed, spec = run.preset.recipe.seed, run.preset.preprocessing
    calibration = _draw(dataset.calibration, max(quantization.calibration_images), seed)
    check = _draw(dataset.validation, _MAX_CHECKED, seed)
    candidates = quantization.candidates()
    print(f"Quantizing: {len(candidates)} candidates, measured on {len(check)} validation images ...", flush=True)
    model, scores = quantize(
        network,
        candidates,
        spec.normalize(calibration.images.pixels(range(len(calibration)))),
        check.images.pixels(range(len(check))),
        spec,
        check.classes if dataset.labelled else None,
    )
    write_json(run.candidates, {"candidates": [dataclasses.asdict(score) for score in scores]})
    save_model(run.folder, model, read_head(network))
    kind = "float32" if is_float(model) else "integer tensors only"
    print(f"Quantized: {len(model) / 1e6:.1f} MB, {kind}: {run.model}")


def _evaluate(run: Run, dataset: Dataset, command: str) -> None:
    print("Evaluating ...", flush=True)
    evaluation = evaluate(run, load_fitted_network(run), dataset)
    discard(run.report)
    candidates = read_json(require(run.candidates, step="quantize"))["candidates"]
    document = metrics_document(run, dataset, evaluation, _read_fit_summary(run), candidates, command)
    write_json(run.metrics, document)
    print(_summary(evaluation.metrics, precision(run.model.read_bytes())))
    _print_warnings(document)


def _report(run: Run, dataset: Dataset, *, examples: bool) -> None:
    document = _read_metrics_document(run)
    metrics = _read_metrics(run, document)
    chosen = choose_examples(run, metrics, dataset) if examples and dataset.labelled else ()
    write_file(run.report, render(document, chosen).encode())
    print(f"Report: {run.report}")


def _draw(split: Split, images: int, seed: int) -> Split:
    return split.take(np.random.default_rng(seed).permutation(len(split))[:images])


def _read_metrics_document(run: Run) -> dict[str, Any]:
    """Read metrics.json; raises RunError if another model than the run's was measured."""
    model = require(run.model, step="quantize").read_bytes()
    document = read_json(require(run.metrics, step="evaluate"))
    if document.get("model") != sha256(model):
        raise RunError(f"{run.metrics} describes another model than {run.model}; run: python -m training evaluate")
    return document


def _read_metrics(run: Run, document: dict[str, Any]) -> Metrics:
    return parse_document(Metrics, document.get("metrics"), run.metrics, step="evaluate")


def _check_same_description(run: Run, document: dict[str, Any]) -> None:
    """Raise RunError if the preset's name, version or description has changed since `evaluate`."""
    preset = run.preset
    current = {"name": preset.name, "version": preset.version, "description": full_description(preset)}
    for field, value in current.items():
        if document.get(field) != value:
            raise RunError(
                f"{run.metrics} has the {field} {document.get(field)!r}, but the preset has {value!r}; "
                "run: python -m training evaluate, then report"
            )


def _read_fit_summary(run: Run) -> FitSummary | None:
    if not run.preset.recipe.phases:
        return None
    path = require(run.fit_summary, step="fit")
    return parse_document(FitSummary, read_json(path), path, step="fit")


def _print_warnings(document: dict[str, Any]) -> None:
    is_imported = document["network"]["architecture"] == KERAS_FILE
    advice = (
        "check the order of the labels and the normalization (--set preprocessing.mean and std)"
        if is_imported
        else "train on more images, from pretrained weights or for more epochs"
    )
    for warning in chance_warnings(document):
        print(f"Warning: {warning} Do not rely on it: {advice}; more test images make the interval narrower.")


def _summary(metrics: Metrics, served: str) -> str:
    """Say what was measured; `served` names the model that will be served."""
    if metrics.int8_top1 is None:
        return (
            f"Evaluated on {metrics.test_images} images: {served} agrees with fp32 on {metrics.agreement:.2%}. The "
            "accuracy is unknown without labelled images; to measure it, give --data FOLDER."
        )
    return (
        f"Evaluated on {metrics.test_images} test images: top-1 {metrics.fp32_top1:.2%} in fp32, "
        f"{metrics.int8_top1:.2%} in {served}; they agree on {metrics.agreement:.2%}. Left out because they also occur "
        f"for training or validation: {metrics.test_duplicates}."
    )
