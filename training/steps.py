"""The steps from images to a published bundle, each from what the step before it left in the run's folder."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.assemble import fitted_network
from training.chance import chance_warnings
from training.dataset import Dataset, Split, load_dataset
from training.documents import LISTED, full_description, measurements
from training.errors import RunError
from training.evaluate import evaluate
from training.examples import choose_examples
from training.fit import fit
from training.preset import Preset
from training.publish import publish
from training.quantize import quantize, require_export_backend
from training.report import render
from training.run import (
    DataFacts,
    FitFacts,
    Metrics,
    Run,
    discard,
    facts_from,
    open_run,
    read_json,
    require,
    sha256,
    start_run,
    write_json,
    write_whole,
)

_CHECKED = 1000


@dataclass(frozen=True)
class Options:
    """What the command line says. `command` is what would do it all again."""

    preset: Preset
    data: Path | None
    calibration: Path | None
    folder: Path
    models: Path
    resume: bool
    examples: bool
    command: str


@dataclass(frozen=True)
class Work:
    """A run with its images."""

    options: Options
    run: Run
    dataset: Dataset


def run_all(options: Options) -> None:
    require_export_backend()
    work = _begin(options)
    if options.preset.recipe.phases:
        _fit(work)
    _quantize(work)
    _evaluate(work)
    _report(work)
    run_publish(options)


def run_fit(options: Options) -> None:
    work = _begin(options)
    if not options.preset.recipe.phases:
        print("There is nothing to fit: this preset has no phases, its network is taken as it is.")
        return
    _fit(work)


def run_quantize(options: Options) -> None:
    _quantize(_begin(options) if not options.preset.recipe.phases else _go_on(options))


def run_evaluate(options: Options) -> None:
    require(open_run(options.folder, options.preset).model, step="quantize")
    _evaluate(_go_on(options))


def run_report(options: Options) -> None:
    require(open_run(options.folder, options.preset).metrics, step="evaluate")
    _report(_go_on(options))


def run_publish(options: Options) -> None:
    run = open_run(options.folder, options.preset)
    document = _measured(run)
    require(run.report, step="report")
    metrics = facts_from(Metrics, document.get("metrics"), run.metrics, step="evaluate")
    _check_is_of(run, document)
    published = publish(run, _fit_facts(run), metrics, document, options.models)
    _warn(document)
    print(f"Published{' with a warning' if chance_warnings(document) else ''}: {published}")


STEPS: dict[str, Callable[[Options], None]] = {
    "all": run_all,
    "fit": run_fit,
    "quantize": run_quantize,
    "evaluate": run_evaluate,
    "report": run_report,
    "publish": run_publish,
}


def _begin(options: Options) -> Work:
    dataset = _load(options)
    return Work(options, start_run(options.folder, options.preset, _data_facts(dataset)), dataset)


def _go_on(options: Options) -> Work:
    open_run(options.folder, options.preset)
    dataset = _load(options)
    return Work(options, open_run(options.folder, options.preset, _data_facts(dataset)), dataset)


def _data_facts(dataset: Dataset) -> DataFacts:
    return DataFacts(dataset.labels, dataset.digest())


def _load(options: Options) -> Dataset:
    dataset = load_dataset(options.preset, options.data, options.calibration)
    sizes = (
        f"{len(dataset.train):,} training, {len(dataset.validation):,} validation, {len(dataset.test):,} test images"
    )
    print(f"Data: {len(dataset.labels)} classes; {sizes}.")
    if dataset.unreadable:
        print(f"{len(dataset.unreadable)} files cannot be read and are left out:")
        for file in dataset.unreadable[:LISTED]:
            print(f"  {file.file}: {file.reason}")
        if len(dataset.unreadable) > LISTED:
            print(f"  and {len(dataset.unreadable) - LISTED} more")
    untested = np.bincount(dataset.test.classes, minlength=len(dataset.labels)) == 0
    if dataset.labelled and untested.any() and options.preset.recipe.phases:
        names = ", ".join(f"'{dataset.labels[index]}'" for index in np.flatnonzero(untested)[:LISTED])
        print(f"There is no test image of {names}: nothing will be known of how well such images are classified.")
    return dataset


def _fit(work: Work) -> None:
    run = work.run
    if work.options.resume and run.fit_facts.exists() and run.weights.exists():
        print(f"Fitted already: {run.weights}")
        return
    facts = fit(run, work.dataset, resume=work.options.resume)
    print(f"Fitted: {facts.validation_accuracy:.2%} of the validation images are right. Weights: {run.weights}")


def _quantize(work: Work) -> None:
    run, dataset, quantization = work.run, work.dataset, work.run.preset.quantization
    require_export_backend()
    network = fitted_network(run)
    discard(run.model, run.candidates, run.metrics, run.report)
    seed, spec = run.preset.recipe.seed, run.preset.preprocessing
    calibration = _drawn(dataset.calibration, max(quantization.calibration_images), seed)
    check = _drawn(dataset.validation, _CHECKED, seed)
    candidates = quantization.candidates()
    print(f"Quantizing: {len(candidates)} candidates, measured on {len(check)} validation images ...", flush=True)
    model, scores = quantize(
        network,
        candidates,
        spec.normalized(calibration.images.pixels(range(len(calibration)))),
        check.images.pixels(range(len(check))),
        spec,
        check.classes if dataset.labelled else None,
    )
    write_json(run.candidates, {"candidates": [dataclasses.asdict(score) for score in scores]})
    write_whole(run.model, model)
    print(f"Quantized: {len(model) / 1e6:.1f} MB, integers only: {run.model}")


def _evaluate(work: Work) -> None:
    run = work.run
    print("Evaluating ...", flush=True)
    evaluation = evaluate(run, fitted_network(run), work.dataset)
    discard(run.report)
    candidates = read_json(require(run.candidates, step="quantize"))["candidates"]
    document = measurements(run, work.dataset, evaluation, _fit_facts(run), candidates, work.options.command)
    write_json(run.metrics, document)
    print(_summary(evaluation.metrics))
    _warn(document)


def _report(work: Work) -> None:
    run = work.run
    document = _measured(run)
    metrics = facts_from(Metrics, document.get("metrics"), run.metrics, step="evaluate")
    examples = choose_examples(run, metrics, work.dataset) if work.options.examples and work.dataset.labelled else ()
    write_whole(run.report, render(document, examples).encode())
    print(f"Report: {run.report}")


def _drawn(split: Split, images: int, seed: int) -> Split:
    return split.take(np.random.default_rng(seed).permutation(len(split))[:images])


def _measured(run: Run) -> dict[str, Any]:
    """What `evaluate` wrote of the model that is there; raises RunError when it is of another one."""
    model = require(run.model, step="quantize").read_bytes()
    document = read_json(require(run.metrics, step="evaluate"))
    if document.get("model") != sha256(model):
        raise RunError(f"{run.metrics} is of another model than {run.model}; run: python -m training evaluate")
    return document


def _check_is_of(run: Run, document: dict[str, Any]) -> None:
    """Raise RunError when the measurements, and so the report, name another bundle than the preset does now."""
    preset = run.preset
    now = {"name": preset.name, "version": preset.version, "description": full_description(preset)}
    for field, value in now.items():
        if document.get(field) != value:
            raise RunError(
                f"{run.metrics} says {field} {document.get(field)!r}, but the preset {value!r}; "
                "run: python -m training evaluate, then report"
            )


def _fit_facts(run: Run) -> FitFacts | None:
    if not run.preset.recipe.phases:
        return None
    return facts_from(FitFacts, read_json(require(run.fit_facts, step="fit")), run.fit_facts, step="fit")


def _warn(document: dict[str, Any]) -> None:
    for warning in chance_warnings(document):
        print(
            f"Warning: {warning} Do not rely on it: train on more images, from pretrained weights or for more epochs; "
            "more test images make the interval narrower."
        )


def _summary(metrics: Metrics) -> str:
    if metrics.int8_top1 is None:
        return (
            f"Evaluated on {metrics.test_images} images: int8 agrees with fp32 on {metrics.agreement:.2%}. Its "
            "accuracy is unknown without labelled images; to measure it, give --data FOLDER."
        )
    return (
        f"Evaluated on {metrics.test_images} test images: top-1 {metrics.fp32_top1:.2%} in fp32, "
        f"{metrics.int8_top1:.2%} in int8; they agree on {metrics.agreement:.2%}. Left out because they also occur "
        f"for training or validation: {metrics.test_duplicates}."
    )
