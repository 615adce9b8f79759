"""Import of classifiers that were saved by Keras elsewhere."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

from litelens.core.preprocessing import Preprocessing
from training.errors import NetworkError
from training.head import read_head
from training.keras_import import import_classifier
from training.network import Network, build_network

SPEC = Preprocessing(32, 32, 1.0, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CLASSES = 5

Save = Callable[[keras.Model], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save(model: keras.Model) -> Path:
        path = tmp_path / "imported.keras"
        model.save(path)
        return path

    return save


@pytest.fixture
def images(noise: np.random.Generator) -> NDArray[np.float32]:
    return noise.uniform(size=(3, 32, 32, 3)).astype(np.float32)


def classifier(*end: layers.Layer, size: int | None = 32) -> keras.Sequential:
    image = keras.Input((size, size, 3))
    return keras.Sequential([image, layers.Conv2D(8, 3, strides=2, activation="relu"), *end])


def answer(model: keras.Model, images: NDArray[Any]) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(images))


def logits_of(model: keras.Model, images: NDArray[np.float32]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = answer(model, images)["logits"]
    return logits


def probabilities_of(model: keras.Model, images: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(logits_of(model, images))
    answer: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return answer


@pytest.mark.parametrize(
    "end",
    [
        lambda: [layers.Dense(CLASSES, activation="softmax", name="logits")],
        lambda: [layers.Dense(CLASSES), layers.Activation("softmax", dtype="float32")],
        lambda: [layers.Dense(CLASSES), layers.Softmax()],
        lambda: [layers.Dense(CLASSES, activation="softmax"), layers.Activation("linear")],
    ],
    ids=["in the dense layer", "as an activation", "as a softmax layer", "before a linear activation"],
)
def test_a_final_softmax_is_removed(
    end: Callable[[], list[layers.Layer]], save: Save, images: NDArray[np.float32]
) -> None:
    model = classifier(layers.GlobalMaxPooling2D(), *end())
    imported = import_classifier(save(model), CLASSES, SPEC)
    assert logits_of(imported, images).sum(axis=1) != pytest.approx(np.ones(3), abs=1e-3)
    assert probabilities_of(imported, images) == pytest.approx(answer(model, images), abs=1e-5)


def test_pooling_and_a_dense_layer_become_a_head_with_the_same_logits(save: Save, images: NDArray[np.float32]) -> None:
    image = keras.Input((32, 32, 3), name="photo")
    x = layers.BatchNormalization(name="image")(layers.Conv2D(8, 3, strides=2, activation="relu")(image))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, layers.Dense(CLASSES)(x))
    imported = import_classifier(save(model), CLASSES, SPEC)
    outputs, head = answer(imported, images), read_head(imported)
    assert outputs["logits"] == pytest.approx(answer(model, images), abs=1e-5)
    assert outputs["features"].shape == (3, 15, 15, 8)
    assert head
    assert head.logits(outputs["features"][0].mean(axis=(0, 1))) == pytest.approx(outputs["logits"][0], abs=1e-5)


def test_flattening_and_a_dense_layer_have_logits_only(save: Save, images: NDArray[np.float32]) -> None:
    model = classifier(layers.Flatten(), layers.Dense(CLASSES))
    outputs = answer(import_classifier(save(model), CLASSES, SPEC), images)
    assert outputs.keys() == {"logits"}
    assert outputs["logits"] == pytest.approx(answer(model, images), abs=1e-5)


def test_models_inside_the_model_are_unfolded(save: Save, images: NDArray[np.float32]) -> None:
    adapted = layers.Normalization()
    adapted.adapt(images)
    inner = keras.Input((32, 32, 3))
    body = layers.Conv2D(8, 3, name="conv")(inner)
    body = layers.Add()([body, keras.ops.relu(body) * 2])
    body = keras.Model(inner, layers.GlobalAveragePooling2D()(body), name="body")
    end = keras.Sequential([keras.Input((8,)), layers.Dense(CLASSES, activation="softmax", name="conv")])
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, end(body(adapted(image), training=False)))
    imported = import_classifier(save(model), CLASSES, SPEC)
    assert imported.output["features"].shape == (None, 30, 30, 8)
    assert not any(isinstance(layer, keras.Model) for layer in imported.layers)
    assert probabilities_of(imported, images) == pytest.approx(answer(model, images), abs=1e-5)


def test_a_model_with_integer_input_accepts_floats(save: Save, images: NDArray[np.float32]) -> None:
    pixels = np.round(images * 255)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )
    imported = import_classifier(save(model), CLASSES, SPEC)
    (image,) = imported.inputs
    assert (image.name, image.dtype, image.shape) == ("image", "float32", (None, 32, 32, 3))
    assert logits_of(imported, pixels) == pytest.approx(answer(model, pixels.astype(np.uint8)), abs=1e-5)
    assert np.abs(logits_of(imported, pixels + 0.4) - logits_of(imported, pixels)).max() > 1e-4


def test_a_model_of_any_size_is_built_for_the_presets_size(save: Save, images: NDArray[np.float32]) -> None:
    model = classifier(layers.GlobalAveragePooling2D(), layers.Dense(CLASSES), size=None)
    imported = import_classifier(save(model), CLASSES, SPEC)
    assert imported.inputs[0].shape == (None, 32, 32, 3)
    assert logits_of(imported, images) == pytest.approx(answer(model, images), abs=1e-5)


def test_a_network_of_litelens_is_not_changed(save: Save, images: NDArray[np.float32]) -> None:
    network = build_network(Network("cnn", "none", "new"), SPEC, CLASSES)
    imported = import_classifier(save(network), CLASSES, SPEC)
    assert [layer.name for layer in imported.layers] == [layer.name for layer in network.layers]
    assert np.array_equal(logits_of(imported, images), logits_of(network, images))
    with pytest.raises(NetworkError, match="label mismatch: the model has 5 classes, but there are 6 labels"):
        import_classifier(save(network), 6, SPEC)


def test_another_number_of_classes_is_refused(save: Save) -> None:
    path = save(classifier(layers.Flatten(), layers.Dense(CLASSES)))
    with pytest.raises(NetworkError, match="label mismatch: the model has 5 classes, but there are 10 labels"):
        import_classifier(path, 10, SPEC)


@pytest.mark.parametrize(
    ("last", "ending"),
    [
        (lambda: layers.Dense(CLASSES, activation="sigmoid"), "sigmoid"),
        (lambda: layers.Activation("tanh"), "tanh"),
        (lambda: layers.ReLU(), "ReLU"),
    ],
)
def test_a_final_layer_other_than_softmax_is_refused(last: Callable[[], layers.Layer], ending: str, save: Save) -> None:
    path = save(classifier(layers.Flatten(), layers.Dense(CLASSES), last()))
    with pytest.raises(NetworkError, match=f"ends in {ending}; .*before the softmax"):
        import_classifier(path, CLASSES, SPEC)


def two_inputs() -> keras.Model:
    inputs = [keras.Input((32, 32, 3)), keras.Input((32, 32, 3))]
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.Flatten()(layers.Add()(inputs))))


def two_outputs() -> keras.Model:
    image = keras.Input((32, 32, 3))
    x = layers.Flatten()(image)
    return keras.Model(image, [layers.Dense(CLASSES)(x), layers.Dense(CLASSES)(x)])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (two_inputs, "has 2 inputs"),
        (two_outputs, "has 2 outputs"),
        (lambda: keras.Sequential([keras.Input((32, 32, 1)), layers.Flatten(), layers.Dense(5)]), "must take images"),
        (lambda: classifier(layers.Flatten(), layers.Dense(5), size=16), "images of 16x16, but the preset's are 32x32"),
        (lambda: classifier(layers.Dense(5)), "a classifier returns scores"),
    ],
)
def test_a_model_that_is_not_an_image_classifier_is_refused(
    model: Callable[[], keras.Model], message: str, save: Save
) -> None:
    with pytest.raises(NetworkError, match=message):
        import_classifier(save(model()), CLASSES, SPEC)


def test_a_lambda_layer_is_refused_and_not_run(save: Save, tmp_path: Path) -> None:
    bait = str(tmp_path / "run")
    image = keras.Input((32, 32, 3))
    touched = layers.Lambda(lambda x: [x, open(bait, "w").close()][0], output_shape=(32, 32, 3))(image)
    path = save(keras.Model(image, layers.Dense(CLASSES)(layers.Flatten()(touched))))
    Path(bait).unlink(missing_ok=True)
    with pytest.raises(NetworkError, match="Lambda layer, which would run code"):
        import_classifier(path, CLASSES, SPEC)
    assert not Path(bait).exists()


def test_a_layer_of_another_package_is_named(save: Save) -> None:
    class Doubling(layers.Layer):  # type: ignore[misc]
        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            return x * 2

    path = save(classifier(Doubling(), layers.Flatten(), layers.Dense(CLASSES)))
    with pytest.raises(NetworkError, match=r"not in Keras \(Doubling 'doubling'\)"):
        import_classifier(path, CLASSES, SPEC)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"there is no file .*absent\.keras"):
        import_classifier(tmp_path / "absent.keras", CLASSES, SPEC)


def test_a_damaged_file_is_named(save: Save) -> None:
    path = save(classifier(layers.Flatten(), layers.Dense(CLASSES)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(NetworkError, match=r"imported\.keras is not a complete \.keras file"):
        import_classifier(path, CLASSES, SPEC)


def test_a_file_with_damaged_weights_is_named(save: Save, tmp_path: Path) -> None:
    path = save(classifier(layers.Flatten(), layers.Dense(CLASSES)))
    damaged = tmp_path / "damaged.keras"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(damaged, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, b"not HDF5" if name.endswith(".h5") else whole.read(name))
    with pytest.raises(NetworkError, match=r"damaged\.keras cannot be loaded"):
        import_classifier(damaged, CLASSES, SPEC)


def test_another_format_is_refused(save: Save, tmp_path: Path) -> None:
    path = save(classifier(layers.Flatten(), layers.Dense(CLASSES)))
    renamed = shutil.copy(path, tmp_path / "model.zip")
    with pytest.raises(NetworkError, match=r"model\.zip is not a complete \.keras file.*does not end in \.keras"):
        import_classifier(renamed, CLASSES, SPEC)
