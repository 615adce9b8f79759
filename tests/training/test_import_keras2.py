"""Import of models that Keras 2 saved, without Keras 2. tests/training/keras2/make.py wrote them."""

import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from litelens.core.preprocessing import Preprocessing
from training.errors import NetworkError
from training.keras_import import import_classifier, read_input_size

MODELS = Path(__file__).parent / "keras2"
SIZE, CLASSES = 16, 5
SPEC = Preprocessing(SIZE, SIZE, 1.0, "bilinear", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
FILES = sorted(path.name for path in MODELS.glob("*.h5")) + sorted(path.name for path in MODELS.glob("*.keras"))


@pytest.fixture(scope="module")
def recorded() -> dict[str, NDArray[np.float32]]:
    """The images, and the answers of Keras 2 by model."""
    with np.load(MODELS / "answers.npz") as arrays:
        return dict(arrays)


def scores(path: Path, images: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    model = import_classifier(path, classes, SPEC)
    found: NDArray[np.float32] = model.predict(images, verbose=0)["logits"]
    return found


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return result


def change_config(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the model's configuration in an HDF5 file."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)


@pytest.mark.parametrize("name", FILES)
def test_a_keras_2_model_gives_its_own_answers(name: str, recorded: dict[str, NDArray[np.float32]]) -> None:
    expected = recorded[Path(name).stem]
    classes = expected.shape[1] if expected.shape[1] > 1 else 2
    found = scores(MODELS / name, recorded["images"], classes)
    if expected.shape[1] == 1:
        found, expected = softmax(found), np.concatenate([1 - expected, expected], axis=1)
    elif np.allclose(expected.sum(axis=1), 1):
        found = softmax(found)
    # Keras 2 computed the model in mixed precision with half floats.
    tolerance = 0.01 if name.startswith("mixed") else 1e-4
    assert found == pytest.approx(expected, rel=tolerance, abs=1e-5)


@pytest.mark.parametrize("name", ["transfer.h5", "shared.keras", "bgr.h5"])
def test_a_keras_2_model_that_ends_in_pooling_and_a_dense_layer_has_features(name: str) -> None:
    classes = 2 if name.startswith("transfer") else CLASSES
    assert set(import_classifier(MODELS / name, classes, SPEC).output) == {"logits", "features"}


def test_a_file_from_before_modules_were_recorded_is_read(
    tmp_path: Path, recorded: dict[str, NDArray[np.float32]]
) -> None:
    def remove_modules(value: Any) -> None:
        if isinstance(value, dict):
            for key in ("module", "registered_name", "build_config"):
                value.pop(key, None)
            for inner in value.values():
                remove_modules(inner)
        elif isinstance(value, list):
            for inner in value:
                remove_modules(inner)

    path = Path(shutil.copy(MODELS / "teachable.h5", tmp_path))
    change_config(path, remove_modules)
    found = softmax(scores(path, recorded["images"], CLASSES))
    assert found == pytest.approx(recorded["teachable"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["transfer.h5", "transfer.keras", "teachable.h5"])
def test_the_size_of_the_images_is_read_without_loading_the_model(name: str) -> None:
    assert read_input_size(MODELS / name) == (SIZE, SIZE)


def test_a_function_without_a_layer_in_keras_3_is_named(tmp_path: Path) -> None:
    def replace_function(config: dict[str, Any]) -> None:
        layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "TFOpLambda")
        layer["config"]["function"] = "math.cumsum"

    path = Path(shutil.copy(MODELS / "functions.h5", tmp_path))
    change_config(path, replace_function)
    with pytest.raises(NetworkError, match=r"Keras 2 .*tf\.math\.truediv.*tf\.math\.cumsum"):
        import_classifier(path, CLASSES, SPEC)


def test_an_activation_that_keras_3_computes_otherwise_is_named(tmp_path: Path) -> None:
    def replace_activation(config: dict[str, Any]) -> None:
        layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Activation")
        layer["config"]["activation"] = "hard_sigmoid"

    path = Path(shutil.copy(MODELS / "functions.h5", tmp_path))
    change_config(path, replace_activation)
    with pytest.raises(NetworkError, match=r"activation.*hard_sigmoid"):
        import_classifier(path, CLASSES, SPEC)


def test_a_layer_of_a_keras_2_model_that_keras_3_lacks_is_named(tmp_path: Path) -> None:
    def replace_layer(config: dict[str, Any]) -> None:
        layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Conv2D")
        layer["class_name"] = "LocallyConnected2D"

    path = Path(shutil.copy(MODELS / "functions.h5", tmp_path))
    change_config(path, replace_layer)
    with pytest.raises(NetworkError, match=r"Keras 2 .*LocallyConnected2D.*FOLDER"):
        import_classifier(path, CLASSES, SPEC)


def test_a_lambda_layer_of_a_keras_2_model_is_named_and_not_run(tmp_path: Path) -> None:
    def replace_layer(config: dict[str, Any]) -> None:
        layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Activation")
        layer["class_name"], layer["config"]["name"] = "Lambda", "scaling"

    path = Path(shutil.copy(MODELS / "functions.h5", tmp_path))
    change_config(path, replace_layer)
    with pytest.raises(NetworkError, match="'scaling' is a Lambda layer"):
        import_classifier(path, CLASSES, SPEC)


def test_a_file_of_weights_only_is_refused(tmp_path: Path) -> None:
    path = Path(shutil.copy(MODELS / "mixed.h5", tmp_path))
    with h5py.File(path, "r+") as file:
        del file.attrs["model_config"]
    with pytest.raises(NetworkError, match="weights only"):
        import_classifier(path, CLASSES, SPEC)


def test_a_damaged_keras_2_file_is_called_that(tmp_path: Path) -> None:
    path = tmp_path / "damaged.keras"
    with zipfile.ZipFile(MODELS / "mixed.keras") as whole, zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, b"not HDF5" if name.endswith(".h5") else whole.read(name))
    with pytest.raises(NetworkError, match=r"damaged\.keras is a Keras 2 file"):
        import_classifier(path, CLASSES, SPEC)


def test_a_damaged_configuration_is_refused_or_read_but_never_fails_otherwise(tmp_path: Path) -> None:
    generator = random.Random(1)

    def damage(config: dict[str, Any]) -> None:
        holders: list[Any] = []
        pending: list[Any] = [config]
        while pending:
            value = pending.pop()
            if isinstance(value, dict | list) and value:
                holders.append(value)
                pending += value.values() if isinstance(value, dict) else value
        holder = generator.choice(holders)
        key = generator.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if generator.random() < 0.5:
            del holder[key]
        else:
            holder[key] = generator.choice([None, -1, "x", [], {}, [[["x", 0, 0, {}]]], {"class_name": "Conv2D"}])

    refused = 0
    for index in range(40):
        path = Path(shutil.copy(MODELS / "functions.h5", tmp_path / f"{index}.h5"))
        change_config(path, damage)
        try:
            import_classifier(path, CLASSES, SPEC)
        except NetworkError:
            refused += 1
    assert refused > 10
