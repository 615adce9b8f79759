"""Import of classifiers that were trained elsewhere and saved as a .keras file."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from keras import layers

from litelens.core.bundle import FEATURES, IMAGE, LOGITS
from litelens.core.preprocessing import Preprocessing
from training.errors import NetworkError, first_line
from training.head import with_features
from training.pretrained import copy_weights

_OUTPUTS = {LOGITS, FEATURES}

# Layers that do not change scores, except for their shape or in training.
_SAME_SCORES = (layers.Dropout, layers.Flatten, layers.Identity, layers.Reshape)

# Layers whose outputs, without an activation, can have any sign and size, like scores before a softmax.
_UNBOUNDED = (layers.Add, layers.Average, layers.BatchNormalization, layers.GlobalAveragePooling2D, layers.Rescaling)


def import_classifier(path: Path, classes: int, spec: Preprocessing) -> keras.Model:
    """Load the classifier in a .keras file, with its weights, in the form of `training.network.build_network`.

    Input: "image", float32 `(batch, height, width, 3)` of `spec`, regardless of the dtype that the model was saved
    with. Outputs, by name: `logits`, float32 `(batch, classes)`, the scores before the softmax, which is removed if the
    model ends in one; and `features`, `(batch, h, w, channels)`, if the model ends in pooling and a dense layer. A
    model that litelens saved is returned unchanged.

    No code in the file is run: Lambda layers and layers of other packages are refused. The model is functional or
    Sequential; models inside it are unfolded into their layers. `spec` must normalize as in the model's training.

    Raises NetworkError if the file is not such a model, or does not fit the preset's size or labels.
    """
    model = _load(path)
    _check_input(model, path, spec)
    if _has_litelens_form(model):
        _check_classes(model.output[LOGITS], path, classes)
        return model
    if len(model.outputs) != 1:
        raise NetworkError(f"{path} has {len(model.outputs)} outputs; a classifier has one, the scores of the classes")
    unfolded = _unfold(model, path, spec)
    _check_classes(unfolded.outputs[0], path, classes)
    return with_features(_without_softmax(unfolded, path))


def _load(path: Path) -> keras.Model:
    if not path.is_file():
        raise NetworkError(f"there is no file {path}")
    config = _read_config(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    # A file of unknown origin can fail with any error.
    except Exception as error:
        raise NetworkError(f"{path} cannot be loaded: {_reason(config, error)}") from error
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise NetworkError(f"{path} is not a functional or Sequential model with a declared input")
    return model


def _read_config(path: Path) -> Any:
    try:
        if path.suffix != ".keras":
            raise ValueError("its name does not end in .keras")
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise NetworkError(
            f"{path} is not a complete .keras file, as model.save('NAME.keras') writes it: {first_line(error)}"
        ) from error


def _reason(config: Any, error: Exception) -> str:
    """Explain why Keras refused a model."""
    objects = list(_objects(config))
    if any(entry["class_name"] == "Lambda" for entry in objects):
        return "it has a Lambda layer, which would run code from the file; build the model of Keras' own layers instead"
    foreign = {entry["class_name"] for entry in objects if entry.get("registered_name")}
    if foreign:
        return (
            f"it needs code that is not in Keras ({', '.join(sorted(foreign))}); build it of Keras' own layers instead"
        )
    return first_line(error)


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every object that the configuration describes, at any depth, except those that only training needs."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config
        for key, value in config.items():
            if key != "compile_config":
                yield from _objects(value)
    elif isinstance(config, list):
        for value in config:
            yield from _objects(value)


def _check_input(model: keras.Model, path: Path, spec: Preprocessing) -> None:
    if len(model.inputs) != 1:
        raise NetworkError(f"{path} has {len(model.inputs)} inputs; an image classifier has one")
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or shape[3] != 3:
        raise NetworkError(f"{path} takes arrays of shape {shape}; it must take images, (batch, height, width, 3)")
    if shape[1] not in (None, spec.height) or shape[2] not in (None, spec.width):
        raise NetworkError(
            f"{path} takes images of {shape[1]}x{shape[2]}, but the preset's are {spec.height}x{spec.width}; "
            "set preprocessing.height and preprocessing.width to the size of the model"
        )


def _check_classes(logits: keras.KerasTensor, path: Path, classes: int) -> None:
    shape = tuple(logits.shape)
    if len(shape) != 2:
        raise NetworkError(f"{path} returns arrays of shape {shape}; a classifier returns scores, (batch, classes)")
    if shape[1] != classes:
        raise NetworkError(f"{path}: label mismatch: the model has {shape[1]} classes, but there are {classes} labels")


def _has_litelens_form(model: keras.Model) -> bool:
    (image,) = model.inputs
    return (
        not isinstance(model, keras.Sequential)
        and isinstance(model.output, dict)
        and LOGITS in model.output
        and model.output.keys() <= _OUTPUTS
        and image.name == IMAGE
        and image.dtype == "float32"
        and None not in image.shape[1:]
    )


def _unfold(model: keras.Model, path: Path, spec: Preprocessing) -> keras.Model:
    """Copy the model into one graph from "image" to its output, without models inside it."""
    _make_names_distinct(model, {IMAGE})
    image = keras.Input((spec.height, spec.width, 3), name=IMAGE, dtype="float32")
    try:
        unfolded = keras.Model(image, _call_layers(model, image))
        copy = keras.models.clone_model(unfolded)
    except ValueError as error:
        raise NetworkError(
            f"{path} cannot be built for images of {spec.height}x{spec.width}: {first_line(error)}"
        ) from error
    copy_weights(unfolded, copy)
    return copy


def _make_names_distinct(model: keras.Model, taken: set[str]) -> None:
    """Rename layers that share a name, as layers of different inner models may; in one graph, names must differ."""
    for layer in model.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        name, count = layer.name, 1
        while layer.name in taken:
            count += 1
            layer.name = f"{name}_{count}"
        taken.add(layer.name)
        if isinstance(layer, keras.Model):
            _make_names_distinct(layer, taken)


def _call_layers(model: keras.Model, x: keras.KerasTensor) -> keras.KerasTensor:
    """Compute the model's output for `x` by calling its layers one by one."""
    if isinstance(model, keras.Sequential):
        for layer in model.layers:
            x = _call(layer, x)
        return x
    results = [x]

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        results.append(_call(layer, *args, **kwargs))
        return results[-1]

    keras.models.clone_model(
        model,
        input_tensors=keras.tree.map_structure(lambda _: x, model.input),
        clone_function=lambda layer: layer,
        call_function=call,
    )
    # Keras runs the graph from its inputs, so the only output is the last result.
    (output,) = keras.tree.flatten(results[-1])
    return output


def _call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
    # A training=False that was given when the model was built is dropped. Keras ignores it in training too.
    if isinstance(layer, keras.Model) and len(layer.inputs) == len(layer.outputs) == len(args) == 1:
        return _call_layers(layer, args[0])
    return layer(*args, **kwargs)


def _without_softmax(model: keras.Model, path: Path) -> keras.Model:
    last = _find_scoring_layer(model)
    if type(last).__name__ in ("Softmax", "LogSoftmax") and last.input.shape == model.outputs[0].shape:
        return keras.Model(model.inputs[0], last.input, name=model.name)
    activation = getattr(last, "activation", None)
    if activation in (keras.activations.softmax, keras.activations.log_softmax):
        last.activation = keras.activations.linear
    elif activation is not keras.activations.linear and not isinstance(last, _UNBOUNDED):
        kind = type(last).__name__ if activation is None else getattr(activation, "__name__", str(activation))
        raise NetworkError(
            f"{path} ends in {kind}; its output must be the scores of mutually exclusive classes, "
            "before the softmax (no activation) or after it"
        )
    return model


def _find_scoring_layer(model: keras.Model) -> keras.Layer:
    """Return the last layer that is not one of those that leave scores as they are."""
    (tensor,) = model.outputs
    for layer in reversed(model.operations):
        if layer.output is not tensor:
            continue
        if not isinstance(layer, _SAME_SCORES) and not _is_linear_activation(layer):
            return layer
        tensor = layer.input
    return model.operations[-1]


def _is_linear_activation(layer: keras.Layer) -> bool:
    return isinstance(layer, layers.Activation) and layer.activation is keras.activations.linear
