"""`python -m training STEP PRESET`: fit, quantize, evaluate and publish, each from what the step before it left."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from litelens.errors import LitelensError
from training.dataset import DatasetError, load_dataset
from training.evaluate import evaluate
from training.fit import FitError, build_network, fit
from training.preset import Preset, PresetError, load_preset
from training.publish import GateError, publish
from training.quantize import QuantizationError, model_inputs, quantize, require_export_backend
from training.run import (
    FitFacts,
    Metrics,
    Run,
    RunError,
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

CALIBRATION_IMAGES = 500


@dataclasses.dataclass(frozen=True)
class Options:
    preset: Preset
    data: Path | None
    folder: Path
    models: Path


def run_fit(options: Options) -> None:
    dataset = load_dataset(options.preset, options.data)
    run = start_run(options.folder, options.preset)
    discard(run.fit_facts, run.weights, run.model, run.metrics)
    facts = fit(run, dataset)
    write_json(run.fit_facts, dataclasses.asdict(facts))
    print(f"Fitted: {facts.validation_accuracy:.2%} of the validation images are right. Weights: {run.weights}")


def run_quantize(options: Options) -> None:
    run = open_run(options.folder, options.preset)
    network = _fitted_network(run)
    train = load_dataset(run.preset, options.data).train
    chosen = np.random.default_rng(run.preset.recipe.seed).permutation(len(train))[:CALIBRATION_IMAGES]
    print(f"Quantizing with {len(chosen)} calibration images ...", flush=True)
    discard(run.model, run.metrics)
    model = quantize(network, model_inputs(train.images[chosen], run.preset.preprocessing))
    write_whole(run.model, model)
    print(f"Quantized: {len(model) / 1e6:.1f} MB, integers only: {run.model}")


def run_evaluate(options: Options) -> None:
    run = open_run(options.folder, options.preset)
    model = require(run.model, step="quantize").read_bytes()
    network = _fitted_network(run)
    dataset = load_dataset(run.preset, options.data)
    print("Evaluating on the test and validation images ...", flush=True)
    evaluation = evaluate(run, network, dataset)
    write_json(run.metrics, {"model": sha256(model), **evaluation.document()})
    metrics = evaluation.metrics
    print(
        f"Evaluated on {metrics.test_images} test images: top-1 {metrics.fp32_top1:.2%} in fp32, "
        f"{metrics.int8_top1:.2%} in int8; they agree on {metrics.agreement:.2%}. Left out because they also occur in "
        f"the training split: {metrics.test_duplicates}."
    )


def run_publish(options: Options) -> None:
    run = open_run(options.folder, options.preset)
    model = require(run.model, step="quantize").read_bytes()
    fitted = facts_from(FitFacts, read_json(require(run.fit_facts, step="fit")), run.fit_facts, step="fit")
    measured = read_json(require(run.metrics, step="evaluate"))
    if measured.get("model") != sha256(model):
        raise RunError(f"{run.metrics} is of another model than {run.model}; run: python -m training evaluate")
    metrics = facts_from(Metrics, measured.get("metrics"), run.metrics, step="evaluate")
    print(f"Published: {publish(run, fitted, metrics, options.models)}")


def run_all(options: Options) -> None:
    require_export_backend()
    for step in (run_fit, run_quantize, run_evaluate, run_publish):
        step(options)


STEPS: dict[str, Callable[[Options], None]] = {
    "all": run_all,
    "fit": run_fit,
    "quantize": run_quantize,
    "evaluate": run_evaluate,
    "publish": run_publish,
}


def _fitted_network(run: Run) -> keras.Model:
    network = build_network(run.preset)
    network.load_weights(require(run.weights, step="fit"))
    return network


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("preset", help="the name of a file in training/presets")
    parser.add_argument("--data", type=Path, help="an .npz file in Keras' layout, instead of a download")
    parser.add_argument("--run", type=Path, help="the run's folder (runs/PRESET)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where bundles are published (models)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the preset, such as recipe.epochs=3; give the same to every step of a run",
    )
    given = parser.parse_args(arguments)
    folder = given.run or Path("runs") / given.preset
    try:
        STEPS[given.step](Options(load_preset(given.preset, given.set), given.data, folder, given.models))
    except (DatasetError, FitError, GateError, LitelensError, PresetError, QuantizationError, RunError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
