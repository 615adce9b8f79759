"""Example test images for the report: some classified correctly, some wrongly, and some as uncertain."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from litelens.core.classifier import Classifier, Options, Prediction
from litelens_client.learning.photos import LIMITS
from litelens_client.learning.report import Example, Kind
from training.dataset import Dataset
from training.evaluate import load_run_bundle
from training.run import Metrics, Run

_PER_KIND = 6
_MAX_CLASSIFIED = 400
_MAX_PREDICTIONS = 3


def choose_examples(run: Run, metrics: Metrics, dataset: Dataset) -> tuple[Example, ...]:
    """Choose up to six examples of each kind from test images in a random order, so that the choice is not biased."""
    bundle = load_run_bundle(run, metrics.temperature, metrics.threshold)
    classifier = Classifier(bundle, LIMITS, threads=1)
    order = np.random.default_rng(run.preset.recipe.seed).permutation(len(dataset.test))[:_MAX_CLASSIFIED]
    chosen: dict[Kind, list[Example]] = {"right": [], "wrong": [], "uncertain": []}
    for index in order:
        prediction = classifier.classify(
            dataset.test.images.encoded(index), Options(top_k=min(_MAX_PREDICTIONS, len(run.labels)))
        )
        truth = run.labels[dataset.test.classes[index]]
        kind = _kind(prediction, truth)
        if len(chosen[kind]) < _PER_KIND:
            pixels = dataset.test.images.pixels([index])[0]
            heat_map = classifier.heat_map(pixels, prediction.candidates[0].index)
            chosen[kind].append(_example(kind, pixels, heat_map, truth, prediction))
        if all(len(examples) == _PER_KIND for examples in chosen.values()):
            break
    return tuple(example for examples in chosen.values() for example in examples)


def _kind(prediction: Prediction, truth: str) -> Kind:
    if prediction.uncertain:
        return "uncertain"
    return "right" if prediction.candidates[0].label == truth else "wrong"


def _example(
    kind: Kind, pixels: NDArray[np.uint8], heat_map: NDArray[np.float32] | None, truth: str, prediction: Prediction
) -> Example:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return Example(
        kind=kind,
        image=file.getvalue(),
        heat_map=None if heat_map is None else heat_map.astype(np.float64),
        truth=truth,
        predictions=tuple((candidate.label, candidate.confidence) for candidate in prediction.candidates),
    )
