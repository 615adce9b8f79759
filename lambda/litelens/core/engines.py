"""Engines: the libraries that run a .tflite file, LiteRT and OpenVINO. A container image has one of them."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import IMAGE, Bundle
from litelens.core.errors import BundleError
from litelens.core.native_logs import hide_native_logs

_logger = logging.getLogger(__name__)

# A tensor's data type and shape.
_Type = tuple[str, tuple[int, ...]]

# One image at a time. Operations other than int8 run in float32: newer CPUs would use bfloat16, with different results.
_OPENVINO_OPTIONS = {"NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


class Engine(Protocol):
    """A model with one input and named outputs, whose tensors are allocated once. Not safe for concurrent use."""

    def run(self, levels: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Run the model on an input of its shape and data type.

        Returns each output by name, as a copy that the caller may keep.
        """


class LiteRT:
    """The engine LiteRT. Starts fast. Fastest where the CPU has int8 dot products (VNNI, Arm dotprod)."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Load the model; raises ValueError or RuntimeError if LiteRT cannot run the file."""
        from ai_edge_litert.interpreter import Interpreter

        # LiteRT prints "INFO: Created TensorFlow Lite XNNPACK delegate for CPU." once per process.
        with hide_native_logs():
            self._interpreter = Interpreter(model_path=str(bundle.model), num_threads=threads)
            self._interpreter.allocate_tensors()
        (image,) = self._interpreter.get_input_details()
        outputs = self._interpreter.get_signature_runner().get_output_details()
        output_types = {name: _tensor_type(output) for name, output in outputs.items()}
        _check_tensors(bundle, {IMAGE: _tensor_type(image), **output_types})
        self._input = image["index"]
        self._outputs = {name: output["index"] for name, output in outputs.items()}

    def run(self, levels: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        self._interpreter.set_tensor(self._input, levels)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


class OpenVINO:
    """The engine OpenVINO. Starts slower than LiteRT, and is fast on all x86 CPUs.

    On CPUs without AVX-512 VNNI or similar instructions, sums of int8 products saturate. A model that computes with
    integers must therefore have 7-bit weights; litelens_client.quantizing.int8 explains why.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Load the model; raises ValueError or RuntimeError if OpenVINO cannot run the file."""
        if bundle.weight_bits == 8:
            raise ValueError("its weights have 8 bits; quantize it with weight_bits = [7], or choose the engine litert")
        model = _import_or_compile(bundle, {**_OPENVINO_OPTIONS, "INFERENCE_NUM_THREADS": threads})
        (image,) = model.inputs
        output_types = {output.any_name: _port_type(output) for output in model.outputs}
        _check_tensors(bundle, {IMAGE: _port_type(image), **output_types})
        self._request = model.create_infer_request()
        self._input = self._request.get_input_tensor().data
        self._outputs = {output.any_name: self._request.get_tensor(output).data for output in model.outputs}

    def run(self, levels: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        self._input[:] = levels
        self._request.infer()
        return {name: output.copy() for name, output in self._outputs.items()}


ENGINES: Mapping[str, Callable[[Bundle, int], Engine]] = {"litert": LiteRT, "openvino": OpenVINO}


def load_engine(name: str, bundle: Bundle, threads: int) -> Engine:
    """Load the bundle's model into the engine of that name, one of ENGINES.

    Raises BundleError if the engine is not installed, cannot run the model, or finds tensors that the manifest does not
    have.
    """
    try:
        return ENGINES[name](bundle, threads)
    except ImportError as error:
        raise BundleError(
            f"The engine {name} is not installed here: {error}. "
            "To install both engines: pip install 'litelens[openvino]'"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"{bundle.model} is not a model that {name} can run here: {error}") from error


def compile_ahead(name: str, bundle: Bundle) -> None:
    """Save the compiled model in the bundle's folder, so that OpenVINO loads it faster. LiteRT does not compile."""
    if name == "openvino":
        import openvino

        model = openvino.Core().compile_model(str(bundle.model), "CPU", dict(_OPENVINO_OPTIONS))
        _compiled_file(bundle).write_bytes(model.export_model().getvalue())


def _import_or_compile(bundle: Bundle, options: Mapping[str, Any]) -> Any:
    import openvino

    core = openvino.Core()
    if (compiled := _compiled_file(bundle)).is_file():
        try:
            return core.import_model(compiled.read_bytes(), "CPU", options)
        except RuntimeError:
            _logger.warning("%s is for another OpenVINO version or kind of CPU; compiling the model again.", compiled)
    return core.compile_model(str(bundle.model), "CPU", options)


def _compiled_file(bundle: Bundle) -> Path:
    return bundle.folder / f"{bundle.sha256}.openvino"


def _tensor_type(details: Mapping[str, Any]) -> _Type:
    return np.dtype(details["dtype"]).name, tuple(int(side) for side in details["shape"])


def _port_type(port: Any) -> _Type:
    return np.dtype(port.get_element_type().to_dtype()).name, tuple(port.shape)


def _check_tensors(bundle: Bundle, found: Mapping[str, _Type]) -> None:
    """Raise ValueError if the model's tensors differ from those in the manifest."""
    expected = {name: (tensor.dtype, tensor.shape) for name, tensor in bundle.tensors.items()}
    if found != expected:
        raise ValueError(f"it has the tensors {_format(found)}, but the manifest says {_format(expected)}")


def _format(tensors: Mapping[str, _Type]) -> str:
    return ", ".join(f"{name} {dtype} {shape}" for name, (dtype, shape) in sorted(tensors.items()))
