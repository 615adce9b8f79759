from pathlib import Path

import pytest

from training.__main__ import _without_folder
from training.documents import _recipe, full_description
from training.preset import PRESETS, load_preset


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("folder", [], "The network, EfficientNetLite2, was pretrained on ImageNet and was then fine-tuned."),
        ("folder", ["network.weights=none"], "The network, EfficientNetLite2, was trained from random weights."),
        (
            "folder",
            ["network.architecture=cnn", "network.weights=none"],
            "The network, cnn, was trained from random weights.",
        ),
        (
            "folder",
            ["network.architecture=MobileNetV2"],
            "The network, MobileNetV2, was pretrained on ImageNet and was then fine-tuned.",
        ),
        (
            "folder",
            ["network.weights=secret/place/resnet50.h5"],
            "The network, EfficientNetLite2, has weights from a file (resnet50.h5) and was then fine-tuned.",
        ),
        (
            "cifar100",
            ["network.weights=runs/first/network.weights.h5"],
            "The network, resnet50-cifar, has the weights of another litelens run (network.weights.h5) and was "
            "then fine-tuned.",
        ),
        ("imagenet", [], "The network, ResNet50, was pretrained on ImageNet and was not trained further."),
        ("imported", [], "The network was trained elsewhere (classifier.keras) and was not trained further."),
        (
            "cifar100-cpu",
            [],
            "The network, resnet50-cifar, was trained from random weights, with cifar100-efficientnet-lite2 as its "
            "teacher.",
        ),
        ("cifar100-cpu", ["recipe.teacher.source="], "The network, resnet50-cifar, was trained from random weights."),
    ],
)
def test_the_description_states_the_origin_of_the_weights(name: str, changes: list[str], expected: str) -> None:
    preset = load_preset(name, changes)
    assert full_description(preset) == f"{preset.description} {expected}"


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_no_presets_description_states_what_its_fields_may_change(path: Path) -> None:
    preset = load_preset(path.stem)
    words = preset.description.lower()
    for claim in ("pretrained", "trained", "weights", "fine-tuned", "epoch", "resnet", "efficientnet", "teacher"):
        assert claim not in words


def test_the_path_of_a_teacher_is_not_recorded() -> None:
    preset = load_preset("cifar100-cpu", ["recipe.teacher.source=/home/ann/secret/large"])
    assert _recipe(preset)["teacher"]["source"] == "large"
    assert "secret" not in _without_folder("recipe.teacher.source=/home/ann/secret/large")
    assert _without_folder("recipe.batch_size=16") == "recipe.batch_size=16"
