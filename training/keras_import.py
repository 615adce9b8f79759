"""Import of classifiers that were trained elsewhere: .keras and .h5 files of Keras 3 and 2, and SavedModel folders."""

import inspect
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers

from litelens.core.bundle import FEATURES, IMAGE, LOGITS
from litelens.core.preprocessing import Preprocessing
from training import saved_model_import
from training.errors import NetworkError, first_line
from training.head import with_features
from training.keras2 import UnsupportedLayerError, is_keras2, load_keras2_model
from training.pretrained import copy_weights
from training.saved_model_import import FILE, import_saved_model, is_saved_model, two_classes

_OUTPUTS = {LOGITS, FEATURES}
_HDF5 = (".h5", ".hdf5")

# Far more than any network's configuration, and little enough for any memory.
_MAX_CONFIG_BYTES = 64 << 20

# Unpacked; the largest network of keras.applications has less than 1 GB.
_MAX_BYTES = 4 << 30

# Other files that people have, and what to do with them.
_OTHER_FORMATS = {
    ".onnx": "is an ONNX model. No well-kept converter of ONNX runs beside this version of TensorFlow. In an "
    "environment of its own, run: pip install onnx2tf, then onnx2tf -i FILE.onnx -o FOLDER; then give --model FOLDER",
    ".tflite": "is a TFLite model, which needs no training; run: litelens import FILE.tflite --labels LABELS.txt",
    ".pt": "is a PyTorch file; export the model to ONNX with torch.onnx.export",
    ".pth": "is a PyTorch file; export the model to ONNX with torch.onnx.export",
    ".safetensors": "holds weights only; export the model to ONNX with torch.onnx.export",
    ".pb": "is a part of a SavedModel; give the folder that has it, variables/ included",
}

# TensorFlow's converter ends its process when it quantizes one of these.
_RECURRENT = ("RNN", "LSTM", "GRU", "SimpleRNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")

# Layers that do not change scores, except for their shape or in training.
_SAME_SCORES = (layers.Dropout, layers.Flatten, layers.Identity, layers.Reshape)

# Layers whose outputs, without an activation, can have any sign and size, like scores before a softmax.
_UNBOUNDED = (layers.Add, layers.Average, layers.BatchNormalization, layers.GlobalAveragePooling2D, layers.Rescaling)


def import_classifier(path: Path, classes: int, spec: Preprocessing) -> keras.Model:
    """Load a classifier, with its weights, in the form of `training.network.build_network`.

    `path` is a .keras or .h5 file of Keras 3 or Keras 2, or a SavedModel folder.

    Input: "image", float32 `(batch, height, width, 3)` of `spec`, regardless of the dtype that the model was saved
    with. Outputs, by name: `logits`, float32 `(batch, classes)`, the scores before the softmax, which is removed if the
    model ends in one; and `features`, `(batch, h, w, channels)`, if the model ends in pooling and a dense layer. A
    model with one output and two classes gives the probability of the second class, or its score before the sigmoid;
    it becomes one with two outputs. A model that litelens saved is returned unchanged.

    No code in the file is run: Lambda layers and layers of other packages are refused. The model is functional or
    Sequential; models inside it are unfolded into their layers, all layers compute in float32, and layers that augment
    images in training let them pass. `spec` must normalize as in the model's training.

    Raises NetworkError if the file is not such a model, or does not fit the preset's size or labels.
    """
    if is_saved_model(path):
        return import_saved_model(path, classes, spec)
    model = _load(path)
    _check_input(model, path, spec)
    if _has_litelens_form(model):
        _check_classes(model.output[LOGITS], path, classes)
        return model
    if len(model.outputs) != 1:
        raise NetworkError(f"{path} has {len(model.outputs)} outputs; a classifier has one, the scores of the classes")
    unfolded = _unfold(model, path, spec)
    _check_classes(unfolded.outputs[0], path, classes)
    scores = _without_softmax(unfolded, path)
    return with_features(scores if scores.outputs[0].shape[1] == classes else _with_two_classes(scores))


def read_input_size(path: Path) -> tuple[int, int] | None:
    """Return the height and width of the images that a model takes, or None if it takes any size.

    The model is not loaded. Raises NetworkError if the file or folder is not a model.
    """
    if is_saved_model(path):
        return saved_model_import.read_input_size(path)
    _check_format(path)
    _, config = _read_config(path)
    for entry in _objects(config):
        options = entry.get("config")
        shape = (options.get("batch_shape") or options.get("batch_input_shape")) if isinstance(options, dict) else None
        if isinstance(shape, list) and len(shape) == 4:
            _, height, width, _ = shape
            return (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return None


def _load(path: Path) -> keras.Model:
    _check_format(path)
    version, config = _read_config(path)
    _check_layers(config, path)
    try:
        if is_keras2(version):
            model = load_keras2_model(path, config)
        else:
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except UnsupportedLayerError as error:
        raise NetworkError(f"{path} is a Keras 2 file, and {error}. {_HOW_TO_EXPORT}") from error
    # A file of unknown origin can fail with any error.
    except Exception as error:
        if is_keras2(version):
            raise NetworkError(
                f"{path} is a Keras 2 file that Keras 3 cannot read: {first_line(error)}. {_HOW_TO_EXPORT}"
            ) from error
        raise NetworkError(f"{path} cannot be loaded: {first_line(error)}") from error
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise NetworkError(f"{path} is not a functional or Sequential model with a declared input. {_HOW_TO_EXPORT}")
    return model


_HOW_TO_EXPORT = (
    "Where the model was trained, load it and save it as a SavedModel: model.export('FOLDER') with Keras 3, "
    "tf.saved_model.save(model, 'FOLDER') with Keras 2; then give --model FOLDER"
)


def _check_format(path: Path) -> None:
    if path.is_dir():
        raise NetworkError(f"{path} is a folder without {FILE}; a SavedModel folder has that file and variables/")
    if not path.exists():
        raise NetworkError(f"there is no file {path}")
    if advice := _OTHER_FORMATS.get(path.suffix.lower()):
        raise NetworkError(f"{path} {advice}")


def _read_config(path: Path) -> tuple[str, Any]:
    """Read the Keras version that saved a file, and the model's configuration."""
    try:
        if path.suffix in _HDF5:
            return _read_hdf5_config(path)
        if path.suffix != ".keras":
            raise ValueError("its name does not end in .keras")
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
                raise ValueError(f"it has more than {_MAX_BYTES >> 30} GiB")
            metadata = json.loads(_read_member(archive, "metadata.json"))
            return str(metadata.get("keras_version", "")), json.loads(_read_member(archive, "config.json"))
    except (OSError, ValueError, KeyError, AttributeError, RecursionError, zipfile.BadZipFile) as error:
        name = ".keras file, as model.save('NAME.keras')"
        if path.suffix in _HDF5:
            name = f"{path.suffix} file of a whole model, as model.save('NAME.h5')"
        raise NetworkError(f"{path} is not a complete {name} writes it: {first_line(error)}") from error


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MAX_CONFIG_BYTES:
        raise ValueError(f"{name} has more than {_MAX_CONFIG_BYTES >> 20} MiB")
    return archive.read(name)


def _read_hdf5_config(path: Path) -> tuple[str, Any]:
    with h5py.File(path, "r") as file:
        config, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "2")
    if config is None:
        raise ValueError("it has weights only, and no network")
    return _text(version), json.loads(_text(config))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_layers(config: Any, path: Path) -> None:
    """Raise NetworkError, naming the layer, if the model needs code that is not in Keras, is recurrent or quantized."""
    foreign = {}
    for entry in _objects(config):
        kind, name = entry["class_name"], _name(entry)
        if kind == "Lambda":
            raise NetworkError(
                f"{path} cannot be loaded: '{name}' is a Lambda layer, which would run code from the file. Build the "
                "model of Keras' own layers instead, such as Rescaling, and load the weights into it"
            )
        if kind in _RECURRENT:
            raise NetworkError(
                f"{path} cannot be converted: {kind} '{name}' is a recurrent layer, which becomes a loop in TFLite. "
                "Models with loops are not served; build the model without it"
            )
        if kind.startswith("Quantized") and kind.endswith("DTypePolicy"):
            raise NetworkError(f"{path} was quantized by Keras; save the model before model.quantize()")
        if _is_foreign(entry):
            foreign[kind] = name
    if foreign:
        listed = ", ".join(kind if name == kind else f"{kind} '{name}'" for kind, name in sorted(foreign.items()))
        raise NetworkError(
            f"{path} cannot be loaded: it needs code that is not in Keras ({listed}). litelens runs no code from a "
            f"model's file. {_HOW_TO_EXPORT}"
        )


def _is_foreign(entry: dict[str, Any]) -> bool:
    module = str(entry.get("module") or "")
    return bool(entry.get("registered_name")) and not module.startswith(("keras.", "tf_keras.")) and module != "keras"


def _name(entry: dict[str, Any]) -> str:
    config = entry.get("config")
    name = config.get("name") if isinstance(config, dict) else config  # A function has its name instead.
    return str(name or entry["class_name"])


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every object that the configuration describes, at any depth, except those that only training needs."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield value
            pending += [inner for key, inner in reversed(value.items()) if key != "compile_config"]
        elif isinstance(value, list):
            pending += reversed(value)


def _check_input(model: keras.Model, path: Path, spec: Preprocessing) -> None:
    if len(model.inputs) != 1:
        raise NetworkError(f"{path} has {len(model.inputs)} inputs; an image classifier has one")
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or shape[3] != 3:
        raise NetworkError(f"{path} takes arrays of shape {shape}; it must take images, (batch, height, width, 3)")
    if shape[1] not in (None, spec.height) or shape[2] not in (None, spec.width):
        raise NetworkError(
            f"{path} takes images of {shape[1]}x{shape[2]}, but the preset's are {spec.height}x{spec.width}; "
            f"give --set preprocessing.height={shape[1]} --set preprocessing.width={shape[2]}"
        )


def _check_classes(logits: keras.KerasTensor, path: Path, classes: int) -> None:
    shape = tuple(logits.shape)
    if len(shape) != 2:
        raise NetworkError(f"{path} returns arrays of shape {shape}; a classifier returns scores, (batch, classes)")
    if shape[1] != classes and (shape[1], classes) != (1, 2):
        expected = "; a model with one output has two labels" if shape[1] == 1 else ""
        raise NetworkError(
            f"{path}: label mismatch: the model has {shape[1]} classes, but there are {classes} labels{expected}"
        )


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
        copy = keras.models.clone_model(unfolded, clone_function=_clone_in_float32)
    except ValueError as error:
        raise NetworkError(
            f"{path} cannot be built for images of {spec.height}x{spec.width}: {first_line(error)}"
        ) from error
    copy_weights(unfolded, copy)
    return copy


def _make_names_distinct(model: keras.Model, taken: set[str]) -> None:
    """Rename layers that share a name, as layers of different inner models may; in one graph, names must differ."""
    for layer in model.layers if isinstance(model, keras.Sequential) else model.operations:
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
    if _reverses_channels(layer, args):
        return _reverse_channels(args[0], name=f"{layer.name}_convolution")
    if _trains_by_default(layer):
        kwargs["training"] = False
    return layer(*args, **kwargs)


def _trains_by_default(layer: keras.Layer) -> bool:
    """Return True for layers such as RandomFlip, which change images unless they are told that it is not training.

    Keras' export does not tell them.
    """
    return getattr(layer, "_call_has_training_arg", False) and bool(
        inspect.signature(layer.call).parameters["training"].default
    )


def _reverses_channels(operation: Any, args: tuple[Any, ...]) -> bool:
    """Return True for a slice `[..., ::-1]`, with which Keras turns RGB into BGR, as ResNet50's weights need it."""
    if type(operation).__name__ != "GetItem" or len(args) != 2 or args[0].shape[-1] != 3:
        return False
    *rest, last = args[1] if isinstance(args[1], list | tuple) else [args[1]]
    return last == slice(None, None, -1) and rest in ([Ellipsis], [slice(None)] * 3)


def _reverse_channels(image: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Reverse the channels by a convolution, which can be quantized; the slice cannot."""
    convolution = layers.Conv2D(3, 1, use_bias=False, name=name)
    reversed_image = convolution(image)
    convolution.set_weights([np.eye(3, dtype=np.float32)[np.newaxis, np.newaxis, :, ::-1]])
    return reversed_image


def _clone_in_float32(operation: Any) -> Any:
    """Copy an operation without its weights; a layer computes in float32, whatever its policy was."""
    config = operation.get_config()
    if isinstance(operation, keras.Layer):
        config = _with_float32(config)
    return type(operation).from_config(config)


def _with_float32(config: Any) -> Any:
    """Replace the policies of a layer, and of layers inside it, by float32."""
    if isinstance(config, dict):
        return {
            key: "float32" if key == "dtype" and _is_policy(value) else _with_float32(value)
            for key, value in config.items()
        }
    return [_with_float32(value) for value in config] if isinstance(config, list) else config


def _is_policy(value: Any) -> bool:
    """Return True for a policy that computes in floating point."""
    if isinstance(value, dict):
        return str(value.get("class_name")).endswith("Policy")
    return isinstance(value, str) and "float" in value


def _with_two_classes(model: keras.Model) -> keras.Model:
    """Turn a classifier with one output, z, into one with two, -z/2 and z/2, whose softmax has the sigmoid of z."""
    last = model.layers[-1]
    is_linear = isinstance(last, layers.Dense) and last.activation is keras.activations.linear
    kernel, bias = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    if is_linear:
        kernel, bias = [*last.get_weights(), bias][:2]
    linear = layers.Dense(2)
    network = keras.Model(model.inputs[0], linear(last.input if is_linear else model.outputs[0]), name=model.name)
    linear.set_weights(two_classes(kernel, bias))
    return network


def _without_softmax(model: keras.Model, path: Path) -> keras.Model:
    """Remove the softmax that the scores end in, or the sigmoid of a single score; raises NetworkError for others."""
    last = _find_scoring_layer(model)
    removable: tuple[Any, ...] = (keras.activations.softmax, keras.activations.log_softmax)
    if model.outputs[0].shape[1] == 1:
        removable = (keras.activations.sigmoid,)
    elif type(last).__name__ in ("Softmax", "LogSoftmax") and last.input.shape == model.outputs[0].shape:
        return keras.Model(model.inputs[0], last.input, name=model.name)
    activation = getattr(last, "activation", None)
    if activation in removable and isinstance(last, layers.Activation) and last.input.shape == model.outputs[0].shape:
        return keras.Model(model.inputs[0], last.input, name=model.name)
    if activation in removable:
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
