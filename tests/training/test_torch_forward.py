"""Torch's own kernels agree with Keras' layers, as torch_agreement.py measures in a process with Keras on torch."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, require

MEASURE = Path(__file__).with_name("torch_agreement.py")
NETWORKS = ["resnet50-cifar", "EfficientNetLite0", "MobileNetV2", "cnn"]
LAYERS = ["layers without a fast kernel", "a single pixel of a single image", "frozen normalization"]
UNSUITABLE = ["a layer that is used twice", "operations between layers"]


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    require(importlib.util.find_spec("torch"), "torch is not installed; install it into .venv-dev: torch==2.13.0")
    environment = os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": f"{ROOT}:{ROOT / 'lambda'}"}
    result = subprocess.run([sys.executable, MEASURE], env=environment, stdout=subprocess.PIPE, check=True)
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return figures


@pytest.mark.parametrize("network", NETWORKS + LAYERS)
@pytest.mark.parametrize("figure", ["inference", "training", "statistics", "gradients"])
def test_torchs_kernels_give_the_same_results_as_keras(measured: dict[str, Any], network: str, figure: str) -> None:
    assert measured[network]["fast"]
    assert measured[network]["same types"]
    assert measured[network][figure] < 1e-4


@pytest.mark.parametrize("network", UNSUITABLE)
def test_keras_calls_networks_that_are_not_plain_graphs_of_layers(measured: dict[str, Any], network: str) -> None:
    assert not measured[network]["fast"]
    assert measured[network]["training"] < 1e-6


def test_frozen_normalization_keeps_its_statistics(measured: dict[str, Any]) -> None:
    assert measured["frozen normalization"]["changed"] is False


@pytest.mark.parametrize("network", ["cnn in bfloat16", "MobileNetV2 in bfloat16"])
def test_bfloat16_is_as_precise_as_with_keras(measured: dict[str, Any], network: str) -> None:
    figures = measured[network]
    assert figures["types"] == ["torch.bfloat16", "torch.float32"], "features and logits"
    assert 0 < figures["fast"]["inference"] < 0.02
    for name, error in figures["fast"].items():
        assert error < 1.25 * figures["own"][name] + 1e-3


def test_weights_survive_a_change_of_memory_layout(measured: dict[str, Any]) -> None:
    assert measured["saved"] is True


def test_a_c_library_without_mallopt_raises_no_error(measured: dict[str, Any]) -> None:
    assert len(measured["memory"]) == 4
