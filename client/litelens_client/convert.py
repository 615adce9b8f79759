"""`litelens convert`: convert bundles of earlier versions, whose models compute a class activation map."""

import json
import re
import shutil
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from litelens.core.bundle import MANIFEST, METRICS, MODEL, has_old_model, load_bundle
from litelens.core.errors import BundleError
from litelens.core.head import HEAD
from litelens_client.learning.bundle_writer import new_bundle
from litelens_client.learning.errors import TrainingError
from litelens_client.learning.files import sha256, write_file, write_json
from litelens_client.learning.golden import renew_golden_answers
from litelens_client.learning.tflite import convert_old_model, read_tensors
from litelens_client.output import print_message


def run(arguments: Namespace) -> int:
    """Run the command and return its exit code."""
    failed = False
    for folder in arguments.bundles:
        try:
            print(f"{folder} was converted." if convert(folder) else f"{folder} already has the current format.")
        except (BundleError, TrainingError) as error:
            failed = True
            print_message(str(error))
        except OSError as error:
            failed = True
            print_message(f"{folder} cannot be written: {error.strerror or error}.")
    return 1 if failed else 0


def convert(folder: Path) -> bool:
    """Convert a bundle; return False if it already has the current format. Raises BundleError or TrainingError."""
    manifest = _read_manifest(folder / MANIFEST)
    if not has_old_model(manifest):
        load_bundle(folder)
        return False
    old = _read(folder / MODEL)
    _verify(folder / MODEL, old, manifest)
    try:
        model, head = convert_old_model(old)
    except Exception as error:  # a damaged model fails anywhere in the parser
        raise BundleError(f"{folder / MODEL} cannot be converted: {error}") from error
    with new_bundle(folder) as converted:
        shutil.copytree(folder, converted, dirs_exist_ok=True)
        write_file(converted / MODEL, model)
        write_file(converted / HEAD, head.to_bytes())
        files = {name: _read(converted / name) for name in (MODEL, HEAD)}
        manifest["tensors"] = {name: msgspec.structs.asdict(tensor) for name, tensor in read_tensors(model).items()}
        manifest["files"] = {
            name: {"sha256": sha256(content), "bytes": len(content)} for name, content in files.items()
        }
        manifest["converted_from"] = sha256(old)
        # Its answers differ a little, and results are stored under the model's version.
        manifest["version"] = _raise_version(str(manifest["version"]))
        write_json(converted / MANIFEST, manifest)
        _renew_metrics(converted / METRICS, manifest, model)
        renew_golden_answers(converted)
    return True


def _raise_version(version: str) -> str:
    """Return the version with its last number raised; 1.0.0 becomes 1.0.1."""
    found = re.fullmatch(r"(.*?)(\d{1,9})", version, re.ASCII | re.DOTALL)
    return f"{found[1]}{int(found[2]) + 1}" if found else f"{version}.1"


def _renew_metrics(path: Path, manifest: Mapping[str, Any], model: bytes) -> None:
    """Write the new model's checksum, size and version into metrics.json, if there is one."""
    if path.is_file():
        document = _read_manifest(path)
        write_json(path, document | {"model": sha256(model), "model_bytes": len(model), "version": manifest["version"]})


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        return msgspec.convert(json.loads(_read(path)), dict[str, Any])
    except (ValueError, RecursionError) as error:  # of json and of msgspec
        raise BundleError(f"{path} is not valid JSON: {error}") from error


def _verify(path: Path, model: bytes, manifest: Mapping[str, Any]) -> None:
    """Raise BundleError if the model has another checksum, so that a damaged model does not get a valid one."""
    try:
        expected = manifest["files"][MODEL]["sha256"]
    except (KeyError, TypeError) as error:
        raise BundleError(f"{path.with_name(MANIFEST)} has no checksum of {MODEL}") from error
    if sha256(model) != expected:
        raise BundleError(f"{path} has the sha256 {sha256(model)}, but the manifest says {expected}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
