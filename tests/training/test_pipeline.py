"""The whole way from images to a bundle that serves, on a few images and with the real network."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from support import BUNDLE, ROCKET

from litelens.bundle import load_bundle
from litelens.classifier import Classifier
from litelens.images import Limits
from training.__main__ import main
from training.fit import build_network
from training.preset import Preset, load_preset
from training.quantize import QuantizationError, check_integer_only, model_inputs
from training.run import open_run, start_run


@pytest.fixture(scope="module")
def preset() -> Preset:
    preset = load_preset("cifar100-cpu")
    recipe = dataclasses.replace(
        preset.recipe, validation_images=16, batch_size=16, epochs=2, precision="float32", learning_rate=0.01
    )
    return dataclasses.replace(preset, name="tiny", recipe=recipe)


@pytest.fixture(scope="module", autouse=True)
def tiny_preset_by_name(preset: Preset) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "training.__main__.load_preset",
            lambda name, changes: preset if name == "tiny" else load_preset(name, changes),
        )
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    images = generator.integers(0, 256, (72, 32, 32, 3), dtype=np.uint8)
    classes = generator.integers(0, 100, 72)
    np.savez(path, x_train=images[:48], y_train=classes[:48], x_test=images[48:], y_test=classes[48:])
    return path


@pytest.fixture(scope="module")
def folder(tiny_preset_by_name: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every step was run from the command line; it holds the run and models/."""
    folder = tmp_path_factory.mktemp("trained")
    step_by_step(folder, data, "fit", "quantize", "evaluate", "publish")
    return folder


def step_by_step(folder: Path, data: Path, *steps: str) -> None:
    for step in steps:
        main([step, "tiny", f"--data={data}", f"--run={folder / 'run'}", f"--models={folder / 'models'}"])


def test_the_published_bundle_serves(folder: Path) -> None:
    classifier = Classifier(load_bundle(folder / "models" / "tiny"), Limits(), threads=1)
    assert len(classifier.classify(ROCKET.read_bytes()).candidates) == 5


def test_the_manifest_says_what_was_done_and_measured(folder: Path) -> None:
    manifest = json.loads((folder / "models" / "tiny" / "manifest.json").read_text())
    assert manifest["training"]["images"] == 32
    assert manifest["training"]["epochs"] == 2
    assert manifest["training"]["backend"] == "tensorflow"
    assert manifest["metrics"]["test_images"] == 24
    assert 0 <= manifest["metrics"]["int8_top1"] <= manifest["metrics"]["int8_top5"] <= 1
    assert manifest["threshold"] == manifest["metrics"]["threshold"]
    assert list(manifest) == list(json.loads((BUNDLE / "manifest.json").read_text()))


def test_the_measurements_hold_what_the_figures_are_made_of(folder: Path) -> None:
    measured = json.loads((folder / "run" / "metrics.json").read_text())
    assert measured["metrics"] == json.loads((folder / "models" / "tiny" / "manifest.json").read_text())["metrics"]
    assert len(measured["classes"]) == 100
    assert sum(map(sum, measured["confusion"])) == measured["metrics"]["test_images"]
    assert sum(row["images"] for row in measured["reliability"]) == measured["metrics"]["test_images"]
    assert measured["coverage"][-1]["accuracy"] == pytest.approx(measured["metrics"]["int8_top1"])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"fp32_top1": 0.5060, "int8_top1": 0.5}, r"int8 loses 0.60% top-1 to fp32, more than the 0.50%"),
        ({"test_images": 1000, "test_duplicates": 6}, r"0.60% of the test images also occur in the training split"),
    ],
)
def test_a_model_that_is_not_good_enough_is_not_published(
    folder: Path, tmp_path: Path, changes: dict[str, float], complaint: str
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    measured = json.loads((run / "metrics.json").read_text())
    measured["metrics"] |= changes
    (run / "metrics.json").write_text(json.dumps(measured))
    with pytest.raises(SystemExit, match=complaint):
        main(["publish", "tiny", f"--run={run}", f"--models={tmp_path / 'models'}"])
    assert not (tmp_path / "models").exists()


def test_the_history_has_a_line_for_each_epoch(folder: Path) -> None:
    assert len((folder / "run" / "history.csv").read_text().splitlines()) == 3


def test_the_int8_model_follows_the_network(folder: Path, data: Path, preset: Preset) -> None:
    run = open_run(folder / "run", preset)
    network = build_network(run.preset)
    network.load_weights(run.weights)
    with np.load(data) as arrays:
        images = arrays["x_test"]
    expected = network.predict(model_inputs(images, run.preset.preprocessing), verbose=0)["logits"]
    classifier = Classifier(load_bundle(folder / "models" / "tiny"), Limits(), threads=1)
    found = np.stack([classifier.logits(image) for image in images])
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.95


def test_publishing_again_replaces_the_bundle_whole(folder: Path, data: Path) -> None:
    stale = folder / "models" / "tiny" / "stale"
    stale.write_text("left over")
    step_by_step(folder, data, "publish")
    assert not stale.exists()
    assert sorted(p.name for p in (folder / "models").iterdir()) == ["tiny"]


def test_a_model_that_was_not_measured_or_cannot_be_served_is_not_published(folder: Path, tmp_path: Path) -> None:
    def publish(run: Path) -> None:
        main(["publish", "tiny", f"--run={run}", f"--models={folder / 'models'}"])

    run = shutil.copytree(folder / "run", tmp_path / "run")
    published = (folder / "models" / "tiny" / "model.tflite").read_bytes()
    (run / "model.tflite").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match=r"metrics.json is of another model than .*model.tflite"):
        publish(run)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, "model": hashlib.sha256(b"damaged").hexdigest()}))
    with pytest.raises(SystemExit, match="this is not a TFLite model"):
        publish(run)
    assert (folder / "models" / "tiny" / "model.tflite").read_bytes() == published
    assert sorted(p.name for p in (folder / "models").iterdir()) == ["tiny"]


def test_a_failure_at_the_last_moment_leaves_the_published_bundle(
    folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def full_disk(path: Path, target: Path) -> Path:
        if path.name == "bundle":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full_disk)
        with pytest.raises(OSError, match="No space left"):
            step_by_step(folder, data, "publish")
    assert load_bundle(folder / "models" / "tiny").name == "tiny"
    assert sorted(p.name for p in (folder / "models").iterdir()) == ["tiny"]


def test_a_new_model_makes_the_old_measurements_void(folder: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    step_by_step(tmp_path, data, "quantize")
    with pytest.raises(SystemExit, match=r"metrics.json is missing; .*: python -m training evaluate"):
        step_by_step(tmp_path, data, "publish")


@pytest.mark.parametrize("step", ["quantize", "evaluate", "publish"])
def test_a_step_without_the_one_before_it_says_which(step: str, preset: Preset, tmp_path: Path, data: Path) -> None:
    with pytest.raises(SystemExit, match=r"preset.json is missing; .*: python -m training fit"):
        step_by_step(tmp_path, data, step)
    start_run(tmp_path / "run", preset)
    with pytest.raises(SystemExit, match=r"is missing; the step that writes it is: python -m training (fit|quantize)"):
        step_by_step(tmp_path, data, step)


@pytest.mark.parametrize("content", ["{", "[]", '{"images": 3}'])
def test_facts_that_are_damaged_or_of_another_version_are_named(folder: Path, tmp_path: Path, content: str) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "fit.json").write_text(content)
    with pytest.raises(SystemExit, match=r"fit.json (is damaged|does not fit)"):
        main(["publish", "tiny", f"--run={run}", f"--models={tmp_path / 'models'}"])


def test_a_new_version_of_a_preset_can_be_published_without_fitting_again(folder: Path, preset: Preset) -> None:
    renewed = dataclasses.replace(preset, version="9.9.9", description="Another.")
    assert open_run(folder / "run", renewed).preset.version == "9.9.9"


def test_all_steps_are_not_begun_on_a_backend_that_cannot_take_the_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.config.backend", lambda: "torch")
    with pytest.raises(SystemExit, match="needs Keras' tensorflow backend"):
        step_by_step(tmp_path, data, "all")
    assert not (tmp_path / "run").exists()


def test_a_folder_with_another_run_is_not_overwritten(folder: Path, data: Path) -> None:
    with pytest.raises(SystemExit, match="holds a run of another preset"):
        main(["fit", "cifar100-cpu", "--set=recipe.validation_images=16", f"--data={data}", f"--run={folder / 'run'}"])
    assert (folder / "run" / "metrics.json").is_file()


def test_an_unknown_preset_is_a_sentence() -> None:
    with pytest.raises(SystemExit, match="there is no preset 'nothing'"):
        main(["fit", "nothing"])


def test_the_bundled_model_is_integers_only() -> None:
    check_integer_only((BUNDLE / "model.tflite").read_bytes())


def test_the_bundled_model_has_plain_operators_only() -> None:
    interpreter = Interpreter(
        model_path=str(BUNDLE / "model.tflite"),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert operators <= {"CONV_2D", "ADD", "MEAN", "PAD", "MAX_POOL_2D"}


def test_a_model_with_floats_is_refused() -> None:
    import keras
    import tensorflow as tf

    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    floats = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    with pytest.raises(QuantizationError, match="is float32, not int8"):
        check_integer_only(floats)
