"""Bundles in the form that they had before features: the model has a class activation map, and there is no head."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
from class_folders import BASE

from litelens.core.bundle import FEATURES, LOGITS, MANIFEST, MODEL, OLD_MAP
from litelens.core.head import HEAD
from litelens_client.learning.files import sha256
from litelens_client.learning.tflite import parse_model, read_tensors, write_model


def old_model(model: bytes) -> bytes:
    """Return a model whose outputs are the class scores and the class activation map, computed by a convolution."""
    parsed = parse_model(model)
    (graph,), (signature,) = parsed.subgraphs, parsed.signatureDefs
    outputs = {output.name.decode(): output for output in signature.outputs}
    features = outputs[FEATURES].tensorIndex
    (convolution,) = (operator for operator in graph.operators if features in operator.inputs)
    (scores,) = convolution.outputs
    graph.tensors[features].name = b"relu"
    graph.tensors[scores].name = OLD_MAP.encode()
    outputs[FEATURES].name, outputs[FEATURES].tensorIndex = OLD_MAP.encode(), scores
    graph.outputs = [output.tensorIndex for output in signature.outputs]
    return write_model(parsed)


def add_old_bundle(models: Path, name: str = "old", source: Path = BASE) -> Path:
    """Write a bundle in the old form into a folder and return its path."""
    folder = shutil.copytree(source, models / name)
    model = old_model((folder / MODEL).read_bytes())
    (folder / MODEL).write_bytes(model)
    (folder / HEAD).unlink()
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    manifest["tensors"] = {name: msgspec.structs.asdict(tensor) for name, tensor in read_tensors(model).items()}
    manifest["files"] = {MODEL: {"sha256": sha256(model), "bytes": len(model)}}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert set(manifest["tensors"]) == {"image", LOGITS, OLD_MAP}
    return folder
