import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from training.preset import PRESETS, PresetError, load_preset, preset_from


def values() -> dict:
    return dataclasses.asdict(load_preset("cifar100-cpu"))


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_preset_is_valid_and_has_its_labels(path) -> None:
    preset = load_preset(path.stem)
    assert len(preset.label_names()) == {"cifar100": 100}[preset.dataset]
    assert len(set(preset.label_names())) == len(preset.label_names())


def test_cifar100_has_twenty_groups_of_five_labels() -> None:
    groups = load_preset("cifar100-cpu").label_groups()
    assert sorted(Counter(groups.values()).values()) == [5] * 20
    assert groups["rocket"] == groups["tank"]


def test_a_preset_survives_being_written_and_read() -> None:
    preset = load_preset("cifar100-cpu")
    assert preset_from(values(), "test") == preset


def test_an_unknown_preset_is_told_the_known_ones() -> None:
    with pytest.raises(PresetError, match=r"there is no preset 'cifar1000'; the presets are: .*cifar100-cpu"):
        load_preset("cifar1000")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda v: v.update(colour="red"), "x.toml: unknown field 'colour'"),
        (lambda v: v.pop("stem"), "x.toml: missing field 'stem'"),
        (lambda v: v["recipe"].update(epoch=3), "x.toml: recipe: unknown field 'epoch'"),
        (lambda v: v["recipe"].update(epochs="3"), "x.toml: recipe: epochs must be of type int, not '3'"),
        (lambda v: v["recipe"].update(flip=1), "x.toml: recipe: flip must be of type bool, not 1"),
        (lambda v: v["recipe"].update(precision="int3"), "recipe: precision must be one of float32, mixed_bfloat16"),
        (lambda v: v.update(stem="plant"), "stem must be one of imagenet, cifar, cifar-stride2, not 'plant'"),
        (lambda v: v["preprocessing"].update(mean=[0.5]), "preprocessing: mean must be 3 values"),
        (lambda v: v["preprocessing"].update(std=[0.5, 0.0, 0.5]), "preprocessing: std must be three numbers from"),
        (lambda v: v.update(recipe=3), "x.toml: recipe must be a table of fields, not 3"),
        (lambda v: v.update(name="../elsewhere"), "x.toml: name must be of a-z"),
        (lambda v: v.update(labels="nothing.txt"), "x.toml: labels must be a file in labels/"),
        (lambda v: v.update(groups="nothing.toml"), "x.toml: groups must be a file in labels/, or empty"),
        (lambda v: v.update(answered_accuracy=95), "x.toml: answered_accuracy must be .* at most 1"),
        (lambda v: v["recipe"].update(epochs=0), "recipe: epochs must be at least 1"),
        (lambda v: v["recipe"].update(batch_size=-1), "recipe: batch_size must be at least 1"),
        (lambda v: v["recipe"].update(validation_images=0), "recipe: validation_images must be at least 1"),
        (lambda v: v["recipe"].update(warmup_epochs=6), "recipe: warmup_epochs must be at least 0 and below epochs"),
        (lambda v: v["recipe"].update(learning_rate=float("nan")), "recipe: learning_rate must be above 0"),
        (lambda v: v["recipe"].update(momentum=1), "recipe: momentum must be"),
        (lambda v: v["recipe"].update(weight_decay=-1), "recipe: weight_decay must be"),
        (lambda v: v["recipe"].update(label_smoothing=1), "recipe: label_smoothing must be"),
        (lambda v: v["recipe"].update(shift=1), "recipe: shift must be"),
    ],
)
def test_a_field_that_cannot_be_is_named(change, complaint: str) -> None:
    changed = values()
    change(changed)
    with pytest.raises(PresetError, match=complaint):
        preset_from(changed, "x.toml")


def test_a_preset_that_is_not_toml_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.toml").write_text("name = ")
    monkeypatch.setattr("training.preset.PRESETS", tmp_path)
    with pytest.raises(PresetError, match=r"broken.toml is not valid TOML"):
        load_preset("broken")


def test_every_field_can_be_changed_on_the_command_line() -> None:
    changes = [
        "recipe.epochs=3",
        "recipe.flip=false",
        "stem=cifar",
        "preprocessing.mean=[0.1, 0.2, 0.3]",
        'version="2"',
    ]
    preset = load_preset("cifar100-cpu", changes)
    assert (preset.recipe.epochs, preset.recipe.flip, preset.stem) == (3, False, "cifar")
    assert (preset.preprocessing.mean, preset.version) == ((0.1, 0.2, 0.3), "2")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("recipe.epochs", "--set recipe.epochs: give a field of the preset and a value"),
        ("recipe.epoch=3", "--set recipe.epoch=3: give a field of the preset and a value"),
        ("receipt.epochs=3", "--set receipt.epochs=3: give a field"),
        ("name.first=a", "--set name.first=a: there are no fields in 'name'"),
        ("=3", "give a field of the preset"),
        ("recipe.epochs=many", "recipe: epochs must be of type int, not 'many'"),
    ],
)
def test_a_change_that_cannot_be_is_named(change: str, complaint: str) -> None:
    with pytest.raises(PresetError, match=complaint):
        load_preset("cifar100-cpu", [change])


def test_whole_numbers_are_taken_where_fractions_may_stand() -> None:
    changed = values()
    changed["recipe"]["learning_rate"] = 1
    assert preset_from(changed, "x.toml").recipe.learning_rate == 1.0
