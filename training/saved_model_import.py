"""Import of classifiers from SavedModel folders, in the form of `training.network.build_network`.

A SavedModel is a program of TensorFlow operations, among them some that read and write files. Before anything runs, all
operations between the signature's input and its output are compared with a list of those that only compute.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import IMAGE, LOGITS
from litelens.core.native_logs import hide_native_logs
from litelens.core.preprocessing import Preprocessing
from training.errors import NetworkError, first_line
from training.head import add_head

FILE = "saved_model.pb"

_SIGNATURE, _TAG = "serving_default", "serve"

# A saved_model.pb holds the program; the weights are in other files, except in models that were frozen.
_MAX_BYTES = 1 << 30

# Operations that compute, and read neither files nor the network.
_COMPUTING = """
    Abs Add AddN AddV2 All Any ArgMax AvgPool BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND BiasAdd
    BroadcastArgs BroadcastTo Cast Ceil ClipByValue ConcatV2 Const Conv2D Cos DepthToSpace DepthwiseConv2dNative Div
    DivNoNan Einsum Elu Equal Erf Exp ExpandDims Fill Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2
    FusedBatchNormV3 GatherV2 Greater GreaterEqual Identity IdentityN LeakyRelu Less LessEqual Log Log1p LogSoftmax
    LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool MaxPoolV2 Maximum Mean Min Minimum MirrorPad Mul MulNoNan Neg
    NoOp NotEqual OnesLike Pack Pad PadV2 Placeholder PlaceholderWithDefault Pow Prod Range Rank ReadVariableOp
    RealDiv Reciprocal Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ReverseV2
    Round Rsqrt Select SelectV2 Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToBatchND
    SpaceToDepth Split SplitV Sqrt Square SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Tanh Tile
    Transpose TruncateDiv Unpack VarHandleOp XDivY Xlogy ZerosLike PartitionedCall
    StatefulPartitionedCall
"""
_OPERATIONS = frozenset(_COMPUTING.split())

# Operations that do not change scores.
_SAME_SCORES = ("Identity", "StopGradient", "Reshape", "Squeeze")

# Operations whose results can have any sign and size, like scores before a softmax.
_UNBOUNDED = ("Add", "AddV2", "AddN", "BiasAdd", "MatMul", "Mean", "Mul", "Sub", "RealDiv", "FusedBatchNormV3")


@dataclass(frozen=True)
class _Head:
    """The features' tensor and the layer after their mean, `kernel` `(channels, units)` and `bias` `(units,)`."""

    features: str
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


def is_saved_model(path: Path) -> bool:
    """Return True if the path is a SavedModel folder."""
    return (path / FILE).is_file()


def import_saved_model(path: Path, classes: int, spec: Preprocessing) -> keras.Model:
    """Load the classifier in a SavedModel folder, in the form of `training.network.build_network`.

    The signature `serving_default` takes images, `(batch, height, width, 3)`, and returns the scores of the classes,
    before or after a softmax, which is removed. With one output and two classes, that output is the probability of the
    second class, or its score before the sigmoid.

    Raises NetworkError if the folder has no such model, or the model has operations that do more than compute.
    """
    _check_program(path)
    graph = _Graph.load(path, spec)
    output = graph.output
    units = graph.shape(output)[-1]
    if units != classes and (units, classes) != (1, 2):
        raise NetworkError(f"{path}: label mismatch: the model has {units} classes, but there are {classes} labels")
    scores = graph.scores(path, units)
    image = keras.Input((spec.height, spec.width, 3), name=IMAGE, dtype="float32")
    if (head := graph.find_head(scores)) is not None:
        features = FrozenGraph(graph, head.features)(image)
        kernel, bias = (head.kernel, head.bias) if units == classes else two_classes(head.kernel, head.bias)
        network = add_head(keras.Model(image, features, name="saved_model"), classes)
        network.get_layer(LOGITS).set_weights([kernel, bias])
        return network
    logits = keras.layers.Reshape((units,))(FrozenGraph(graph, scores)(image))
    if units == classes:
        return keras.Model(image, {LOGITS: keras.layers.Identity(name=LOGITS)(logits)}, name="saved_model")
    linear = keras.layers.Dense(classes, name=LOGITS)
    network = keras.Model(image, {LOGITS: linear(logits)}, name="saved_model")
    linear.set_weights(two_classes(np.ones((1, 1), np.float32), np.zeros(1, np.float32)))
    return network


def two_classes(
    kernel: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn a linear layer of one output, z, into one of two, -z/2 and z/2, whose softmax has the sigmoid of z."""
    half = np.float32(0.5)
    return np.concatenate([-kernel, kernel], axis=1) * half, np.concatenate([-bias, bias]) * half


def read_input_size(path: Path) -> tuple[int, int] | None:
    """Return the height and width of the images that the signature takes, or None if it takes any size."""
    (info,) = _read_signature(path).inputs.values()
    sides = [side.size for side in info.tensor_shape.dim]
    return (sides[1], sides[2]) if len(sides) == 4 and sides[1] > 0 and sides[2] > 0 else None


def _read_meta_graph(path: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    file, model = path / FILE, saved_model_pb2.SavedModel()
    if file.stat().st_size > _MAX_BYTES:
        raise NetworkError(f"{file} has more than {_MAX_BYTES >> 20} MiB")
    try:
        model.ParseFromString(file.read_bytes())
    except Exception as error:  # The type of Protobuf's errors depends on its implementation.
        raise NetworkError(f"{file} is damaged: {first_line(error)}") from error
    for meta_graph in model.meta_graphs:
        if _TAG in meta_graph.meta_info_def.tags:
            return meta_graph
    raise NetworkError(f"{path} has no graph for serving (tag '{_TAG}'); export it with model.export('FOLDER')")


def _read_signature(path: Path) -> Any:
    signatures = _read_meta_graph(path).signature_def
    if _SIGNATURE not in signatures:
        raise NetworkError(f"{path} has no signature {_SIGNATURE}; export the model with model.export('FOLDER')")
    signature = signatures[_SIGNATURE]
    if len(signature.inputs) != 1:
        raise NetworkError(f"{path} has {len(signature.inputs)} inputs; an image classifier has one")
    if len(signature.outputs) != 1:
        raise NetworkError(f"{path} has {len(signature.outputs)} outputs; a classifier has one")
    return signature


def _check_program(path: Path) -> None:
    """Raise NetworkError unless the signature only computes, and loading the folder runs nothing."""
    meta_graph, signature = _read_meta_graph(path), _read_signature(path)
    kinds = {node.WhichOneof("kind") for node in meta_graph.object_graph_def.nodes}
    if not kinds:
        raise NetworkError(f"{path} was saved by TensorFlow 1; load it with TensorFlow 2 and save it again")
    if found := kinds & {"asset", "resource"}:
        raise NetworkError(f"{path} has a {found.pop()}, such as a table of words, which an image classifier has not")
    (output,) = signature.outputs.values()
    others = {
        node.op: node.name for node in _reachable(meta_graph.graph_def, [output.name]) if node.op not in _OPERATIONS
    }
    if any("Random" in operation for operation in others):
        raise NetworkError(
            f"{path} changes images at random, because Keras exports augmentation layers as in training. "
            "Save the model with model.save('NAME.keras') instead, and give --model NAME.keras"
        )
    if others:
        operation = min(others)
        raise NetworkError(
            f"{path} has the operation {operation} ('{others[operation]}'), which litelens does not run. Export the "
            "model with images as its input and class scores as its output, and without steps around it"
        )


def _reachable(graph: Any, outputs: Iterable[str]) -> Iterator[Any]:
    """Yield the operations that the outputs need, including those inside functions."""
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    pending, seen = [_operation(name) for name in outputs], set()
    called: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        yield nodes[name]
        pending += [_operation(source) for source in nodes[name].input]
        called |= _functions_of(nodes[name])
    visited: set[str] = set()
    while called:
        name = called.pop()
        if name in visited or name not in functions:
            continue
        visited.add(name)
        for node in functions[name].node_def:
            yield node
            called |= _functions_of(node)


def _functions_of(node: Any) -> set[str]:
    found = set()
    for value in node.attr.values():
        for function in (value.func, *value.list.func):
            if function.name:
                found.add(function.name)
    return found


def _operation(tensor: str) -> str:
    """Return the name of the operation that computes a tensor; a control input begins with ^."""
    return tensor.removeprefix("^").split(":", 1)[0]


class _Graph:
    """The frozen graph of the signature: constants instead of variables, and no calls of functions."""

    def __init__(self, definition: Any, image: str, output: str, batch: int | None) -> None:
        import tensorflow as tf

        self.image, self.output, self.batch = image, output, batch
        self._nodes = {node.name: node for node in definition.node}
        self._function = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])

    @classmethod
    def load(cls, path: Path, spec: Preprocessing) -> "_Graph":
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        try:
            with hide_native_logs():
                loaded = tf.saved_model.load(str(path))  # Its functions do not keep their variables alive.
            signature = loaded.signatures[_SIGNATURE]
            ((argument, given),) = signature.structured_input_signature[1].items()
            shape = given.shape.as_list() if given.shape.rank is not None else [None] * 4
            _check_shape(path, shape, spec)
            batch = shape[0]
            image = tf.TensorSpec([batch, spec.height, spec.width, 3], tf.float32, IMAGE)

            def call(pixels: Any) -> Any:
                (result,) = signature(**{argument: tf.cast(pixels, given.dtype)}).values()
                return tf.identity(result)

            with hide_native_logs():
                frozen = convert_variables_to_constants_v2(tf.function(call).get_concrete_function(image))
        except NetworkError:
            raise
        # A folder of unknown origin can fail with any error.
        except Exception as error:
            raise NetworkError(f"{path} cannot be loaded: {first_line(error)}") from error
        (source,), (output,) = frozen.inputs, frozen.outputs
        if output.shape.rank not in (2, 4) or None in output.shape[1:]:
            raise NetworkError(
                f"{path} returns arrays of shape {tuple(output.shape)}; a classifier returns scores, (batch, classes)"
            )
        return cls(frozen.graph.as_graph_def(), source.name, output.name, batch)

    def shape(self, tensor: str) -> list[int | None]:
        """Return the shape of a tensor, such as 'Softmax:0'."""
        shape: list[int | None] = self._function.graph.get_tensor_by_name(tensor).shape.as_list()
        return shape

    def function(self, tensor: str) -> Any:
        """Return the function from images to a tensor."""
        graph = self._function.graph
        return self._function.prune(graph.get_tensor_by_name(self.image), graph.get_tensor_by_name(tensor))

    def scores(self, path: Path, units: int | None) -> str:
        """Return the tensor of the scores before any softmax; raises NetworkError if the output is not scores."""
        node = self._skip(self._nodes[_operation(self.output)], _SAME_SCORES)
        removable = ("Sigmoid",) if units == 1 else ("Softmax", "LogSoftmax")
        if node.op in removable:
            return _tensor(node.input[0])
        if node.op not in _UNBOUNDED:
            raise NetworkError(
                f"{path} ends in {node.op}; its output must be the scores of mutually exclusive classes, "
                "before the softmax (no activation) or after it"
            )
        return self.output

    def find_head(self, scores: str) -> _Head | None:
        """Return the head if the scores are a linear function of the mean of features over height and width."""
        node = self._skip(self._nodes[_operation(scores)], ("Identity",))
        bias = None
        if node.op in ("BiasAdd", "AddV2"):
            bias = self._constant(node.input[1])
            node = self._skip(self._nodes[_operation(node.input[0])], ("Identity",))
            if bias is None or bias.ndim != 1:
                return None
        factor = np.float32(1)
        if node.op == "Mul":  # Converters of ONNX write the factor of its layer, 1 in most models.
            constants = [self._constant(source) for source in node.input]
            found = [index for index, constant in enumerate(constants) if constant is not None and constant.size == 1]
            if len(found) != 1:
                return None
            factor = np.float32(constants[found[0]])
            node = self._skip(self._nodes[_operation(node.input[1 - found[0]])], ("Identity",))
        if node.op != "MatMul" or node.attr["transpose_a"].b:
            return None
        kernel = self._constant(node.input[1])
        # The mean has one number for each channel, whose order these operations keep.
        mean = self._skip(self._nodes[_operation(node.input[0])], ("Identity", "Reshape", "Squeeze", "Transpose"))
        if kernel is None or mean.op != "Mean":
            return None
        axes, features = self._constant(mean.input[1]), _tensor(mean.input[0])
        shape = self.shape(features)
        if axes is None or sorted(axes.ravel().tolist()) != [1, 2] or len(shape) != 4 or None in shape[1:]:
            return None
        kernel = kernel.T if node.attr["transpose_b"].b else kernel
        if kernel.shape[0] != shape[3]:
            return None
        return _Head(features, kernel * factor, np.zeros(kernel.shape[1], np.float32) if bias is None else bias)

    def _skip(self, node: Any, operations: tuple[str, ...]) -> Any:
        while node.op in operations:
            node = self._nodes[_operation(node.input[0])]
        return node

    def _constant(self, tensor: str) -> NDArray[Any] | None:
        import tensorflow as tf

        node = self._skip(self._nodes[_operation(tensor)], ("Identity",))
        return tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else None


def _tensor(name: str) -> str:
    """Return the name of a tensor with the number of the output, which may be omitted in a graph."""
    return name if ":" in name else f"{name}:0"


def _check_shape(path: Path, shape: list[int | None], spec: Preprocessing) -> None:
    if len(shape) != 4 or shape[3] not in (None, 3):
        raise NetworkError(
            f"{path} takes arrays of shape {tuple(shape)}; it must take images, (batch, height, width, 3)"
        )
    if shape[1] not in (None, spec.height) or shape[2] not in (None, spec.width):
        raise NetworkError(
            f"{path} takes images of {shape[1]}x{shape[2]}, but the preset's are {spec.height}x{spec.width}; "
            f"give --set preprocessing.height={shape[1]} --set preprocessing.width={shape[2]}"
        )


class FrozenGraph(keras.Layer):  # type: ignore[misc]  # Keras has no types
    """Computes a tensor of a frozen graph from images, float32 `(batch, height, width, 3)`."""

    def __init__(self, graph: _Graph, tensor: str) -> None:
        super().__init__(name="graph", trainable=False)
        self._function = graph.function(tensor)
        self._batch = graph.batch
        self._shape = graph.shape(tensor)

    def call(self, image: Any) -> Any:
        import tensorflow as tf

        if self._batch in (None, image.shape[0]):
            return self._function(image)
        # A graph for one image runs once for each.
        return tf.map_fn(lambda pixels: self._function(pixels[np.newaxis])[0], image)

    def compute_output_spec(self, image: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor((image.shape[0], *self._shape[1:]), dtype="float32")
