"""Files of arrays (.npz) that are damaged, and putting them into a bundle."""

import json
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from litelens.core.bundle import MANIFEST
from litelens_client.learning.files import sha256

Arrays = dict[str, np.ndarray]


def npz(arrays: Mapping[str, Any]) -> bytes:
    """Return the content of a .npz file, in which arrays of objects are pickled."""
    file = BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def put_file(bundle: Path, name: str, content: bytes) -> Path:
    """Put a file into a bundle, with its checksum in the manifest; return its path."""
    path = bundle / name
    path.unlink(missing_ok=True)  # it can be a link to another bundle's file
    path.write_bytes(content)
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": sha256(content), "bytes": len(content)}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    return path


def damages(name: str) -> Mapping[str, Callable[[Arrays], bytes]]:
    """Return ways to damage the file of these arrays, of which `name` is one with two sides, by a short description."""
    return {
        "empty": lambda arrays: b"",
        "text": lambda arrays: b"hello",
        "truncated": lambda arrays: npz(arrays)[:-100],
        "half": lambda arrays: npz(arrays)[: len(npz(arrays)) // 2],
        "changed byte": lambda arrays: _flip(npz(arrays)),
        "a single array": lambda arrays: _npy(arrays[name]),
        "missing array": lambda arrays: npz({key: array for key, array in arrays.items() if key != name}),
        "other side": lambda arrays: npz(arrays | {name: arrays[name][:, 1:]}),
        "one side": lambda arrays: npz(arrays | {name: arrays[name].ravel()}),
        "other type": lambda arrays: npz(arrays | {name: arrays[name].astype(np.float64)}),
        "other byte order": lambda arrays: npz(arrays | {name: arrays[name].astype(">i4")}),
        "objects": lambda arrays: npz(arrays | {name: arrays[name].astype(object)}),
        "text array": lambda arrays: npz(arrays | {name: np.array([["a"]])}),
    }


def _flip(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 0xFF
    return bytes(changed)


def _npy(array: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()
