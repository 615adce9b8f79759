import json
import re
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from training.errors import PresetError
from training.preset import PRESETS, load_preset, parse_preset


def values() -> dict:
    """A valid preset with a single phase and groups, for a test to change."""
    return msgspec.to_builtins(load_preset("cifar100"))


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_preset_is_valid_and_has_its_labels(path) -> None:
    preset = load_preset(path.stem)
    classes = {"cifar100": 100, "cifar100-cpu": 100, "cifar100-teacher": 100, "cifar10": 10}
    classes |= {"imagenet": 1000, "everyday": 1000}
    assert len(preset.label_names()) == classes.get(path.stem, 0)


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_preset_starts_with_the_command_that_runs_it(path) -> None:
    command = path.read_text().splitlines()[0]
    assert re.fullmatch(
        rf"# (KERAS_BACKEND=\w+ )?python -m training (all|fit) .*({path.stem}|--model)(?=\s|$).*", command
    )


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_presets_normalization_suits_its_weights(path) -> None:
    preset = load_preset(path.stem)
    if preset.network.weights == "imagenet":
        expected = {
            "ResNet50": [[-123.68, -116.779, -103.939], [131.32, 138.221, 151.061]],
            "EfficientNetLite2": [[-127 / 128] * 3, [1.0] * 3],
        }
        levels = preset.preprocessing.normalization_table()[[0, 255]]
        assert levels == pytest.approx(np.array(expected[preset.network.architecture]), abs=1e-4)


def test_cifar100_has_twenty_groups_of_five_labels() -> None:
    groups = load_preset("cifar100-cpu").label_groups()
    assert sorted(Counter(groups.values()).values()) == [5] * 20
    assert groups["rocket"] == groups["tank"]


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_preset_survives_being_written_and_read(path) -> None:
    preset = load_preset(path.stem)
    assert parse_preset(json.loads(json.dumps(msgspec.to_builtins(preset))), "test") == preset


def test_the_message_for_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(PresetError, match=r"there is no preset 'cifar1000'; the presets are: .*cifar100-cpu"):
        load_preset("cifar1000")


def phase(values: dict) -> dict:
    return values["recipe"]["phases"][0]


def augmentation(values: dict) -> dict:
    return values["recipe"]["augmentation"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(colour="red"), "x.toml: there is no field colour"),
        (lambda v: v.pop("network"), "x.toml: the field network is missing"),
        (lambda v: v["recipe"].update(epoch=3), "x.toml: there is no field recipe.epoch"),
        (lambda v: v["preprocessing"].update(colour="red"), "x.toml: there is no field preprocessing.colour"),
        (lambda v: phase(v).update(epochs="3"), "x.toml: recipe.phases.0.epochs must be a whole number, not '3'"),
        (lambda v: phase(v).update(epochs=0), "recipe.phases.0.epochs must be a whole number >= 1, not 0"),
        (lambda v: phase(v).update(trains="tail"), "recipe.phases.0.trains must be one of all, head, not 'tail'"),
        (lambda v: phase(v).update(optimizer="lion"), "optimizer must be one of adam, sgd, not 'lion'"),
        (lambda v: phase(v).update(warmup_epochs=200), "recipe.phases.0.warmup_epochs must be below epochs"),
        (lambda v: phase(v).update(learning_rate=float("nan")), "learning_rate must be a number > 0.0, not nan"),
        (lambda v: phase(v).update(learning_rate=float("inf")), "learning_rate must be a finite number, not inf"),
        (lambda v: phase(v).update(weight_decay=-1), "weight_decay must be a number >= 0.0, not -1"),
        (lambda v: v["recipe"].update(phases=3), "recipe.phases must be a list, not 3"),
        (lambda v: v["recipe"].update(phases=[3]), "recipe.phases.0 must be a set of fields, not 3"),
        (lambda v: v["recipe"].update(precision="int3"), "recipe.precision must be one of float32, mixed_bfloat16"),
        (lambda v: v["recipe"].update(batch_size=-1), "recipe.batch_size must be a whole number >= 1"),
        (lambda v: v["recipe"].update(momentum=1), "recipe.momentum must be a number < 1"),
        (lambda v: v["recipe"].update(label_smoothing=1), "recipe.label_smoothing must be a number < 1"),
        (lambda v: v["recipe"].update(seed=2**31), "recipe.seed must be a whole number <= 2147483647"),
        (lambda v: v["recipe"].update(phases=[]), "recipe.phases must be given if network.weights is 'none'"),
        (
            lambda v: (v["recipe"].update(phases=[]), v["network"].update(architecture="ResNet50", weights="imagenet")),
            "recipe.phases must be given if network.head is 'new'",
        ),
        (lambda v: v["recipe"].update(patience=-1), "recipe.patience must be a whole number >= 0"),
        (lambda v: v["recipe"].update(steps_per_execution=0), "recipe.steps_per_execution must be"),
        (
            lambda v: phase(v).update(final_learning_rate=0.2),
            "recipe.phases.0.final_learning_rate must be at most learning_rate",
        ),
        (lambda v: phase(v).update(final_learning_rate=-0.1), "final_learning_rate must be a number >= 0.0"),
        (lambda v: phase(v).update(stem_stride=3), "recipe.phases.0.stem_stride must be one of 0, 1, 2, not 3"),
        (lambda v: phase(v).update(stem_stride=2), "stem_stride must be 0 or the network's own stride in the last"),
        (
            lambda v: (phase(v).update(stem_stride=1), v["network"].update(architecture="cnn")),
            "stem_stride must be 0 except for resnet50-cifar, resnet50-cifar-stride2",
        ),
        (lambda v: v["recipe"]["teacher"].update(views=0), "recipe.teacher.views must be a whole number >= 1"),
        (lambda v: v["recipe"]["teacher"].update(temperature=0.0), "teacher.temperature must be a number > 0.0"),
        (lambda v: v["recipe"]["teacher"].update(weight=1.1), "teacher.weight must be a number <= 1.0"),
        (
            lambda v: (
                v["recipe"]["teacher"].update(source="models/large"),
                augmentation(v).update(cutmix=0, mixup=0.2),
            ),
            "recipe.augmentation must be flip and crop_padding only if there is a teacher",
        ),
        (lambda v: augmentation(v).update(flip=1), "recipe.augmentation.flip must be true or false, not 1"),
        (lambda v: augmentation(v).update(shift=1), "augmentation.shift must be a number < 1.0"),
        (lambda v: augmentation(v).update(rotation=181), "augmentation.rotation must be a number <= 180.0"),
        (lambda v: augmentation(v).update(mixup=0.2, cutmix=1.0), "augmentation.mixup must be 0 if cutmix is used"),
        (lambda v: v["network"].update(architecture="ResNet51"), "network.architecture: .* did you mean ResNet50"),
        (lambda v: v["quantization"].update(weight_bits=[6]), "quantization.weight_bits.0 must be one of 7, 8, not 6"),
        (lambda v: v["quantization"].update(weight_bits=[8, 8]), "weight_bits must not list a value twice"),
        (lambda v: v["quantization"].update(converters=[]), "quantization.converters must be a list of length >= 1"),
        (
            lambda v: v["quantization"].update(converters=["onnx"]),
            "converters.0 must be one of TFLiteConverter, litert-",
        ),
        (
            lambda v: v["quantization"].update(calibration_images=[500, 0]),
            "calibration_images.1 must be a whole number",
        ),
        (lambda v: v["preprocessing"].update(mean=[0.5]), "preprocessing.mean must be a list of length 3"),
        (lambda v: v["preprocessing"].update(std=[0.5, 0.0, 0.5]), "preprocessing.std.1 must be a number >= 0.001"),
        (lambda v: v["gate"].update(most_lost=0.1), "gate.reason must explain limits that are not the defaults"),
        (lambda v: v["confidence"].update(threshold=0.1), "confidence.reason must explain a temperature or threshold"),
        (lambda v: v.update(recipe=3), "x.toml: recipe must be a set of fields, not 3"),
        (lambda v: v.update(name="../elsewhere"), "x.toml: name must consist of a-z"),
        (lambda v: v.update(version=""), "x.toml: version must be"),
        (lambda v: v.update(labels="nothing.txt"), "x.toml: labels must be a file in training/labels/ or a path"),
        (lambda v: v.update(groups="nothing.toml"), "x.toml: groups must be a file"),
        (lambda v: v.update(labels="cifar10.txt"), "x.toml: groups must be a file with a group for every label"),
        (lambda v: v.update(validation_share=0), "x.toml: validation_share must be a number > 0.0"),
        (
            lambda v: v.update(validation_share=0.5, test_share=0.5),
            "validation_share and test_share must add up to less than 1",
        ),
        (lambda v: v.update(answered_accuracy=95), "x.toml: answered_accuracy must be a number <= 1.0"),
    ],
)
def test_an_invalid_field_is_named(change, message: str) -> None:
    changed = values()
    change(changed)
    with pytest.raises(PresetError, match=message):
        parse_preset(changed, "x.toml")


def test_a_preset_that_is_not_toml_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.toml").write_text("name = ")
    monkeypatch.setattr("training.preset.PRESETS", tmp_path)
    with pytest.raises(PresetError, match=r"broken.toml is not valid TOML"):
        load_preset("broken")


def test_every_field_can_be_changed_on_the_command_line() -> None:
    changes = [
        "recipe.phases.0.epochs=3",
        "recipe.phases.0.warmup_epochs=1",
        "recipe.augmentation.flip=false",
        "recipe.augmentation.zoom=0.2",
        "recipe.teacher.views=3",
        "network.architecture=cnn",
        "preprocessing.mean=[0.1, 0.2, 0.3]",
        'version="2"',
        "quantization.weight_bits=[7]",
    ]
    preset = load_preset("cifar100", changes)
    assert preset.recipe.phases[0].epochs == 3
    assert (preset.recipe.augmentation.flip, preset.recipe.augmentation.zoom) == (False, 0.2)
    assert preset.recipe.teacher.views == 3
    assert (preset.network.architecture, preset.preprocessing.mean, preset.version) == ("cnn", (0.1, 0.2, 0.3), "2")
    assert preset.quantization.weight_bits == (7,)


def test_labels_can_be_in_any_file_and_contain_spaces(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("guinea pig\n\n  cat \n", encoding="utf-8")
    assert load_preset("folder", [f"labels={tmp_path / 'mine.txt'}"]).label_names() == ("guinea pig", "cat")


def test_a_byte_order_mark_is_not_part_of_the_first_label(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert load_preset("folder", [f"labels={tmp_path / 'mine.txt'}"]).label_names() == ("cat", "dog")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\nbar\n")
    with pytest.raises(PresetError, match=r"labels must be a file in UTF-8, which .*latin.txt is not"):
        load_preset("folder", [f"labels={tmp_path / 'latin.txt'}"])


def test_a_repeated_label_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("cat\ncat\n", encoding="utf-8")
    with pytest.raises(PresetError, match=r"labels must be a file of distinct names.*'cat'"):
        load_preset("folder", [f"labels={tmp_path / 'mine.txt'}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("recipe.epochs", "--set recipe.epochs: give a field and a value"),
        ("recipe.epoch=3", "cifar100.toml: there is no field recipe.epoch"),
        ("receipt.epochs=3", "cifar100.toml: there is no field receipt"),
        ("name.first=a", "--set name.first=a: 'name' has no fields"),
        ("recipe.phases.1.epochs=3", "--set recipe.phases.1.epochs=3: there is no '1'; use a number from 0 to 0"),
        ("recipe.phases.0=3", "'0' is not a field"),
        ("=3", "give a field and a value"),
        ("recipe.batch_size=many", "recipe.batch_size must be a whole number, not 'many'"),
    ],
)
def test_an_invalid_change_is_named(change: str, message: str) -> None:
    with pytest.raises(PresetError, match=message):
        load_preset("cifar100", [change])


def test_whole_numbers_are_accepted_for_fields_with_fractions() -> None:
    changed = values()
    phase(changed)["learning_rate"] = 1
    assert parse_preset(changed, "x.toml").recipe.phases[0].learning_rate == 1.0
