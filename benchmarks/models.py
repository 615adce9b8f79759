"""The files that the contestants read: one network as each of them takes it, made once and kept in build/bench."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.photos import ROOT, Dataset, cats_and_dogs
from litelens.bundle import IMAGE, MANIFEST, MODEL, Bundle, load_bundle
from litelens.engines import ENGINES, compile_ahead
from litelens.preprocessing import Preprocessing

if TYPE_CHECKING:
    import keras

# The contest's network, and the width and height of its input there, in pixels.
RESNET50 = ROOT / "models" / "cifar100-resnet50"
SIDE = 224

# Whatever is made depends on these.
_MAKERS = ("ai-edge-litert", "keras", "onnx", "onnxruntime", "openvino", "tensorflow", "tf2onnx")
_OPSET = 17
_FACTS = "facts.json"


@dataclass(frozen=True)
class Facts:
    """What is known of the network: its input's side in pixels, labels, and products added up for one image."""

    side: int
    labels: tuple[str, ...]
    multiply_adds: int


@dataclass(frozen=True)
class Models:
    """A folder of the same network in every form.

    Beside the files for each engine, `labels.txt` names the classes, a line each, and `int8.json` has the scale and
    zero point of the tensors that go into `tflite` and come out, which OpenVINO does not tell.
    """

    folder: Path
    facts: Facts

    @property
    def keras(self) -> Path:
        return self.folder / "fp32.keras"

    @property
    def onnx(self) -> Path:
        return self.folder / "fp32.onnx"

    @property
    def onnx_int8(self) -> Path:
        """Quantized by ONNX Runtime as its documentation begins."""
        return self.folder / "int8.onnx"

    @property
    def onnx_int8_reduced(self) -> Path:
        """The same with its `reduce_range`, weights of seven bits, which it advises for CPUs without VNNI."""
        return self.folder / "int8-reduced.onnx"

    @property
    def tflite(self) -> Path:
        """As TFLiteConverter makes it, with weights of eight bits."""
        return self.folder / "int8.tflite"

    @property
    def bundle(self) -> Path:
        """For litelens, with weights of seven bits."""
        return self.folder / "bundle"


def resnet50(data: Path | None, images: int, cache: Path) -> tuple[Models, Dataset]:
    """The network in ResNet-50's usual size, of 224 pixels, and images to measure it on."""
    dataset = cats_and_dogs(data, images)
    bundle = load_bundle(RESNET50)
    folder = cache / f"{SIDE}-{_key(bundle, dataset)}"
    if not (folder / _FACTS).is_file():
        workspace = _emptied(folder.with_suffix(".part"))
        _make(bundle, dataset, workspace)
        workspace.rename(folder)
    facts = json.loads((folder / _FACTS).read_text())
    return Models(folder, Facts(**{**facts, "labels": tuple(facts["labels"])})), dataset


def published(source: Path, cache: Path) -> Models:
    """Copy a published bundle and compile it for the engines, as in the container image. It has no other formats, and
    its multiply-adds are not counted."""
    folder = _emptied(cache / f"bundle-{source.name}")
    made = Models(folder, Facts(load_bundle(source).preprocessing.width, load_bundle(source).labels, 0))
    shutil.copytree(source, made.bundle)
    _compile(made.bundle)
    return made


def write_models(
    network: "keras.Model",
    calibration: NDArray[np.float32],
    labels: Sequence[str],
    spec: Preprocessing,
    folder: Path,
) -> Models:
    """The network in every form in that folder; `calibration` are inputs, float32 `(n, height, width, 3)`."""
    from benchmarks.network import multiply_adds
    from training.candidates import Candidate, WeightBits, opened_workshop, portable
    from training.quantize import tensors_of

    made = Models(folder, Facts(spec.width, tuple(labels), multiply_adds(network)))
    network.save(made.keras)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))

    print(f"Quantizing it for TFLite with {len(calibration)} images ...", file=sys.stderr)
    with opened_workshop(network, calibration) as workshop:
        eight_bits, seven_bits = (
            workshop.make(Candidate("TFLiteConverter", bits, len(calibration))) for bits in get_args(WeightBits)
        )
    made.tflite.write_bytes(eight_bits)
    quantization = {name: (tensor.scale, tensor.zero_point) for name, tensor in tensors_of(eight_bits).items()}
    (folder / "int8.json").write_text(json.dumps(quantization))
    _write_bundle(made.bundle, portable(seven_bits), labels, spec)

    print("Making and quantizing it for ONNX Runtime ...", file=sys.stderr)
    _write_onnx(network, spec.width, made.onnx)
    _quantize_onnx(made.onnx, made.onnx_int8, calibration, reduced=False)
    _quantize_onnx(made.onnx, made.onnx_int8_reduced, calibration, reduced=True)
    (folder / _FACTS).write_text(json.dumps(dataclasses.asdict(made.facts), indent=1))
    return made


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _key(bundle: Bundle, dataset: Dataset) -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _MAKERS]
    images = [hashlib.sha256(file).hexdigest() for file in dataset.calibration.files]
    return hashlib.sha256(json.dumps([bundle.sha256, dataset.name, images, versions]).encode()).hexdigest()[:16]


def _make(bundle: Bundle, dataset: Dataset, folder: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow takes seconds to import, and is not needed where all is made.
    from benchmarks.network import dequantized, fit_head, pooled_features, with_head

    print(f"Making the network of {SIDE} pixels, once ...", file=sys.stderr)
    spec = dataclasses.replace(bundle.preprocessing, height=SIDE, width=SIDE)
    network = dequantized(bundle.model.read_bytes(), SIDE, pooled_stem=True)
    if dataset.fitting is not None and dataset.fitting.classes is not None:
        features = pooled_features(network, _inputs(dataset.fitting.files, spec))
        network = with_head(network, *fit_head(features, dataset.fitting.classes))
    write_models(network, _inputs(dataset.calibration.files, spec), dataset.labels or bundle.labels, spec, folder)


def _inputs(files: Sequence[bytes], spec: Preprocessing) -> NDArray[np.float32]:
    """What a float network takes of the images, float32 `(n, height, width, 3)`."""
    pixels = [spec.pixels(Image.open(BytesIO(file)).convert("RGB")) for file in files]
    return spec.normalized(np.stack(pixels))


def _write_bundle(folder: Path, model: bytes, labels: Sequence[str], spec: Preprocessing) -> None:
    from training.quantize import tensors_of

    folder.mkdir()
    (folder / MODEL).write_bytes(model)
    manifest = {
        "name": "benchmark",
        "version": "1",
        "temperature": 1.0,
        "threshold": 0.5,
        "preprocessing": dataclasses.asdict(spec),
        "quantization": {"weight_bits": 7},
        "tensors": {name: dataclasses.asdict(tensor) for name, tensor in tensors_of(model).items()},
        "files": {MODEL: {"sha256": hashlib.sha256(model).hexdigest(), "bytes": len(model)}},
        "labels": list(labels),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    _compile(folder)


def _compile(folder: Path) -> None:
    for engine in ENGINES:
        compile_ahead(engine, load_bundle(folder))


def _write_onnx(network: "keras.Model", side: int, path: Path) -> None:
    """As ONNX Runtime likes it: channels come first, so that nothing is transposed but the map at the end."""
    import tensorflow as tf
    import tf2onnx

    def infer(image: Any) -> Any:
        outputs = network(image, training=False)
        return {name: tf.identity(output, name) for name, output in outputs.items()}

    signature = [tf.TensorSpec((1, side, side, 3), tf.float32, name=IMAGE)]
    tf2onnx.convert.from_function(
        tf.function(infer, signature), signature, opset=_OPSET, inputs_as_nchw=[IMAGE], output_path=path
    )


def _quantize_onnx(source: Path, target: Path, inputs: NDArray[np.float32], reduced: bool) -> None:
    """Static quantization by ranges that the inputs show, per channel.

    Activations are unsigned, which is what x86's instructions multiply int8 weights with:
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(
        prepared,
        target,
        _Reader(inputs),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=reduced,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


class _Reader:
    """Inputs one by one, as ONNX Runtime's CalibrationDataReader gives them."""

    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._inputs = iter(inputs.transpose(0, 3, 1, 2))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        values = next(self._inputs, None)
        return None if values is None else {IMAGE: values[np.newaxis]}
