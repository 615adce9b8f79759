"""Fitting, with a network small enough to fit in a second."""

import csv
import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from training.dataset import Dataset, Split
from training.fit import FitError, fit, normalization
from training.preset import Preset, load_preset
from training.run import Run, start_run


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(preset: Preset, precision: str = "float32") -> keras.Model:
        inputs = keras.Input((32, 32, 3))
        maps = keras.layers.Conv2D(100, 8, strides=8, name="class_activation_map")(inputs)
        logits = keras.layers.GlobalAveragePooling2D(name="logits")(maps)
        return keras.Model(inputs, {"logits": logits, "class_activation_map": maps})

    monkeypatch.setattr("training.fit.build_network", build)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    preset = load_preset("cifar100-cpu")
    recipe = dataclasses.replace(preset.recipe, epochs=4, batch_size=20, learning_rate=0.05)
    return start_run(tmp_path / "run", dataclasses.replace(preset, recipe=recipe))


@pytest.fixture
def colours() -> Dataset:
    """Images of three plain colours, which anything that learns can tell apart."""
    classes = np.arange(120) % 3
    images = np.zeros((120, 32, 32, 3), np.uint8)
    images[np.arange(120), :, :, classes] = 255
    split = Split(images, classes)
    return Dataset(train=split, validation=split, test=split)


def epochs_in(run: Run) -> list[str]:
    with run.history.open() as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def test_it_learns_and_says_so(run: Run, colours: Dataset) -> None:
    facts = fit(run, colours)
    assert facts.validation_accuracy > 0.9
    assert (facts.images, facts.epochs, facts.backend) == (120, 4, keras.config.backend())
    assert run.weights.is_file()
    assert epochs_in(run) == ["0", "1", "2", "3"]


def test_after_an_interruption_it_goes_on_with_the_next_epoch(
    run: Run, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interruption(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("keras.callbacks.TerminateOnNaN", Interruption)
        with pytest.raises(KeyboardInterrupt):
            fit(run, colours)
    assert epochs_in(run) == ["0", "1"]
    assert not run.weights.exists()
    assert fit(run, colours).validation_accuracy > 0.9
    assert epochs_in(run) == ["0", "1", "2", "3"]


def test_after_a_kill_before_the_weights_are_saved_nothing_is_fitted_twice(
    run: Run, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.fit._save_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(run, colours)
    assert fit(run, colours).validation_accuracy > 0.9
    assert epochs_in(run) == ["0", "1", "2", "3"]


def test_a_loss_that_is_no_number_is_an_error_and_leaves_no_weights(run: Run, colours: Dataset) -> None:
    wild = dataclasses.replace(run.preset.recipe, learning_rate=1e30)
    with pytest.raises(FitError, match=r"lower recipe.learning_rate"):
        fit(Run(run.folder, dataclasses.replace(run.preset, recipe=wild)), colours)
    assert not run.weights.exists()


def test_fitting_normalizes_as_serving_does(run: Run) -> None:
    spec = dataclasses.replace(run.preset.preprocessing, mean=(0.1, 0.5, 0.9), std=(0.2, 0.5, 1.5))
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None, None], 3, axis=3)
    assert np.asarray(normalization(spec)(levels))[:, 0, 0] == pytest.approx(spec.values(), abs=1e-5)


def test_fitting_again_starts_over(run: Run, colours: Dataset) -> None:
    fit(run, colours)
    first = run.history.read_text()
    run.history.write_text("of the first fit")
    fit(run, colours)
    assert epochs_in(run) == ["0", "1", "2", "3"]
    assert run.history.read_text().splitlines()[0] == first.splitlines()[0]
