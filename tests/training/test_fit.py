"""Fitting, with a network small enough to fit in a second."""

import csv
import dataclasses
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image
from support import ROOT, require

import training.fit
from litelens.core.preprocessing import Preprocessing
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.photos import read_photos
from training.augmentation import create_augmentation_layers
from training.batches import Batches, all_batches, class_weights, training_batches
from training.checkpoint import Epoch, load_checkpoint
from training.dataset import Dataset, Pixels, Split
from training.documents import read_history
from training.errors import FitError
from training.fit import fit
from training.head import add_head
from training.network import Network
from training.preset import Augmentation, Phase, Recipe, load_preset
from training.run import DataSummary, Run, start_run
from training.training_model import TrainingModel, create_normalization

LABELS = ("red", "green", "blue")
SGD = Phase(trains="all", epochs=4, optimizer="sgd", learning_rate=0.05)


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(network: Network, spec: Preprocessing, classes: int, precision: str = "float32", **_: Any) -> keras.Model:
        inputs = keras.Input((8, 8, 3))
        features = keras.layers.Conv2D(8, 3, strides=2, name="features")(inputs)
        features = keras.layers.BatchNormalization(name="normalization")(features)
        return add_head(keras.Model(inputs, features), classes)

    monkeypatch.setattr("training.fit.build_network", build)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Run]:
    """A run of a small recipe, changed as given."""

    def started(folder: str = "run", **changes: Any) -> Run:
        preset = load_preset("folder", ["preprocessing.height=8", "preprocessing.width=8"])
        recipe = replace(Recipe(seed=1, batch_size=20, phases=(SGD,)), **changes)
        return start_run(tmp_path / folder, replace(preset, recipe=recipe), DataSummary(LABELS, "digest"))

    return started


def coloured(counts: tuple[int, int, int]) -> Split:
    """Images of three plain colours, which anything that learns can tell apart."""
    classes = np.repeat(np.arange(3), counts)
    images = np.zeros((len(classes), 8, 8, 3), np.uint8)
    images[np.arange(len(classes)), :, :, classes] = 255
    return Split(Pixels(images), classes)


@pytest.fixture
def colours() -> Dataset:
    split = coloured((40, 40, 40))
    return Dataset(LABELS, train=split, validation=split, test=split, calibration=split)


@pytest.fixture
def noisy() -> Dataset:
    """Images that are hard to tell apart, so that what is learnt differs from epoch to epoch."""
    generator = np.random.default_rng(5)
    split = Split(Pixels(generator.integers(0, 256, (90, 8, 8, 3), dtype=np.uint8)), np.arange(90) % 3)
    other = Split(Pixels(generator.integers(0, 256, (33, 8, 8, 3), dtype=np.uint8)), np.arange(33) % 3)
    return Dataset(LABELS, train=split, validation=other, test=other, calibration=split)


def fit_until(run: Run, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, *, phase: int, epoch: int) -> None:
    """Start a fit and interrupt it when that epoch starts."""
    fit_epoch = training.fit._fit_epoch

    def stop(run: Run, model: TrainingModel, number: int, current: int, *batches: Batches) -> Epoch:
        if (number, current) == (phase, epoch):
            raise KeyboardInterrupt
        return fit_epoch(run, model, number, current, *batches)

    with monkeypatch.context() as patch:
        patch.setattr("training.fit._fit_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(run, dataset)


def test_a_fit_learns_and_summarizes_its_result(start: Callable[..., Run], colours: Dataset) -> None:
    run = start()
    facts = fit(run, colours)
    assert facts.validation_accuracy > 0.9
    assert (facts.images, facts.epochs, facts.backend) == (120, 4, keras.config.backend())
    assert run.weights.is_file()
    assert not run.checkpoint.exists()


def test_the_history_has_a_line_for_each_epoch_of_each_phase(start: Callable[..., Run], colours: Dataset) -> None:
    run = start(phases=(replace(SGD, trains="head", epochs=1), replace(SGD, epochs=2)))
    fit(run, colours)
    with run.history.open() as file:
        assert [(row["phase"], row["epoch"]) for row in csv.DictReader(file)] == [("1", "1"), ("2", "1"), ("2", "2")]
    assert list((run.folder / "tensorboard").glob("events.out.tfevents.*"))


def test_the_learning_rate_falls_to_the_final_one_of_each_phase(start: Callable[..., Run], colours: Dataset) -> None:
    phases = (
        replace(SGD, epochs=3, final_learning_rate=0.01),
        replace(SGD, epochs=2, learning_rate=0.02, warmup_epochs=1.0),
    )
    run = start(phases=phases)
    fit(run, colours)
    rates = [epoch["learning_rate"] for epoch in read_history(run)]
    # Cosine decay, after the first and the second of three epochs.
    expected = [0.01 + 0.04 * 0.75, 0.01 + 0.04 * 0.25, 0.01, 0.02, 0.0]
    assert rates == pytest.approx(expected, abs=1e-7)


EVERYTHING = Augmentation(
    flip=True, crop_padding=1, rotation=10, zoom=0.1, shift=0.1, shear=0.1, randaugment=0.3, mixup=0.2
)


@pytest.mark.parametrize(
    ("phase", "epoch", "augmentation"),
    [(1, 3, EVERYTHING), (2, 1, Augmentation(flip=True)), (2, 2, Augmentation(cutmix=1.0))],
    ids=["in the first phase", "between two phases", "in the second phase"],
)
def test_an_interrupted_fit_continues_exactly(
    start: Callable[..., Run],
    noisy: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    phase: int,
    epoch: int,
    augmentation: Augmentation,
) -> None:
    phases = (
        replace(SGD, warmup_epochs=1.0, weight_decay=0.01),
        replace(SGD, optimizer="adam", learning_rate=0.01),
    )
    changes = {"phases": phases, "augmentation": augmentation, "label_smoothing": 0.1}
    whole, interrupted = start("whole", **changes), start("interrupted", **changes)
    expected = fit(whole, noisy)
    fit_until(interrupted, noisy, monkeypatch, phase=phase, epoch=epoch)
    assert not interrupted.weights.exists()
    found = fit(interrupted, noisy, resume=True)
    assert dataclasses.replace(found, last_sitting_seconds=0) == dataclasses.replace(expected, last_sitting_seconds=0)
    assert interrupted.history.read_text() == whole.history.read_text()


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_killed_fit_continues_to_the_same_metrics(backend: str, tmp_path: Path) -> None:
    require(importlib.util.find_spec(backend), f"{backend} is not installed; docs/train.md says how it is")
    generator = np.random.default_rng(3)
    images, classes = generator.integers(0, 256, (160, 32, 32, 3), dtype=np.uint8), generator.integers(0, 10, 160)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=classes, x_test=images[:20], y_test=classes[:20])
    changes = [
        "network.architecture=cnn",
        "network.weights=none",
        "preprocessing.height=32",
        "preprocessing.width=32",
        "recipe.batch_size=16",
        "recipe.phases.0.epochs=6",
        "recipe.precision=float32",
    ]
    command = [sys.executable, "-m", "training", "fit", "cifar10", "--data=data.npz", "--set=validation_share=0.2"]
    command += [f"--set={change}" for change in changes]
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": f"{ROOT}:{ROOT / 'lambda'}"}

    def begin(run: str, *more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, f"--run={run}", *more], cwd=tmp_path, env=environment)

    assert begin("whole").wait() == 0
    with begin("killed") as process:
        while not (tmp_path / "killed" / "checkpoint" / "state.json").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed" / "network.weights.h5").exists()
    assert begin("killed").wait() == 1, "without --resume it must not replace an unfinished fit"
    assert begin("killed", "--resume").wait() == 0
    whole, killed = (tmp_path / name / "history.csv" for name in ("whole", "killed"))
    assert killed.read_text() == whole.read_text()


def test_an_unfinished_fit_is_not_replaced_by_mistake(
    start: Callable[..., Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    fit_until(run, noisy, monkeypatch, phase=1, epoch=2)
    with pytest.raises(FitError, match=r"interrupted after epoch 1 of phase 1: add --resume to continue, or remove"):
        fit(run, noisy)


@pytest.mark.parametrize("damaged", ["state.json", "phase-1-epoch-1.weights.h5"])
def test_a_damaged_checkpoint_is_named(
    start: Callable[..., Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    run = start()
    fit_until(run, noisy, monkeypatch, phase=1, epoch=2)
    path = run.checkpoint / damaged
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FitError, match=rf"the checkpoint .*{damaged} is damaged; remove the folder"):
        fit(run, noisy, resume=True)


def test_only_the_last_and_the_best_weights_are_kept(
    start: Callable[..., Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    fit_until(run, noisy, monkeypatch, phase=1, epoch=4)
    checkpoint = load_checkpoint(run.checkpoint)
    assert checkpoint
    assert set(run.checkpoint.glob("*.h5")) == {checkpoint.last, checkpoint.best}


def test_a_phase_ends_when_the_validation_loss_no_longer_falls(start: Callable[..., Run], noisy: Dataset) -> None:
    run = start(patience=2, phases=(replace(SGD, epochs=60, learning_rate=0.5),))
    facts = fit(run, noisy)
    losses = [epoch["val_loss"] for epoch in read_history(run)]
    assert len(losses) < 60
    assert int(np.argmin(losses)) == len(losses) - 3
    assert facts.validation_accuracy == read_history(run)[-3]["val_accuracy"]


def test_the_weights_are_those_of_the_best_epoch(start: Callable[..., Run], noisy: Dataset) -> None:
    run = start(patience=2, phases=(replace(SGD, epochs=60, learning_rate=0.5),))
    facts = fit(run, noisy)
    network = training.fit.build_network(run.preset.network, run.preset.preprocessing, 3)
    network.load_weights(run.weights)
    inputs = run.preset.preprocessing.normalize(noisy.validation.images.pixels(range(33)))
    right = network.predict(inputs, verbose=0)["logits"].argmax(axis=1) == noisy.validation.classes
    assert right.mean() == pytest.approx(facts.validation_accuracy)


def fitted_weights(
    run: Run, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each layer's weights before and after the fit."""
    build, built = training.fit.build_network, []
    monkeypatch.setattr("training.fit.build_network", lambda *a: built.append(build(*a)) or built[-1])
    before: dict[str, Any] = {}
    compile_model = training.fit.compile_model

    def remember(network: keras.Model, *others: Any) -> TrainingModel:
        before.update({layer.name: layer.get_weights() for layer in network.layers})
        return compile_model(network, *others)

    monkeypatch.setattr("training.fit.compile_model", remember)
    fit(run, dataset)
    return before, {layer.name: layer.get_weights() for layer in built[0].layers}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {n for n in before if any(not np.array_equal(a, b) for a, b in zip(before[n], after[n], strict=True))}


def test_a_phase_can_fit_only_the_head(
    start: Callable[..., Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(phases=(replace(SGD, trains="head", epochs=1),))
    assert changed(*fitted_weights(run, noisy, monkeypatch)) == {"logits"}


def test_a_phase_can_freeze_normalization(
    start: Callable[..., Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(phases=(replace(SGD, freeze_normalization=True, epochs=1),))
    assert changed(*fitted_weights(run, noisy, monkeypatch)) == {"logits", "features"}


def test_an_infinite_loss_is_an_error_and_leaves_no_weights(start: Callable[..., Run], colours: Dataset) -> None:
    run = start(phases=(replace(SGD, learning_rate=1e30),))
    with pytest.raises(FitError, match=r"lower recipe.phases.0.learning_rate"):
        fit(run, colours)
    assert not run.weights.exists()


def test_an_infinite_loss_keeps_the_epochs_before_it(
    start: Callable[..., Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(phases=(SGD, replace(SGD, learning_rate=1e30)))
    with pytest.raises(FitError, match=r"in epoch 1 of phase 2; lower recipe.phases.1.learning_rate"):
        fit(run, noisy)
    checkpoint = load_checkpoint(run.checkpoint)
    assert checkpoint
    assert [epoch.epoch for epoch in checkpoint.history] == [1, 2, 3, 4]


def test_a_disk_that_is_full_after_the_last_epoch_loses_no_epoch(
    start: Callable[..., Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    run = start()
    with monkeypatch.context() as patch:
        patch.setattr("training.fit.write_json", full)
        with pytest.raises(OSError, match="No space"):
            fit(run, noisy)
    monkeypatch.setattr("training.fit._fit_epoch", full)
    assert fit(run, noisy, resume=True).epochs == 4


def test_a_line_missing_from_the_history_is_written_on_resume(
    start: Callable[..., Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    run = start(phases=(replace(SGD, epochs=1),))
    with monkeypatch.context() as patch:
        patch.setattr("training.fit._write_csv", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(run, noisy)
    fit(run, noisy, resume=True)
    assert [row["epoch"] for row in read_history(run)] == [1]


def test_a_phase_for_the_head_of_a_network_without_one_is_an_error(
    start: Callable[..., Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fit.is_head", lambda layer: False)
    with pytest.raises(FitError, match="phase 1 trains only the head, but the network has no separate head"):
        fit(start(phases=(replace(SGD, trains="head"),)), noisy)


def test_a_photo_that_is_removed_during_a_fit_is_named(
    start: Callable[..., Run], colours: Dataset, tmp_path: Path
) -> None:
    spec = replace(load_preset("folder").preprocessing, height=8, width=8)
    for index in range(40):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / f"{index}.png")
    photos, _ = read_photos(tmp_path, spec)
    (tmp_path / "7.png").unlink()
    vanishing = dataclasses.replace(colours, train=Split(photos, np.arange(40) % 3))
    with pytest.raises(DatasetError, match=r"7.png can no longer be read"):
        fit(start(), vanishing)


def test_fewer_images_than_the_batch_size_are_one_batch(start: Callable[..., Run], colours: Dataset) -> None:
    few = dataclasses.replace(colours, train=coloured((2, 2, 2)))
    assert fit(start(), few).images == 6


def test_class_weights_give_all_classes_the_same_influence(start: Callable[..., Run], colours: Dataset) -> None:
    uneven = coloured((60, 20, 10))
    weights = class_weights(uneven, 3)
    assert weights * [60, 20, 10] == pytest.approx([30, 30, 30])
    assert weights[uneven.classes].mean() == pytest.approx(1)
    run = start(class_weights=True)
    assert fit(run, dataclasses.replace(colours, train=uneven)).validation_accuracy > 0.9


def test_class_weights_scale_the_loss(colours: Dataset) -> None:
    spec = load_preset("folder").preprocessing
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    outputs = {"logits": network(network.inputs[0])}

    def loss(weights: list[float]) -> float:
        model = TrainingModel(
            keras.Model(network.inputs[0], outputs),
            spec,
            Augmentation(),
            seed=1,
            label_smoothing=0.0,
            class_weights=np.array(weights, np.float32),
        )
        (batch,) = all_batches(coloured((1, 0, 1)), 3, 2)[0]
        return float(model.compute_loss(y_pred=model(batch)))

    assert loss([2.0, 1.0, 1.0]) + loss([1.0, 1.0, 2.0]) == pytest.approx(3 * loss([1.0, 1.0, 1.0]), rel=1e-5)


def test_images_that_fill_up_a_batch_have_no_labels(colours: Dataset) -> None:
    batches = all_batches(coloured((3, 2, 2)), 3, 4, devices=4)
    (last,) = batches[1]
    assert last["images"].shape == (4, 8, 8, 3)
    assert last["labels"].sum(axis=1).tolist() == [1, 1, 1, 0]


def test_the_order_of_an_epoch_depends_on_its_seed() -> None:
    split = coloured((40, 40, 40))

    def order(seed: int) -> list[int]:
        batches = training_batches(split, 3, 50, seed)
        return [int(label) for i in range(len(batches)) for label in batches[i][0]["labels"].argmax(axis=1)]

    assert len(order(1)) == 100
    assert order(1) == order(1)
    assert order(1) != order(2)


def test_augmentation_does_nothing_outside_training(colours: Dataset) -> None:
    spec = replace(load_preset("folder").preprocessing, height=8, width=8)
    echo = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    model = TrainingModel(
        keras.Model(echo.inputs[0], {"logits": echo(echo.inputs[0])}),
        spec,
        EVERYTHING,
        seed=1,
        label_smoothing=0.0,
        class_weights=np.ones(3, np.float32),
    )
    (batch,) = all_batches(
        Split(Pixels(np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)), np.arange(3)), 3, 3
    )[0]
    expected = spec.normalize(batch["images"]).reshape(3, -1)
    assert np.asarray(model(batch, training=False)["logits"]) == pytest.approx(expected, abs=1e-2)
    assert np.abs(np.asarray(model(batch, training=True)["logits"]) - expected).max() > 1


@pytest.mark.parametrize("field", ["rotation", "zoom", "shift", "shear", "randaugment", "mixup", "cutmix"])
def test_each_augmentation_changes_images_on_its_own(field: str) -> None:
    strength = {"rotation": 30.0}.get(field, 0.5)
    (layer,) = create_augmentation_layers(Augmentation(**{field: strength}), seed=3)
    images = np.random.default_rng(1).integers(0, 256, (16, 8, 8, 3)).astype(np.float32)
    given = {"images": images, "labels": np.eye(16, dtype=np.float32)} if field in ("mixup", "cutmix") else images
    result = layer(given, training=True)
    result = result["images"] if isinstance(result, dict) else result
    assert np.abs(np.asarray(result) - images).max() > 5


def test_training_normalizes_like_serving() -> None:
    spec = replace(load_preset("cifar100").preprocessing, mean=(0.1, 0.5, 0.9), std=(0.2, 0.5, 1.5))
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None, None], 3, axis=3)
    normalized = np.asarray(create_normalization(spec)(levels))[:, 0, 0]
    assert normalized == pytest.approx(spec.normalization_table(), abs=1e-5)


def test_fitting_again_starts_over(start: Callable[..., Run], colours: Dataset) -> None:
    run = start()
    fit(run, colours)
    first = run.history.read_text()
    run.history.write_text("of the first fit")
    fit(run, colours)
    assert run.history.read_text() == first


def test_epochs_are_added_until_a_phase_has_its_least_steps(start: Callable[..., Run], colours: Dataset) -> None:
    run = start(phases=(replace(SGD, epochs=1, least_steps=16),))
    fit(run, colours)
    assert [row["epoch"] for row in read_history(run)] == [1, 2, 3], "120 images in batches of 20: 6 steps an epoch"


def test_no_epochs_are_added_to_a_phase_with_enough_steps(start: Callable[..., Run], colours: Dataset) -> None:
    run = start(phases=(replace(SGD, epochs=2, least_steps=3),))
    fit(run, colours)
    assert [row["epoch"] for row in read_history(run)] == [1, 2]


def test_a_fit_prints_an_estimate_of_its_duration_first(
    start: Callable[..., Run], colours: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(start(), colours)
    assert re.match(r"Fitting 4 epochs takes about (a second|\d+ (seconds|minutes|hours)) ", capsys.readouterr().out)
    fit(start("patient", patience=2), colours)
    assert re.match(r"Fitting at most 4 epochs takes at most about ", capsys.readouterr().out)
