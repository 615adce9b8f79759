"""Import of classifiers from SavedModel folders, without running anything but arithmetic."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from litelens.core.preprocessing import Preprocessing
from training.candidates import Candidate
from training.errors import NetworkError
from training.head import read_head
from training.keras_import import import_classifier, read_input_size
from training.quantize import quantize

SIZE, CLASSES = 16, 5
SPEC = Preprocessing(SIZE, SIZE, 1.0, "bilinear", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
PIXELS = np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), np.uint8)
IMAGES = SPEC.normalize(PIXELS)


@pytest.fixture(autouse=True)
def seed() -> None:
    keras.utils.set_random_seed(3)


def classifier(*end: layers.Layer) -> keras.Model:
    start = (keras.Input((SIZE, SIZE, 3)), layers.Rescaling(1 / 255), layers.Conv2D(8, 3, strides=2))
    return keras.Sequential([*start, layers.BatchNormalization(), layers.ReLU(), *end])


def pooled(units: int = CLASSES, activation: str | None = None) -> keras.Model:
    return classifier(layers.GlobalAveragePooling2D(), layers.Dense(units, activation=activation))


def export(model: keras.Model, folder: Path, **options: Any) -> Path:
    model.export(folder / "saved", verbose=False, **options)
    return folder / "saved"


def logits(network: keras.Model) -> NDArray[np.float32]:
    found: NDArray[np.float32] = network.predict(IMAGES, verbose=0)["logits"]
    return found


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return result


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_a_saved_model_gives_its_own_answers_and_features(activation: str | None, tmp_path: Path) -> None:
    model = pooled(activation=activation)
    network = import_classifier(export(model, tmp_path), CLASSES, SPEC)
    found = softmax(logits(network)) if activation else logits(network)
    assert found == pytest.approx(model.predict(IMAGES, verbose=0), rel=1e-4, abs=1e-5)
    assert network.output["features"].shape == (None, 7, 7, 8)
    head = read_head(network)
    assert head
    assert np.array_equal(head.weights, model.layers[-1].get_weights()[0].T)


def test_a_saved_model_without_pooling_has_logits_only(tmp_path: Path) -> None:
    model = classifier(layers.Flatten(), layers.Dense(CLASSES), layers.Softmax())
    network = import_classifier(export(model, tmp_path), CLASSES, SPEC)
    assert set(network.output) == {"logits"}
    assert softmax(logits(network)) == pytest.approx(model.predict(IMAGES, verbose=0), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("end", [layers.GlobalAveragePooling2D, layers.Flatten])
@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_one_output_with_two_labels_is_the_probability_of_the_second(
    activation: str | None, end: Callable[[], layers.Layer], tmp_path: Path
) -> None:
    model = classifier(end(), layers.Dense(1, activation=activation))
    network = import_classifier(export(model, tmp_path), 2, SPEC)
    expected = model.predict(IMAGES, verbose=0)[:, 0]
    probability = expected if activation else 1 / (1 + np.exp(-expected))
    assert softmax(logits(network))[:, 1] == pytest.approx(probability, abs=1e-4)


def test_a_saved_model_for_one_image_at_a_time_becomes_an_int8_model(tmp_path: Path) -> None:
    model = pooled()
    signature = [keras.InputSpec(shape=(1, SIZE, SIZE, 3), dtype="float32", name="photo")]
    network = import_classifier(export(model, tmp_path, input_signature=signature), CLASSES, SPEC)
    assert logits(network) == pytest.approx(model.predict(IMAGES, verbose=0), rel=1e-4, abs=1e-5)
    _, (score,) = quantize(network, (Candidate("TFLiteConverter", 7, 12),), IMAGES, PIXELS, SPEC, None)
    assert score.error is None
    assert score.divergence is not None
    assert score.divergence < 0.05


def test_the_size_of_the_images_is_read_from_the_signature(tmp_path: Path) -> None:
    assert read_input_size(export(pooled(), tmp_path)) == (SIZE, SIZE)


def module(call: Callable[[Any], Any], folder: Path) -> Path:
    """Save a function of images as the signature of a SavedModel."""
    image = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, "image")
    holder = tf.Module()
    holder.call = tf.function(call, input_signature=[image])
    tf.saved_model.save(holder, str(folder), signatures={"serving_default": holder.call})
    return folder


def test_a_saved_model_that_reads_a_file_is_refused_before_it_runs(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("12345")

    def call(image: Any) -> Any:
        length = tf.strings.length(tf.io.read_file(str(secret)))
        return tf.reduce_mean(image, [1, 2]) + tf.cast(length, tf.float32)

    with pytest.raises(NetworkError, match=r"ReadFile|StringLength"):
        import_classifier(module(call, tmp_path / "saved"), 3, SPEC)


def test_a_saved_model_that_writes_a_file_in_an_inner_function_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "written"

    @tf.function  # type: ignore[misc]  # TensorFlow has no types
    def write(image: Any) -> Any:
        tf.io.write_file(str(target), "run")
        return tf.identity(image)

    with pytest.raises(NetworkError, match="WriteFile"):
        import_classifier(module(lambda image: tf.reduce_mean(write(image), [1, 2]), tmp_path / "saved"), 3, SPEC)
    assert not target.exists()


def test_a_saved_model_with_a_table_is_refused_because_loading_it_would_fill_it(tmp_path: Path) -> None:
    words = tf.lookup.KeyValueTensorInitializer(tf.constant(["a"]), tf.constant([1.0]))
    holder = tf.Module()
    holder.table = tf.lookup.StaticHashTable(words, 0.0)
    image = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, "image")
    holder.call = tf.function(
        lambda image: tf.reduce_mean(image, [1, 2]) + holder.table.lookup(tf.constant("a")), input_signature=[image]
    )
    tf.saved_model.save(holder, str(tmp_path / "saved"), signatures={"serving_default": holder.call})
    with pytest.raises(NetworkError, match="resource"):
        import_classifier(tmp_path / "saved", 3, SPEC)


def test_a_saved_model_that_augments_at_random_is_refused_with_what_to_do(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.RandomFlip(), layers.Flatten(), layers.Dense(5)])
    with pytest.raises(NetworkError, match=r"model\.save"):
        import_classifier(export(model, tmp_path), CLASSES, SPEC)


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"5 classes.* 4 labels"):
        import_classifier(export(pooled(), tmp_path), 4, SPEC)


def test_another_ending_than_softmax_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="ends in Sigmoid"):
        import_classifier(export(pooled(activation="sigmoid"), tmp_path), CLASSES, SPEC)


def test_a_saved_model_of_another_size_is_refused_with_the_options(tmp_path: Path) -> None:
    spec = Preprocessing(32, 32, 1.0, "bilinear", SPEC.mean, SPEC.std)
    with pytest.raises(NetworkError, match=r"preprocessing\.height=16"):
        import_classifier(export(pooled(), tmp_path), CLASSES, spec)


def test_a_damaged_saved_model_is_named(tmp_path: Path) -> None:
    path = export(pooled(), tmp_path)
    whole = (path / "saved_model.pb").read_bytes()
    for damaged in (b"\xff" * 100, whole[: len(whole) // 2]):
        (path / "saved_model.pb").write_bytes(damaged)
        with pytest.raises(NetworkError, match="saved"):
            import_classifier(path, CLASSES, SPEC)


def test_a_saved_model_without_its_weights_is_named(tmp_path: Path) -> None:
    path = export(pooled(), tmp_path)
    for file in (path / "variables").iterdir():
        file.unlink()
    with pytest.raises(NetworkError, match="cannot be loaded"):
        import_classifier(path, CLASSES, SPEC)
