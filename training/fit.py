"""Fitting: from a data set to the weights of the network, in a run's folder."""

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

from litelens.native_logs import hide_native_logs
from training.assemble import build_network
from training.batches import Batches, all_batches, class_weights, training_batches
from training.checkpoint import (
    Epoch,
    best_epoch,
    checkpoint_in,
    clear_checkpoint,
    load_checkpoint,
    restore,
    save_checkpoint,
)
from training.dataset import Dataset
from training.devices import (
    arrange_optimizer,
    possible_precision,
    possible_steps_per_execution,
    prepare_memory,
    use_all_devices,
)
from training.errors import FitError
from training.network import is_head
from training.preset import Phase, Preset, Recipe
from training.progress import in_words
from training.run import FitFacts, Run, discard, write_json, write_whole
from training.teacher import Lessons, take_lessons
from training.trainee import Trainee

# The time of a training step as a multiple of a forward pass, when all layers are trained and when only the head is.
_STEP_OF_ALL, _STEP_OF_HEAD = 3.5, 1.2
_TIMED_BATCHES = 2

# About what writing a checkpoint and the history takes.
_EPOCH_SECONDS = 0.8


def fit(run: Run, dataset: Dataset, *, resume: bool = False) -> FitFacts:
    """Fit the network, phase by phase, and write its weights and what happened; what later steps wrote is removed.

    With `resume` it goes on after the last whole epoch of a fit that was interrupted, as if it had not been.
    Raises FitError when there is such a one and `resume` is not given, when its checkpoint is damaged, or when the
    loss stops being a number.
    """
    recipe = run.preset.recipe
    checkpoint = load_checkpoint(run.checkpoint)
    history = checkpoint.history if checkpoint else ()
    if history and not resume:
        raise FitError(
            f"{run.folder} holds a fit that was interrupted after epoch {history[-1].epoch} of phase "
            f"{history[-1].phase}: go on with --resume, or remove {run.checkpoint} to begin anew"
        )
    devices = use_all_devices(_batch_size(recipe, dataset))
    prepare_memory()
    lessons = take_lessons(run.preset, dataset.labels, dataset.train, run.lessons)
    # After the teacher: loading one draws random numbers, but it is not loaded if its answers are stored already.
    keras.utils.set_random_seed(recipe.seed)
    classes, precision = len(dataset.labels), possible_precision(recipe.precision)
    network = build_network(run.preset, classes, precision)
    # Only now, as a teacher or weights that cannot be loaded are no reason to lose what an earlier fit has left.
    discard(run.fit_facts, run.weights, run.model, run.candidates, run.metrics, run.report)
    if history:
        _write_csv(run, history)
    else:
        shutil.rmtree(run.tensorboard, ignore_errors=True)
    started = time.monotonic()
    first = history[-1].phase if history else 1
    for number in range(first, len(recipe.phases) + 1):
        network = _with_stem_of(network, run.preset, number, classes, precision)
        trainee = compile_trainee(network, run.preset, number, dataset)
        if checkpoint and number == first:
            restore(trainee, checkpoint.last)
        elif number == first:
            _print_duration(trainee, recipe, dataset)
        history = _fit_phase(run, trainee, number, dataset, history, devices, lessons)
    if not history:
        raise FitError("this preset has no phases: there is nothing to fit, its network is taken as it is")
    seconds = round(time.monotonic() - started)
    _save_whole(network, run.weights)
    kept = best_epoch(history) if recipe.patience else history[-1]
    facts = FitFacts(
        images=len(dataset.train),
        epochs=len(history),
        last_sitting_seconds=seconds,
        validation_accuracy=kept.val_accuracy,
        backend=keras.config.backend(),
        keras=keras.__version__,
        processor=f"{os.cpu_count()} cores, {platform.machine()}",
    )
    write_json(run.fit_facts, dataclasses.asdict(facts))
    clear_checkpoint(run.checkpoint)
    return facts


def _print_duration(trainee: Trainee, recipe: Recipe, dataset: Dataset) -> None:
    """Print how long the fit takes, from the time that reading and evaluating a few batches takes."""
    steps, size = _steps_per_epoch(recipe, dataset), _batch_size(recipe, dataset)
    few = dataset.train.take(np.arange(min(_TIMED_BATCHES, steps) * size))
    batches = all_batches(few, len(dataset.labels), size)
    # The first time it is compiled.
    trainee.evaluate(batches, verbose=0)
    started = time.monotonic()
    trainee.evaluate(batches, verbose=0)
    forward = (time.monotonic() - started) / len(batches)
    seconds, epochs = 0.0, 0
    for phase in recipe.phases:
        count = phase.epochs_of(steps)
        step = forward * (_STEP_OF_ALL if phase.trains == "all" else _STEP_OF_HEAD)
        seconds += count * (steps * step + len(dataset.validation) / size * forward + _EPOCH_SECONDS)
        epochs += count
    most = "at most " if recipe.patience else ""
    in_all = f"{epochs} epochs takes" if epochs > 1 else "one epoch takes"
    print(f"Fitting {most}{in_all} {most}about {in_words(seconds)} on this machine.", flush=True)


def _with_stem_of(network: keras.Model, preset: Preset, number: int, classes: int, precision: str) -> keras.Model:
    """The network with the stem stride of that phase; the same object if no phase changes the stride."""
    phases = preset.recipe.phases
    if not any(phase.stem_stride for phase in phases):
        return network
    changed = build_network(preset, classes, precision, pretrained=False, stem_stride=phases[number - 1].stem_stride)
    changed.set_weights(network.get_weights())
    return changed


def _fit_phase(
    run: Run,
    trainee: Trainee,
    number: int,
    dataset: Dataset,
    history: tuple[Epoch, ...],
    devices: int,
    lessons: Lessons | None,
) -> tuple[Epoch, ...]:
    """Fit what is left of the phase; the network then has the weights of its last epoch, or with patience its best.

    Gives the history with the phase's epochs.
    """
    recipe = run.preset.recipe
    phase = recipe.phases[number - 1]
    size, classes = _batch_size(recipe, dataset), len(dataset.labels)
    validation = all_batches(dataset.validation, classes, size, devices)
    done = sum(epoch.phase == number for epoch in history)
    for epoch in range(done + 1, phase.epochs_of(_steps_per_epoch(recipe, dataset)) + 1):
        if epoch > 1 and _has_stalled(history, recipe.patience):
            break
        seed = _seed(recipe.seed, number, epoch)
        trainee.reseed(seed)
        batches = training_batches(dataset.train, classes, size, seed, recipe.augmentation, lessons, len(history) + 1)
        history = (*history, _fit_epoch(run, trainee, number, epoch, batches, validation))
        save_checkpoint(run.checkpoint, trainee, history)
        _write_csv(run, history)
        _write_tensorboard(run, history)
    if recipe.patience:
        restore(trainee, checkpoint_in(run.checkpoint, history).best)
    return history


def _fit_epoch(run: Run, trainee: Trainee, number: int, epoch: int, batches: Batches, validation: Batches) -> Epoch:
    phase = run.preset.recipe.phases[number - 1]
    try:
        fitted = trainee.fit(
            batches,
            validation_data=validation,
            initial_epoch=epoch - 1,
            epochs=phase.epochs_of(len(batches)),
            callbacks=[_OneEpoch(), keras.callbacks.TerminateOnNaN()],
            verbose=1 if sys.stdout.isatty() else 2,
        )
    except Exception as error:
        raise batches.error or validation.error or error from None
    logs = {name: float(values[-1]) for name, values in fitted.history.items()}
    if not all(math.isfinite(value) for value in logs.values()):
        raise FitError(
            f"the loss stopped being a number in epoch {epoch} of phase {number}; lower "
            f"recipe.phases.{number - 1}.learning_rate and fit anew, with another --run"
        )
    rate = float(keras.ops.convert_to_numpy(trainee.optimizer.learning_rate))
    logs = {name: logs[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    return Epoch(phase=number, epoch=epoch, **logs, learning_rate=rate)


class _OneEpoch(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends `fit` after an epoch, so that each begins from its own seed and is counted as one of all."""

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.model.stop_training = True


def compile_trainee(network: keras.Model, preset: Preset, number: int, dataset: Dataset) -> Trainee:
    """The network made ready for a phase: frozen where the phase says so, compiled and built."""
    recipe, phase = preset.recipe, preset.recipe.phases[number - 1]
    for layer in _layers(network):
        frozen_normalization = phase.freeze_normalization and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = (phase.trains == "all" or is_head(layer)) and not frozen_normalization
    classes = len(dataset.labels)
    trainee = Trainee(
        network,
        preset.preprocessing,
        recipe.augmentation,
        seed=recipe.seed,
        teacher=recipe.teacher,
        label_smoothing=recipe.label_smoothing,
        class_weights=class_weights(dataset.train, classes) if recipe.class_weights else np.ones(classes, np.float32),
    )
    steps = _steps_per_epoch(recipe, dataset)
    at_once = possible_steps_per_execution(recipe.steps_per_execution)
    trainee.compile(optimizer=_optimizer(recipe, phase, steps), steps_per_execution=at_once)
    (example,) = all_batches(dataset.validation, classes, 1)[0]
    trainee(example)
    if not trainee.trainable_variables:
        raise FitError(f"phase {number} trains the head alone, but the network has none of its own; train all of it")
    trainee.optimizer.build(trainee.trainable_variables)
    arrange_optimizer(trainee.optimizer)
    return trainee


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _optimizer(recipe: Recipe, phase: Phase, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    warmup_steps = round(phase.warmup_epochs * steps_per_epoch)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else phase.learning_rate,
        warmup_target=phase.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
        decay_steps=phase.epochs_of(steps_per_epoch) * steps_per_epoch - warmup_steps,
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
    write_whole(run.history, text.getvalue().encode())


def _write_tensorboard(run: Run, history: tuple[Epoch, ...]) -> None:
    """Log the last epoch where TensorBoard is installed, which writes by TensorFlow."""
    if not importlib.util.find_spec("tensorboard"):
        return
    # On Keras' other backends this is TensorFlow's first import, which prints log lines.
    with hide_native_logs():
        import tensorflow as tf

    if keras.config.backend() != "tensorflow":
        # The accelerator's memory is the other backend's.
        tf.config.set_visible_devices([], "GPU")
    values, step = dataclasses.asdict(history[-1]), len(history)
    with tf.summary.create_file_writer(str(run.tensorboard)).as_default(step=step):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
            tf.summary.scalar(name, values[name])


def _save_whole(network: keras.Model, path: Path) -> None:
    partial = path.with_name(f"partial.{path.name}")
    network.save_weights(partial)
    os.replace(partial, path)
