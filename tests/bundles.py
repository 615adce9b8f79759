"""Bundles for tests: copies of bundled ones, with links to their large files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils
from damage import put_file
from support import CIFAR_BUNDLE

from litelens.core.bundle import FEATURES, MANIFEST, MODEL
from litelens.core.familiarity import FAMILIARITY, Familiarity
from litelens.core.head import HEAD


def add_bundle(models: Path, name: str, source: Path = CIFAR_BUNDLE) -> Path:
    """Add a bundle to a folder, with links to the files of another one and a manifest of its own; return its path."""
    folder = models / name
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.name == MANIFEST:
            (folder / MANIFEST).write_bytes(file.read_bytes())
        else:
            (folder / file.name).symlink_to(file)
    return folder


def change_manifest(bundle: Path, **fields: Any) -> None:
    """Set fields in a bundle's manifest."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps(manifest | fields))


def add_familiarity(bundle: Path, *, unfamiliar: bool) -> Path:
    """Let a bundle tell unfamiliar photos, and take every photo for one, or none; return its path."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    channels, classes = manifest["tensors"][FEATURES]["shape"][3], len(manifest["labels"])
    thresholds = np.full(classes, 1.1 if unfamiliar else -1.1, np.float32)
    familiarity = Familiarity(np.eye(3, channels, dtype=np.float32), thresholds)
    put_file(bundle, FAMILIARITY, familiarity.to_bytes())
    return bundle


def remove_features(bundle: Path) -> Path:
    """Remove the features from a bundle's model, so that it gives class scores only; return its path."""
    model = flatbuffer_utils.read_model(str(bundle / MODEL))
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    signature.outputs = [output for output in signature.outputs if output.name != FEATURES.encode()]
    graph.outputs = [output.tensorIndex for output in signature.outputs]
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["tensors"][FEATURES], manifest["files"][HEAD]
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    put_file(bundle, MODEL, bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    return bundle


def make_multi_label(bundle: Path, thresholds: float | Sequence[float] = 0.5) -> Path:
    """Let the labels of a bundle no longer exclude each other, with these thresholds; return its path."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    for field in ("threshold", "groups", "golden"):
        manifest.pop(field, None)
    count = len(manifest["labels"])
    manifest["thresholds"] = [thresholds] * count if isinstance(thresholds, float) else list(thresholds)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    return bundle
