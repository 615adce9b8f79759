"""Classifiers that were trained elsewhere and saved by Keras, made into networks like those trained here."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from keras import layers

from litelens.preprocessing import Preprocessing
from training.errors import NetworkError
from training.network import with_class_activation_map
from training.published import copy_weights, reason

_OUTPUTS = {"logits", "class_activation_map"}
_RESERVED = {"image", *_OUTPUTS}

# Layers after which scores are the same scores, in another shape or only in training.
_SAME_SCORES = (layers.Dropout, layers.Flatten, layers.Identity, layers.Reshape)

# Layers without an activation whose results are scores of any sign and size.
_UNBOUNDED = (layers.Add, layers.Average, layers.BatchNormalization, layers.GlobalAveragePooling2D, layers.Rescaling)


def load_brought(path: Path, classes: int, spec: Preprocessing) -> keras.Model:
    """The classifier in a .keras file, with its weights, as `training.network.build` would give it.

    Input: "image", float32 `(batch, height, width, 3)` of `spec`, whatever dtype the model was saved with.
    Outputs, by name: `logits`, float32 `(batch, classes)`, the scores before the softmax, which is taken off where
    the model ends in one; and `class_activation_map` where the model ends in pooling and a dense layer. A model
    that litelens saved is given as it is.

    No code of the file is run: Lambda layers and layers of other packages are refused. The model is functional or
    Sequential; models in it are unfolded into their layers. `spec` must normalize as the model was trained with.

    Raises NetworkError when the file is not such a model, or it does not fit the preset's size or labels.
    """
    model = _load(path)
    _check_input(model, path, spec)
    if _is_of_litelens(model):
        _check_classes(model.output["logits"], path, classes)
        return model
    if len(model.outputs) != 1:
        raise NetworkError(f"{path} has {len(model.outputs)} outputs; a classifier has one, the scores of the classes")
    flat = _flat(model, path, spec)
    _check_classes(flat.outputs[0], path, classes)
    return with_class_activation_map(_without_softmax(flat, path))


def _load(path: Path) -> keras.Model:
    if not path.is_file():
        raise NetworkError(f"there is no file {path}")
    config = _config(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    # What a file of unknown origin holds can fail in any way.
    except Exception as error:
        raise NetworkError(f"{path} cannot be loaded: {_why_not(config, error)}") from error
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise NetworkError(f"{path} is not a functional or Sequential model with a declared input")
    return model


def _config(path: Path) -> Any:
    try:
        if path.suffix != ".keras":
            raise ValueError("its name does not end in .keras")
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise NetworkError(
            f"{path} is not a whole .keras file, as model.save('NAME.keras') writes it: {reason(error)}"
        ) from error


def _why_not(config: Any, error: Exception) -> str:
    objects = list(_objects(config))
    if any(entry["class_name"] == "Lambda" for entry in objects):
        return (
            "it has a Lambda layer, which would run code from the file; save the model with Keras' own layers instead"
        )
    foreign = {entry["class_name"] for entry in objects if entry.get("registered_name")}
    if foreign:
        return (
            f"it needs code that is not in Keras ({', '.join(sorted(foreign))}); save it with Keras' own layers instead"
        )
    return reason(error)


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every object that the configuration describes, at any depth, but those that only training needs."""
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
        raise NetworkError(f"{path} has {len(model.inputs)} inputs; a classifier of images has one")
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or shape[3] != 3:
        raise NetworkError(f"{path} takes arrays of shape {shape}; it must take images, (batch, height, width, 3)")
    if shape[1] not in (None, spec.height) or shape[2] not in (None, spec.width):
        raise NetworkError(
            f"{path} takes images of {shape[1]}x{shape[2]}, the preset's are {spec.height}x{spec.width}; "
            "set preprocessing.height and preprocessing.width to the model's"
        )


def _check_classes(logits: keras.KerasTensor, path: Path, classes: int) -> None:
    shape = tuple(logits.shape)
    if len(shape) != 2:
        raise NetworkError(f"{path} gives arrays of shape {shape}; a classifier gives scores, (batch, classes)")
    if shape[1] != classes:
        raise NetworkError(f"{path}: label mismatch: the model has {shape[1]} classes, the labels are {classes}")


def _is_of_litelens(model: keras.Model) -> bool:
    (image,) = model.inputs
    return (
        not isinstance(model, keras.Sequential)
        and isinstance(model.output, dict)
        and "logits" in model.output
        and model.output.keys() <= _OUTPUTS
        and image.name == "image"
        and image.dtype == "float32"
        and None not in image.shape[1:]
    )


def _flat(model: keras.Model, path: Path, spec: Preprocessing) -> keras.Model:
    """The model as one graph from "image" to its output, with layers of its own, each used as often as there."""
    _make_names_distinct(model, set(_RESERVED))
    image = keras.Input((spec.height, spec.width, 3), name="image", dtype="float32")
    try:
        unfolded = keras.Model(image, _run(model, image))
        flat = keras.models.clone_model(unfolded)
    except ValueError as error:
        raise NetworkError(
            f"{path} cannot be built for images of {spec.height}x{spec.width}: {reason(error)}"
        ) from error
    copy_weights(unfolded, flat)
    return flat


def _make_names_distinct(model: keras.Model, taken: set[str]) -> None:
    """Layers of different models inside the model may have one name; in one graph they may not."""
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


def _run(model: keras.Model, x: keras.KerasTensor) -> keras.KerasTensor:
    """What the model gives for `x`, by calls of its layers instead of one of the model."""
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
    # The graph is run from its inputs on, so that the only output comes last.
    (output,) = keras.tree.flatten(results[-1])
    return output


def _call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
    # A training=False that was given when the model was built is dropped; Keras too overrides it when it trains.
    if isinstance(layer, keras.Model) and len(layer.inputs) == len(layer.outputs) == len(args) == 1:
        return _run(layer, args[0])
    return layer(*args, **kwargs)


def _without_softmax(model: keras.Model, path: Path) -> keras.Model:
    last = _scoring(model)
    if type(last).__name__ in ("Softmax", "LogSoftmax") and last.input.shape == model.outputs[0].shape:
        return keras.Model(model.inputs[0], last.input, name=model.name)
    activation = getattr(last, "activation", None)
    if activation in (keras.activations.softmax, keras.activations.log_softmax):
        last.activation = keras.activations.linear
    elif activation is not keras.activations.linear and not isinstance(last, _UNBOUNDED):
        kind = type(last).__name__ if activation is None else getattr(activation, "__name__", str(activation))
        raise NetworkError(
            f"{path} ends in {kind}; its output must be the scores of classes that exclude each other, "
            "before the softmax (no activation) or after it"
        )
    return model


def _scoring(model: keras.Model) -> keras.Layer:
    """The layer that makes the scores: the last one, but for those that leave scores as they are."""
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
