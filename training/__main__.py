"""`python -m training STEP PRESET`: fit, quantize, evaluate and publish, each from what the step before it left."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from litelens.errors import LitelensError
from training.dataset import Dataset, DatasetError, load_dataset
from training.evaluate import evaluate
from training.fit import build_network, fit
from training.preset import PresetError, load_preset
from training.publish import publish
from training.quantize import QuantizationError, model_inputs, quantize
from training.run import (
    FitFacts,
    Metrics,
    Run,
    RunError,
    open_run,
    read_json,
    require,
    start_run,
    write_json,
    write_whole,
)

CALIBRATION_IMAGES = 500


@dataclasses.dataclass(frozen=True)
class Options:
    preset: str
    data: Path | None
    folder: Path
    models: Path


def run_fit(options: Options) -> None:
    run = start_run(options.folder, load_preset(options.preset))
    facts = fit(run, load_dataset(run.preset, options.data))
    write_json(run.fit_facts, dataclasses.asdict(facts))
    print(f"Fitted: {facts.validation_accuracy:.2%} of the validation images are right. Weights: {run.weights}")


def run_quantize(options: Options) -> None:
    run = open_run(options.folder)
    train = _dataset(run, options).train
    chosen = np.random.default_rng(run.preset.recipe.seed).permutation(len(train))[:CALIBRATION_IMAGES]
    print(f"Quantizing with {len(chosen)} calibration images ...", flush=True)
    model = quantize(_fitted_network(run), model_inputs(train.images[chosen], run.preset.preprocessing))
    write_whole(run.model, model)
    print(f"Quantized: {len(model) / 1e6:.1f} MB, integers only: {run.model}")


def run_evaluate(options: Options) -> None:
    run = open_run(options.folder)
    require(run.model, step="quantize")
    print("Evaluating on the test and validation images ...", flush=True)
    metrics = evaluate(run, _fitted_network(run), _dataset(run, options))
    write_json(run.metrics, dataclasses.asdict(metrics))
    print(
        f"Evaluated on {metrics.test_images} test images: top-1 {metrics.fp32_top1:.2%} in fp32, "
        f"{metrics.int8_top1:.2%} in int8; they agree on {metrics.agreement:.2%}."
    )


def run_publish(options: Options) -> None:
    run = open_run(options.folder)
    require(run.model, step="quantize")
    fitted = FitFacts(**read_json(require(run.fit_facts, step="fit")))
    metrics = Metrics(**read_json(require(run.metrics, step="evaluate")))
    print(f"Published: {publish(run, fitted, metrics, options.models)}")


def run_all(options: Options) -> None:
    for step in (run_fit, run_quantize, run_evaluate, run_publish):
        step(options)


STEPS: dict[str, Callable[[Options], None]] = {
    "all": run_all,
    "fit": run_fit,
    "quantize": run_quantize,
    "evaluate": run_evaluate,
    "publish": run_publish,
}


def _dataset(run: Run, options: Options) -> Dataset:
    return load_dataset(run.preset, options.data)


def _fitted_network(run: Run):
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
    given = parser.parse_args(arguments)
    options = Options(given.preset, given.data, given.run or Path("runs") / given.preset, given.models)
    try:
        STEPS[given.step](options)
    except (DatasetError, LitelensError, PresetError, QuantizationError, RunError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
