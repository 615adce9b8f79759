"""Translation of classifiers that Keras 2 saved into models of Keras 3, without Keras 2.

Keras 3 does not read most of these files: its layers have other options, and it has no layers for TensorFlow's
functions, which Keras 2 recorded in the graph. Only the configuration is translated. No code in a file is run.
"""

import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

Config = dict[str, Any]

WEIGHTS = "model.weights.h5"

_MODELS = {"Functional": "Functional", "Model": "Functional", "Sequential": "Sequential"}

# Options that Keras 3 does not have and that change no answer, with the values for which that is true.
_NO_EFFECT: Mapping[str, Callable[[Any], bool]] = {
    "groups": lambda value: value == 1,
    "rng_type": lambda _: True,
    "implementation": lambda _: True,
    "batch_input_shape": lambda _: True,
    "dynamic": lambda value: not value,
    "fused": lambda _: True,
    "renorm": lambda value: not value,
    "virtual_batch_size": lambda value: value is None,
    "adjustment": lambda value: value is None,
    "ragged": lambda value: not value,
    "sparse": lambda value: not value,
}
_WITHOUT_GROUPS = ("DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose")

# Options that only training and new weights need.
_TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")

_ACTIVATIONS = {"softmax_v2": "softmax", "swish": "silu"}

# Keras 3 computes these otherwise, under the same name.
_CHANGED_ACTIVATIONS = ("hard_sigmoid",)

# TensorFlow's functions of one tensor, as Keras' layers.
_UNARY: Mapping[str, tuple[str, Config]] = {
    "nn.relu": ("ReLU", {}),
    "nn.relu6": ("ReLU", {"max_value": 6.0}),
    "nn.softmax": ("Softmax", {}),
    "nn.sigmoid": ("Activation", {"activation": "sigmoid"}),
    "math.sigmoid": ("Activation", {"activation": "sigmoid"}),
    "nn.silu": ("Activation", {"activation": "silu"}),
    "nn.swish": ("Activation", {"activation": "silu"}),
    "nn.gelu": ("Activation", {"activation": "gelu"}),
    "nn.elu": ("Activation", {"activation": "elu"}),
    "nn.tanh": ("Activation", {"activation": "tanh"}),
    "math.tanh": ("Activation", {"activation": "tanh"}),
    "identity": ("Identity", {}),
    "cast": ("Identity", {}),
}
_ARITHMETIC = {
    "math.truediv": "divide",
    "math.divide": "divide",
    "__operators__.truediv": "divide",
    "math.multiply": "multiply",
    "__operators__.mul": "multiply",
    "math.subtract": "subtract",
    "__operators__.sub": "subtract",
    "math.add": "add",
    "__operators__.add": "add",
}
_OF_TENSORS = {"multiply": "Multiply", "subtract": "Subtract", "add": "Add"}


class UnsupportedLayerError(ValueError):
    """A layer of Keras 2, named in the message, has no equivalent in Keras 3."""


def is_keras2(version: str) -> bool:
    """Return True if a file with this Keras version, such as '2.15.0', is from before Keras 3."""
    return version.split(".", 1)[0] in ("1", "2")


def load_keras2_model(path: Path, config: Config) -> keras.Model:
    """Load the model in a Keras 2 file, .keras or HDF5, whose configuration is `config`.

    Raises UnsupportedLayerError, naming the layer, if Keras 3 has no equivalent of one. Other errors are Keras' own.
    """
    model = keras.saving.deserialize_keras_object(translate_model(config), safe_mode=True)
    if path.suffix != ".keras":
        model.load_weights(path)
        return model
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        model.load_weights(archive.extract(WEIGHTS, folder))
    return model


def translate_model(config: Config) -> Config:
    """Translate the configuration of a model, `{"class_name": ..., "config": ...}`, into that of Keras 3."""
    kind = _MODELS[config["class_name"]]
    inner = config["config"]
    if isinstance(inner, list):  # Keras 1 and early Keras 2: a Sequential without a name.
        inner = {"layers": inner}
    translated = _translate_sequential(inner) if kind == "Sequential" else _Graph(inner).translate()
    translated["name"] = inner.get("name", "model")
    translated["trainable"] = inner.get("trainable", True)
    module = "keras" if kind == "Sequential" else "keras.src.models.functional"
    return {"module": module, "class_name": kind, "config": translated, "registered_name": kind}


def _translate_sequential(config: Config) -> Config:
    layers = config["layers"]
    shape = layers[0].get("config", {}).get("batch_input_shape") or config.get("build_input_shape")
    if layers[0]["class_name"] != "InputLayer" and shape:
        layers = [{"class_name": "InputLayer", "config": {"batch_input_shape": shape}}, *layers]
    return {"layers": [_translate_entry(layer) for layer in layers]}


def _translate_entry(entry: Config) -> Config:
    if entry["class_name"] in _MODELS:
        return translate_model(entry)
    return _translate_layer(entry)


def _translate_layer(entry: Config) -> Config:
    kind, config = entry["class_name"], entry["config"]
    name = config.get("name", kind)
    if kind == "InputLayer":
        shape = config.get("batch_input_shape") or config.get("batch_shape")
        config = {"batch_shape": shape, "dtype": config.get("dtype") or "float32", "name": config.get("name")}
        return _entry(kind, config)
    if not isinstance(getattr(keras.layers, kind, None), type):
        raise UnsupportedLayerError(f"the layer '{name}' is a {kind}, which is not in Keras 3")
    translated = {}
    for option, value in config.items():
        if option.endswith(_TRAINING_ONLY) or _has_no_effect(kind, option, value):
            continue
        translated[option] = _translate_option(name, option, value)
    if "alpha" in translated and kind == "LeakyReLU":
        translated["negative_slope"] = translated.pop("alpha")
    if kind == "BatchNormalization" and isinstance(translated.get("axis"), list):
        (translated["axis"],) = translated["axis"]
    translated["dtype"] = "float32"
    return _entry(kind, translated)


def _has_no_effect(kind: str, option: str, value: Any) -> bool:
    if option == "groups" and kind not in _WITHOUT_GROUPS:
        return False
    return option in _NO_EFFECT and _NO_EFFECT[option](value)


def _translate_option(name: str, option: str, value: Any) -> Any:
    if option == "activation" and isinstance(value, str):
        if value in _CHANGED_ACTIVATIONS:
            raise UnsupportedLayerError(f"the layer '{name}' has the activation {value}, which differs in Keras 3")
        return _ACTIVATIONS.get(value, value)
    if isinstance(value, dict) and "class_name" in value:
        if option == "dtype":
            return "float32"
        if option in ("activation", "layer") and isinstance(value.get("config"), dict):
            return _translate_entry(value)
        raise UnsupportedLayerError(f"the layer '{name}' has the {option} {value['class_name']}, which is not in Keras")
    return value


def _entry(kind: str, config: Config, module: str = "keras.layers") -> Config:
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


class _Graph:
    """Translates the layers and calls of a functional model."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._kinds = {layer["name"]: layer["class_name"] for layer in config["layers"]}

    def translate(self) -> Config:
        return {
            "layers": [self._translate(layer) for layer in self._config["layers"]],
            "input_layers": _one_or_list(_references(self._config["input_layers"])),
            "output_layers": _one_or_list([self._output(end) for end in _references(self._config["output_layers"])]),
        }

    def _translate(self, layer: Config) -> Config:
        if layer["class_name"] in ("TFOpLambda", "SlicingOpLambda"):
            (node,) = layer["inbound_nodes"]
            entry, calls = self._translate_function(layer, node)
            nodes = [calls]
        else:
            entry = _translate_entry(layer)
            nodes = [self._translate_node(node) for node in layer["inbound_nodes"]]
        return {**entry, "name": layer["name"], "inbound_nodes": nodes}

    def _translate_node(self, node: list[Any]) -> Config:
        inputs = _references(node)
        tensors = _one_or_list([self._tensor(reference) for reference in inputs])
        options = inputs[0][3] if len(inputs[0]) > 3 else {}
        given = {
            name: self._tensor(value) if self._is_reference(value) else value
            for name, value in options.items()
            if name not in ("training", "mask") and value is not None
        }
        return {"args": [tensors], "kwargs": given}

    def _translate_function(self, layer: Config, node: list[Any]) -> tuple[Config, Config]:
        """Translate a function of TensorFlow into a layer and its call."""
        function, name = layer["config"]["function"], layer["name"]
        (reference,) = _references(node)
        options = {key: value for key, value in (reference[3] if len(reference) > 3 else {}).items() if key != "name"}
        if reference[0] == "_CONSTANT_VALUE":
            operation = _ARITHMETIC.get(function)
            if operation not in ("add", "multiply") or not self._is_reference(options.get("y")):
                raise _unsupported_function(name, function)
            reference, options = options["y"], {"y": reference[2]}
        call: Config = {"args": [self._tensor(reference)], "kwargs": {}}
        if function in _UNARY and not (function in ("nn.softmax", "nn.gelu") and any(options.values())):
            kind, config = _UNARY[function]
            return _entry(kind, {"name": name, **config}), call
        if function in _ARITHMETIC:
            return self._translate_arithmetic(name, function, options["y"], call)
        if function == "nn.bias_add" and isinstance(options.get("bias"), list | float):
            return _entry("Rescaling", {"name": name, "scale": 1.0, "offset": options["bias"]}), call
        if function == "math.reduce_mean" and options.get("axis") == [1, 2]:
            keepdims = bool(options.get("keepdims"))
            return _entry("GlobalAveragePooling2D", {"name": name, "keepdims": keepdims}), call
        if function == "__operators__.getitem" and _reverses_channels(options.get("slice_spec")):
            call["args"].append([{"class_name": "__ellipsis__", "config": {}}, _slice(None, None, -1)])
            return _entry("GetItem", {"name": name}, "keras.src.ops.numpy"), call
        raise _unsupported_function(name, function)

    def _translate_arithmetic(self, name: str, function: str, other: Any, call: Config) -> tuple[Config, Config]:
        operation = _ARITHMETIC[function]
        if self._is_reference(other):
            if operation not in _OF_TENSORS:
                raise _unsupported_function(name, function)
            return _entry(_OF_TENSORS[operation], {"name": name}), {
                "args": [[*call["args"], self._tensor(other)]],
                "kwargs": {},
            }
        if not isinstance(other, int | float) and not _is_list_of_numbers(other):
            raise _unsupported_function(name, function)
        values = other if isinstance(other, list) else [other]
        scale = {"divide": [1 / value for value in values], "multiply": values}.get(operation, [1.0])
        offset = {"add": values, "subtract": [-value for value in values]}.get(operation, [0.0])
        config = {"name": name, "scale": _one_or_list(scale), "offset": _one_or_list(offset)}
        return _entry("Rescaling", config), call

    def _is_reference(self, value: Any) -> bool:
        return isinstance(value, list) and len(value) in (3, 4) and value[0] in self._kinds and len(value) > 1

    def _tensor(self, reference: list[Any]) -> Config:
        name, _, index = reference[:3]
        history = [name, self._call_index(reference), index]
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": [None], "dtype": "float32", "keras_history": history},
        }

    def _call_index(self, reference: list[Any]) -> int:
        """Return which call of its layer computes a tensor. Keras 2 counts the model itself as its first call."""
        return int(reference[1]) - (self._kinds[reference[0]] in _MODELS)

    def _output(self, reference: list[Any]) -> list[Any]:
        name, _, index = reference[:3]
        # Keras 3 subtracts 1 again, for functional models only.
        return [name, self._call_index(reference) + (_MODELS.get(self._kinds[name]) == "Functional"), index]


def _references(node: list[Any]) -> list[list[Any]]:
    """Return the references to tensors in a node or list of outputs, of which there may be one without a list."""
    return [node] if node and isinstance(node[0], str) else node


def _reverses_channels(spec: Any) -> bool:
    """Return True for the slices `[..., ::-1]` and `[:, :, :, ::-1]`, which turn RGB into BGR."""
    if not isinstance(spec, list) or not spec:
        return False
    *rest, last = spec
    everything = {"start": None, "stop": None, "step": None}
    return last == {**everything, "step": -1} and rest in ([{"class_name": "__ellipsis__"}], [everything] * 3)


def _slice(start: int | None, stop: int | None, step: int | None) -> Config:
    return {"class_name": "__slice__", "config": {"start": start, "stop": stop, "step": step}}


def _is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(number, int | float) for number in value)


def _one_or_list(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _unsupported_function(name: str, function: str) -> UnsupportedLayerError:
    return UnsupportedLayerError(f"the layer '{name}' is TensorFlow's function tf.{function}, which is not in Keras 3")
