"""Fitting: from a data set to the weights of the network, in a run's folder."""

import math
import os
import platform
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from litelens.preprocessing import Preprocessing
from training.dataset import Dataset
from training.network import resnet50
from training.preset import Preset, Recipe
from training.run import FitFacts, Run


class FitError(Exception):
    """The network could not be fitted; the message says what to change."""


def build_network(preset: Preset, precision: str = "float32") -> keras.Model:
    """The preset's network, with fresh weights; `precision` is that of its arithmetic, weights are float32."""
    keras.config.set_dtype_policy(precision)
    spec = preset.preprocessing
    return resnet50(spec.height, spec.width, len(preset.label_names()), preset.stem)


def fit(run: Run, dataset: Dataset) -> FitFacts:
    """Train from scratch, or go on after the last whole epoch of a fit that was interrupted; writes the weights.

    Raises FitError when the loss stops being a number.
    """
    preset, recipe = run.preset, run.preset.recipe
    backup = run.folder / "backup"
    keras.utils.set_random_seed(recipe.seed)
    network = build_network(preset, recipe.precision)
    trainable = keras.Sequential(
        [
            keras.Input(dataset.train.images.shape[1:], dtype="uint8"),
            normalization(preset.preprocessing),
            *_augment(recipe),
            keras.Model(network.input, network.output["logits"]),
        ]
    )
    trainable.compile(
        optimizer=_optimizer(recipe, steps_per_epoch=math.ceil(len(dataset.train) / recipe.batch_size)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
    )
    validation = (dataset.validation.images, _one_hot(dataset.validation.classes, preset))
    started = time.monotonic()
    trainable.fit(
        dataset.train.images,
        _one_hot(dataset.train.classes, preset),
        validation_data=validation,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        callbacks=[
            keras.callbacks.BackupAndRestore(backup, delete_checkpoint=False),
            keras.callbacks.CSVLogger(run.history, append=backup.exists()),
            keras.callbacks.TerminateOnNaN(),
        ],
        verbose=1 if sys.stdout.isatty() else 2,
    )
    seconds = round(time.monotonic() - started)
    loss, accuracy = trainable.evaluate(*validation, batch_size=recipe.batch_size, verbose=0)
    if trainable.stop_training or not math.isfinite(loss):
        shutil.rmtree(backup)
        raise FitError("the loss stopped being a number; lower recipe.learning_rate")
    _save_whole(network, run.weights)
    shutil.rmtree(backup)
    return FitFacts(
        images=len(dataset.train),
        epochs=recipe.epochs,
        last_sitting_seconds=seconds,
        validation_accuracy=accuracy,
        backend=keras.config.backend(),
        keras=keras.__version__,
        processor=f"{os.cpu_count()} cores, {platform.machine()}",
    )


def _one_hot(classes: NDArray[np.int64], preset: Preset) -> NDArray[np.float64]:
    encoded: NDArray[np.float64] = keras.utils.to_categorical(classes, len(preset.label_names()))
    return encoded


def _save_whole(network: keras.Model, path: Path) -> None:
    partial = path.with_name(f"partial.{path.name}")
    network.save_weights(partial)
    os.replace(partial, path)


def normalization(spec: Preprocessing) -> layers.Layer:
    """The layer that turns pixels, 0 to 255, into what `Preprocessing.values` gives for them."""
    return layers.Rescaling(
        scale=[1 / (255 * s) for s in spec.std],
        offset=[-m / s for m, s in zip(spec.mean, spec.std, strict=True)],
        dtype="float32",
    )


def _augment(recipe: Recipe) -> list[layers.Layer]:
    """Layers that act in training only. Shifts are by whole pixels, so that they do not blur."""
    chosen: list[layers.Layer] = []
    if recipe.flip:
        chosen.append(layers.RandomFlip("horizontal", seed=recipe.seed, dtype="float32"))
    if recipe.shift:
        chosen.append(
            layers.RandomTranslation(
                recipe.shift,
                recipe.shift,
                fill_mode="constant",
                interpolation="nearest",
                seed=recipe.seed,
                dtype="float32",
            )
        )
    return chosen


def _optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    warmup_steps = round(recipe.warmup_epochs * steps_per_epoch)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=recipe.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=recipe.epochs * steps_per_epoch - warmup_steps,
    )
    optimizer = keras.optimizers.SGD(
        schedule, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer
