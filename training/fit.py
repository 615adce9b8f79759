"""Fitting: from a data set to the weights of the network, in a run's folder."""

import math
import os
import platform
import sys
import time

import keras
from keras import layers

from litelens.preprocessing import Preprocessing
from training.dataset import Dataset
from training.network import resnet50
from training.preset import Preset, Recipe
from training.run import FitFacts, Run


def build_network(preset: Preset, precision: str = "float32") -> keras.Model:
    """The preset's network, with fresh weights; `precision` is that of its arithmetic, weights are float32."""
    keras.config.set_dtype_policy(precision)
    spec = preset.preprocessing
    return resnet50(spec.height, spec.width, len(preset.label_names()), preset.stem)


def fit(run: Run, dataset: Dataset) -> FitFacts:
    """Train from scratch, or go on after the last whole epoch of a fit that was interrupted; writes the weights."""
    preset, recipe = run.preset, run.preset.recipe
    keras.utils.set_random_seed(recipe.seed)
    network = build_network(preset, recipe.precision)
    trainable = keras.Sequential(
        [
            keras.Input(dataset.train.images.shape[1:], dtype="uint8"),
            _normalize(preset.preprocessing),
            *_augment(recipe),
            keras.Model(network.input, network.output["logits"]),
        ]
    )
    trainable.compile(
        optimizer=_optimizer(recipe, steps_per_epoch=math.ceil(len(dataset.train) / recipe.batch_size)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
    )
    backup = run.folder / "backup"
    started = time.monotonic()
    history = trainable.fit(
        dataset.train.images,
        keras.utils.to_categorical(dataset.train.classes, len(preset.label_names())),
        validation_data=(
            dataset.validation.images,
            keras.utils.to_categorical(dataset.validation.classes, len(preset.label_names())),
        ),
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        callbacks=[
            keras.callbacks.BackupAndRestore(backup),
            keras.callbacks.CSVLogger(run.history, append=backup.exists()),
            keras.callbacks.TerminateOnNaN(),
        ],
        verbose=1 if sys.stdout.isatty() else 2,
    )
    network.save_weights(run.weights)
    return FitFacts(
        images=len(dataset.train),
        epochs=recipe.epochs,
        seconds=round(time.monotonic() - started),
        validation_accuracy=history.history["val_accuracy"][-1],
        backend=keras.config.backend(),
        keras=keras.__version__,
        processor=f"{os.cpu_count()} cores, {platform.machine()}",
    )


def _normalize(spec: Preprocessing) -> layers.Layer:
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
