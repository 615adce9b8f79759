"""Changes of the stem's stride between phases, in a network that is much smaller than ResNet-50."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from msgspec.structs import replace
from test_fit import fit_until

import training.fit
from training.dataset import Dataset, Pixels, Split
from training.fit import fit
from training.network import Network, with_stem_stride
from training.preset import Phase, Recipe, load_preset
from training.run import DataSummary, Run, load_fitted_network, start_run
from training.training_model import TrainingModel

LABELS = ("red", "green", "blue")
COARSE = Phase(trains="all", epochs=2, optimizer="sgd", learning_rate=0.05, stem_stride=2)
FINE = replace(COARSE, learning_rate=0.01, stem_stride=0)


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.network._RESNET50_STAGES", ((4, 1, 1), (8, 1, 2)))


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], Run]:
    def start(name: str) -> Run:
        preset = load_preset("folder", ["preprocessing.height=8", "preprocessing.width=8"])
        recipe = Recipe(seed=1, batch_size=20, phases=(COARSE, FINE))
        preset = replace(preset, network=Network("resnet50-cifar", "none", "new"), recipe=recipe)
        return start_run(tmp_path / name, preset, DataSummary(LABELS, "digest"))

    return start


@pytest.fixture
def noisy(noise: np.random.Generator) -> Dataset:
    split = Split(Pixels(noise.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)), np.arange(60) % 3)
    return Dataset(LABELS, train=split, validation=split, test=split, calibration=split)


def test_the_weights_are_kept_when_the_stride_changes(
    start: Callable[[str], Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_model, networks, initial_weights = training.fit.compile_model, [], []

    def remember(network: keras.Model, *others: Any) -> TrainingModel:
        networks.append(network)
        initial_weights.append(network.get_weights())
        return compile_model(network, *others)

    monkeypatch.setattr("training.fit.compile_model", remember)
    run = start("run")
    fit(run, noisy)
    assert [network.get_layer("stem_conv").strides for network in networks] == [(2, 2), (1, 1)]
    coarse, fine = networks
    assert all(np.array_equal(a, b) for a, b in zip(coarse.get_weights(), initial_weights[1], strict=True))
    assert not np.array_equal(initial_weights[0][0], initial_weights[1][0])
    fitted = load_fitted_network(run)
    assert fitted.get_layer("stem_conv").strides == (1, 1)
    assert all(np.array_equal(a, b) for a, b in zip(fitted.get_weights(), fine.get_weights(), strict=True))


@pytest.mark.parametrize(("phase", "epoch"), [(1, 2), (2, 2)])
def test_a_fit_interrupted_at_any_stride_continues_exactly(
    phase: int, epoch: int, start: Callable[[str], Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, interrupted = start("whole"), start("interrupted")
    fit(whole, noisy)
    fit_until(interrupted, noisy, monkeypatch, phase=phase, epoch=epoch)
    fit(interrupted, noisy, resume=True)
    assert interrupted.history.read_text() == whole.history.read_text()


def test_a_stride_of_0_keeps_the_networks_own() -> None:
    own = Network("resnet50-cifar-stride2", "none", "new")
    assert with_stem_stride(own, 0) is own
    assert with_stem_stride(own, 1).architecture == "resnet50-cifar"
