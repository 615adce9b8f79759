"""What runs a .tflite file: LiteRT or OpenVINO, whichever the container has."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from litelens.bundle import IMAGE, Bundle
from litelens.errors import BundleError
from litelens.native_logs import hide_native_logs

_logger = logging.getLogger(__name__)

# One image at a time; and what is not int8 in float32, where newer CPUs would choose bfloat16 and answer differently.
_OPTIONS = {"NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


class Engine(Protocol):
    """One int8 model with one input and named outputs. Its tensors are allocated once. Not safe for concurrent use."""

    def run(self, levels: NDArray[np.int8]) -> Mapping[str, NDArray[np.int8]]:
        """Each output's levels by its name, the caller's to keep, from those of an input of the model's shape."""


class LiteRT:
    """Begins at once, and is fast on CPUs with instructions for sums of int8 products, as Arm's newer ones have."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Load the model; raises ValueError or RuntimeError when the file is not one that LiteRT runs."""
        from ai_edge_litert.interpreter import Interpreter

        # LiteRT prints "INFO: Created TensorFlow Lite XNNPACK delegate for CPU." once per process.
        with hide_native_logs():
            self._interpreter = Interpreter(model_path=str(bundle.model), num_threads=threads)
            self._interpreter.allocate_tensors()
        (image,) = self._interpreter.get_input_details()
        outputs = self._interpreter.get_signature_runner().get_output_details()
        _check(bundle, {IMAGE: _kind(image), **{name: _kind(output) for name, output in outputs.items()}})
        self._input = image["index"]
        self._outputs = {name: output["index"] for name, output in outputs.items()}

    def run(self, levels: NDArray[np.int8]) -> Mapping[str, NDArray[np.int8]]:
        self._interpreter.set_tensor(self._input, levels)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


class OpenVINO:
    """Takes longer to begin, and is fast on any x86 CPU. Where that has no AVX-512 VNNI or its like, sums of products
    saturate, so that the model's weights must be of seven bits (training.candidates tells why).
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Load the model; raises ValueError or RuntimeError when the file is not one that OpenVINO runs."""
        if bundle.weight_bits != 7:
            raise ValueError("its weights have 8 bits; quantize it with weight_bits = [7], or choose the engine litert")
        model = _compiled(bundle, {**_OPTIONS, "INFERENCE_NUM_THREADS": threads})
        (image,) = model.inputs
        _check(bundle, {IMAGE: _port_kind(image), **{output.any_name: _port_kind(output) for output in model.outputs}})
        self._request = model.create_infer_request()
        self._input = self._request.get_input_tensor().data
        self._outputs = {output.any_name: self._request.get_tensor(output).data for output in model.outputs}

    def run(self, levels: NDArray[np.int8]) -> Mapping[str, NDArray[np.int8]]:
        self._input[:] = levels
        self._request.infer()
        return {name: output.copy() for name, output in self._outputs.items()}


ENGINES: Mapping[str, Callable[[Bundle, int], Engine]] = {"litert": LiteRT, "openvino": OpenVINO}


def load_engine(name: str, bundle: Bundle, threads: int) -> Engine:
    """The bundle's model in the engine of that name, one of ENGINES.

    Raises BundleError when the engine is not installed, or the model is not what the manifest says.
    """
    try:
        return ENGINES[name](bundle, threads)
    except ImportError as error:
        raise BundleError(f"The engine {name} is not installed here: {error}") from error
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"{bundle.model} is not a model that {name} can run here: {error}") from error


def compile_ahead(name: str, bundle: Bundle) -> None:
    """Keep beside the model what the engine would otherwise make of it whenever it is loaded."""
    if name == "openvino":
        import openvino

        model = openvino.Core().compile_model(str(bundle.model), "CPU", dict(_OPTIONS))
        _compiled_file(bundle).write_bytes(model.export_model().getvalue())


def _compiled(bundle: Bundle, options: Mapping[str, Any]) -> Any:
    import openvino

    core = openvino.Core()
    if (compiled := _compiled_file(bundle)).is_file():
        try:
            return core.import_model(compiled.read_bytes(), "CPU", options)
        except RuntimeError:
            _logger.warning("%s is for another version of OpenVINO or another kind of CPU; compiling anew.", compiled)
    return core.compile_model(str(bundle.model), "CPU", options)


def _compiled_file(bundle: Bundle) -> Path:
    return bundle.folder / f"{bundle.sha256}.openvino"


def _kind(details: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    return np.dtype(details["dtype"]).name, tuple(int(side) for side in details["shape"])


def _port_kind(port: Any) -> tuple[str, tuple[int, ...]]:
    return np.dtype(port.get_element_type().to_dtype()).name, tuple(port.shape)


def _check(bundle: Bundle, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Raise ValueError where the model's tensors are others than the manifest says."""
    expected = {name: ("int8", tensor.shape) for name, tensor in bundle.tensors.items()}
    if found != expected:
        raise ValueError(f"it has the tensors {_told(found)}, but the manifest says {_told(expected)}")


def _told(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {kind} {shape}" for name, (kind, shape) in sorted(tensors.items()))
