"""Create the files that the peers load: one network in every format, created once and kept in build/bench."""

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

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.photos import ROOT, Dataset, cats_and_dogs
from litelens.core.bundle import IMAGE, MANIFEST, Bundle, load_bundle
from litelens.core.engines import ENGINES, compile_ahead
from litelens.core.head import Head
from litelens.core.preprocessing import Preprocessing
from litelens_client.learning.files import sha256
from litelens_client.learning.tflite import read_tensors

if TYPE_CHECKING:
    import keras

# The network to compare, and the width and height of its input in the comparison, in pixels.
RESNET50 = ROOT / "models" / "cifar100-resnet50"
SIDE = 224

# The packages whose versions change the files.
_MAKERS = ("ai-edge-litert", "keras", "onnx", "onnxruntime", "openvino", "tensorflow", "tf2onnx")
_OPSET = 17


@dataclass(frozen=True)
class Models:
    """A folder with the same network in every format.

    `labels.txt` has a class name per line. `int8.json` has the scale and zero point of the inputs and outputs of
    `tflite`, which OpenVINO does not report.
    """

    folder: Path

    @property
    def keras(self) -> Path:
        return self.folder / "fp32.keras"

    @property
    def onnx(self) -> Path:
        return self.folder / "fp32.onnx"

    @property
    def onnx_int8(self) -> Path:
        """Quantized with ONNX Runtime's defaults."""
        return self.folder / "int8.onnx"

    @property
    def onnx_int8_reduced(self) -> Path:
        """Quantized with `reduce_range`: 7-bit weights, which ONNX Runtime recommends for CPUs without VNNI."""
        return self.folder / "int8-reduced.onnx"

    @property
    def tflite(self) -> Path:
        """Converted by TFLiteConverter, with 8-bit weights."""
        return self.folder / "int8.tflite"

    @property
    def bundle(self) -> Path:
        """Converted for litelens, with 7-bit weights."""
        return self.folder / "bundle"

    @property
    def labels(self) -> list[str]:
        return (self.folder / "labels.txt").read_text().splitlines()


def resnet50(data: Path | None, images: int, cache: Path) -> tuple[Models, Dataset]:
    """Return the network with an input of 224 pixels, and the dataset to measure it on."""
    dataset = cats_and_dogs(data, images)
    bundle = load_bundle(RESNET50)
    folder = cache / f"{SIDE}-{_key(bundle, dataset)}"
    if not folder.is_dir():
        unfinished = _empty_folder(folder.with_suffix(".part"))
        _make(bundle, dataset, unfinished)
        unfinished.rename(folder)
    return Models(folder), dataset


def published(source: Path, cache: Path) -> Models:
    """Copy a published bundle and compile it for the engines, as in the container image. It has no other formats."""
    models = Models(_empty_folder(cache / f"bundle-{source.name}"))
    _write_labels(models, load_bundle(source).labels)
    shutil.copytree(source, models.bundle)
    _compile(models.bundle)
    return models


def write_models(
    network: "keras.Model",
    calibration: NDArray[np.float32],
    labels: Sequence[str],
    spec: Preprocessing,
    folder: Path,
) -> Models:
    """Write the network in every format; `calibration` holds inputs, float32 `(n, height, width, 3)`."""
    from litelens_client.quantizing.int8 import convert_for_openvino
    from training.candidates import Candidate, WeightBits, candidate_builder
    from training.head import read_head

    models = Models(folder)
    network.save(models.keras)
    _write_labels(models, labels)

    print(f"Quantizing it for TFLite with {len(calibration)} images ...", file=sys.stderr)
    with candidate_builder(network, calibration) as builder:
        eight_bits, seven_bits = (
            builder.build(Candidate("TFLiteConverter", bits, len(calibration))) for bits in get_args(WeightBits)
        )
    models.tflite.write_bytes(eight_bits)
    quantization = {name: (tensor.scale, tensor.zero_point) for name, tensor in read_tensors(eight_bits).items()}
    (folder / "int8.json").write_text(json.dumps(quantization))
    _write_bundle(models.bundle, convert_for_openvino(seven_bits), read_head(network), labels, spec)

    print("Converting and quantizing it for ONNX Runtime ...", file=sys.stderr)
    _write_onnx(network, spec.width, models.onnx)
    _quantize_onnx(models.onnx, models.onnx_int8, calibration, reduced=False)
    _quantize_onnx(models.onnx, models.onnx_int8_reduced, calibration, reduced=True)
    return models


def _empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _key(bundle: Bundle, dataset: Dataset) -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _MAKERS]
    images = [hashlib.sha256(file).hexdigest() for file in dataset.calibration.files]
    return hashlib.sha256(json.dumps([bundle.sha256, dataset.name, images, versions]).encode()).hexdigest()[:16]


def _make(bundle: Bundle, dataset: Dataset, folder: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow takes seconds to import, and is not needed when the files exist.
    from benchmarks.network import dequantized, fit_head, pooled_features, with_head

    print(f"Making the network of {SIDE} pixels (once) ...", file=sys.stderr)
    spec = msgspec.structs.replace(bundle.preprocessing, height=SIDE, width=SIDE)
    body, head = dequantized(bundle.model.read_bytes(), SIDE, pooled_stem=True), bundle.head
    if dataset.training is not None and dataset.training.classes is not None:
        head = fit_head(pooled_features(body, _inputs(dataset.training.files, spec)), dataset.training.classes)
    if head is None:
        raise ValueError(f"{bundle.folder} has no head")
    write_models(
        with_head(body, head), _inputs(dataset.calibration.files, spec), dataset.labels or bundle.labels, spec, folder
    )


def _inputs(files: Sequence[bytes], spec: Preprocessing) -> NDArray[np.float32]:
    """Preprocess images for a float network: float32 `(n, height, width, 3)`."""
    pixels = [spec.pixels(Image.open(BytesIO(file)).convert("RGB")) for file in files]
    return spec.normalize(np.stack(pixels))


def _write_labels(models: Models, labels: Sequence[str]) -> None:
    (models.folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))


def _write_bundle(folder: Path, model: bytes, head: Head | None, labels: Sequence[str], spec: Preprocessing) -> None:
    from training.quantize import save_model

    folder.mkdir()
    save_model(folder, model, head)
    manifest = {
        "name": "benchmark",
        "version": "1",
        "temperature": 1.0,
        "threshold": 0.5,
        "preprocessing": msgspec.structs.asdict(spec),
        "quantization": {"weight_bits": 7},
        "tensors": {name: msgspec.structs.asdict(tensor) for name, tensor in read_tensors(model).items()},
        "files": {path.name: {"sha256": sha256(path.read_bytes())} for path in folder.iterdir()},
        "labels": list(labels),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    _compile(folder)


def _compile(folder: Path) -> None:
    for engine in ENGINES:
        compile_ahead(engine, load_bundle(folder))


def _write_onnx(network: "keras.Model", side: int, path: Path) -> None:
    """Convert with channels first, which ONNX Runtime runs without transposing the convolutions' inputs."""
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
    """Quantize statically and per channel, with the ranges that the inputs show.

    Activations are unsigned, as x86 instructions multiply unsigned by signed bytes:
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(
        prepared,
        target,
        _CalibrationReader(inputs),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=reduced,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


class _CalibrationReader:
    """An iterator over inputs with the interface of ONNX Runtime's CalibrationDataReader."""

    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._inputs = iter(inputs.transpose(0, 3, 1, 2))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        values = next(self._inputs, None)
        return None if values is None else {IMAGE: values[np.newaxis]}
