"""Build a preset's network, before fitting or with the weights that a run has fitted."""

from pathlib import Path

import keras

from training.brought import load_brought
from training.errors import RunError
from training.network import BROUGHT, build, with_stem_stride
from training.preset import Preset
from training.run import Run, require


def build_network(
    preset: Preset, classes: int, precision: str = "float32", *, pretrained: bool = True, stem_stride: int = 0
) -> keras.Model:
    """Build the preset's network before fitting, with that many classes; raises NetworkError.

    `precision` is that of the arithmetic; weights are float32. If `pretrained` is false, no pretrained weights are
    loaded. `stem_stride` replaces the stem's stride, unless it is 0.
    """
    keras.config.set_dtype_policy(precision)
    network, spec = preset.network, preset.preprocessing
    if network.architecture == BROUGHT:
        return load_brought(Path(network.weights), classes, spec)
    return build(with_stem_stride(network, stem_stride), spec, classes, pretrained=pretrained)


def fitted_network(run: Run) -> keras.Model:
    """Build the fitted network, or the preset's own if it has nothing to fit; raises RunError."""
    if not run.preset.recipe.phases:
        return build_network(run.preset, len(run.labels))
    weights = require(run.weights, step="fit")
    network = build_network(run.preset, len(run.labels), pretrained=False)
    try:
        network.load_weights(weights)
    except Exception as error:  # h5py and Keras raise OSError, KeyError, ValueError and others
        raise RunError(f"{weights} is damaged; the step that writes it is: python -m training fit") from error
    return network
