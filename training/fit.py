"""The step fit: train the network on a data set and write its weights to the run's folder."""

import csv
import dataclasses
import importlib.util
import io
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from litelens.core.native_logs import hide_native_logs
from litelens_client.learning.files import write_file, write_json
from litelens_client.learning.progress import format_duration
from training.batches import Batches, all_batches, class_weights, training_batches
from training.checkpoint import (
    Epoch,
    best_epoch,
    clear_checkpoint,
    load_checkpoint,
    locate_checkpoint,
    restore_weights,
    save_checkpoint,
)
from training.dataset import Dataset
from training.devices import (
    align_optimizer,
    keep_freed_memory,
    supported_precision,
    supported_steps_per_execution,
    use_all_devices,
)
from training.errors import FitError
from training.head import is_head
from training.network import build_network
from training.preset import Phase, Preset, Recipe
from training.run import FitSummary, Run, discard
from training.teacher import SoftLabels, compute_soft_labels
from training.training_model import TrainingModel

# The estimated duration of a training step, as a multiple of a forward pass: with all layers, and with only the head.
_ALL_STEP_FACTOR, _HEAD_STEP_FACTOR = 3.5, 1.2
_TIMED_BATCHES = 2

# The approximate duration of writing a checkpoint and the history.
_EPOCH_SECONDS = 0.8


def fit(run: Run, dataset: Dataset, *, resume: bool = False) -> FitSummary:
    """Fit the network, phase by phase, and write its weights and a summary; remove the files of later steps.

    With `resume`, an interrupted fit continues after its last complete epoch, with the same result as without the
    interruption. Raises FitError if there is an interrupted fit and `resume` is false, if its checkpoint is damaged, or
    if the loss becomes infinite or undefined.
    """
    recipe = run.preset.recipe
    checkpoint = load_checkpoint(run.checkpoint)
    history = checkpoint.history if checkpoint else ()
    if history and not resume:
        raise FitError(
            f"{run.folder} contains a fit that was interrupted after epoch {history[-1].epoch} of phase "
            f"{history[-1].phase}: add --resume to continue, or remove {run.checkpoint} to start again"
        )
    devices = use_all_devices(_batch_size(recipe, dataset))
    keep_freed_memory()
    soft_labels = compute_soft_labels(run.preset, dataset.labels, dataset.train, run.soft_labels)
    # Seeded here, because loading a teacher draws random numbers, and it is loaded only if logits are missing.
    keras.utils.set_random_seed(recipe.seed)
    classes, precision = len(dataset.labels), supported_precision(recipe.precision)
    network = build_network(run.preset.network, run.preset.preprocessing, classes, precision)
    # Only now, so that the results of an earlier fit are kept if the teacher or the weights cannot be loaded.
    discard(run.fit_summary, run.weights, run.model, run.head, run.candidates, run.metrics, run.report)
    if history:
        _write_csv(run, history)
    else:
        shutil.rmtree(run.tensorboard, ignore_errors=True)
    started = time.monotonic()
    first = history[-1].phase if history else 1
    for number in range(first, len(recipe.phases) + 1):
        network = _change_stem_stride(network, run.preset, number, classes, precision)
        model = compile_model(network, run.preset, number, dataset)
        if checkpoint and number == first:
            restore_weights(model, checkpoint.last)
        elif number == first:
            _print_estimate(model, recipe, dataset)
        history = _fit_phase(run, model, number, dataset, history, devices, soft_labels)
    if not history:
        raise FitError("this preset has no phases: there is nothing to fit")
    seconds = round(time.monotonic() - started)
    _save_weights(network, run.weights)
    kept = best_epoch(history) if recipe.patience else history[-1]
    summary = FitSummary(
        images=len(dataset.train),
        epochs=len(history),
        last_sitting_seconds=seconds,
        validation_accuracy=kept.val_accuracy,
        backend=keras.config.backend(),
        keras=keras.__version__,
        processor=f"{os.cpu_count()} cores, {platform.machine()}",
    )
    write_json(run.fit_summary, dataclasses.asdict(summary))
    clear_checkpoint(run.checkpoint)
    return summary


def _print_estimate(model: TrainingModel, recipe: Recipe, dataset: Dataset) -> None:
    """Estimate the duration of the fit by reading and evaluating a few batches, and print it."""
    steps, size = _steps_per_epoch(recipe, dataset), _batch_size(recipe, dataset)
    few = dataset.train.take(np.arange(min(_TIMED_BATCHES, steps) * size))
    batches = all_batches(few, len(dataset.labels), size)
    # The first call compiles the model.
    model.evaluate(batches, verbose=0)
    started = time.monotonic()
    model.evaluate(batches, verbose=0)
    forward = (time.monotonic() - started) / len(batches)
    seconds, epochs = 0.0, 0
    for phase in recipe.phases:
        count = phase.count_epochs(steps)
        step = forward * (_ALL_STEP_FACTOR if phase.trains == "all" else _HEAD_STEP_FACTOR)
        seconds += count * (steps * step + len(dataset.validation) / size * forward + _EPOCH_SECONDS)
        epochs += count
    most = "at most " if recipe.patience else ""
    total = f"{epochs} epochs takes" if epochs > 1 else "one epoch takes"
    print(f"Fitting {most}{total} {most}about {format_duration(seconds)} on this machine.", flush=True)


def _change_stem_stride(network: keras.Model, preset: Preset, number: int, classes: int, precision: str) -> keras.Model:
    """Return the network with the stem stride of that phase; the same network if no phase sets a stride."""
    phases = preset.recipe.phases
    if not any(phase.stem_stride for phase in phases):
        return network
    stride = phases[number - 1].stem_stride
    changed = build_network(
        preset.network, preset.preprocessing, classes, precision, pretrained=False, stem_stride=stride
    )
    changed.set_weights(network.get_weights())
    return changed


def _fit_phase(
    run: Run,
    model: TrainingModel,
    number: int,
    dataset: Dataset,
    history: tuple[Epoch, ...],
    devices: int,
    soft_labels: SoftLabels | None,
) -> tuple[Epoch, ...]:
    """Fit the remaining epochs of a phase, and return the history with them.

    Afterwards, the network has the weights of the phase's last epoch, or with `patience` those of its best epoch.
    """
    recipe = run.preset.recipe
    phase = recipe.phases[number - 1]
    size, classes = _batch_size(recipe, dataset), len(dataset.labels)
    validation = all_batches(dataset.validation, classes, size, devices)
    done = sum(epoch.phase == number for epoch in history)
    for epoch in range(done + 1, phase.count_epochs(_steps_per_epoch(recipe, dataset)) + 1):
        if epoch > 1 and _has_stalled(history, recipe.patience):
            break
        seed = _seed(recipe.seed, number, epoch)
        model.reseed(seed)
        total = len(history) + 1
        batches = training_batches(dataset.train, classes, size, seed, recipe.augmentation, soft_labels, total)
        history = (*history, _fit_epoch(run, model, number, epoch, batches, validation))
        save_checkpoint(run.checkpoint, model, history)
        _write_csv(run, history)
        _write_tensorboard(run, history)
    if recipe.patience:
        restore_weights(model, locate_checkpoint(run.checkpoint, history).best)
    return history


def _fit_epoch(run: Run, model: TrainingModel, number: int, epoch: int, batches: Batches, validation: Batches) -> Epoch:
    phase = run.preset.recipe.phases[number - 1]
    try:
        result = model.fit(
            batches,
            validation_data=validation,
            initial_epoch=epoch - 1,
            epochs=phase.count_epochs(len(batches)),
            callbacks=[_StopAfterEpoch(), keras.callbacks.TerminateOnNaN()],
            verbose=1 if sys.stdout.isatty() else 2,
        )
    except Exception as error:
        raise batches.error or validation.error or error from None
    logs = {name: float(values[-1]) for name, values in result.history.items()}
    if not all(math.isfinite(value) for value in logs.values()):
        raise FitError(
            f"the loss became infinite or undefined in epoch {epoch} of phase {number}; lower "
            f"recipe.phases.{number - 1}.learning_rate and fit again, with another --run"
        )
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    logs = {name: logs[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    return Epoch(phase=number, epoch=epoch, **logs, learning_rate=rate)


class _StopAfterEpoch(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops `fit` after one epoch, because each epoch has its own seed."""

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.model.stop_training = True


def compile_model(network: keras.Model, preset: Preset, number: int, dataset: Dataset) -> TrainingModel:
    """Create and compile the model for a phase, counted from 1; freezes the layers that the phase does not train."""
    recipe, phase = preset.recipe, preset.recipe.phases[number - 1]
    for layer in _all_layers(network):
        frozen_normalization = phase.freeze_normalization and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = (phase.trains == "all" or is_head(layer)) and not frozen_normalization
    classes = len(dataset.labels)
    model = TrainingModel(
        network,
        preset.preprocessing,
        recipe.augmentation,
        seed=recipe.seed,
        teacher=recipe.teacher,
        label_smoothing=recipe.label_smoothing,
        class_weights=class_weights(dataset.train, classes) if recipe.class_weights else np.ones(classes, np.float32),
    )
    steps = _steps_per_epoch(recipe, dataset)
    steps_per_execution = supported_steps_per_execution(recipe.steps_per_execution)
    model.compile(optimizer=_create_optimizer(recipe, phase, steps), steps_per_execution=steps_per_execution)
    (example,) = all_batches(dataset.validation, classes, 1)[0]
    model(example)
    if not model.trainable_variables:
        raise FitError(
            f"phase {number} trains only the head, but the network has no separate head; set "
            f"recipe.phases.{number - 1}.trains=all"
        )
    model.optimizer.build(model.trainable_variables)
    align_optimizer(model.optimizer)
    return model


def _all_layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _all_layers(layer)
        else:
            yield layer


def _create_optimizer(recipe: Recipe, phase: Phase, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    warmup_steps = round(phase.warmup_epochs * steps_per_epoch)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else phase.learning_rate,
        warmup_target=phase.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
        decay_steps=phase.count_epochs(steps_per_epoch) * steps_per_epoch - warmup_steps,
        alpha=phase.final_learning_rate / phase.learning_rate,
    )
    if phase.optimizer == "adam":
        optimizer = keras.optimizers.Adam(schedule, weight_decay=phase.weight_decay or None)
    else:
        optimizer = keras.optimizers.SGD(
            schedule, momentum=recipe.momentum, nesterov=recipe.momentum > 0, weight_decay=phase.weight_decay or None
        )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _batch_size(recipe: Recipe, dataset: Dataset) -> int:
    return min(recipe.batch_size, len(dataset.train))


def _steps_per_epoch(recipe: Recipe, dataset: Dataset) -> int:
    return len(dataset.train) // _batch_size(recipe, dataset)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0]) & 0x7FFFFFFF


def _has_stalled(history: tuple[Epoch, ...], patience: int) -> bool:
    return patience > 0 and history[-1].epoch - best_epoch(history).epoch >= patience


def _write_csv(run: Run, history: tuple[Epoch, ...]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(Epoch)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(epoch) for epoch in history)
    write_file(run.history, text.getvalue().encode())


def _write_tensorboard(run: Run, history: tuple[Epoch, ...]) -> None:
    """Log the last epoch for TensorBoard, if it is installed."""
    if not importlib.util.find_spec("tensorboard"):
        return
    # With other Keras backends, TensorFlow is first imported here, and prints log lines.
    with hide_native_logs():
        import tensorflow as tf

    if keras.config.backend() != "tensorflow":
        # TensorFlow must not take the memory of the accelerator, which the other backend uses.
        tf.config.set_visible_devices([], "GPU")
    values, step = dataclasses.asdict(history[-1]), len(history)
    with tf.summary.create_file_writer(str(run.tensorboard)).as_default(step=step):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
            tf.summary.scalar(name, values[name])


def _save_weights(network: keras.Model, path: Path) -> None:
    partial = path.with_name(f"partial.{path.name}")
    network.save_weights(partial)
    os.replace(partial, path)
