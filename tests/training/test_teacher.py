"""Distillation: a teacher's logits, their storage, and a network that learns from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import Image
from support import CIFAR_BUNDLE
from test_fit import coloured, fit_until

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.images import Limits
from training.batches import training_batches
from training.dataset import Dataset, Pixels, Split
from training.errors import PresetError, TeacherError
from training.fit import fit
from training.network import Network, build_network
from training.preset import Augmentation, Phase, Preset, Recipe, Teacher, load_preset
from training.run import DataSummary, Run, start_run
from training.teacher import SoftLabels, compute_soft_labels, load_teacher
from training.training_model import TrainingModel

LABELS = ("red", "green", "blue")
SGD = Phase(trains="all", epochs=4, optimizer="sgd", learning_rate=0.05)
VIEWS = Augmentation(flip=True, crop_padding=2)


def preset_with(teacher: Teacher = Teacher(), **changes: Any) -> Preset:  # noqa: B008 (frozen)
    preset = load_preset("folder", ["preprocessing.height=8", "preprocessing.width=8"])
    plain = Recipe(seed=1, batch_size=20, phases=(SGD,), augmentation=VIEWS, teacher=teacher)
    return replace(preset, network=Network("cnn", "none", "new"), recipe=replace(plain, **changes))


@pytest.fixture
def noisy(noise: np.random.Generator) -> Dataset:
    """Random images, more than the teacher gets in one batch."""
    train, other = (
        Split(Pixels(noise.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)), np.arange(count) % 3)
        for count in (90, 30)
    )
    return Dataset(LABELS, train=train, validation=other, test=other, calibration=train)


@pytest.fixture
def pixels(noisy: Dataset) -> NDArray[np.uint8]:
    return noisy.train.images.pixels(range(6))


def classifier(seed: int = 5) -> keras.Model:
    """A classifier that a user may have trained elsewhere, from normalized pixels to logits."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", kernel_initializer=keras.initializers.GlorotNormal(seed))(image)
    dense = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotNormal(seed + 1))
    return keras.Model(image, dense(keras.layers.GlobalAveragePooling2D()(x)))


def run_of(folder: Path, labels: tuple[str, ...] = LABELS) -> Run:
    """A fitted run, whose weights do not depend on the order of the labels."""
    run = start_run(folder, preset_with(), DataSummary(labels, "digest"))
    keras.utils.set_random_seed(11)
    build_network(run.preset.network, run.preset.preprocessing, len(labels)).save_weights(run.weights)
    return run


# The teacher's logits.


def test_a_keras_file_gives_the_logits_of_its_model(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    model, path = classifier(), tmp_path / "large.keras"
    model.save(path)
    preset = preset_with()
    expected = model.predict(preset.preprocessing.normalize(pixels), verbose=0)
    assert load_teacher(path, preset, LABELS)(pixels) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_run_gives_logits_in_the_order_of_the_students_labels(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    run = run_of(tmp_path / "run", ("blue", "red", "green"))
    network = build_network(run.preset.network, run.preset.preprocessing, 3)
    network.load_weights(run.weights)
    blue, red, green = network.predict(run.preset.preprocessing.normalize(pixels), verbose=0)["logits"].T
    answers = load_teacher(run.folder, preset_with(), LABELS)(pixels)
    assert answers == pytest.approx(np.stack([red, green, blue], axis=1), rel=1e-4, abs=1e-4)


def test_a_bundle_gives_logits_as_in_serving_in_the_order_of_the_students_labels(
    pixels: NDArray[np.uint8],
) -> None:
    bundle = load_bundle(CIFAR_BUNDLE)
    labels = bundle.labels[::-1][:10]
    answers = load_teacher(CIFAR_BUNDLE, preset_with(), labels)(pixels)
    served = Classifier(bundle, Limits(), threads=1)
    for image, found in zip(pixels, answers, strict=True):
        enlarged = bundle.preprocessing.pixels(Image.fromarray(image))
        assert np.array_equal(found, served.logits(enlarged)[::-1][:10])


def test_a_class_that_the_teacher_lacks_is_named(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    for source in (CIFAR_BUNDLE, run.folder):
        with pytest.raises(TeacherError, match="the teacher does not have the class 'axolotl'; choose one that has"):
            load_teacher(source, preset_with(), ("axolotl", *LABELS))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("large.keras", r"^recipe.teacher.source: .*large.keras is not a complete .keras file"),
        ("large.h5", r"^recipe.teacher.source: there is no bundle, run or .keras file .*large.h5"),
        ("manifest.json", r"^recipe.teacher.source: .*manifest.json is not valid JSON"),
        ("preset.json", r"^recipe.teacher.source: .*preset.json is damaged"),
    ],
)
def test_an_unusable_teacher_is_named(file: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("not what it should be")
    source = tmp_path if file.endswith(".json") else tmp_path / file
    with pytest.raises(TeacherError, match=message):
        load_teacher(source, preset_with(), LABELS)


def test_a_missing_teacher_is_named(tmp_path: Path, noisy: Dataset) -> None:
    preset = preset_with(Teacher(source=str(tmp_path / "missing.keras")))
    with pytest.raises(TeacherError, match=r"there is no bundle, run or .keras file .*missing.keras"):
        compute_soft_labels(preset, LABELS, noisy.train, tmp_path / "answers")


# Storage of the logits.


class CountingTeacher:
    """A teacher whose logits are weighted sums of the pixels, and that counts images; it can be interrupted."""

    def __init__(self, interrupted_after: int | None = None) -> None:
        self.images = 0
        self._limit = interrupted_after

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._limit is not None and self.images + len(pixels) > self._limit:
            raise KeyboardInterrupt
        self.images += len(pixels)
        return logits_of(pixels)


def logits_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute logits that depend on every pixel and its position."""
    weights = np.random.default_rng(3).normal(size=(*pixels.shape[1:], 3))
    return (np.tensordot(pixels / 255, weights, 3)).astype(np.float32)


Compute = Callable[..., tuple[SoftLabels, int]]


@pytest.fixture
def compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noisy: Dataset) -> Compute:
    """Compute soft labels with a teacher in a file; returns them and the number of images that it classified."""
    source = tmp_path / "large.keras"

    def compute(
        train: Split = noisy.train,
        content: str = "a teacher",
        views: int = 2,
        labels: tuple[str, ...] = LABELS,
        interrupted_after: int | None = None,
        **changes: Any,
    ) -> tuple[SoftLabels, int]:
        source.write_text(content)
        teacher = CountingTeacher(interrupted_after)
        monkeypatch.setattr("training.teacher.load_teacher", lambda *_: teacher)
        preset = preset_with(Teacher(source=str(source), views=views), **changes)
        soft_labels = compute_soft_labels(preset, labels, train, tmp_path / "answers")
        assert soft_labels
        return soft_labels, teacher.images

    return compute


def test_without_a_teacher_there_are_no_soft_labels(noisy: Dataset, tmp_path: Path) -> None:
    assert compute_soft_labels(preset_with(), LABELS, noisy.train, tmp_path / "answers") is None
    assert not (tmp_path / "answers").exists()


def test_logits_are_stored_as_float16_and_computed_once(compute: Compute) -> None:
    soft_labels, classified = compute()
    assert classified == 2 * 90
    assert (soft_labels.logits(1).dtype, soft_labels.logits(1).shape) == (np.float16, (90, 3))
    again, classified = compute()
    assert classified == 0
    assert np.array_equal(again.logits(2), soft_labels.logits(2))


def test_views_differ_and_repeat_after_the_last(compute: Compute) -> None:
    soft_labels, _ = compute()
    assert not np.array_equal(soft_labels.logits(1), soft_labels.logits(2))
    assert np.array_equal(soft_labels.logits(1), soft_labels.logits(3))
    assert np.array_equal(soft_labels.views(2).offsets, soft_labels.views(4).offsets)


def test_settings_of_the_loss_do_not_change_the_stored_logits(compute: Compute) -> None:
    compute()
    assert compute(momentum=0.5, batch_size=10, label_smoothing=0.1)[1] == 0


def test_only_missing_views_are_computed(compute: Compute) -> None:
    soft_labels, _ = compute()
    more, classified = compute(views=5)
    assert classified == 3 * 90
    assert np.array_equal(more.logits(1), soft_labels.logits(1))


@pytest.mark.parametrize(
    "changes",
    [
        {"content": "another teacher"},
        {"train": coloured((30, 30, 30))},
        {"augmentation": Augmentation(flip=True, crop_padding=1)},
        {"seed": 2},
        {"labels": ("blue", "green", "red")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_teacher_or_other_images_are_computed_again(changes: dict[str, Any], compute: Compute) -> None:
    compute()
    soft_labels, classified = compute(**changes)
    assert classified == 2 * 90
    assert len(list(soft_labels.folder.glob("view-*.npy"))) == 2


def test_an_interruption_loses_only_the_current_view(compute: Compute) -> None:
    with pytest.raises(KeyboardInterrupt):
        compute(views=3, interrupted_after=90 + 64)
    soft_labels, classified = compute(views=3)
    assert classified == 2 * 90
    assert [soft_labels.logits(epoch).shape for epoch in (1, 2, 3)] == [(90, 3)] * 3


def test_network_and_teacher_get_the_same_pixels(compute: Compute, noisy: Dataset) -> None:
    soft_labels, _ = compute(views=3)
    for epoch in (1, 2, 3, 4):
        batches = training_batches(noisy.train, 3, 20, epoch, VIEWS, soft_labels, epoch)
        for index in range(len(batches)):
            (batch,) = batches[index]
            assert np.array_equal(batch["teacher"], logits_of(batch["images"]).astype(np.float16))
    assert not np.array_equal(batch["images"], noisy.train.images.pixels(range(20)))


# Learning from the logits.


def test_the_loss_is_the_documented_one(noise: np.random.Generator) -> None:
    logits, answers = noise.normal(scale=3, size=(2, 6, 5)).astype(np.float32)
    classes, smoothing, temperature, weight = noise.integers(0, 5, 6), 0.1, 3.0, 0.7
    of_class = noise.uniform(0.5, 2, 5).astype(np.float32)

    def log_softmax(values: NDArray[np.float32]) -> NDArray[np.float64]:
        shifted = values.astype(np.float64) - values.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))

    smoothed = np.eye(5)[classes] * (1 - smoothing) + smoothing / 5
    from_labels = -(smoothed * log_softmax(logits)).sum(axis=1)
    soft = np.exp(log_softmax(answers / temperature))
    from_teacher = -(soft * log_softmax(logits / temperature)).sum(axis=1)
    losses = weight * temperature**2 * from_teacher + (1 - weight) * from_labels
    expected = (losses * of_class[classes]).mean()

    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    model = TrainingModel(
        keras.Model(network.inputs[0], {"logits": network.outputs[0]}),
        load_preset("folder").preprocessing,
        Augmentation(),
        seed=1,
        teacher=Teacher(source="large.keras", temperature=temperature, weight=weight),
        label_smoothing=smoothing,
        class_weights=of_class,
    )
    labels = np.eye(5, dtype=np.float32)[classes]
    found = model.compute_loss(y_pred={"logits": logits, "labels": labels, "teacher": answers})
    assert float(found) == pytest.approx(expected, rel=1e-5)
    without = model.compute_loss(y_pred={"logits": logits, "labels": labels})
    assert float(without) == pytest.approx((from_labels * of_class[classes]).mean(), rel=1e-5)


def test_a_network_that_learns_only_from_a_teacher_makes_its_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predict green for red, blue for green, and red for blue."""
        return np.roll(pixels.mean(axis=(1, 2)) / 20, 1, axis=1).astype(np.float32)

    colours = coloured((40, 40, 40))
    dataset = Dataset(LABELS, train=colours, validation=colours, test=colours, calibration=colours)
    (tmp_path / "large.keras").write_text("mistaken")
    monkeypatch.setattr("training.teacher.load_teacher", lambda *_: mistaken)
    teacher = Teacher(source=str(tmp_path / "large.keras"), views=1, weight=1.0)
    run = start_run(tmp_path / "run", preset_with(teacher), DataSummary(LABELS, "digest"))
    fit(run, dataset)
    network = build_network(run.preset.network, run.preset.preprocessing, 3)
    network.load_weights(run.weights)
    found = network.predict(run.preset.preprocessing.normalize(colours.images.pixels(range(120))), verbose=0)
    assert (found["logits"].argmax(axis=1) == (colours.classes + 1) % 3).mean() > 0.9


@pytest.fixture
def taught(tmp_path: Path) -> Callable[[str], Run]:
    """Runs whose teacher is a fitted run, which draws random weights when it is built."""
    source = run_of(tmp_path / "teacher").folder
    phases = (replace(SGD, epochs=1), replace(SGD, epochs=2, optimizer="adam"))
    preset = preset_with(Teacher(source=str(source), views=2), phases=phases)
    return lambda name: start_run(tmp_path / name, preset, DataSummary(LABELS, "digest"))


@pytest.mark.parametrize(("phase", "epoch"), [(1, 1), (2, 2)])
def test_an_interrupted_fit_with_a_teacher_continues_exactly(
    phase: int, epoch: int, taught: Callable[[str], Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, interrupted = taught("whole"), taught("interrupted")
    fit(whole, noisy)
    fit_until(interrupted, noisy, monkeypatch, phase=phase, epoch=epoch)
    fit(interrupted, noisy, resume=True)
    assert interrupted.history.read_text() == whole.history.read_text()


def test_a_fit_with_stored_logits_gives_the_same_result(
    taught: Callable[[str], Run], noisy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = taught("run")
    fit(run, noisy)
    first = run.history.read_text()

    def refuse(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("training.teacher.load_teacher", refuse)
    fit(run, noisy)
    assert run.history.read_text() == first


@pytest.mark.parametrize("field", ["mixup", "cutmix", "rotation", "zoom"])
def test_an_augmentation_that_the_teacher_does_not_support_is_refused(field: str) -> None:
    changes = ["recipe.teacher.source=models/large", f"recipe.augmentation.{field}=0.2"]
    with pytest.raises(PresetError, match="augmentation must be flip and crop_padding only if there is a teacher"):
        load_preset("folder", ["recipe.augmentation.rotation=0", "recipe.augmentation.zoom=0", *changes])


def test_an_unusable_teacher_leaves_no_files_behind(noisy: Dataset, tmp_path: Path) -> None:
    wrong = run_of(tmp_path / "wrong", labels=("red", "green", "axolotl"))
    preset = preset_with(Teacher(source=str(wrong.folder), views=1))
    with pytest.raises(TeacherError, match="does not have the class"):
        compute_soft_labels(preset, LABELS, noisy.train, tmp_path / "soft_labels")
    assert not (tmp_path / "soft_labels").exists()
